//! A secret and the one that stands in for it: which of the two is handed out.
//!
//! Which one is in use, only its user knows, who may turn either down: until that is told, nothing
//! changes.

use tokio::time::Instant;

use super::entry::{AfterFailure, Entry};
use super::known::Known;
use super::{SecretVersion, SecretWatch, StoreError};
use crate::secret::{SecretRef, SecretValue};

impl SecretWatch {
    /// With another secret of the same kind, which is used while the first cannot be read.
    #[must_use]
    pub fn or(self, fallback: &SecretRef) -> Self {
        let fallback = self.secrets.watch_as(fallback, self.entry.is_document).entry;
        fallback.rest();
        self.entry.known.lock().replaced = Some(false);
        Self { fallback: Some(fallback), ..self }
    }

    /// Asks the store. From then on another value than this one is a change.
    ///
    /// # Errors
    /// As [`SecretStore::read`](super::super::SecretStore::read).
    pub async fn read(&self) -> Result<SecretVersion, StoreError> {
        self.read_and(AfterFailure::Waits).await
    }

    /// The same, for who asks again within a minute if that fails: until then nobody else does.
    ///
    /// # Errors
    /// As [`SecretStore::read`](super::super::SecretStore::read).
    pub async fn insist(&self) -> Result<SecretVersion, StoreError> {
        self.read_and(AfterFailure::AsksAgain).await
    }

    async fn read_and(&self, then: AfterFailure) -> Result<SecretVersion, StoreError> {
        let stores = &*self.secrets.stores;
        let mut found = self.entry.read(stores, then).await;
        let is_of_use = found.as_ref().is_ok_and(|found| !self.entry.has_refused(&found.value));
        if let Some(fallback) = self.fallback.as_ref().filter(|_| !is_of_use) {
            match fallback.read(stores, then).await {
                Ok(other) => found = Ok(other),
                Err(_) if !self.entry.is_replaced() => fallback.rest(),
                Err(_) => {}
            }
        }
        self.secrets.planned.notify_one();
        found
    }

    /// As [`Self::read`], but of a store that is looked at from time to time what the last look
    /// found, if there is something: the store may be down, or bill each look.
    ///
    /// # Errors
    /// As [`SecretStore::read`](super::super::SecretStore::read).
    pub async fn recall(&self) -> Result<SecretVersion, StoreError> {
        let first = self.known_of(&self.entry);
        let is_refused = first.as_ref().is_some_and(|first| self.entry.has_refused(&first.value));
        let is_refused = is_refused || first.is_none() && self.entry.is_replaced();
        let (from, known) = match &self.fallback {
            Some(fallback) if is_refused => (fallback, self.known_of(fallback)),
            _ => (&self.entry, first.filter(|_| !is_refused)),
        };
        match known {
            Some(known) => {
                from.take_up(&known);
                Ok(known)
            }
            None => self.read().await,
        }
    }

    fn known_of(&self, entry: &Entry) -> Option<SecretVersion> {
        entry.known().filter(|_| self.secrets.stores.poll(entry.at()).is_some())
    }

    /// What was handed out is in use.
    pub fn accepted(&self, secret: &SecretValue) {
        let Some(fallback) = &self.fallback else { return };
        if self.entry.holds(secret) {
            fallback.rest();
            if self.entry.stand_in() {
                let text = "the secret is used again, and its fallback no longer";
                tracing::info!(secret = %self.at(), text);
            }
        } else if fallback.holds(secret) && self.entry.stand_back() {
            tracing::warn!(secret = %self.at(), "a secret cannot be read; its fallback is used");
            self.secrets.planned.notify_one();
        }
    }

    /// What was handed out is not used, whatever else is. Gives where it is from.
    pub fn turned_down(&self, secret: &SecretValue) -> &SecretRef {
        let Some(fallback) = &self.fallback else { return self.at() };
        if self.entry.holds(secret) {
            self.entry.refuse(secret);
            return self.at();
        }
        if !self.entry.is_replaced() {
            fallback.rest();
        }
        fallback.at()
    }

    /// What was turned down may be handed out once more; whether there is such a thing.
    pub fn reconsider(&self) -> bool {
        self.entry.known.lock().refused.take().is_some()
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

impl Entry {
    /// Whether its user has this value.
    fn holds(&self, secret: &SecretValue) -> bool {
        self.known.lock().used.as_ref().is_some_and(|used| used.value == *secret)
    }

    /// Its fallback is used until it can be again; whatever is found then is news. Gives whether it is
    /// so only from now on.
    fn stand_back(&self) -> bool {
        let mut known = self.known.lock();
        if known.replaced.replace(true) == Some(true) {
            return false;
        }
        (known.used, known.noticed) = (None, None);
        // Until now, who wanted it may have tried by itself.
        known.due = known.next.map(|next| next.max(Instant::now()));
        true
    }

    /// It is used itself; whether it was not before.
    fn stand_in(&self) -> bool {
        let mut known = self.known.lock();
        known.refused = None;
        known.replaced.replace(false) == Some(true)
    }

    /// This value of its own is of no use while its fallback is used.
    fn refuse(&self, secret: &SecretValue) {
        let mut known = self.known.lock();
        if known.replaced == Some(true) {
            known.refused = Some(secret.clone());
        }
    }

    fn has_refused(&self, secret: &SecretValue) -> bool {
        self.known.lock().refused.as_ref() == Some(secret)
    }

    /// Whether its fallback is used in its place.
    fn is_replaced(&self) -> bool {
        self.known.lock().replaced == Some(true)
    }

    /// Nobody uses it any more, so it is not looked at: each look may be billed.
    pub(super) fn rest(&self) {
        *self.known.lock() = Known { is_resting: true, ..Known::new() };
    }
}
