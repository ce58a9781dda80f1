//! The secrets that sign an endpoint's deliveries, as they are now: all are read again when one of
//! them changes, and take effect together, so that one that moves to another place is never missing.
//!
//! What was read stays in use while its store is down, also when a reload changes the list. A value
//! that cannot be a secret never takes the place of one that can.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::signature::SigningKey;
use crate::backoff::Backoff;
use crate::secret::{SecretRef, SecretValue};
use crate::store::{SecretWatch, Secrets, StoreError};
use crate::telemetry::error_chain;

/// The longest that one read may take; a store's own time-outs end it sooner.
const READ_MAX: Duration = Duration::from_secs(10);
/// How often all are read until two rounds find the same.
const ROUNDS_MAX: usize = 4;

/// The write side of an endpoint's keys; `Keys` is the read side, and ends it when the last clone is
/// dropped.
#[derive(Debug)]
pub struct KeyKeeper {
    slots: Vec<Slot>,
    known: watch::Sender<Known>,
}

/// What verifies now.
#[derive(Debug, Clone, Default)]
struct Known {
    keys: Arc<[ListedKey]>,
    /// Whether each was read, or could not be.
    is_settled: bool,
}

/// A listed secret that can be used, and what it became.
#[derive(Debug, Clone)]
pub(super) struct ListedKey {
    at: SecretRef,
    value: SecretValue,
    pub(super) key: SigningKey,
}

/// One listed secret.
#[derive(Debug)]
struct Slot {
    stored: SecretWatch,
    /// The last value that could be used.
    used: Option<ListedKey>,
    /// Why the last value could not be.
    problem: Option<String>,
    /// Nothing of it was ever read: not before this is it tried again.
    retry_at: Option<Instant>,
}

/// Why there is no value at all.
#[derive(Debug)]
struct Unread {
    cause: String,
    /// Of the store or the way to it, whatever the secret.
    is_about_the_store: bool,
    retry_at: Instant,
}

/// The read side of an endpoint's keys; [`KeyKeeper`] is the write side.
#[derive(Debug, Clone)]
pub(super) struct Keys(watch::Receiver<Known>);

/// Both sides: whoever calls runs [`KeyKeeper::run`]. What is listed in `before`, too, verifies from
/// the beginning.
pub(super) fn keys<'k>(
    listed: &[SecretRef],
    secrets: &Secrets,
    before: impl Iterator<Item = &'k Keys>,
) -> (Keys, KeyKeeper) {
    let before: Vec<_> = before.flat_map(|keys| keys.0.borrow().keys.to_vec()).collect();
    let slots = listed.iter().map(|at| Slot {
        stored: secrets.watch(at),
        used: before.iter().find(|key| key.at == *at).cloned(),
        problem: None,
        retry_at: None,
    });
    let slots: Vec<_> = slots.collect();
    let keys = slots.iter().filter_map(|slot| slot.used.clone()).collect();
    let (known, reader) = watch::channel(Known { keys, is_settled: false });
    (Keys(reader), KeyKeeper { slots, known })
}

impl Keys {
    /// How many verify now.
    pub(super) fn count(&self) -> usize {
        self.0.borrow().keys.len()
    }

    /// What verifies now. Waits until each listed secret was read or could not be, for so long at
    /// most. Empty: none could.
    pub(super) async fn within(&self, time: Duration) -> Arc<[ListedKey]> {
        let mut known = self.0.clone();
        // A keeper that is gone reads nothing any more.
        drop(timeout(time, known.wait_for(|known| known.is_settled)).await);
        Arc::clone(&self.0.borrow().keys)
    }
}

impl KeyKeeper {
    /// Reads, and reads again after a change or a failure, until nobody verifies with it any more.
    pub async fn run(self) {
        let Self { mut slots, known } = self;
        let keep = async {
            let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
            loop {
                steady(&mut slots).await;
                known.send_replace(Known { keys: usable(&slots), is_settled: true });
                if slots.iter().all(|slot| slot.retry_at.is_none()) {
                    backoff.reset();
                }
                news(&mut slots, &mut backoff).await;
            }
        };
        tokio::select! {
            () = known.closed() => {}
            () = keep => {}
        }
    }
}

