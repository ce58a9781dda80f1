//! A renewed secret on its way into its store.
//!
//! It is in use from the moment it came. Until it is written a restart would not find it, so that the
//! write is tried for ever; nobody's call waits for it, and nothing that somebody else wrote
//! meanwhile is written over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::secret::SecretValue;
use crate::store::{Claim, SecretVersion, SecretWatch, StoreError};
use crate::telemetry::error_chain;

/// One write may take this long: calls may wait for the token that comes after it.
const WRITE_MAX: Duration = Duration::from_secs(2);

/// What one credential has renewed and not yet written.
#[derive(Debug)]
pub(super) struct WriteBack {
    credential: Arc<str>,
    unwritten: Option<Unwritten>,
}

#[derive(Debug)]
struct Unwritten {
    /// What the store holds: the past of `new`, and spent.
    old: SecretVersion,
    /// What belongs there.
    new: SecretValue,
    /// When the next try begins; `None`: the store is never written to.
    due: Option<Moment>,
    backoff: Backoff,
}

impl WriteBack {
    pub(super) const fn new(credential: Arc<str>) -> Self {
        Self { credential, unwritten: None }
    }

    /// Whether the store lacks what is in use.
    pub(super) const fn is_pending(&self) -> bool {
        self.unwritten.is_some()
    }

    /// When the next try begins.
    pub(super) fn due(&self) -> Option<Moment> {
        self.unwritten.as_ref()?.due
    }

    /// What the store holds in the place of what is in use.
    pub(super) fn outdated(&self) -> Option<&SecretVersion> {
        self.unwritten.as_ref().map(|unwritten| &unwritten.old)
    }

    /// Somebody else has put another value there: nothing of ours is written any more.
    pub(super) fn give_up(&mut self) {
        self.unwritten = None;
    }

    /// Writes `new`, which came of what was claimed, and from now on tries until it is written.
    ///
    /// Cancel-safe: what is not written when this is dropped is due.
    pub(super) async fn put(&mut self, stored: &SecretWatch, claim: Claim, new: &SecretValue) {
        let backoff = self.unwritten.take().map(|before| before.backoff);
        let backoff = backoff
            .unwrap_or_else(|| Backoff::new(Duration::from_secs(1), Duration::from_secs(60)));
        let (old, new, due) = (claim.held.clone(), new.clone(), Some(Moment::now()));
        self.unwritten = Some(Unwritten { old, new, due, backoff });
        self.write(stored, claim).await;
    }

    /// One more try. Cancel-safe, as [`Self::put`].
    pub(super) async fn retry(&mut self, stored: &SecretWatch) {
        if let Some(unwritten) = self.unwritten.as_ref().filter(|unwritten| unwritten.due.is_some())
        {
            let claim = Claim::by_version(unwritten.old.clone());
            self.write(stored, claim).await;
        }
    }

    async fn write(&mut self, stored: &SecretWatch, claim: Claim) {
        let Some(unwritten) = &mut self.unwritten else { return };
        let is_first = unwritten.backoff.failures() == 0;
        let written = timeout(WRITE_MAX, stored.replace(&claim, &unwritten.new)).await;
        let (cause, due) = match written {
            Ok(Ok(())) => {
                if !is_first {
                    tracing::info!(credential = %self.credential, "a renewed secret is written");
                }
                self.unwritten = None;
                return;
            }
            // What somebody else put there is used next.
            Ok(Err(StoreError::Conflict { .. })) => {
                self.unwritten = None;
                return;
            }
            Ok(Err(error @ StoreError::ReadOnly { .. })) => (error_chain(&error), None),
            Ok(Err(error)) => {
                (error_chain(&error), Some(Moment::now() + unwritten.backoff.next_wait()))
            }
            Err(_elapsed) => {
                let cause = "the store did not answer in time".to_owned();
                (cause, Some(Moment::now() + unwritten.backoff.next_wait()))
            }
        };
        unwritten.due = due;
        if is_first {
            tracing::warn!(
                credential = %self.credential,
                cause,
                "a renewed secret is in use and cannot be written back: a restart will not find it"
            );
        }
    }
}
