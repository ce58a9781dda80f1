//! The secrets that sign an endpoint's deliveries, as they are now: all are read again when one of
//! them changes, and take effect together, so that one that moves to another place is never missing.
//!
//! What was read stays in use while its store is down. A value that cannot be a secret never takes
//! the place of one that can.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::signature::SigningKey;
use crate::backoff::Backoff;
use crate::secret::{SecretRef, SecretValue};
use crate::store::{SecretWatch, Secrets};
use crate::telemetry::error_chain;

/// The longest that one read may take; a store's own time-outs end it sooner.
const READ_MAX: Duration = Duration::from_secs(10);
/// How often all are read until two rounds find the same.
const ROUNDS_MAX: usize = 4;

/// What verifies now; `None`: the first round has not ended yet.
type Known = Option<Arc<[SigningKey]>>;

/// The write side of an endpoint's keys; `Keys` is the read side, and ends it when the last clone is
/// dropped.
#[derive(Debug)]
pub struct KeyKeeper {
    slots: Vec<Slot>,
    known: watch::Sender<Known>,
}

/// One listed secret.
#[derive(Debug)]
struct Slot {
    stored: SecretWatch,
    /// The last value that could be used, and what it became.
    used: Option<(SecretValue, SigningKey)>,
    /// Why the last value could not be.
    problem: Option<String>,
}

/// The read side of an endpoint's keys; [`KeyKeeper`] is the write side.
#[derive(Debug, Clone)]
pub(super) struct Keys(watch::Receiver<Known>);

/// Both sides: whoever calls runs [`KeyKeeper::run`].
pub(super) fn keys(listed: &[SecretRef], secrets: &Secrets) -> (Keys, KeyKeeper) {
    let (known, reader) = watch::channel(None);
    let slot = |at| Slot { stored: secrets.watch(at), used: None, problem: None };
    (Keys(reader), KeyKeeper { slots: listed.iter().map(slot).collect(), known })
}

impl Keys {
    /// How many verify now.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().as_ref().map_or(0, |known| known.len())
    }

    /// What verifies now, once each secret was read or could not be. Empty: none could.
    pub(super) async fn now(&self) -> Arc<[SigningKey]> {
        let mut known = self.0.clone();
        // A keeper that is gone reads nothing any more.
        let now = known.wait_for(Option::is_some).await;
        now.ok().and_then(|known| known.clone()).unwrap_or_default()
    }
}

impl KeyKeeper {
    /// Reads, and reads again after a change or a failure, until nobody verifies with it any more.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        loop {
            let found = tokio::select! {
                () = self.known.closed() => return,
                found = steady(&self.slots) => found,
            };
            let is_whole = self.settle(found);
            if is_whole {
                backoff.reset();
            }
            let wait = (!is_whole).then(|| backoff.next_wait());
            tokio::select! {
                () = self.known.closed() => return,
                () = changed(&self.slots) => {}
                () = sleep_for(wait) => {}
            }
        }
    }

    /// Publishes what was read; gives whether each secret could be used.
    fn settle(&mut self, found: Vec<Result<SecretValue, String>>) -> bool {
        for (slot, found) in self.slots.iter_mut().zip(found) {
            slot.settle(found);
        }
        let keys = self
            .slots
            .iter()
            .filter_map(|slot| slot.used.as_ref())
            .map(|(_, key)| key.clone())
            .collect();
        self.known.send_replace(Some(keys));
        self.slots.iter().all(|slot| slot.problem.is_none())
    }
}

impl Slot {
    async fn read(&self) -> Result<SecretValue, String> {
        match timeout(READ_MAX, self.stored.read()).await {
            Ok(Ok(found)) => Ok(found.value),
            Ok(Err(error)) => Err(error_chain(&error)),
            Err(_elapsed) => Err("its store did not answer in time".to_owned()),
        }
    }

    fn settle(&mut self, found: Result<SecretValue, String>) {
        let secret = self.stored.at();
        let key = found.and_then(|value| match SigningKey::new(&value) {
            Ok(key) => Ok((value, key)),
            Err(short) => Err(short.to_string()),
        });
        match key {
            Ok((value, key)) => {
                let is_new = self.used.as_ref().is_none_or(|(used, _)| *used != value);
                if is_new || self.problem.take().is_some() {
                    tracing::info!(%secret, "deliveries that this secret signs are taken");
                }
                self.used = Some((value, key));
                self.problem = None;
            }
            Err(cause) if self.problem.as_ref() != Some(&cause) => {
                let kept = if self.used.is_some() { "the one before it" } else { "none yet" };
                tracing::warn!(%secret, cause, kept, "a secret of webhooks cannot be used");
                self.problem = Some(cause);
            }
            Err(_told) => {}
        }
    }
}

/// Reads all of them until two rounds find the same: what moves from one place to another while they
/// are read is found in one of the two.
async fn steady(slots: &[Slot]) -> Vec<Result<SecretValue, String>> {
    let mut found = round(slots).await;
    for _ in 1..ROUNDS_MAX {
        let again = round(slots).await;
        let is_steady = again == found;
        found = again;
        if is_steady {
            break;
        }
    }
    found
}

async fn round(slots: &[Slot]) -> Vec<Result<SecretValue, String>> {
    let mut found = Vec::with_capacity(slots.len());
    for slot in slots {
        found.push(slot.read().await);
    }
    found
}

/// Waits until one of them is another one than was read.
async fn changed(slots: &[Slot]) {
    let mut waits: Vec<Pin<Box<_>>> =
        slots.iter().map(|slot| Box::pin(slot.stored.changed())).collect();
    std::future::poll_fn(|cx| {
        let is_any = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
        if is_any { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}
