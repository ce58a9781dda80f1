//! Notices when a stored secret gets another value, and tells the one who uses it.
//!
//! Only the value counts: a secret that is written again with the same value wakes nobody, and
//! neither does one that is gone or half there. What was read stays in use.

mod entry;
mod watcher;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use entry::SecretReport;
pub use watcher::SecretWatcher;

use super::{Claim, SecretStore, SecretVersion, StoreError};
use crate::files::Folders;
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::Metrics;
use entry::Entry;

/// The stores, and the list of what is watched in them. Cloning shares both.
#[derive(Debug, Clone)]
pub struct Secrets {
    stores: Arc<dyn SecretStore>,
    entries: Arc<Mutex<Vec<Weak<Entry>>>>,
    /// Tells the watcher of files that there is one more.
    added: Arc<Notify>,
    /// Which secrets have gauges.
    shown: Arc<Mutex<BTreeSet<String>>>,
    /// Tells the watcher of stores that the next look is due at another time.
    planned: Arc<Notify>,
}

/// The read side: one secret in its store, as its one user sees it. [`SecretWatcher`] is the write
/// side, and forgets the secret once this is dropped.
#[derive(Debug)]
pub struct SecretWatch {
    secrets: Secrets,
    entry: Arc<Entry>,
}

/// The stores with their watcher: whoever calls runs [`SecretWatcher::run`].
#[must_use]
pub fn watched(stores: Arc<dyn SecretStore>) -> (Secrets, SecretWatcher) {
    let folders = Folders::new();
    let secrets = Secrets {
        stores,
        entries: Arc::default(),
        added: folders.waker(),
        planned: Arc::default(),
        shown: Arc::default(),
    };
    (secrets.clone(), SecretWatcher::new(secrets, folders))
}

impl Secrets {
    /// Watches one more secret, until what is returned is dropped.
    #[must_use]
    pub fn watch(&self, at: &SecretRef) -> SecretWatch {
        self.watch_as(at, false)
    }

    /// The same for a secret that may have several lines: see [`SecretValue::document`].
    #[must_use]
    pub fn watch_document(&self, at: &SecretRef) -> SecretWatch {
        self.watch_as(at, true)
    }

    fn watch_as(&self, at: &SecretRef, is_document: bool) -> SecretWatch {
        let entry = Arc::new(Entry::new(at, is_document));
        self.entries.lock().push(Arc::downgrade(&entry));
        self.added.notify_one();
        SecretWatch { secrets: self.clone(), entry }
    }

    /// Stores are others than before: what is looked at from time to time is looked at now.
    pub fn look_again(&self) {
        for entry in self.entries() {
            entry.hasten();
        }
        self.planned.notify_one();
    }

    /// What is known of each secret, by its reference; of one with several users what the one knows
    /// whose last look is longest ago.
    #[must_use]
    pub fn report(&self) -> Vec<SecretReport> {
        let mut reports: BTreeMap<String, SecretReport> = BTreeMap::new();
        for report in self.entries().iter().map(|entry| entry.report()) {
            let known = reports.entry(report.secret.clone()).or_insert_with(|| report.clone());
            if report.age_seconds > known.age_seconds {
                *known = report;
            }
        }
        reports.into_values().collect()
    }

    /// Brings the gauges up to date; those of secrets that nobody uses any more go.
    pub fn observe(&self, metrics: &Metrics) {
        let reports = self.report();
        let mut shown = self.shown.lock();
        for gone in shown.iter().filter(|one| reports.iter().all(|report| report.secret != **one)) {
            drop(metrics.secret_age.remove_label_values(&[gone]));
            drop(metrics.secret_missing.remove_label_values(&[gone]));
        }
        shown.clear();
        for report in &reports {
            if let Some(age) = report.age_seconds {
                let age = i64::try_from(age).unwrap_or(i64::MAX);
                metrics.secret_age.with_label_values(&[&report.secret]).set(age);
            }
            let missing = i64::from(report.missing);
            metrics.secret_missing.with_label_values(&[&report.secret]).set(missing);
            shown.insert(report.secret.clone());
        }
    }

    /// What is still watched.
    fn entries(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.entries.lock();
        entries.retain(|entry| entry.strong_count() > 0);
        entries.iter().filter_map(Weak::upgrade).collect()
    }
}

impl SecretWatch {
    /// Which secret.
    #[must_use]
    pub fn at(&self) -> &SecretRef {
        self.entry.at()
    }

    /// Asks the store. From then on another value than this one is a change.
    ///
    /// # Errors
    /// As [`SecretStore::read`].
    pub async fn read(&self) -> Result<SecretVersion, StoreError> {
        let found = self.entry.read(&*self.secrets.stores).await;
        self.secrets.planned.notify_one();
        found
    }

    /// As [`Self::read`], but of a store that is looked at from time to time what the last look
    /// found, if there is something: the store may be down, or bill each look.
    ///
    /// # Errors
    /// As [`SecretStore::read`].
    pub async fn recall(&self) -> Result<SecretVersion, StoreError> {
        let is_polled = self.secrets.stores.poll(self.at()).is_some();
        match self.entry.known().filter(|_| is_polled) {
            Some(known) => {
                self.entry.take_up(&known);
                Ok(known)
            }
            None => self.read().await,
        }
    }

    /// Claims what was read as `old`, as [`SecretStore::claim`] does; that is no change.
    ///
    /// # Errors
    /// As [`SecretStore::claim`].
    pub async fn claim(&self, old: &SecretVersion) -> Result<Claim, StoreError> {
        let claim = self.secrets.stores.claim(self.at(), old).await?;
        self.entry.take_up(&claim.held);
        Ok(claim)
    }

    /// Writes a value of our own in the place of what was claimed; it is no change.
    ///
    /// # Errors
    /// As [`SecretStore::replace`].
    pub async fn replace(&self, claim: &Claim, new: &SecretValue) -> Result<(), StoreError> {
        let written = self.secrets.stores.replace(self.at(), claim, new).await?;
        self.entry.take_up(&written);
        Ok(())
    }

    /// Waits until there is another value than was read last. Cancel-safe.
    pub async fn changed(&self) {
        self.entry.changed().await;
    }
}

#[cfg(test)]
mod tests;