fn usable(slots: &[Slot]) -> Arc<[ListedKey]> {
    slots.iter().filter_map(|slot| slot.used.clone()).collect()
}

impl Slot {
    /// What is stored, or where that cannot be read what was found last.
    async fn read(&self) -> Result<SecretValue, Unread> {
        let read = timeout(READ_MAX, self.stored.read()).await;
        let read = read
            .unwrap_or_else(|_elapsed| Err(StoreError::Timeout { at: self.stored.at().clone() }));
        let found = self.stored.or_last(read).map_err(|error| self.unread(&error))?;
        Ok(found.value)
    }

    fn unread(&self, error: &StoreError) -> Unread {
        let mut wait = error.retry_after().unwrap_or_default();
        if error.is_about_the_secret() {
            // Nobody has put it there yet, which may be so for long: as often as one that is there.
            wait = self.stored.poll().unwrap_or_default();
        }
        Unread {
            cause: error_chain(error),
            is_about_the_store: !error.is_about_the_secret(),
            retry_at: Instant::now() + wait,
        }
    }

    fn settle(&mut self, found: Result<SecretValue, Unread>) {
        self.retry_at = found.as_ref().err().map(|unread| unread.retry_at);
        let found = found.map_err(|unread| unread.cause);
        let key = found.and_then(|value| match SigningKey::new(&value) {
            Ok(key) => Ok(ListedKey { at: self.stored.at().clone(), value, key }),
            Err(short) => Err(short.to_string()),
        });
        let secret = self.stored.at();
        match key {
            Ok(listed) => {
                let is_new = self.used.as_ref().is_none_or(|used| used.value != listed.value);
                if is_new || self.problem.is_some() {
                    tracing::info!(%secret, "deliveries that this secret signs are taken");
                }
                (self.used, self.problem) = (Some(listed), None);
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
/// are read is found in one of the two. A store that cannot be used is left alone after the first.
async fn steady(slots: &mut [Slot]) {
    let mut found = Vec::with_capacity(slots.len());
    for slot in &*slots {
        found.push(slot.read().await);
    }
    for _ in 1..ROUNDS_MAX {
        let mut is_steady = true;
        for (slot, found) in slots.iter().zip(&mut found) {
            if found.as_ref().is_err_and(|unread| unread.is_about_the_store) {
                continue;
            }
            let again = slot.read().await;
            is_steady &= again.as_ref().ok() == found.as_ref().ok();
            *found = again;
        }
        if is_steady {
            break;
        }
    }
    for (slot, found) in slots.iter_mut().zip(found) {
        slot.settle(found);
    }
}

/// Waits until one of them is another one than was read, or can be read at last. What cannot be read
/// is tried again, by itself.
async fn news(slots: &mut [Slot], backoff: &mut Backoff) {
    loop {
        let retry_at = slots.iter().filter_map(|slot| slot.retry_at).min();
        let retry_at = retry_at.map(|at| at.max(Instant::now() + backoff.next_wait()));
        let retry = async {
            match retry_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed(slots) => return,
            () = retry => {}
        }
        let now = Instant::now();
        let mut is_any_read = false;
        for slot in slots.iter_mut().filter(|slot| slot.retry_at.is_some_and(|at| at <= now)) {
            let found = slot.read().await;
            is_any_read |= found.is_ok();
            slot.settle(found);
        }
        if is_any_read {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;
    use crate::store::polled::{Failure, POLL, Polled};
    use crate::store::{self, SecretStore, StoreError};

    const CURRENT: &str = "vault:hooks/a#current";
    const PREVIOUS: &str = "vault:hooks/a#previous";
    const HOUR: Duration = Duration::from_secs(3600);

    struct Bench {
        store: Arc<Polled>,
        keys: Keys,
        _tasks: JoinSet<()>,
    }

    impl Bench {
        fn new(stored: &[(&str, &'static str)]) -> Self {
            let store = Arc::new(Polled::default());
            stored.iter().for_each(|(at, text)| store.put(at, text));
            let (secrets, watcher) = store::watched(Arc::clone(&store) as Arc<dyn SecretStore>);
            let listed = [CURRENT, PREVIOUS].map(|at| at.parse().unwrap());
            let (keys, keeper) = keys(&listed, &secrets, [].into_iter());
            let mut tasks = JoinSet::new();
            tasks.spawn(watcher.run());
            tasks.spawn(keeper.run());
            Self { store, keys, _tasks: tasks }
        }

        async fn known(&self) -> usize {
            self.keys.within(HOUR).await.len()
        }

        /// How often each secret is asked for in an hour like this.
        async fn asked_in_an_hour(&self) -> [u32; 2] {
            let asked = || [CURRENT, PREVIOUS].map(|at| self.store.asked(at));
            sleep(POLL * 2).await;
            asked();
            sleep(HOUR).await;
            asked()
        }

        fn fail(&self, failure: Option<Failure>) {
            self.store.fail(CURRENT, failure);
            self.store.fail(PREVIOUS, failure);
        }
    }

    fn down(at: SecretRef) -> StoreError {
        StoreError::Timeout { at }
    }

    fn denied(at: SecretRef) -> StoreError {
        StoreError::Denied { at, reason: "denied" }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listed_secret_that_is_not_there_yet_is_looked_for_once_a_poll() {
        let bench = Bench::new(&[(CURRENT, "the-current-secret-canary")]);
        assert_eq!(bench.known().await, 1);
        let asked = bench.asked_in_an_hour().await;
        assert!(asked.iter().all(|count| (40..=80).contains(count)), "{asked:?}");
        bench.store.put(PREVIOUS, "the-previous-secret-canary");
        sleep(POLL * 2).await;
        assert_eq!(bench.known().await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_down_at_the_start_is_asked_a_bounded_number_of_times() {
        for (failure, most) in [(down as Failure, 150), (denied, 61)] {
            let bench = Bench::new(&[
                (CURRENT, "the-current-secret-canary"),
                (PREVIOUS, "the-previous-secret-canary"),
            ]);
            bench.fail(Some(failure));
            assert_eq!(bench.known().await, 0);
            let asked = bench.asked_in_an_hour().await;
            assert!(asked.iter().all(|count| (50..=most).contains(count)), "{asked:?}");
            bench.fail(None);
            sleep(Duration::from_secs(61)).await;
            assert_eq!(bench.known().await, 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_goes_down_is_asked_a_bounded_number_of_times_also_after_a_change() {
        fastrand::seed(1);
        for failure in [down as Failure, denied] {
            let bench = Bench::new(&[
                (CURRENT, "the-current-secret-canary"),
                (PREVIOUS, "the-previous-secret-canary"),
            ]);
            assert_eq!(bench.known().await, 2);
            // The change is noticed, and by then the value cannot be read any more.
            bench.store.put(CURRENT, "the-next-secret-canary");
            bench.store.fail(PREVIOUS, Some(failure));
            sleep(POLL * 2).await;
            bench.fail(Some(failure));
            let asked = bench.asked_in_an_hour().await;
            assert!(asked.iter().all(|count| (50..=150).contains(count)), "{asked:?}");
            assert_eq!(bench.known().await, 2);
            bench.store.put(PREVIOUS, "the-last-secret-canary");
            bench.fail(None);
            sleep(Duration::from_secs(61)).await;
            let last = SigningKey::new(&SecretValue::new("the-last-secret-canary".into())).unwrap();
            let keys = bench.keys.within(HOUR).await;
            assert!(keys.iter().any(|listed| listed.key.sign(b"a") == last.sign(b"a")));
        }
    }
}
