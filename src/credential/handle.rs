//! What a call sees of a credential: its token, and whether another one comes.
//!
//! Nothing here asks an issuer: a handle reads what the [`Refresher`](super::Refresher) publishes,
//! tells it what happened, and waits for a bounded time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::demand::Demand;
use super::schedule::HOLD;
use super::state::{CredentialState, Published, Work};
use super::token::{AccessToken, Generation};
use super::{CredentialReport, KeyPrint};
use crate::clock::{self, Moment};
use crate::config::model::{Credential, Level};
use crate::telemetry::{Metrics, error_chain};

/// Nobody knows when an operator lets a paused credential be used again; callers that ask again after
/// so long find out soon.
const PAUSED_WAIT: Duration = Duration::from_secs(10);

/// The read side of a credential; [`Refresher`](super::Refresher) is the write side, and ends when
/// the last clone of its handle is dropped.
#[derive(Debug, Clone)]
pub struct CredentialHandle {
    name: Arc<str>,
    level: Level,
    published: watch::Receiver<Published>,
    demand: Arc<Demand>,
    /// Whether an operator keeps it from being used.
    paused: Arc<AtomicBool>,
    metrics: Metrics,
}

/// Why a call gets no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableReason {
    /// There has been none yet.
    Pending,
    /// The last one is used up, and no new one came.
    Expired,
    /// There is none before somebody logs in.
    LoginRequired,
    /// An operator has paused it.
    Paused,
}

/// No token in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no token in time")]
pub struct Unavailable {
    /// Which sort of none.
    pub reason: UnavailableReason,
    /// When the next try is due, in whole seconds, at least 1.
    pub retry_after: Duration,
}

impl CredentialHandle {
    pub(super) fn new(
        credential: &Credential,
        published: watch::Receiver<Published>,
        demand: Arc<Demand>,
        metrics: &Metrics,
    ) -> Self {
        let metrics = metrics.clone();
        Self {
            name: Arc::clone(&credential.name),
            level: credential.level,
            published,
            demand,
            paused: Arc::default(),
            metrics,
        }
    }

