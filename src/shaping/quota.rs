//! One quota as calls meet it: its schedule and its queue behind one lock, which is never held over
//! a wait. Whoever's turn it is waits for the clock; the others wait for their turn.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Refusal;
use super::queue::{FairQueue, Full, Ticket};
use super::schedule::{Charge, Schedule};
use crate::telemetry::Metrics;

/// A call that would leave this shortly before its deadline is not let in: timers are late.
const MARGIN: Duration = Duration::from_millis(10);

/// A quota.
#[derive(Debug)]
pub(super) struct Quota {
    name: Box<str>,
    limit: u32,
    began_at: Instant,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    schedule: Schedule,
    queue: FairQueue<Arc<Notify>>,
    next_ticket: Ticket,
}

/// What a waiting call does next.
enum Step {
    Leave(Charge),
    /// It is its turn at this moment at the earliest.
    Until(Instant),
    /// Others are before it.
    Wait,
    Refuse(Refusal),
}

impl Quota {
    /// A quota with nobody waiting; `limit` is what its use is told against.
    pub(super) fn new(
        name: &str,
        limit: u32,
        schedule: Schedule,
        queue: FairQueue<Arc<Notify>>,
        metrics: &Metrics,
    ) -> Self {
        metrics.quota_limit.with_label_values(&[name]).set(i64::from(limit));
        let state = Mutex::new(State { schedule, queue, next_ticket: 0 });
        Self { name: name.into(), limit, began_at: Instant::now(), state, metrics: metrics.clone() }
    }

    /// When a call arrived, against others.
    pub(super) fn ticket(&self) -> Ticket {
        let mut state = self.lock();
        state.next_ticket += 1;
        state.next_ticket
    }

    /// Whether a call that arrives now would leave before its deadline.
    pub(super) fn foresee(
        &self,
        tenant: usize,
        ticket: Ticket,
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let now = Instant::now();
        self.lock().foresee(tenant, ticket, self.since(now), self.since(deadline))
    }

    /// Waits for the call's turn. A call that is dropped meanwhile gives its place on.
    pub(super) async fn turn(
        self: &Arc<Self>,
        tenant: usize,
        ticket: Ticket,
        deadline: Instant,
    ) -> Result<Charge, Refusal> {
        let waiter = {
            let now = self.since(Instant::now());
            let mut state = self.lock();
            if state.queue.is_empty()
                && let Ok(charge) = state.schedule.admit(now)
            {
                return Ok(charge);
            }
            state.foresee(tenant, ticket, now, self.since(deadline))?;
            let woken = Arc::new(Notify::new());
            let pushed = state.queue.push(tenant, ticket, Arc::clone(&woken));
            pushed.map_err(|full| state.refusal(tenant, full, now))?;
            self.depth(&state);
            Waiter { quota: Arc::clone(self), tenant, ticket, woken }
        };
        loop {
            let until = match self.step(&waiter, deadline) {
                Step::Leave(charge) => return Ok(charge),
                Step::Refuse(refusal) => return Err(refusal),
                Step::Until(at) => at,
                Step::Wait => deadline,
            };
            // Whether woken or late: the next step says what it means.
            let _woken = timeout_at(until, waiter.woken.notified()).await;
        }
    }

    fn step(&self, waiter: &Waiter, deadline: Instant) -> Step {
        let now = Instant::now();
        let at = self.since(now);
        let mut state = self.lock();
        let first = state.queue.front().is_some_and(|(ticket, _)| ticket == waiter.ticket);
        let admitted = first.then(|| state.schedule.admit(at));
        if let Some(Ok(charge)) = admitted {
            state.queue.pop();
            state.wake_next();
            self.depth(&state);
            return Step::Leave(charge);
        }
        // The upstream may have asked for silence since the call was let in.
        if now >= deadline || state.schedule.paused_until() > self.since(deadline) {
            let refusal = state.refusal(waiter.tenant, Full::Queue, at);
            return Step::Refuse(Refusal { full: false, ..refusal });
        }
        match admitted {
            Some(Err(later)) => Step::Until((self.began_at + later).min(deadline)),
            _ => Step::Wait,
        }
    }

    /// When a call leaves at the latest that comes back now and stood first in line.
    pub(super) fn returns_by(&self, tenant: usize, ticket: Ticket) -> Instant {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        let ahead = state.queue.ahead(tenant, ticket);
        self.began_at + state.schedule.leaves_by(now, ahead)
    }

