//! A renewed secret on its way into its store, or the mark of one that may be used up.
//!
//! A renewed one is in use from the moment it came. Until it is written a restart would not find it, and
//! until the mark is written others may send what has it; so that the write is tried for ever. Nobody's
//! call waits for it, and nothing that somebody else wrote meanwhile is written over.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::spent::Spent;
use super::unanswered::{is_marked, marked};
use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::secret::SecretValue;
use crate::store::{Claim, SecretVersion, SecretWatch, StoreError};
use crate::telemetry::error_chain;

/// One write may take this long: calls may wait for the token that comes after it.
pub(super) const WRITE_MAX: Duration = Duration::from_secs(2);

/// No wait between two tries is longer: others may take a claim over after 15 s.
const RETRY_MAX: Duration = Duration::from_secs(5);

const UNWRITTEN: &str =
    "a renewed secret is in use and cannot be written back: a restart will not find it";
const UNMARKED: &str = "an answer was lost, and the refresh token that it was about cannot be marked in its \
    store: whoever shares it may send it again";
const MARKED: &str = "the refresh token whose answer was lost is marked in its store";

/// What one credential has to write and has not written yet.
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
    Moved,
    /// The store is never written to.
    Never(String),
    /// Tried again.
    Later(String),
}

impl WriteBack {
    pub(super) const fn new(credential: Arc<str>) -> Self {
        Self { credential, unwritten: None }
    }

    /// What another one has not written is written here.
    pub(super) fn inherit(&mut self, other: Self) {
        self.unwritten = other.unwritten.or_else(|| self.unwritten.take());
    }

    /// Whether the store lacks what is in use.
    pub(super) fn lacks_the_one_in_use(&self) -> bool {
        self.unwritten.as_ref().is_some_and(|unwritten| !unwritten.is_mark())
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

    /// As [`Self::put`], for the mark on `sent`, which may be used up.
    pub(super) async fn mark(
        &mut self,
        stored: &SecretWatch,
        claim: Option<Claim>,
        sent: &SecretValue,
    ) {
        self.put(stored, claim, &marked(sent)).await;
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
                    let text =
                        if unwritten.is_mark() { MARKED } else { "a renewed secret is written" };
                    tracing::info!(credential = %self.credential, text);
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
            Err(Failed::Moved) => {
                unwritten.due = Some(Moment::now() + unwritten.backoff.next_wait());
                "the secret was written meanwhile, with a value that is used up".to_owned()
            }
            Err(Failed::Later(cause)) => {
                unwritten.due = Some(Moment::now() + unwritten.backoff.next_wait());
                cause
            }
        };
        if is_first {
            let text = if unwritten.is_mark() { UNMARKED } else { UNWRITTEN };
            tracing::warn!(credential = %self.credential, cause, text);
        }
    }
}

fn late() -> Failed {
    Failed::Later("the store did not answer in time".to_owned())
}

impl Unwritten {
    fn is_mark(&self) -> bool {
        is_marked(&self.new)
    }

    async fn written(&mut self, stored: &SecretWatch) -> Result<(), Failed> {
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
                    self.moved(stored, found).await
                } else {
                    Failed::Overtaken
                })
            }
            Err(error @ StoreError::ReadOnly { .. }) => Err(Failed::Never(error_chain(&error))),
            Err(error) => Err(Failed::Later(error_chain(&error))),
        }
    }

    /// A mark needs a claim anew: whoever has one by now may get a successor, over which no mark belongs.
    /// Where there are no versions, ours has not ended.
    async fn moved(&mut self, stored: &SecretWatch, found: SecretVersion) -> Failed {
        if !self.is_mark() || found.version.is_none() {
            self.claim.held = found;
            return Failed::Moved;
        }
        match timeout(WRITE_MAX, stored.claim(&found)).await {
            Ok(Ok(claim)) => {
                self.claim = claim;
                Failed::Moved
            }
            Ok(Err(error)) => Failed::Later(error_chain(&error)),
            Err(_elapsed) => late(),
        }
    }
}
