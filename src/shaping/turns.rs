//! Whose turn it is, and from when on: a quota's schedule, the bounds that tenants have of their own
//! inside it, and those who wait. Pure: `now` is an argument.
//!
//! A tenant whose own bound has no room is passed over, and keeps its turns. Nothing here waits or
//! wakes anybody: that is `quota.rs`.

use std::sync::Arc;
use std::time::Duration;

use super::Refusal;
use super::lines::{Line, Lines};
use super::outlook::Outlook;
use super::queue::{FairQueue, Ticket};
use super::report::WaitingReport;
use super::schedule::{Charge, Schedule};
use super::state_file::Keeper;
use crate::config::model::Tenant;

/// One quota's turns.
#[derive(Debug)]
pub(super) struct Turns<W> {
    pub(super) schedule: Schedule,
    pub(super) lines: Lines,
    pub(super) queue: FairQueue<Waiting<W>>,
    /// Writes down what leaves; `None`: a restart forgets it.
    pub(super) keeper: Option<Keeper>,
    /// Calls of the sidecar's own that wait, ahead of the queue.
    pub(super) own_waiting: usize,
}

#[derive(Debug)]
pub(super) struct Waiting<W> {
    deadline: Duration,
    waker: W,
}

/// A request that asks for its turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) line: &'a Line,
    pub(super) ticket: Ticket,
    pub(super) deadline: Duration,
    /// It had its turn, or a place in the queue, before.
    pub(super) returns: bool,
}

/// What a request was charged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) charge: Charge,
    bound: Option<(usize, Charge)>,
}

/// What a waiting request does next.
pub(super) enum Step {
    Leave(Taken),
    /// It is its turn, and it may leave then at the earliest.
    Later(Duration),
    /// Others are before it.
    Wait,
    Refuse(Refusal),
}

/// What a call of the sidecar's own does next.
pub(super) enum OwnStep {
    Leave(Charge),
    Later(Duration),
    Refuse(Refusal),
}

impl<W> Turns<W> {
    /// Turns with nobody waiting; [`Self::arrange`] says for whom.
    pub(super) fn new(schedule: Schedule) -> Self {
        let queue = FairQueue::new(&[], 0);
        Self { schedule, lines: Lines::default(), queue, keeper: None, own_waiting: 0 }
    }

    /// A line for each of these tenants, in their order. Who has one keeps it, and those who wait in
    /// it; a bound that is as before goes on.
    pub(super) fn arrange(
        &mut self,
        tenants: &[Tenant],
        length_max: usize,
        now: Duration,
    ) -> Vec<Arc<Line>> {
        self.queue.resize(length_max);
        self.lines.arrange(&mut self.queue, tenants, now)
    }

    /// See [`Lines::line_for`].
    pub(super) fn line_for(&mut self, name: &Arc<str>) -> Arc<Line> {
        self.lines.line_for(&mut self.queue, name)
    }

    /// Takes a permit at once, if nobody waits.
    pub(super) fn admit(&mut self, line: &Line, now: Duration) -> Option<Taken> {
        if self.schedule.is_kept()
            && (self.own_waiting > 0
                || !self.queue.is_empty()
                || self.lines.bound(line.number).is_some_and(|b| b.check(now).is_err()))
        {
            return None;
        }
        self.charge(line.number, now).ok()
    }

    /// Puts a request in its line.
    pub(super) fn push(
        &mut self,
        request: Request<'_>,
        waker: W,
        now: Duration,
    ) -> Result<(), Refusal> {
        let Request { line, ticket, deadline, returns } = request;
        let waiting = Waiting { deadline, waker };
        let pushed = if returns {
            self.queue.put_back(line.number, ticket, waiting)
        } else {
            self.queue.push(line.number, ticket, waiting)
        };
        pushed.map_err(|full| self.refusal(line, full, now))
    }

    /// What this waiting request does now.
    pub(super) fn step(&mut self, request: Request<'_>, now: Duration) -> Step {
        let Request { line, ticket, deadline, .. } = request;
        if !self.schedule.is_kept()
            && let Ok(taken) = self.charge(line.number, now)
        {
            self.queue.remove(line.number, ticket);
            return Step::Leave(taken);
        }
        let next = self.next(now).filter(|_| self.own_waiting == 0);
        let next = next.filter(|next| (next.line, next.ticket) == (line.number, ticket));
        let later = match next {
            Some(next) if next.at > now => Some(next.at),
            Some(next) => match self.charge(next.line, now) {
                Ok(taken) => {
                    self.queue.pop_from(next.line);
                    return Step::Leave(taken);
                }
                Err(later) => Some(later),
            },
            None => None,
        };
        // The upstream may have asked for silence since the request was let in, or others came whose
        // turn is before it.
        let outlook = self.in_time(line.number, ticket, now, deadline);
        if now >= deadline || outlook != Outlook::InTime {
            return Step::Refuse(self.too_late(request, outlook, now));
        }
        later.map_or(Step::Wait, Step::Later)
    }

