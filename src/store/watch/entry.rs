//! One watched secret: what its user has, what was noticed since, and when to look again.

use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::{SecretStore, SecretVersion, StoreError, Version};
use super::SecretReport;
use super::known::{Known, Problem};
use crate::secret::SecretRef;
use crate::telemetry::error_chain;

/// How far a poll is moved at random, either way, so that replicas do not look at the same time.
const POLL_JITTER: f64 = 0.2;

/// The longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What the user of a secret does when it could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterFailure {
    /// Asks again within [`RETRY_MAX`]: one of the two who tries is enough.
    AsksAgain,
    /// Waits until it is told.
    Waits,
}

pub(super) struct Entry {
    at: SecretRef,
    /// Whether it may have several lines.
    pub(super) is_document: bool,
    pub(super) known: Mutex<Known>,
    /// One look at a time: whoever comes second looks at what the first found.
    looking: tokio::sync::Mutex<()>,
    wake: Notify,
}

impl Entry {
    pub(super) fn new(at: &SecretRef, is_document: bool) -> Self {
        Self {
            at: at.clone(),
            is_document,
            known: Mutex::new(Known::new()),
            looking: tokio::sync::Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// As `/status` shows it. The environment of a process does not age.
    pub(super) fn report(&self) -> SecretReport {
        let known = self.known.lock();
        let seen_at = known.seen_at.filter(|_| !matches!(self.at, SecretRef::Env { .. }));
        SecretReport {
            secret: self.at.to_string(),
            version: known.used.as_ref().and_then(|used| Some(used.version.as_ref()?.to_string())),
            age_seconds: seen_at.map(|at| at.elapsed().as_secs()),
            missing: known.problem.as_ref().is_some_and(|problem| problem.is_missing),
            fallback: known.replaced,
            problem: match (&known.problem, &known.refused) {
                (Some(problem), _) => Some(problem.kind.to_owned()),
                (None, Some(_refused)) => Some("rejected".to_owned()),
                (None, None) => None,
            },
        }
    }

    pub(super) const fn at(&self) -> &SecretRef {
        &self.at
    }

    /// When the store is to be looked at, if it is one that is polled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.known.lock().due
    }

    /// The newest value that was found.
    pub(super) fn known(&self) -> Option<SecretVersion> {
        let known = self.known.lock();
        known.noticed.clone().or_else(|| known.used.clone())
    }

    /// Where it is looked at from time to time, the next look is now.
    pub(super) fn hasten(&self) {
        let mut known = self.known.lock();
        if known.due.is_some() {
            known.backoff.reset();
            known.due = Some(Instant::now());
        }
    }

    /// Asks the store for its user. What it finds is what the user has from then on.
    /// `then` is what its user does where that fails.
    pub(super) async fn read(
        &self,
        stores: &dyn SecretStore,
        then: AfterFailure,
    ) -> Result<SecretVersion, StoreError> {
        let _looking = self.looking.lock().await;
        self.known.lock().is_resting = false;
        let is_polled = stores.poll(&self.at).is_some();
        if !is_polled {
            // What is noticed from here on may be newer than what is read. A read that fails is
            // tried again by its user, and does not count as a change for ever.
            self.known.lock().noticed = None;
        }
        let found = self.fetch(stores).await.map(|found| self.believed(found));
        self.plan(stores, found.as_ref().err(), then);
        match found {
            Ok(found) => {
                let mut known = self.known.lock();
                // Whatever was noticed was found before.
                (known.used, known.noticed) = (Some(found.clone()), None);
                Ok(found)
            }
            Err(error) => {
                // Its user tries again by itself, and finds it then.
                self.take_up_known();
                self.tell(&error);
                Err(error)
            }
        }
    }

    /// Looks whether there is another value, and wakes the user if so.
    pub(super) async fn look(&self, stores: &dyn SecretStore) {
        let _looking = self.looking.lock().await;
        if self.known.lock().is_resting {
            return;
        }
        let poll = stores.poll(&self.at);
        // Whatever becomes of this look, there is a next one.
        self.known.lock().due = poll.map(|poll| Instant::now() + poll);
        let found = if poll.is_some() { self.see(stores).await } else { self.fetch(stores).await };
        if self.known.lock().is_resting {
            return self.rest();
        }
        self.plan(stores, found.as_ref().err(), AfterFailure::Waits);
        match found {
            Ok(found) => self.notice(found),
            Err(error) => self.tell(&error),
        }
    }

    async fn fetch(&self, stores: &dyn SecretStore) -> Result<SecretVersion, StoreError> {
        if self.is_document {
            stores.read_document(&self.at).await
        } else {
            stores.read(&self.at).await
        }
    }

    /// The version first, and the value only where the version moved.
    async fn see(&self, stores: &dyn SecretStore) -> Result<SecretVersion, StoreError> {
        if let Some(known) = self.known()
            && let Some(version) = &known.version
            && let Some(there) = stores.version(&self.at).await?
            && (self.is_doubtful(&there, version) || there == *version)
        {
            return Ok(known);
        }
        self.fetch(stores).await.map(|found| self.believed(found))
    }

    /// What was found, unless it is an older version than what is known.
    fn believed(&self, found: SecretVersion) -> SecretVersion {
        match (self.known(), &found.version) {
            (Some(known), Some(there))
                if known.version.as_ref().is_some_and(|then| self.is_doubtful(there, then)) =>
            {
                known
            }
            _ => found,
        }
    }

    /// An older version than the last one: a replica that lags behind, or somebody who went back. It
    /// is believed when it is found a second time.
    fn is_doubtful(&self, there: &Version, known: &Version) -> bool {
        let mut state = self.known.lock();
        if !there.is_before(known) {
            state.older = None;
            return false;
        }
        state.older.replace(there.clone()).as_ref() != Some(there)
    }

    /// Decides when to look again.
    fn plan(&self, stores: &dyn SecretStore, error: Option<&StoreError>, then: AfterFailure) {
        let poll = stores.poll(&self.at);
        let mut known = self.known.lock();
        let now = Instant::now();
        let wait = match error {
            None => {
                known.backoff.reset();
                known.problem = None;
                known.seen_at = Some(now);
                let spread = POLL_JITTER.mul_add(fastrand::f64().mul_add(2.0, -1.0), 1.0);
                poll.map(|poll| poll.mul_f64(spread))
            }
            Some(error) => {
                let wait = known.backoff.next_wait();
                let wait = error.retry_after().map_or(wait, |least| wait.max(least));
                let wait = if then == AfterFailure::AsksAgain { wait.max(RETRY_MAX) } else { wait };
                poll.map(|_| wait)
            }
        };
        known.next = wait.map(|wait| now + wait);
        // Who has not read it yet tries by itself.
        let is_used = known.used.is_some() || known.replaced == Some(true);
        known.due = known.next.filter(|_| is_used || error.is_none());
    }

    /// The user has this one.
    pub(super) fn take_up(&self, version: &SecretVersion) {
        let mut known = self.known.lock();
        known.used = Some(version.clone());
        if known.noticed.as_ref().is_some_and(|noticed| noticed.value == version.value) {
            known.noticed = None;
        }
    }

    /// What was noticed is no news any more: the user has it. While a fallback is used, it has not,
    /// and what is found next is news again.
    pub(super) fn take_up_known(&self) -> Option<SecretVersion> {
        let mut known = self.known.lock();
        let noticed = known.noticed.take();
        if known.replaced != Some(true) && noticed.is_some() {
            known.used = noticed;
        }
        known.used.clone()
    }

    fn notice(&self, found: SecretVersion) {
        let mut known = self.known.lock();
        if known.used.as_ref().is_some_and(|used| used.value == found.value) {
            known.noticed = None;
            known.used = Some(found);
        } else if known.noticed.as_ref().is_none_or(|noticed| noticed.value != found.value) {
            known.noticed = Some(found);
            self.wake.notify_one();
        }
    }

    fn tell(&self, error: &StoreError) {
        let mut known = self.known.lock();
        let kind = error.kind();
        let problem = Problem { kind, is_missing: error.is_about_the_secret() };
        if problem.is_missing {
            // What is made anew there may count from the beginning: the value has to be read.
            let Known { used, noticed, .. } = &mut *known;
            for version in [used, noticed].into_iter().flatten() {
                version.version = None;
            }
        }
        let is_told = known.problem.replace(problem).is_some_and(|before| before.kind == kind);
        if known.used.is_some() && !is_told {
            let cause = error_chain(error);
            if known.replaced.is_some() {
                tracing::warn!(cause, "a secret that has a fallback cannot be read");
            } else {
                tracing::warn!(
                    cause,
                    "a secret in use cannot be read; what was read before is kept"
                );
            }
        }
    }

    pub(super) async fn changed(&self) {
        loop {
            let woken = self.wake.notified();
            if self.known.lock().noticed.is_some() {
                return;
            }
            woken.await;
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("at", &self.at).finish_non_exhaustive()
    }
}