    /// The call leaves later than it was let.
    pub(super) fn restamp(&self, charge: Charge, now: Instant) {
        self.lock().schedule.restamp(charge, self.since(now));
    }

    /// The call does not leave: the next may.
    pub(super) fn give_back(&self, charge: Charge) {
        let mut state = self.lock();
        state.schedule.give_back(charge);
        state.wake_next();
    }

    /// For how long a schedule that takes this one's place must not begin: the rest of a pause, and
    /// the time that those who wait here need to leave; `None`: not at all.
    pub(super) fn rest(&self) -> Option<Duration> {
        let now = self.since(Instant::now());
        let state = self.lock();
        let waiting = u32::try_from(state.queue.len()).unwrap_or(u32::MAX);
        let pause = state.schedule.paused_until().saturating_sub(now);
        let rest = pause + state.schedule.interval().saturating_mul(waiting);
        (!rest.is_zero()).then_some(rest)
    }

    /// The upstream refused a call: nothing leaves until it may.
    pub(super) fn throttled(&self, asked: Option<Duration>) -> Duration {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        let until = state.schedule.throttled(now, asked);
        // Those who cannot wait that long are told now.
        state.queue.iter().for_each(|woken| woken.notify_one());
        until.saturating_sub(now)
    }

    /// The upstream took a call.
    pub(super) fn answered(&self) {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        if state.schedule.answered(now) {
            state.wake_next();
        }
    }

    /// Forgets what the upstream's answers taught.
    pub(super) fn forget(&self) {
        let now = self.since(Instant::now());
        let mut state = self.lock();
        state.schedule.forget(now);
        state.wake_next();
    }

    /// When a charge was made.
    pub(super) fn moment(&self, charge: Charge) -> Instant {
        self.began_at + charge.at
    }

    /// Brings the gauge of the use up to date: it falls by itself.
    pub(super) fn observe(&self) {
        let used = self.lock().schedule.used(self.since(Instant::now()));
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = used as f64 / f64::from(self.limit);
        self.metrics.quota_used_ratio.with_label_values(&[&*self.name]).set(ratio);
    }

    /// A call was sent after such a wait.
    pub(super) fn observe_wait(&self, waited: Duration) {
        let label = [&*self.name];
        self.metrics.queue_wait.with_label_values(&label).observe(waited.as_secs_f64());
    }

    fn depth(&self, state: &State) {
        let depth = i64::try_from(state.queue.len()).unwrap_or(i64::MAX);
        self.metrics.queue_depth.with_label_values(&[&*self.name]).set(depth);
    }

    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began_at)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under the lock panics; if it did, the counts would still be counts.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn foresee(
        &mut self,
        tenant: usize,
        ticket: Ticket,
        now: Duration,
        deadline: Duration,
    ) -> Result<(), Refusal> {
        let full = self.queue.check(tenant).err();
        let ahead = self.queue.ahead(tenant, ticket);
        if let Some(full) = full {
            return Err(self.refusal(tenant, full, now));
        }
        if self.schedule.leaves_by(now, ahead) + MARGIN > deadline {
            let share = self.queue.is_over_share(tenant);
            let full = if share { Full::Share } else { Full::Queue };
            return Err(Refusal { full: false, ..self.refusal(tenant, full, now) });
        }
        Ok(())
    }

    /// A refusal that says when there is room: when a call that comes back then, with nobody new
    /// before it, leaves at once.
    fn refusal(&mut self, tenant: usize, full: Full, now: Duration) -> Refusal {
        let ahead = self.queue.ahead(tenant, Ticket::MAX);
        let leaves = self.schedule.leaves_by(now, ahead);
        let paused = self.schedule.paused_until() > now;
        let tenants_fault = full == Full::Share && !paused;
        Refusal { retry_after: leaves.saturating_sub(now), tenants_fault, full: !paused }
    }

    fn wake_next(&self) {
        if let Some((_, woken)) = self.queue.front() {
            woken.notify_one();
        }
    }
}

/// A call in the queue; dropping it gives its place on.
struct Waiter {
    quota: Arc<Quota>,
    tenant: usize,
    ticket: Ticket,
    woken: Arc<Notify>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut state = self.quota.lock();
        if state.queue.remove(self.tenant, self.ticket).is_some() {
            state.wake_next();
            self.quota.depth(&state);
        }
    }
}
