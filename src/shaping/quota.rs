//! One quota as calls meet it: its turns behind one lock, which is never held over a wait. Whoever's
//! turn it is waits for the clock; the others wait for their turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Refusal;
#[cfg(test)]
use super::history::History;
use super::lines::Line;
use super::moves::Heirs;
use super::pace::Terms;
use super::queue::Ticket;
use super::report::{HeldBack, QuotaReport};
use super::schedule::Schedule;
use super::shadow::Shadow;
use super::throttles::ThrottleCounts;
use super::turns::{Request, Step, Taken, Turns};
use crate::config::model::Tenant;
use crate::telemetry::Metrics;

/// A quota.
#[derive(Debug)]
pub(super) struct Quota {
    pub(super) name: Box<str>,
    pub(super) began_at: Instant,
    /// Until then calls are held back for what may have been sent before it began.
    pub(super) held_until: Duration,
    turns: Mutex<Turns<Arc<Notify>>>,
    pub(super) heirs: Heirs,
    pub(super) is_retired: AtomicBool,
    /// Calls of the sidecar's own, which are ahead of those in the turns.
    pub(super) own_woken: Notify,
    /// What would become of calls, where they are not held back.
    pub(super) shadow: Mutex<Option<Shadow>>,
    /// Answers 429 of the upstream's.
    pub(super) throttled: ThrottleCounts,
    pub(super) metrics: Metrics,
}

impl Quota {
    /// A quota with nobody waiting. The schedule's time begins at `began_at`.
    pub(super) fn new(
        name: &str,
        began_at: Instant,
        schedule: Schedule,
        metrics: &Metrics,
    ) -> Self {
        let held_until = schedule.marks().bursts_from;
        let (turns, heirs) = (Mutex::new(Turns::new(schedule)), Heirs::default());
        let is_retired = AtomicBool::new(false);
        let (shadow, throttled, metrics) =
            (Mutex::default(), ThrottleCounts::default(), metrics.clone());
        let own_woken = Notify::new();
        Self {
            name: name.into(),
            began_at,
            held_until,
            turns,
            own_woken,
            heirs,
            is_retired,
            shadow,
            throttled,
            metrics,
        }
    }

