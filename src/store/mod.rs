//! Where secrets are kept: Vault, files and the environment.
//!
//! A store hands out what is there now and keeps nothing; [`SecretWatch`] knows what was read last. No
//! error holds a value or a part of one.

mod error;
mod json;
mod lock;
mod aws;
mod env;
mod file;
mod stores;
mod vault;
mod verdict;
mod watch;
#[cfg(test)]
pub(crate) mod polled;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use aws::AwsStore;
pub use env::EnvStore;
pub use error::StoreError;
pub use file::FileStore;
pub use stores::{Remote, StoreReport, Stores};
pub use vault::Vault;
pub use watch::{SecretReport, SecretWatch, SecretWatcher, Secrets, watched};

use crate::clock::Moment;
use crate::secret::{SecretProblem, SecretRef, SecretValue};
use lock::FileLock;

/// A claim ends by itself after this long: whoever holds one has spent it by then, or is dead.
pub const CLAIM_LAPSE: Duration = Duration::from_secs(15);

/// Tells the versions of one secret apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Counted up by the store: Vault's KV v2.
    Number(u64),
    /// A name that the store gave it: AWS.
    Name(Arc<str>),
}

impl Version {
    /// Whether it is certainly older than another one.
    #[must_use]
    pub fn is_before(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Number(this), Self::Number(that)) if this < that)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// What a store holds under a name at this moment.
#[derive(Debug, Clone)]
pub struct SecretVersion {
    /// Fit for a header (see [`SecretValue::for_header`]), unless a document was asked for.
    pub value: SecretValue,
    /// `None` where the store keeps none (files, environment, KV v1).
    pub version: Option<Version>,
}

/// The right to spend what a secret holds and to write its successor, which others see. Ends when it
/// is dropped (files) or after [`CLAIM_LAPSE`].
#[derive(Debug)]
pub struct Claim {
    /// What was claimed, by the version that the claim made of it.
    pub held: SecretVersion,
    /// Others may take it over from then on; `None`: they do not see it.
    lapses_at: Option<Moment>,
    lock: Option<FileLock>,
}

impl Claim {
    /// No claim that others see: the store knows by the version whether there is another value.
    #[must_use]
    pub const fn by_version(held: SecretVersion) -> Self {
        Self { held, lapses_at: None, lock: None }
    }

    /// A claim that the store was asked for at this moment, and that it knows by the version it made
    /// of the secret.
    #[must_use]
    pub fn since(asked_at: Moment, held: SecretVersion) -> Self {
        Self { held, lapses_at: Some(asked_at + CLAIM_LAPSE), lock: None }
    }

    /// Whether it is still ours in so much time.
    #[must_use]
    pub fn lasts(&self, time: Duration) -> bool {
        self.lapses_at.is_none_or(|at| Moment::now() + time <= at)
    }
}

/// Takes what is stored as the sort of secret that was asked for: [`SecretValue::for_header`] or
/// [`SecretValue::document`].
type Take = fn(Vec<u8>) -> Result<SecretValue, SecretProblem>;

/// A place where secrets are kept.
#[async_trait]
pub trait SecretStore: fmt::Debug + Send + Sync {
    /// Reads a secret anew.
    ///
    /// # Errors
    /// Says which reference cannot be read and why.
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError>;

    /// Reads a secret anew that may have several lines: see [`SecretValue::document`].
    ///
    /// # Errors
    /// As [`Self::read`], which a store that keeps no documents answers with.
    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.read(at).await
    }

    /// Which version is there now, without its value. `None`: that cannot be told, so read it.
    ///
    /// # Errors
    /// As [`Self::read`].
    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        let _ = at;
        Ok(None)
    }

    /// How often to look whether there is another version. `None`: the store tells by itself, or
    /// nothing ever changes.
    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        let _ = at;
        None
    }

    /// Claims a secret by check-and-set, so that no other process spends it, unless it is another
    /// one than `old` by now.
    ///
    /// # Errors
    /// [`StoreError::Claimed`]: another process has it, so wait for what it writes;
    /// [`StoreError::Conflict`]: read it again; [`StoreError::ReadOnly`] for a store that is never
    /// written to.
    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let _ = old;
        Err(StoreError::ReadOnly { at: at.clone() })
    }

    /// Writes `new` in the place of what was claimed, and ends the claim in the store; everything
    /// else in the secret stays. May be called again after an error.
    ///
    /// # Errors
    /// Says why nothing was written.
    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        let _ = (claim, new);
        Err(StoreError::ReadOnly { at: at.clone() })
    }

    /// Whether [`Self::put`] would be let: asked before a person goes to the trouble of getting what is
    /// to be put. Nothing of the secret changes.
    ///
    /// # Errors
    /// Says what is in the way, as far as it can be known.
    async fn may_put(&self, at: &SecretRef) -> Result<(), StoreError> {
        Err(StoreError::ReadOnly { at: at.clone() })
    }

    /// Writes `new`, whatever is there now, and where nothing is there yet; everything else in the
    /// secret stays.
    ///
    /// # Errors
    /// [`StoreError::Claimed`], [`StoreError::Conflict`]: somebody else is writing, so try again.
    async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
        let _ = new;
        Err(StoreError::ReadOnly { at: at.clone() })
    }

    /// Ends a claim without a successor, so that others need not wait until it lapses: what it is a
    /// claim to was not spent.
    ///
    /// # Errors
    /// As [`Self::replace`]; the claim lapses by itself then.
    async fn release(&self, at: &SecretRef, claim: Claim) -> Result<(), StoreError> {
        self.replace(at, &claim, &claim.held.value).await.map(drop)
    }

    /// Work of its own beside reads, such as keeping a login alive. Never ends.
    async fn keep(&self) {
        std::future::pending::<()>().await;
    }
}
