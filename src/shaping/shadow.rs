//! What would become of calls that are not held back: the same turns once more, by the same rules, in
//! which those wait that in truth have left. Pure: `now` is an argument.
//!
//! Nothing here holds or refuses anybody. Who waits here is bounded as who waits in truth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lines::Line;
use super::queue::Ticket;
use super::report::ShadowReport;
use super::schedule::Schedule;
use super::turns::{Request, Step, Turns};
use crate::config::model::Tenant;

/// One quota's calls as they would be.
#[derive(Debug)]
pub(super) struct Shadow {
    turns: Turns<Waiting>,
    /// The last ticket that was given.
    ticket: Ticket,
    /// Those who wait, the most pressing first.
    deadlines: BTreeMap<(Duration, Ticket), Waiting>,
    /// Up to here it was followed what becomes of those who wait.
    at: Duration,
    began_at: Duration,
    counts: Counts,
    /// Since they were last taken.
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone)]
struct Waiting {
    line: Arc<Line>,
    ticket: Ticket,
    arrived_at: Duration,
    deadline: Duration,
}

/// What would have become of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It would have left when it came.
    AtOnce,
    /// It would have left so much later.
    Waited(Duration),
    /// It would have been refused.
    Refused,
}

#[derive(Debug, Default)]
struct Counts {
    at_once: u64,
    waited: u64,
    refused: u64,
    longest: Duration,
}

impl Outcome {
    /// A metric label.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::Waited(_) => "would_wait",
            Self::Refused => "would_refuse",
        }
    }
}

impl Waiting {
    fn request(&self) -> Request<'_> {
        let (line, ticket, deadline) = (&self.line, self.ticket, self.deadline);
        Request { line, ticket, deadline, returns: false }
    }
}

impl Shadow {
    /// Goes on from `schedule`, as if that were kept from now on.
    pub(super) fn new(mut schedule: Schedule, now: Duration) -> Self {
        schedule.keep(true);
        let (turns, counts) = (Turns::new(schedule), Counts::default());
        let (deadlines, outcomes) = (BTreeMap::new(), Vec::new());
        Self { turns, ticket: 0, deadlines, at: now, began_at: now, counts, outcomes }
    }

    /// A line for each of these tenants, and places for so many calls.
    pub(super) fn arrange(&mut self, tenants: &[Tenant], length_max: usize, now: Duration) {
        // Each line is found by its tenant's name.
        drop(self.turns.arrange(tenants, length_max, now));
    }

    /// What is known of the limit from elsewhere than from calls.
    pub(super) const fn schedule(&mut self) -> &mut Schedule {
        &mut self.turns.schedule
    }

    /// A call of this tenant arrives, which would have to leave by `deadline`.
    pub(super) fn arrive(&mut self, tenant: &str, deadline: Duration, now: Duration) {
        self.advance(now);
        let Some(line) = self.turns.lines.of_tenant(tenant) else { return };
        self.ticket += 1;
        let ticket = self.ticket;
        let waiting = Waiting { line: Arc::clone(&line), ticket, arrived_at: now, deadline };
        if self.turns.foresee(waiting.request(), now).is_err() {
            self.came_to(Outcome::Refused);
        } else if self.turns.admit(&line, now).is_some() {
            self.came_to(Outcome::AtOnce);
        } else if self.turns.push(waiting.request(), waiting.clone(), now).is_ok() {
            self.deadlines.insert((deadline, ticket), waiting);
            self.tell_displaced();
        } else {
            self.came_to(Outcome::Refused);
        }
    }

