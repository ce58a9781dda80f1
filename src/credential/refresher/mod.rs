//! Keeps one credential usable: the only code that asks its issuer for a token.
//!
//! A working token is never given up for a failed refresh; it is published as stale until it
//! expires. The loop ends when the last [`CredentialHandle`] is dropped, and for no other reason.

mod ends;

use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::demand::{Demand, Demanded};
use super::handle::CredentialHandle;
use super::schedule::{Reason, Schedule};
use super::state::{CredentialState, Published, Work};
use super::succession::{Holder, Office};
use super::supply::{Estate, Supply};
use super::under_way::UnderWay;
use super::{AccessToken, Generation, MintError, Minted};
use crate::clock::{self, Moment};
use crate::config::model::Credential;
use crate::telemetry::Metrics;

/// The write side of a credential; [`CredentialHandle`] is the read side.
#[derive(Debug)]
pub struct Refresher {
    name: Arc<str>,
    supply: Supply,
    published: watch::Sender<Published>,
    demand: Arc<Demand>,
    metrics: Metrics,
    schedule: Schedule,
    has_warned_of_life: bool,
    under_way: UnderWay,
    office: Holder,
    /// What those leave who kept the secret before.
    predecessors: Vec<oneshot::Receiver<Estate>>,
}

/// What the loop woke up for.
enum Event {
    Abandoned,
    Ending,
    Asked,
    Changed,
    Due(Reason),
    Expired,
    WriteDue,
}

impl Refresher {
    /// A refresher that has not started, and its first handle.
    pub(super) fn new(
        credential: &Credential,
        supply: Supply,
        metrics: &Metrics,
    ) -> (Self, CredentialHandle) {
        let (published, reader) = watch::channel(Published::new());
        let demand = Arc::new(Demand::default());
        let handle = CredentialHandle::new(credential, reader, Arc::clone(&demand), metrics);
        let refresher = Self {
            name: Arc::clone(&credential.name),
            supply,
            published,
            demand,
            metrics: metrics.clone(),
            schedule: Schedule::new(Moment::now()),
            has_warned_of_life: false,
            under_way: UnderWay::default(),
            office: Holder::default(),
            predecessors: Vec::new(),
        };
        (refresher, handle)
    }

    /// What must not be missed counts here.
    pub(super) fn among(self, under_way: UnderWay) -> Self {
        Self { under_way, ..self }
    }

    /// The place that another one may take.
    pub(super) const fn office(&self) -> &Arc<Office> {
        self.office.office()
    }

    /// Which credential it keeps.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Mints, waits, mints again, until nobody holds a handle, another one takes its place, or the
    /// process ends. Then what is not written yet is left to that one, or tried once more, and without a
    /// handle until it is written.
    pub async fn run(mut self) {
        self.inherit().await;
        loop {
            match self.wait().await {
                Event::Abandoned | Event::Ending => break,
                Event::Asked => self.heed(self.demand.take(), Moment::now()),
                Event::Changed => self.note_change(Moment::now()),
                Event::Expired => self.publish(Moment::now(), None),
                Event::WriteDue => self.write().await,
                Event::Due(reason) => {
                    let Some(outcome) = self.mint(reason).await else { break };
                    self.settle(outcome, reason);
                }
            }
        }
        self.end().await;
    }

    /// One try; `None` when nobody holds a handle any more, another one takes over, or the process ends,
    /// before anything was asked for.
    async fn mint(&mut self, reason: Reason) -> Option<Result<Minted, MintError>> {
        let now = Moment::now();
        self.schedule.begin(now, reason);
        let works = self.published.borrow().usable(now).is_some();
        let cooling = self.schedule.cooling_until();
        let must_finish = self.supply.must_finish();
        let _guard = must_finish.then(|| self.under_way.enter());
        self.published.send_modify(|p| {
            p.work = if must_finish { Work::Spending } else { Work::Minting };
            p.cooling_until = cooling;
        });
        let taken = tokio::select! {
            biased;
            () = self.published.closed() => return None,
            () = self.demand.ending() => return None,
            () = self.office.wanted() => return None,
            taken = self.supply.take(reason) => taken,
        };
        let taken = match taken {
            Ok(taken) => taken,
            Err(error) => return Some(Err(error)),
        };
        let attempt = self.supply.spend(taken, works);
        if must_finish {
            return Some(attempt.await);
        }
        tokio::select! {
            () = self.published.closed() => None,
            outcome = attempt => Some(outcome),
        }
    }

    async fn wait(&self) -> Event {
        let (due, reason) = self.schedule.next().unzip();
        // A change is there until the next try reads it.
        let is_noted = reason == Some(Reason::Changed);
        let last_use = self.published.borrow().state.token().and_then(|token| token.last_use());
        tokio::select! {
            biased;
            () = self.published.closed() => Event::Abandoned,
            () = self.demand.ending() => Event::Ending,
            () = self.office.wanted() => Event::Ending,
            () = self.demand.made() => Event::Asked,
            () = self.supply.changed(), if !is_noted => Event::Changed,
            () = sleep_until(due) => Event::Due(reason.unwrap_or(Reason::Scheduled)),
            () = sleep_until(last_use) => Event::Expired,
            () = sleep_until(self.supply.write_due()) => Event::WriteDue,
        }
    }

