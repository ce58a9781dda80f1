//! A call's place in a quota's queue, and the permits that its attempts take from it.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::Refusal;
use super::lines::Line;
use super::moves::Seat;
use super::pace::LATE_MAX;
use super::queue::Ticket;
use super::quota::Quota;
use super::turns::Taken;

/// A place in a quota's queue, held until the call is over; each attempt takes a permit from it.
#[derive(Debug)]
#[must_use = "dropping it gives the place up"]
pub struct Place(pub(super) Option<Turn>);

#[derive(Debug)]
pub(super) struct Turn {
    pub(super) quota: Arc<Quota>,
    pub(super) line: Arc<Line>,
    pub(super) ticket: Ticket,
    /// Whose key it is sent with, where that is known.
    pub(super) credential: Option<Arc<str>>,
    pub(super) arrived_at: Instant,
    pub(super) wait_max: Duration,
    pub(super) waited: Waited,
    /// It had its turn, or a place in the queue, before.
    pub(super) returns: bool,
    /// By the attempt that has not left yet.
    pub(super) taken: Option<Taken>,
    /// The charge that the last attempt left with, and when.
    pub(super) sent: Option<(u64, Instant)>,
}

/// The time that a call spends in the queue, and nowhere else.
#[derive(Debug, Default)]
pub(super) struct Waited {
    /// All waits that are over.
    past: Duration,
    /// When the one began that is not.
    since: Option<Instant>,
    /// By the attempts that have left.
    left: Duration,
}

/// The right to send one request now; every attempt needs its own.
#[derive(Debug)]
#[must_use = "it is charged when the request is written"]
pub struct Permit {
    /// When the request was about to be written.
    pub departed_at: Instant,
    /// How long this attempt waited in the queue.
    pub waited: Duration,
}

impl Waited {
    fn begin(&mut self) {
        self.since = Some(Instant::now());
    }

    fn end(&mut self) {
        self.past = self.total();
        self.since = None;
    }

    /// Also where a wait was given up and never ended.
    fn total(&self) -> Duration {
        self.past + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// What the attempt that leaves now waited.
    fn leave(&mut self) -> Duration {
        let before = std::mem::replace(&mut self.left, self.past);
        self.past.saturating_sub(before)
    }
}

impl Place {
    /// Waits for the call's turn, before a connection is taken; at once where it was waited for.
    ///
    /// # Errors
    /// A [`Refusal`] when the turn would come after `deadline`.
    pub async fn ready(&mut self, deadline: Instant) -> Result<(), Refusal> {
        let Some(turn) = &mut self.0 else { return Ok(()) };
        while turn.taken.is_none() {
            turn.follow();
            let deadline = deadline.min(Instant::now() + turn.wait_max);
            turn.waited.begin();
            let place = (&turn.line, turn.ticket, turn.returns);
            let taken = turn.quota.turn(place, turn.credential.as_ref(), deadline).await;
            turn.waited.end();
            turn.taken = taken?;
            turn.returns = true;
        }
        Ok(())
    }

    /// The request head is about to be written: stamps the permit, and waits for another where too
    /// much time went by since the call's turn. Gives what `needed` gives, which is asked at the last
    /// moment.
    ///
    /// # Errors
    /// As [`Self::ready`]; and what `needed` says, and then no permit is charged.
    pub async fn depart<T, E: From<Refusal>>(
        &mut self,
        deadline: Instant,
        needed: impl Fn() -> Result<T, E>,
    ) -> Result<(Permit, T), E> {
        let mut retaken = false;
        loop {
            self.ready(deadline).await?;
            let needed = needed().inspect_err(|_| self.give_up())?;
            let now = Instant::now();
            let Some(turn) = &mut self.0 else {
                return Ok((Permit { departed_at: now, waited: Duration::ZERO }, needed));
            };
            let Some(taken) = turn.taken.take() else { continue };
            let late = now.saturating_duration_since(turn.quota.moment(taken)) > LATE_MAX;
            // Once: what was waited for a second time leaves, however slow the machine is.
            let is_late = late && !retaken;
            if is_late || !turn.quota.restamp(taken, now) {
                turn.quota.give_back(taken);
                retaken |= is_late;
                continue;
            }
            if turn.sent.replace((taken.charge.number, now)).is_none() {
                let by = deadline.min(turn.arrived_at + turn.wait_max);
                turn.quota.leaves_in_shadow(&turn.line, by);
            } else {
                turn.quota.more_in_shadow(1);
            }
            let waited = turn.waited.leave();
            turn.quota.observe_wait(waited);
            return Ok((Permit { departed_at: now, waited }, needed));
        }
    }

    /// Nothing is sent: the permit is the next one's now, not once the caller has the answer.
    fn give_up(&mut self) {
        self.0.iter_mut().for_each(Turn::give_back);
    }

    /// How long the call has waited in the queue so far, by all its attempts. None without a quota.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.as_ref().map_or(Duration::ZERO, |turn| turn.waited.total())
    }

    /// The upstream answered `429`, with this `Retry-After` and this head: pauses the whole quota.
    /// Gives how long, and whether the call could be sent again before its deadline, which it never is
    /// where calls are not held back; `None` without a quota.
    pub fn throttled(
        &self,
        asked: Option<Duration>,
        headers: &HeaderMap,
        deadline: Instant,
    ) -> Option<(Duration, bool)> {
        let turn = self.0.as_ref()?;
        let (_, departed_at) = turn.sent?;
        let Seat { quota, line, charge } = turn.seat();
        quota.told(headers, departed_at);
        let pause = quota.throttled(charge, asked);
        let again = quota.returns_by(&line, turn.ticket);
        let by = deadline.min(Instant::now() + turn.wait_max);
        Some((pause, quota.is_held() && again < by))
    }

    /// The upstream answered anything else, with this head.
    pub fn answered(&self, headers: &HeaderMap) {
        if let Some(turn) = &self.0
            && let Some((_, departed_at)) = turn.sent
        {
            let Seat { quota, charge, .. } = turn.seat();
            quota.told(headers, departed_at);
            quota.answered(charge);
        }
    }

    /// Whether it is a place of this quota's.
    pub(super) fn is_in(&self, quota: Option<&Arc<Quota>>) -> bool {
        match (&self.0, quota) {
            (Some(turn), Some(quota)) => Arc::ptr_eq(&turn.seat().quota, quota),
            (held, quota) => held.is_none() && quota.is_none(),
        }
    }

    /// The same, drawn from with this credential's key.
    pub(super) fn of(mut self, credential: &Arc<str>) -> Self {
        if let Some(turn) = &mut self.0 {
            turn.credential = Some(Arc::clone(credential));
        }
        self
    }
}

impl Turn {
    /// Where it is by now, which may be another quota than it came to.
    fn seat(&self) -> Seat {
        let (quota, line) = (Arc::clone(&self.quota), Arc::clone(&self.line));
        let charge = self.sent.map_or(0, |(charge, _)| charge);
        let seat = Seat { quota, line, charge };
        seat.heir(self.credential.as_ref()).unwrap_or(seat)
    }

    /// The permit that was not used yet is the next one's.
    fn give_back(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.quota.give_back(taken);
        }
    }

    /// Goes on there.
    fn follow(&mut self) {
        if self.quota.is_left_by(self.credential.as_ref()) {
            let Seat { quota, line, charge } = self.seat();
            (self.quota, self.line) = (quota, line);
            self.sent = self.sent.map(|(_, departed_at)| (charge, departed_at));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_back();
    }
}