    /// Other terms are in force from now on: nobody who waits loses the turn, and what was sent
    /// counts.
    pub(super) fn change(&self, terms: Terms, also: Option<(u32, Duration)>, others: u32) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.schedule.change(terms, also, others, now);
        self.in_shadow(|shadow, now| shadow.schedule().change(terms, also, others, now));
        // Some have to wait for longer now, and some perhaps for too long.
        self.wake_everybody(&turns);
    }

    /// What was sent, and where the clocks stand.
    #[cfg(test)]
    pub(super) fn history(&self) -> History {
        self.lock().schedule.history(self.since(Instant::now()))
    }

    /// A line for each tenant: see [`Turns::arrange`].
    pub(super) fn arrange(&self, tenants: &[Tenant], length_max: usize) -> Vec<Arc<Line>> {
        self.lock().arrange(tenants, length_max, self.since(Instant::now()))
    }

    /// Between two paced calls.
    pub(super) fn interval(&self) -> Duration {
        self.lock().schedule.interval()
    }

    /// Whether a call that arrives now would leave before its deadline.
    pub(super) fn foresee(
        &self,
        (line, ticket, returns): (&Line, Ticket, bool),
        deadline: Instant,
    ) -> Result<(), Refusal> {
        let now = self.since(Instant::now());
        let request = Request { line, ticket, deadline: self.since(deadline), returns };
        self.lock().foresee(request, now)
    }

    /// Waits for the call's turn; `None`: not here any more, see [`Self::is_left_by`]. A call that is
    /// dropped meanwhile gives its place on. One that returns is refused for no lack of places.
    pub(super) async fn turn(
        self: &Arc<Self>,
        (line, ticket, returns): (&Arc<Line>, Ticket, bool),
        credential: Option<&Arc<str>>,
        deadline: Instant,
    ) -> Result<Option<Taken>, Refusal> {
        let waiter = {
            let now = self.since(Instant::now());
            let request = Request { line, ticket, deadline: self.since(deadline), returns };
            let mut turns = self.lock();
            if self.is_left_by(credential) {
                return Ok(None);
            }
            if let Some(taken) = turns.admit(line, now) {
                return Ok(Some(taken));
            }
            turns.foresee(request, now)?;
            let woken = Arc::new(Notify::new());
            turns.push(request, Arc::clone(&woken), now)?;
            Self::tell_displaced(&mut turns, now);
            self.depth(&turns, line);
            let (quota, line) = (Arc::clone(self), Arc::clone(line));
            Waiter { quota, line, ticket, credential: credential.cloned(), woken }
        };
        let mut delay = Duration::ZERO;
        loop {
            let Some(step) = self.step(&waiter, deadline, delay) else { return Ok(None) };
            let until = match step {
                Step::Leave(taken) => return Ok(Some(taken)),
                Step::Refuse(refusal) => return Err(refusal),
                Step::Later(at) => (self.began_at + at).min(deadline),
                Step::Wait => deadline,
            };
            // Whether woken or late: the next step says what it means.
            let woken = timeout_at(until, waiter.woken.notified()).await;
            delay = match woken {
                Ok(()) => Duration::ZERO,
                Err(_elapsed) => Instant::now().saturating_duration_since(until),
            };
        }
    }

    /// `None` as in [`Self::turn`]; `delay`: how late the clock woke it.
    fn step(&self, waiter: &Waiter, deadline: Instant, delay: Duration) -> Option<Step> {
        let now = self.since(Instant::now());
        let deadline = self.since(deadline);
        let (line, ticket) = (&waiter.line, waiter.ticket);
        let request = Request { line, ticket, deadline, returns: true };
        let mut turns = self.lock();
        if self.is_left_by(waiter.credential.as_ref()) {
            return None;
        }
        turns.schedule.note_delay(delay, now);
        let step = turns.step(request, now);
        match step {
            Step::Leave(_) => {
                self.wake_next(&mut turns, now);
                self.depth(&turns, &waiter.line);
            }
            // Whose bound has room by now comes before this one.
            Step::Wait => self.wake_next(&mut turns, now),
            Step::Later(_) | Step::Refuse(_) => {}
        }
        Some(step)
    }

    /// When a call leaves at the latest that comes back now and stood first in line.
    pub(super) fn returns_by(&self, line: &Line, ticket: Ticket) -> Instant {
        let now = self.since(Instant::now());
        self.began_at + self.lock().returns_by(line, ticket, now)
    }

    /// The call leaves, later than it was let; false when it must not any more.
    pub(super) fn restamp(&self, taken: Taken, now: Instant) -> bool {
        let leaves = self.lock().restamp(taken, self.since(now));
        if leaves {
            self.metrics.quota_sent.with_label_values(&[&*self.name]).inc();
        }
        leaves
    }

    /// The call does not leave: the next may.
    pub(super) fn give_back(&self, taken: Taken) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.give_back(taken, now);
        self.wake_next(&mut turns, now);
    }

    /// When a charge was made.
    pub(super) fn moment(&self, taken: Taken) -> Instant {
        self.began_at + taken.charge.at
    }

    /// What it looks like now; what is configured is for the caller to add.
    pub(super) fn report(&self) -> QuotaReport {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let (used, limit) = (turns.schedule.used(now), turns.schedule.limit());
        let paused = turns.schedule.paused_until().saturating_sub(now);
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let used_ratio = used as f64 / f64::from(limit);
        let near_limit = self.metrics.quotas.near_limit.with_label_values(&[&*self.name]);
        near_limit.inc_by(turns.schedule.near_limit(now).as_secs_f64());
        QuotaReport {
            name: String::new(),
            limit,
            window_seconds: 0,
            share: 1.0,
            used,
            used_ratio,
            waiting: turns.waiting(),
            paused_for_seconds: (!paused.is_zero()).then_some(paused.as_secs()),
            held_back: HeldBack::of(&turns.schedule, self.held_until, now),
            throttled: self.throttled.count(),
            throttled_by_cause: self.throttled.by_cause(),
            learnt: Vec::new(),
            foreign_usage: turns.schedule.learnt(now).1,
            model_error: turns.schedule.model_error(now),
            near_limit_seconds: near_limit.get(),
            shadow: self.shadow_report(),
        }
    }

    /// A call was sent after such a wait.
    pub(super) fn observe_wait(&self, waited: Duration) {
        let label = [&*self.name];
        self.metrics.queue_wait.with_label_values(&label).observe(waited.as_secs_f64());
    }

    /// The gauges of those who wait, after a change in this line.
    fn depth(&self, turns: &Turns<Arc<Notify>>, line: &Line) {
        if self.is_retired.load(Ordering::Relaxed) {
            return;
        }
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        let (all, own) = (gauge(turns.len()), gauge(turns.queue.waiting(line.number)));
        self.metrics.queue_depth.with_label_values(&[&*self.name]).set(all);
        self.metrics.quotas.waiting.with_label_values(&[&*self.name, &*line.name]).set(own);
    }

    pub(super) fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.began_at)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Turns<Arc<Notify>>> {
        // No code under the lock panics; if it did, the counts would still be counts.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call in the queue; dropping it gives its place on.
struct Waiter {
    quota: Arc<Quota>,
    line: Arc<Line>,
    ticket: Ticket,
    credential: Option<Arc<str>>,
    woken: Arc<Notify>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let now = self.quota.since(Instant::now());
        let mut turns = self.quota.lock();
        if turns.remove(&self.line, self.ticket) {
            self.quota.wake_next(&mut turns, now);
            Quota::tell_displaced(&mut turns, now);
            self.quota.depth(&turns, &self.line);
        }
    }
}