    /// What a call of the sidecar's own does now, that is ahead of everybody.
    pub(super) fn own_step(&mut self, now: Duration, deadline: Duration) -> OwnStep {
        match self.schedule.admit(now) {
            Ok(charge) => {
                self.keep(now);
                OwnStep::Leave(charge)
            }
            Err(later) if later <= deadline => OwnStep::Later(later),
            Err(_too_late) => {
                let retry_after = self.schedule.leaves_by(now, 0).saturating_sub(now);
                OwnStep::Refuse(Refusal { retry_after, full: false, tenants_fault: false })
            }
        }
    }

    /// Whoever has to look at the clock now: the request whose turn it is.
    pub(super) fn whose_turn(&mut self, now: Duration) -> Option<&W> {
        let next = self.next(now).filter(|_| self.own_waiting == 0)?;
        self.queue.first(next.line).map(|waiting| &waiting.waker)
    }

    /// Somebody who would miss the deadline, because others came whose turn is before it. The last of
    /// a line is the first that it happens to.
    pub(super) fn displaced(&mut self, now: Duration) -> Option<&W> {
        let tails = self.queue.tails().map(|(line, ticket, last)| (line, ticket, last.deadline));
        let tails: Vec<_> = tails.collect();
        let late = tails.into_iter().find(|(line, ticket, deadline)| {
            self.in_time(*line, *ticket, now, *deadline) != Outlook::InTime
        });
        let (line, ..) = late?;
        let mut tails = self.queue.tails();
        tails.find(|(of, ..)| *of == line).map(|(_, _, last)| &last.waker)
    }

    /// Everybody who waits.
    pub(super) fn everybody(&self) -> impl Iterator<Item = &W> {
        self.queue.iter().map(|waiting| &waiting.waker)
    }

    /// Takes a request out that no longer waits. Gives whether it did.
    pub(super) fn remove(&mut self, line: &Line, ticket: Ticket) -> bool {
        self.queue.remove(line.number, ticket).is_some()
    }

    /// The request leaves a little later than it was charged; false when it must not any more.
    pub(super) fn restamp(&mut self, taken: Taken, now: Duration) -> bool {
        let leaves = self.schedule.restamp(taken.charge, now);
        if leaves {
            self.keep(now);
        }
        if leaves
            && let Some((line, charge)) = taken.bound
            && let Some(bound) = self.lines.bound(line)
        {
            // A bound of our own knows no pause.
            let _leaves = bound.restamp(charge, now);
        }
        leaves
    }

    /// Writes down how the schedule stands.
    pub(super) fn keep(&self, now: Duration) {
        if let Some(keeper) = &self.keeper {
            keeper.write(&self.schedule, now);
        }
    }

    /// The request does not leave.
    pub(super) fn give_back(&mut self, taken: Taken, now: Duration) {
        self.schedule.give_back(taken.charge, now);
        if let Some((line, charge)) = taken.bound
            && let Some(bound) = self.lines.bound(line)
        {
            bound.give_back(charge, now);
        }
    }

    /// Whose calls wait, and how many.
    pub(super) fn waiting(&self) -> Vec<WaitingReport> {
        self.lines.waiting(&self.queue)
    }

    /// How many wait.
    pub(super) const fn len(&self) -> usize {
        self.queue.len()
    }

    fn next(&mut self, now: Duration) -> Option<Next> {
        let mut next: Option<Next> = None;
        for (line, ticket) in self.queue.heads() {
            let bound = self.lines.bound(line);
            let at = bound.and_then(|bound| bound.check(now).err()).unwrap_or(now);
            if next.is_none_or(|next| at < next.at) {
                next = Some(Next { line, ticket, at });
            }
            if at <= now {
                break;
            }
        }
        next
    }

    fn charge(&mut self, line: usize, now: Duration) -> Result<Taken, Duration> {
        let charge = self.schedule.admit(now)?;
        let bound = self.lines.bound(line).and_then(|bound| bound.admit(now).ok());
        Ok(Taken { charge, bound: bound.map(|charge| (line, charge)) })
    }
}

