//! A renewed secret on its way into its store.
//!
//! It is in use from the moment it came. Until it is written a restart would not find it, so that the
//! write is tried for ever; nobody's call waits for it, and nothing that somebody else wrote
//! meanwhile is written over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::spent::Spent;
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::secret::SecretValue;
use crate::store::{Claim, SecretVersion, SecretWatch, StoreError};
use crate::telemetry::error_chain;

/// One write may take this long: calls may wait for the token that comes after it.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(2);

/// No wait between two tries is longer: others may take a claim over after 15 s.
const RETRY_MAX: Duration = Duration::from_secs(5);

/// What one credential has renewed and not yet written.
#[derive(Debug)]
pub(super) struct WriteBack {
    credential: Arc<str>,
    unwritten: Option<Unwritten>,
}

#[derive(Debug)]
struct Unwritten {
    /// To what the store holds: the past of `new`, and spent. Kept, so that nobody else claims it.
    claim: Claim,
    /// What belongs there.
    new: SecretValue,
    /// What was tried to be written before: a late write may come through after all.
    tried: Spent,
    /// When the next try begins; `None`: the store is never written to.
    due: Option<Moment>,
    backoff: Backoff,
}

/// How a try ended that wrote nothing.
enum Failed {
    /// Somebody else has put another value there.
    Overtaken,
    /// It is still the past, as another version: the next try knows.
    Moved(SecretVersion),
    /// The store is never written to.
    Never(String),
    /// Tried again.
    Later(String),
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

    /// Whether the store holds this in the place of what is in use.
    pub(super) fn is_outdated(&self, stored: &SecretValue) -> bool {
        self.unwritten.as_ref().is_some_and(|unwritten| unwritten.claim.held.value == *stored)
    }

    /// Somebody else has put another value there: nothing of ours is written any more.
    pub(super) fn give_up(&mut self) {
        self.unwritten = None;
    }

    /// Writes `new`, which came of what was claimed, and from now on tries until it is written.
    /// Without a claim it came of what is not written yet.
    ///
    /// Cancel-safe: what is not written when this is dropped is due.
    pub(super) async fn put(
        &mut self,
        stored: &SecretWatch,
        claim: Option<Claim>,
        new: &SecretValue,
    ) {
        let (before, mut tried, backoff) = match self.unwritten.take() {
            Some(Unwritten { claim, tried, backoff, .. }) => (Some(claim), tried, backoff),
            None => (None, Spent::default(), Backoff::new(Duration::from_secs(1), RETRY_MAX)),
        };
        let Some(claim) = claim.or(before) else { return };
        tried.mark(&claim.held.value);
        tried.mark(new);
        let (new, due) = (new.clone(), Some(Moment::now()));
        self.unwritten = Some(Unwritten { claim, new, tried, due, backoff });
        self.write(stored).await;
    }

    /// One more try, where that has a point. Cancel-safe, as [`Self::put`].
    pub(super) async fn retry(&mut self, stored: &SecretWatch) {
        if self.due().is_some() {
            self.write(stored).await;
        }
    }

    async fn write(&mut self, stored: &SecretWatch) {
        let Some(unwritten) = &mut self.unwritten else { return };
        let is_first = unwritten.backoff.failures() == 0;
        let cause = match unwritten.written(stored).await {
            Ok(()) => {
                if !is_first {
                    tracing::info!(credential = %self.credential, "a renewed secret is written");
                }
                self.unwritten = None;
                return;
            }
            // What somebody else put there is used next.
            Err(Failed::Overtaken) => {
                self.unwritten = None;
                return;
            }
            Err(Failed::Never(cause)) => {
                unwritten.due = None;
                unwritten.backoff.next_wait();
                cause
            }
            Err(Failed::Moved(held)) => {
                unwritten.claim.held = held;
                unwritten.due = Some(Moment::now() + unwritten.backoff.next_wait());
                "the secret was written meanwhile, with a value that is used up".to_owned()
            }
            Err(Failed::Later(cause)) => {
                unwritten.due = Some(Moment::now() + unwritten.backoff.next_wait());
                cause
            }
        };
        if is_first {
            tracing::warn!(
                credential = %self.credential,
                cause,
                "a renewed secret is in use and cannot be written back: a restart will not find it"
            );
        }
    }
}

impl Unwritten {
    async fn written(&self, stored: &SecretWatch) -> Result<(), Failed> {
        let late = || Failed::Later("the store did not answer in time".to_owned());
        let written = timeout(WRITE_MAX, stored.replace(&self.claim, &self.new)).await;
        match written.map_err(|_elapsed| late())? {
            Ok(()) => Ok(()),
            Err(StoreError::Conflict { .. }) => {
                let found = timeout(WRITE_MAX, stored.peek()).await.map_err(|_elapsed| late())?;
                let found = found.map_err(|error| Failed::Later(error_chain(&error)))?;
                if found.value == self.new {
                    return Ok(());
                }
                Err(if self.tried.has(&found.value) {
                    Failed::Moved(found)
                } else {
                    Failed::Overtaken
                })
            }
            Err(error @ StoreError::ReadOnly { .. }) => Err(Failed::Never(error_chain(&error))),
            Err(error) => Err(Failed::Later(error_chain(&error))),
        }
    }
}