    /// The credential's name: a metric label.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Keeps calls from using it, or lets them again. Its token is kept fresh meanwhile.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Release);
    }

    /// Whether an operator keeps calls from using it.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    /// The token, if it may be used now. Does not wait.
    #[must_use]
    pub fn current(&self) -> Option<Arc<AccessToken>> {
        if self.is_paused() {
            return None;
        }
        self.published.borrow().usable(Moment::now())
    }

    /// Which key its tokens come from; `None` before the first one.
    #[must_use]
    pub fn key(&self) -> Option<KeyPrint> {
        self.published.borrow().key
    }

    /// The token; where there is none, waits for one until `deadline`, but at most 2 s, and brings
    /// the next try forward. Where somebody has to log in first, or an operator has paused it, it does
    /// not wait.
    ///
    /// # Errors
    /// [`Unavailable`] when none came.
    pub async fn token(&self, deadline: Instant) -> Result<Arc<AccessToken>, Unavailable> {
        if let Some(token) = self.current() {
            return Ok(token);
        }
        let begin = Instant::now();
        if self.is_paused() || self.published.borrow().waits_for_a_person(Moment::now()) {
            return Err(self.unavailable(Moment::now()));
        }
        self.demand.want();
        let answer = self.wait_for(|published| {
            let token = published.usable(Moment::now());
            (token.is_some() || published.waits_for_a_person(Moment::now())).then_some(token)
        });
        let answer = tokio::time::timeout_at(deadline.min(begin + HOLD), answer).await;
        self.metrics.token_wait.observe(begin.elapsed().as_secs_f64());
        let token = answer.ok().flatten().or_else(|| self.current());
        token.ok_or_else(|| self.unavailable(Moment::now()))
    }

    /// Waits until there is a token that may be used, for as long as it takes.
    pub async fn wait_usable(&self) -> Arc<AccessToken> {
        self.wait_for(|published| published.usable(Moment::now())).await
    }

    /// Tells the refresher that the upstream rejected `rejected`, and waits for a newer token until
    /// `deadline`, but at most 2 s.
    ///
    /// `None` when there is none: the issuer gave the same again or nothing, or the last refresh
    /// that a rejection caused is less than 10 s ago (then at once).
    pub async fn renewed(
        &self,
        rejected: Generation,
        deadline: Instant,
    ) -> Option<Arc<AccessToken>> {
        let now = Moment::now();
        let newer = |published: &Published, now| {
            published.usable(now).filter(|token| token.generation() > rejected)
        };
        let seen = {
            let published = self.published.borrow();
            if let Some(token) = newer(&published, now) {
                return Some(token);
            }
            let is_cooling = published.cooling_until.is_some_and(|until| now < until);
            let is_barred = published.not_before.is_some_and(|at| at > now + HOLD);
            if !published.is_minting() && (is_cooling || is_barred) {
                return None;
            }
            published.attempts
        };
        self.reject(rejected);
        let answer = self.wait_for(|published| {
            let token = newer(published, Moment::now());
            (token.is_some() || published.attempts > seen).then_some(token)
        });
        tokio::time::timeout_at(deadline.min(Instant::now() + HOLD), answer).await.ok().flatten()
    }

    /// Has a new token asked for now, for an operator, and waits until that try has ended, at most
    /// until `deadline`. Whether it has: how it went is in [`Self::report`].
    pub async fn refresh(&self, deadline: Instant) -> bool {
        let after = {
            let published = self.published.borrow();
            // A try that is under way may have read its secret before it was changed.
            published.attempts + u64::from(published.is_minting())
        };
        self.demand.ask();
        let ended = self.wait_for(|published| (published.attempts > after).then_some(()));
        tokio::time::timeout_at(deadline, ended).await.is_ok()
    }

    /// Tells the refresher that the upstream rejected this generation. Does not wait.
    pub fn reject(&self, generation: Generation) {
        self.demand.reject(generation);
    }

    /// Has the refresher end: it finishes what is under way, tries once more to write what the store
    /// lacks, and begins nothing new. Does not wait.
    pub(super) fn end(&self) {
        self.demand.end();
    }

    /// Waits until it has, as far as something could be lost. Whether the store lacks nothing that is
    /// in use.
    pub(super) async fn ended(&self) -> bool {
        self.wait_for(|published| {
            let is_idle = published.work != Work::Spending
                && !(published.is_unpersisted || published.has_to_write);
            (published.work == Work::Ended || is_idle).then_some(!published.is_unpersisted)
        })
        .await
    }

    /// The credential as `/status` shows it.
    #[must_use]
    pub fn report(&self) -> CredentialReport {
        let now = Moment::now();
        let published = self.published.borrow();
        let state = published.state.at(now);
        let until = |at: Moment| at.saturating_duration_since(now).as_secs();
        let token = state.token();
        CredentialReport {
            name: self.name.to_string(),
            level: self.level,
            state: state.word().to_owned(),
            generation: published.generation.0,
            age_seconds: token.map(|t| now.saturating_duration_since(t.minted_at()).as_secs()),
            expires_in_seconds: token.and_then(|t| t.expires_at()).map(until),
            last_error: state.cause().map(|cause| error_chain(&**cause)),
            next_try_in_seconds: published.next_try.map(until),
            paused: self.is_paused(),
            unpersisted: published.is_unpersisted,
        }
    }

    /// Sets the gauges of this credential.
    pub(super) fn observe(&self, metrics: &Metrics) {
        let now = Moment::now();
        let published = self.published.borrow();
        let state = published.state.at(now);
        for word in CredentialState::WORDS {
            let gauge = metrics.credential_state.with_label_values(&[&*self.name, word]);
            gauge.set(i64::from(word == state.word()));
        }
        let paused = metrics.credential_paused.with_label_values(&[&*self.name]);
        paused.set(i64::from(self.is_paused()));
        let unpersisted = metrics.credential_unpersisted.with_label_values(&[&*self.name]);
        unpersisted.set(i64::from(published.is_unpersisted));
        let expiry = state.token().and_then(|token| token.expires_at());
        let expiry = expiry.map_or(0.0, clock::to_unix_seconds);
        metrics.credential_expiry.with_label_values(&[&*self.name]).set(expiry);
        let generation = i64::try_from(published.generation.0).unwrap_or(i64::MAX);
        metrics.credential_generation.with_label_values(&[&*self.name]).set(generation);
    }

    /// Waits until `pick` finds what it looks for; a refresher that ended never publishes it.
    async fn wait_for<T>(&self, pick: impl Fn(&Published) -> Option<T>) -> T {
        let mut reader = self.published.clone();
        loop {
            let found = pick(&reader.borrow_and_update());
            if let Some(found) = found {
                return found;
            }
            if reader.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Why there is no token at `now`, and when the next try is due.
    #[must_use]
    pub fn unavailable(&self, now: Moment) -> Unavailable {
        if self.is_paused() {
            return Unavailable { reason: UnavailableReason::Paused, retry_after: PAUSED_WAIT };
        }
        let published = self.published.borrow();
        let reason = match published.state.at(now) {
            CredentialState::Pending(_) => UnavailableReason::Pending,
            CredentialState::LoginRequired(_) => UnavailableReason::LoginRequired,
            _ => UnavailableReason::Expired,
        };
        let wait = published.next_try.map_or(HOLD, |at| at.saturating_duration_since(now));
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Unavailable { reason, retry_after: Duration::from_secs(seconds.max(1)) }
    }
}