    /// Follows what becomes of those who wait, until now.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(next) = self.turns.whose_turn(self.at).cloned() {
            let Some(turn_at) = self.look(&next) else { continue };
            // Who is not let by the deadline is told then.
            let pressing = self.deadlines.first_key_value();
            let pressing =
                pressing.filter(|((by, _), _)| *by <= turn_at).map(|(_, one)| one.clone());
            let at = pressing.as_ref().map_or(turn_at, |one| one.deadline).max(self.at);
            if at > now {
                break;
            }
            self.at = at;
            if let Some(pressing) = pressing {
                self.look(&pressing);
            }
        }
        self.at = self.at.max(now);
    }

    /// What would have become of calls, since this was last asked.
    pub(super) fn take_outcomes(&mut self) -> Vec<Outcome> {
        std::mem::take(&mut self.outcomes)
    }

    /// What it looks like now.
    pub(super) fn report(&self, now: Duration) -> ShadowReport {
        let Counts { at_once, waited, refused, longest } = self.counts;
        ShadowReport {
            for_seconds: now.saturating_sub(self.began_at).as_secs(),
            at_once,
            would_wait: waited,
            would_refuse: refused,
            waiting: self.turns.len(),
            longest_wait_seconds: longest.as_secs_f64(),
        }
    }

    /// Looks at the clock for one who waits: when to do so again, unless the wait is over.
    fn look(&mut self, waiting: &Waiting) -> Option<Duration> {
        let outcome = match self.turns.step(waiting.request(), self.at) {
            Step::Leave(_) => Outcome::Waited(self.at.saturating_sub(waiting.arrived_at)),
            Step::Later(at) if self.at < waiting.deadline => return Some(at),
            Step::Wait if self.at < waiting.deadline => return Some(waiting.deadline),
            Step::Refuse(_) | Step::Later(_) | Step::Wait => {
                self.turns.remove(&waiting.line, waiting.ticket);
                Outcome::Refused
            }
        };
        self.deadlines.remove(&(waiting.deadline, waiting.ticket));
        self.came_to(outcome);
        if outcome == Outcome::Refused {
            self.tell_displaced();
        }
        None
    }

    /// Others came whose turn is before that of somebody who is too late for it.
    fn tell_displaced(&mut self) {
        while let Some(displaced) = self.turns.displaced(self.at).cloned() {
            self.turns.remove(&displaced.line, displaced.ticket);
            self.deadlines.remove(&(displaced.deadline, displaced.ticket));
            self.came_to(Outcome::Refused);
        }
    }

    fn came_to(&mut self, outcome: Outcome) {
        let Counts { at_once, waited, refused, longest } = &mut self.counts;
        match outcome {
            Outcome::AtOnce => *at_once += 1,
            Outcome::Waited(wait) => {
                *waited += 1;
                *longest = wait.max(*longest);
            }
            Outcome::Refused => *refused += 1,
        }
        self.outcomes.push(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaping::pace::{Start, Terms};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// 61 a minute, for tenants 0 and 1.
    fn shadow() -> Shadow {
        let (window, spread, tick) = (ms(60_000), ms(250), ms(0));
        let terms = Terms { limit: 61, window, spread, tick, burst: None };
        let mut shadow = Shadow::new(Schedule::new(terms, None, Start::Idle, ms(0)), ms(0));
        let tenants = ["0", "1"].map(|name| Tenant {
            name: name.into(),
            credentials: Vec::new(),
            callers: Vec::new(),
            weight: 1,
            limit: None,
        });
        shadow.arrange(&tenants, 100, ms(0));
        shadow
    }

    fn come_to(outcomes: &[Outcome], what: &str) -> usize {
        outcomes.iter().filter(|outcome| outcome.as_str() == what).count()
    }

    #[test]
    fn what_does_not_fit_would_wait_and_what_would_be_too_late_would_be_refused() {
        let mut shadow = shadow();
        for _ in 0..60 {
            shadow.arrive("0", ms(25_000), ms(0));
        }
        let at_first = shadow.take_outcomes();
        // A fifth of the limit at once, then one a second and a little for twenty-five seconds.
        assert_eq!(come_to(&at_first, "at_once"), 12);
        assert_eq!(come_to(&at_first, "would_refuse"), 24);
        shadow.advance(ms(10_500));
        let then = shadow.take_outcomes();
        assert_eq!(come_to(&then, "would_wait"), 10, "{then:?}");
        shadow.advance(ms(60_000));
        assert_eq!(shadow.take_outcomes().len(), 14);
        let report = shadow.report(ms(60_000));
        assert_eq!((report.at_once, report.would_wait, report.would_refuse), (12, 24, 24));
        assert!((23.0..25.0).contains(&report.longest_wait_seconds), "{report:?}");
        assert_eq!((report.waiting, report.for_seconds), (0, 60));
    }

    #[test]
    fn requests_that_nobody_asked_for_take_room_and_an_unknown_tenant_is_no_call() {
        let mut shadow = shadow();
        shadow.schedule().add(20, ms(0));
        shadow.arrive("0", ms(25_000), ms(0));
        shadow.arrive("somebody", ms(25_000), ms(0));
        shadow.advance(ms(25_000));
        let outcomes = shadow.take_outcomes();
        assert!(
            matches!(outcomes[..], [Outcome::Waited(wait)] if wait > ms(8_000)),
            "{outcomes:?}"
        );
    }

    #[test]
    fn who_would_be_displaced_by_another_tenant_would_be_refused_by_the_deadline_at_the_latest() {
        let mut shadow = shadow();
        shadow.schedule().add(12, ms(0));
        // Ten let in who could leave in time; then another tenant takes every other turn.
        for patience in [3_000, 20_000, 20_000, 20_000] {
            shadow.arrive("0", ms(patience), ms(0));
        }
        for _ in 0..3 {
            shadow.arrive("1", ms(20_000), ms(0));
        }
        assert_eq!(shadow.take_outcomes(), []);
        shadow.advance(ms(20_000));
        let outcomes = shadow.take_outcomes();
        assert_eq!(outcomes.len(), 7, "{outcomes:?}");
        assert_eq!(shadow.report(ms(20_000)).waiting, 0);
    }
}