    /// Lets what handles asked for change the schedule.
    fn heed(&mut self, demanded: Demanded, now: Moment) {
        let Demanded { rejected, is_wanted, is_asked } = demanded;
        let (generation, is_usable) = {
            let published = self.published.borrow();
            (published.generation, published.usable(now).is_some())
        };
        // A late 401 of an old generation says nothing about the token in use.
        if rejected == generation && is_usable {
            self.schedule.force(now);
        }
        if is_wanted && !is_usable {
            self.schedule.hasten(now);
        }
        if is_asked {
            self.schedule.bring_forward(now, Reason::Asked, self.supply.asks_an_issuer());
        }
        self.show_next();
    }

    /// The stored secret is another one.
    fn note_change(&mut self, now: Moment) {
        let is_fresh = matches!(self.published.borrow().state.at(now), CredentialState::Fresh(_));
        if is_fresh && self.supply.heeds_changes_later() {
            return;
        }
        self.schedule.bring_forward(now, Reason::Changed, self.supply.asks_an_issuer());
        self.show_next();
    }

    /// Shows when the next try begins, which wakes nobody.
    fn show_next(&self) {
        let (next, _) = self.schedule.next().unzip();
        self.published.send_if_modified(|p| {
            p.next_try = next;
            false
        });
    }

    fn settle(&mut self, outcome: Result<Minted, MintError>, reason: Reason) {
        let now = Moment::now();
        let accepted = outcome.and_then(|minted| self.accept(&minted, now));
        let (label, next) = match accepted {
            Ok((state, label)) => (label, Ok(state)),
            Err(error) => {
                let wait = error.retry_after().max(self.supply.least_wait());
                self.schedule.fail(now, wait);
                (error.kind(), Err(Arc::new(error)))
            }
        };
        let labels = [&*self.name, label, reason.as_str()];
        self.metrics.credential_refreshes.with_label_values(&labels).inc();
        self.publish(now, Some(next));
    }

    /// The state with a new token, and whether it is another one than before.
    fn accept(
        &mut self,
        minted: &Minted,
        now: Moment,
    ) -> Result<(AccessToken, &'static str), MintError> {
        let (current, generation) = {
            let published = self.published.borrow();
            (published.state.token().cloned(), published.generation)
        };
        let is_same = current.is_some_and(|token| token.is_same(&minted.value));
        let generation = if is_same { generation } else { Generation(generation.0 + 1) };
        let token = AccessToken::new(minted, generation, now)?;
        self.schedule.succeed(now, minted.life.map(|life| life.length));
        if minted.life.is_some_and(|life| life.is_of_unknown_age) {
            self.schedule.hurry(now);
        }
        if minted.life.is_some_and(|life| life.is_clamped) && !self.has_warned_of_life {
            self.has_warned_of_life = true;
            tracing::warn!(
                credential = %self.name,
                "the issuer gave a token life outside 1 s to 30 days; the nearest bound is used"
            );
        }
        Ok((token, if is_same { "unchanged" } else { "ok" }))
    }

    /// Publishes how a try ended (`None`: none did, time passed), and logs a change of state.
    fn publish(&self, now: Moment, ended: Option<Result<AccessToken, Arc<MintError>>>) {
        let before = self.published.borrow().state.clone();
        let has_ended = ended.is_some();
        let state = match ended {
            Some(Ok(token)) => self.usable(Arc::new(token)),
            Some(Err(cause)) => {
                let had_token = self.published.borrow().generation > Generation(0);
                before.at(now).failed(cause, had_token)
            }
            None => before.at(now),
        };
        state.tell(&self.name, &before);
        let key = self.supply.key().filter(|_| has_ended);
        let (next, _) = self.schedule.next().unzip();
        self.published.send_modify(|p| {
            if let Some(token) = state.token() {
                p.generation = token.generation();
            }
            p.key = key.or(p.key);
            p.state = state;
            p.next_try = next;
            p.not_before = self.schedule.not_before();
            p.cooling_until = self.schedule.cooling_until();
            self.show_unwritten(p);
            if has_ended {
                p.work = Work::None;
                p.attempts += 1;
            }
        });
    }

    /// The state of a credential with a new token; what the store holds may be another matter.
    fn usable(&self, token: Arc<AccessToken>) -> CredentialState {
        match self.supply.rejection() {
            None => CredentialState::Fresh(token),
            Some(cause) => CredentialState::Stale { token, cause: Arc::new(cause) },
        }
    }
}

async fn sleep_until(at: Option<Moment>) {
    match at {
        Some(at) => clock::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
