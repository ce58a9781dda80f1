//! Notices when a stored secret gets another value, and tells the one who uses it.
//!
//! Only the value counts: a secret that is written again with the same value wakes nobody, and
//! neither does one that is gone or half there. What was read stays in use.

mod entry;
mod fallback;
mod known;
mod report;
mod watcher;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use report::SecretReport;
pub use watcher::SecretWatcher;

use super::{Claim, SecretStore, SecretVersion, StoreError};
use crate::files::Folders;
use crate::secret::{SecretRef, SecretValue};
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
    /// What is used while the first cannot be read.
    fallback: Option<Arc<Entry>>,
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
        SecretWatch { secrets: self.clone(), entry, fallback: None }
    }

    /// Stores are others than before: what is looked at from time to time is looked at now.
    pub fn look_again(&self) {
        for entry in self.entries() {
            entry.hasten();
        }
        self.planned.notify_one();
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

    /// Ends a claim whose secret was not spent.
    ///
    /// # Errors
    /// As [`SecretStore::release`].
    pub async fn release(&self, claim: Claim) -> Result<(), StoreError> {
        self.secrets.stores.release(self.at(), claim).await
    }

    /// Asks the store, and leaves another value than was read last a change.
    ///
    /// # Errors
    /// As [`SecretStore::read`].
    pub async fn peek(&self) -> Result<SecretVersion, StoreError> {
        self.secrets.stores.read(self.at()).await
    }

    /// Another value that was noticed is no news any more, until it is read.
    pub fn heed(&self) {
        for entry in [Some(&self.entry), self.fallback.as_ref()].into_iter().flatten() {
            entry.take_up_known();
        }
    }

    /// What was read, or where that failed what was found last, which is no change any more: from then
    /// on the store is looked at without its user.
    ///
    /// # Errors
    /// The one of the read, where nothing was found yet.
    pub fn or_last(
        &self,
        read: Result<SecretVersion, StoreError>,
    ) -> Result<SecretVersion, StoreError> {
        read.or_else(|error| self.entry.take_up_known().ok_or(error))
    }

    /// How often the store is looked at; `None`: it tells by itself.
    #[must_use]
    pub fn poll(&self) -> Option<Duration> {
        self.secrets.stores.poll(self.at())
    }
}

#[cfg(test)]
mod tests;
