//! Notices when a stored secret gets another value, and tells the one who uses it.
//!
//! Only the value counts: a secret that is written again with the same value wakes nobody, and
//! neither does one that is gone or half there. What was read stays in use.

mod entry;
mod known;
mod report;
mod watcher;

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use report::SecretReport;
pub use watcher::SecretWatcher;

use super::{Claim, SecretStore, SecretVersion, StoreError};
use crate::files::Folders;
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::error_chain;
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
    /// With another secret of the same kind, which is used while the first cannot be read.
    #[must_use]
    pub fn or(self, fallback: &SecretRef) -> Self {
        let fallback = self.secrets.watch_as(fallback, self.entry.is_document).entry;
        self.entry.has_fallback();
        Self { fallback: Some(fallback), ..self }
    }

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
        let stores = &*self.secrets.stores;
        let was_replaced = self.entry.is_replaced();
        let mut found = self.entry.read(stores).await;
        match (&found, &self.fallback) {
            (Err(error), Some(fallback)) => {
                if let Ok(other) = fallback.read(stores).await {
                    if self.entry.stand_back(stores, error) {
                        let (secret, cause) = (self.at(), error_chain(error));
                        tracing::warn!(%secret, cause, "a secret cannot be read; its fallback is used");
                    }
                    found = Ok(other);
                }
            }
            (Ok(_), Some(fallback)) if was_replaced => self.stand_in(fallback),
            _ => {}
        }
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
                let was_replaced = self.entry.is_replaced();
                self.entry.take_up(&known);
                if let Some(fallback) = self.fallback.as_ref().filter(|_| was_replaced) {
                    self.stand_in(fallback);
                }
                Ok(known)
            }
            None => self.read().await,
        }
    }

    /// The first secret is used again.
    fn stand_in(&self, fallback: &Entry) {
        fallback.rest();
        tracing::info!(secret = %self.at(), "the secret can be read again; its fallback is not used");
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
        if let Some(known) = self.entry.known() {
            self.entry.take_up(&known);
        }
    }

    /// Waits until there is another value than was read last. Cancel-safe.
    pub async fn changed(&self) {
        match &self.fallback {
            Some(fallback) if self.entry.is_replaced() => tokio::select! {
                () = self.entry.changed() => {}
                () = fallback.changed() => {}
            },
            _ => self.entry.changed().await,
        }
    }
}

#[cfg(test)]
mod tests;
