//! When a request leaves that waits, or would: in time, or what it is told. Pure.

use std::time::Duration;

use super::Refusal;
use super::lines::Line;
use super::queue::{Full, Ticket};
use super::turns::{Request, Turns};

/// A call that would leave this shortly before its deadline is not let in: timers are late.
const MARGIN: Duration = Duration::from_millis(10);

/// Whether a request leaves by its deadline, and what is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    InTime,
    QuotaIsLate,
    /// The quota as such would have been in time.
    BoundIsLate,
}

impl<W> Turns<W> {
    /// Whether a request that arrives now would leave before its deadline.
    pub(super) fn foresee(&mut self, request: Request<'_>, now: Duration) -> Result<(), Refusal> {
        let Request { line, ticket, deadline, returns } = request;
        if !self.schedule.is_kept() {
            return Ok(());
        }
        if !returns && let Err(full) = self.queue.check(line.number) {
            return Err(self.refusal(line, full, now));
        }
        match self.in_time(line.number, ticket, now, deadline.saturating_sub(MARGIN)) {
            Outlook::InTime => Ok(()),
            late => Err(self.too_late(request, late, now)),
        }
    }

    /// The turn comes after the deadline. It is the tenant's own doing where the quota as such would
    /// have been in time, and where the tenant has more than its share of those who wait.
    pub(super) fn too_late(
        &mut self,
        request: Request<'_>,
        outlook: Outlook,
        now: Duration,
    ) -> Refusal {
        let Request { line, .. } = request;
        let theirs = self.queue.is_over_share(line.number) || outlook == Outlook::BoundIsLate;
        let full = if theirs { Full::Share } else { Full::Queue };
        Refusal { full: false, ..self.refusal(line, full, now) }
    }

    /// When a request leaves at the latest that comes back now, and stands where it stood.
    pub(super) fn returns_by(&mut self, line: &Line, ticket: Ticket, now: Duration) -> Duration {
        let (shared, own) = self.leaves_by(line, ticket, now);
        shared.max(own)
    }

    /// Whether a request leaves by its deadline, if nothing else comes.
    pub(super) fn in_time(
        &mut self,
        line: usize,
        ticket: Ticket,
        now: Duration,
        deadline: Duration,
    ) -> Outlook {
        let ahead = self.queue.ahead(line, ticket) + self.own_waiting as u64;
        if !self.schedule.leaves_in_time(now, ahead, deadline) {
            return Outlook::QuotaIsLate;
        }
        let (_, own) = self.leaves_by_number(line, ticket, now);
        if own <= deadline { Outlook::InTime } else { Outlook::BoundIsLate }
    }

    /// When a request leaves at the latest, if nothing else comes: as the quota goes, and as its
    /// tenant's own bound does.
    fn leaves_by(&mut self, line: &Line, ticket: Ticket, now: Duration) -> (Duration, Duration) {
        self.leaves_by_number(line.number, ticket, now)
    }

    fn leaves_by_number(
        &mut self,
        line: usize,
        ticket: Ticket,
        now: Duration,
    ) -> (Duration, Duration) {
        let ahead = self.queue.ahead(line, ticket) + self.own_waiting as u64;
        let shared = self.schedule.leaves_by(now, ahead);
        let before = self.queue.before(line, ticket);
        let Some(bound) = self.lines.bound(line) else { return (shared, now) };
        let own = bound.leaves_by(now, before);
        if own <= now {
            return (shared, now);
        }
        // Whenever the bound has room, another tenant's request may be leaving.
        let others = u32::try_from(ahead - before + 1).unwrap_or(u32::MAX);
        (shared, own.saturating_add(self.schedule.interval().saturating_mul(others)))
    }

    /// A refusal that says when there is room: when a call that comes back then, with nobody new
    /// before it, leaves at once.
    pub(super) fn refusal(&mut self, line: &Line, full: Full, now: Duration) -> Refusal {
        let (shared, own) = self.leaves_by(line, Ticket::MAX, now);
        let paused = self.schedule.paused_until() > now;
        let tenants_fault = full == Full::Share && !paused;
        let retry_after = shared.max(own).saturating_sub(now);
        Refusal { retry_after, tenants_fault, full: !paused }
    }
}