/// The first of a line, and when it may leave as far as its tenant's own bound goes.
#[derive(Debug, Clone, Copy)]
struct Next {
    line: usize,
    ticket: Ticket,
    at: Duration,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::model::Rate;
    use crate::shaping::pace::{Start, Terms};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn tenant(name: usize, weight: u32, limit: Option<u32>) -> Tenant {
        let limit = limit.map(|calls| Rate { calls, per: ms(60_000) });
        let (credentials, callers) = (Vec::new(), Vec::new());
        Tenant { name: name.to_string().into(), credentials, callers, weight, limit }
    }

    fn turns(limit: u32, tenants: &[Tenant]) -> (Turns<usize>, Vec<Arc<Line>>) {
        let terms = Terms { limit, window: ms(60_000), spread: ms(250), tick: ms(0), burst: None };
        let mut turns = Turns::new(Schedule::new(terms, None, Start::Unknown, ms(0)));
        let lines = turns.arrange(tenants, 1000, ms(0));
        (turns, lines)
    }

    const fn patient(line: &Line, ticket: Ticket) -> Request<'_> {
        Request { line, ticket, deadline: Duration::MAX, returns: false }
    }

    /// Lets everybody leave who waits: which request of which line leaves when.
    fn drain(turns: &mut Turns<usize>, lines: &[Arc<Line>], mut now: Duration) -> Vec<Left> {
        let mut left = Vec::new();
        while let Some(next) = turns.next(now) {
            let (at, ticket) = (turns.line_index(lines, next.line), next.ticket);
            match turns.step(patient(&lines[at], ticket), now) {
                Step::Leave(_) => left.push(Left { line: at, ticket, at: now }),
                Step::Later(later) => now = later,
                Step::Wait | Step::Refuse(_) => panic!("it is its turn"),
            }
        }
        left
    }

    #[derive(Debug)]
    struct Left {
        line: usize,
        ticket: Ticket,
        at: Duration,
    }

    impl Turns<usize> {
        fn line_index(&self, lines: &[Arc<Line>], number: usize) -> usize {
            lines.iter().position(|line| line.number == number).unwrap()
        }
    }

    #[test]
    fn a_tenant_whose_bound_is_used_up_is_passed_over_and_keeps_its_turn() {
        let (mut turns, lines) = turns(601, &[tenant(0, 1, Some(1)), tenant(1, 1, None)]);
        for ticket in 0..6 {
            let line = usize::from(ticket >= 2);
            turns.push(patient(&lines[line], ticket), 0, ms(0)).unwrap();
        }
        let left = drain(&mut turns, &lines, ms(0));
        let order: Vec<_> = left.iter().map(|left| left.line).collect();
        assert_eq!(order, [0, 1, 1, 1, 1, 0]);
        assert!(left[4].at < ms(1000) && left[5].at > ms(60_000), "{left:?}");
    }

    proptest! {
        #[test]
        fn nobody_leaves_later_than_it_was_told(
            limit in 20_u32..300,
            weights in prop::collection::vec((1_u32..4, prop::option::of(5_u32..100)), 1..4),
            waiting in prop::collection::vec(0_usize..4, 1..60),
            asking in 0_usize..4,
        ) {
            let tenants: Vec<_> = weights
                .iter()
                .enumerate()
                .map(|(name, (weight, limit))| tenant(name, *weight, *limit))
                .collect();
            let (mut turns, lines) = turns(limit, &tenants);
            for (ticket, line) in (0..).zip(waiting) {
                turns.push(patient(&lines[line % lines.len()], ticket), 0, ms(0)).unwrap();
            }
            let line = &lines[asking % lines.len()];
            let told = turns.returns_by(line, 1000, ms(0));
            turns.push(patient(line, 1000), 0, ms(0)).unwrap();
            let left = drain(&mut turns, &lines, ms(0));
            let at = left.iter().find(|left| left.ticket == 1000).unwrap().at;
            prop_assert!(at <= told + ms(1), "left at {at:?}, told {told:?}");
        }

        #[test]
        fn each_tenants_own_bound_holds_in_every_window(
            bound in 2_u32..30,
            others in 0_usize..40,
        ) {
            let (mut turns, lines) = turns(300, &[tenant(0, 2, Some(bound)), tenant(1, 1, None)]);
            for ticket in 0..100 {
                turns.push(patient(&lines[0], ticket), 0, ms(0)).unwrap();
            }
            for ticket in 0..others {
                turns.push(patient(&lines[1], 100 + ticket as u64), 0, ms(0)).unwrap();
            }
            let left = drain(&mut turns, &lines, ms(0));
            let own: Vec<_> = left.iter().filter(|left| left.line == 0).map(|left| left.at).collect();
            prop_assert_eq!(own.len(), 100);
            let within = own.windows(bound as usize + 1);
            prop_assert!(within.into_iter().all(|w| w[bound as usize] - w[0] > ms(60_000)));
        }
    }
}
