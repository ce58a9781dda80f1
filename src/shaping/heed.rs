//! What the upstream's answers change about a schedule: a refusal is a pause and a lesson, and what
//! it says of the limit may be a debt. Pure.

use std::time::Duration;

use super::learn::{Cause, Lesson};
use super::learner::Refused;
use super::model_error::difference;
use super::pace::{Pace, Start};
use super::pause::Throttle;
use super::schedule::Schedule;
use super::told::Told;

/// How long the rate is half of what it could be after a pause.
const SLOW: Duration = Duration::from_secs(5);

/// What a refusal by the upstream leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Nothing leaves before.
    pub until: Duration,
    /// Why it was.
    pub cause: Cause,
    /// What it taught.
    pub lesson: Option<Lesson>,
}

impl Schedule {
    /// The upstream answered `429` to the request with this charge, with this `Retry-After`.
    pub fn throttled(&mut self, now: Duration, number: u64, asked: Option<Duration>) -> Throttled {
        let is_new = self.pause.is_new(number);
        let least = self.pace.leaves_by(now, 0).saturating_sub(now).max(self.pace.interval());
        let throttle = Throttle { number, newest: self.charges, asked, least };
        let until = self.pause.throttled(now, throttle);
        if !is_new {
            self.pace.calm(until, SLOW);
            return Throttled { until, cause: self.learner.cause(), lesson: None };
        }
        let (level, debt) = (self.pace.envelope().level(now), self.pace.debt(now));
        let refused = Refused { terms: self.pace.terms(), level, debt, is_kept: self.is_kept };
        let (cause, lesson) = self.learner.refused(now, refused);
        if lesson.is_some() {
            let terms = self.learner.terms();
            self.pace.tighten(terms, now);
            if let Some(also) = &mut self.also {
                also.tighten(terms, now);
            }
        }
        self.pace.calm(until, SLOW);
        Throttled { until, cause, lesson }
    }

    /// An answer to a request that left at `departed_at` says what is left of the limit. Less than
    /// our own requests can have left was used by others, and is added to the debt. Gives how many.
    pub fn told(&mut self, told: Told, departed_at: Duration, now: Duration) -> u32 {
        let terms = self.pace.terms();
        let full = u64::from(self.limit()) + u64::from(self.others);
        let is_ours = match told.window {
            Some(window) => window == terms.window,
            None => told.limit == full,
        };
        // What was sent in the windows before a slow answer is not known any more.
        let is_fresh = now <= departed_at + self.pace.envelope().cell() * 4;
        if !is_ours || !is_fresh {
            return 0;
        }
        let used = full.saturating_sub(told.remaining);
        let (counted, others) = (self.pace.envelope().level(departed_at), u64::from(self.others));
        self.model_error.note(difference(used, counted, others), terms.window, now);
        let known = counted + others;
        let foreign = used.saturating_sub(known).min(u64::from(terms.limit));
        // One: it rounds.
        if foreign <= 1 {
            return 0;
        }
        let count = u32::try_from(foreign).unwrap_or(u32::MAX);
        self.pace.add(count, now);
        self.learner.note_foreign(foreign, now);
        count
    }

    /// What was learnt, and when; and how many requests of others count at present.
    #[must_use]
    pub fn learnt(&self, now: Duration) -> (Vec<(Lesson, Duration)>, u64) {
        (self.learner.lessons().collect(), self.learner.foreign(now))
    }

    /// What the upstream said of late that is used, less what we count, at the most; `None`: it said
    /// nothing.
    #[must_use]
    pub fn model_error(&self, now: Duration) -> Option<i64> {
        self.model_error.greatest(self.window(), now)
    }

    /// A request was held up for so long, for no reason of the schedule's.
    pub fn note_delay(&mut self, delay: Duration, now: Duration) {
        self.learner.note_delay(delay, now);
    }

    /// The upstream answered the request with this charge otherwise: true when that ends the wait of
    /// others.
    pub fn answered(&mut self, number: u64, now: Duration) -> bool {
        if self.learner.recover(now) {
            // A lesson of the first limit's alone.
            let history = self.pace.history(now);
            self.pace = Pace::new(self.learner.terms(), Start::Idle, now);
            self.pace.recall(&history, now);
        }
        self.pause.answered(number)
    }

    /// No bursts for two windows.
    pub fn calm(&mut self, now: Duration) {
        self.pace.calm(now, Duration::ZERO);
    }

    /// Forgets the upstream's refusals and what they taught, not what was sent.
    pub fn forget(&mut self, now: Duration) {
        self.pause.forget(self.charges);
        self.pace.forget();
        let terms = self.learner.forget();
        if terms != self.pace.terms() {
            let also = self.also.as_ref().map(|also| (also.limit, also.window));
            self.rebuild(terms, also, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaping::pace::Terms;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn terms() -> Terms {
        let spread = ms(250);
        Terms { limit: 100, window: ms(60_000), spread, tick: ms(0), burst: None }
    }

    /// When requests leave that all arrived at `now`.
    fn leave(schedule: &mut Schedule, mut now: Duration, count: usize) -> Vec<Duration> {
        let mut left = Vec::new();
        while left.len() < count {
            match schedule.admit(now) {
                Ok(charge) => left.push(charge.at),
                Err(later) => now = later,
            }
        }
        left
    }

    #[test]
    fn a_throttle_is_silence_then_a_probe_then_half_the_rate() {
        let mut schedule = Schedule::new(terms(), None, Start::Idle, ms(0));
        assert_eq!(leave(&mut schedule, ms(0), 10), [ms(0); 10]);
        assert_eq!(schedule.throttled(ms(100), 7, Some(ms(9_000))).until, ms(10_100));
        assert_eq!(leave(&mut schedule, ms(200), 1), [ms(10_100)]);
        assert!(!schedule.answered(9, ms(11_500)), "it left before the pause");
        assert!(schedule.admit(ms(11_500)).is_err(), "the probe's answer is awaited");
        assert!(schedule.answered(11, ms(11_550)));
        let left = leave(&mut schedule, ms(11_600), 3);
        assert!(left[2] - left[1] > ms(1200), "{left:?}");
    }

    #[test]
    fn a_throttle_that_is_forgotten_is_no_pause_and_what_was_sent_still_counts() {
        let mut schedule = Schedule::new(terms(), None, Start::Idle, ms(0));
        let mut left = leave(&mut schedule, ms(0), 20);
        schedule.throttled(ms(100), 7, Some(ms(600_000)));
        schedule.forget(ms(200));
        left.extend(leave(&mut schedule, ms(200), 180));
        assert!(left[20] < ms(20_000), "{:?}", left[20]);
        let window = ms(60_250);
        assert!(left.windows(101).all(|all| all[100] - all[0] >= window), "{left:?}");
    }

    /// Everything that may leave, until the upstream refuses the last of it.
    fn refused(schedule: &mut Schedule, now: Duration) -> Throttled {
        let mut number = 0;
        while let Ok(charge) = schedule.admit(now) {
            number = charge.number;
        }
        schedule.throttled(now, number, None)
    }

    #[test]
    fn a_refused_burst_is_half_as_large_from_then_on_until_it_is_forgotten() {
        let mut schedule = Schedule::new(terms(), None, Start::Idle, ms(0));
        let mut now = ms(0);
        for burst in [12, 7, 4, 3] {
            let throttled = refused(&mut schedule, now);
            assert_eq!(throttled.cause, Cause::SmallerBurst);
            assert_eq!(throttled.lesson, Some(Lesson::Burst(burst)));
            now += ms(600_000);
            let _probe = schedule.admit(now).map(|probe| schedule.answered(probe.number, now));
            now += ms(600_000);
        }
        let throttled = refused(&mut schedule, now);
        assert_eq!((throttled.cause, throttled.lesson), (Cause::Unknown, Some(Lesson::Paced)));
        now += ms(600_000);
        schedule.forget(now);
        assert!(schedule.learnt(now).0.is_empty());
        now += ms(600_000);
        assert_eq!(leave(&mut schedule, now, 20), [now; 20]);
    }

    #[test]
    fn a_refusal_close_to_the_limit_makes_the_windows_wider() {
        let mut schedule = Schedule::new(terms(), None, Start::Idle, ms(0));
        let left = leave(&mut schedule, ms(0), 110);
        let now = *left.last().unwrap();
        let paced = schedule.interval();
        let throttled = schedule.throttled(now, 110, Some(ms(1000)));
        assert_eq!(
            (throttled.cause, throttled.lesson),
            (Cause::Ours, Some(Lesson::Tick(ms(1000))))
        );
        assert_eq!(schedule.throttled(now, 109, None).lesson, None, "it is the same throttle");
        assert!(schedule.interval() > paced);
    }

    const fn told(remaining: u64) -> Told {
        Told { limit: 100, remaining, window: None }
    }

    #[test]
    fn what_others_used_is_debt_once_and_no_lesson_is_drawn_from_it() {
        let mut schedule = Schedule::new(terms(), None, Start::Idle, ms(0));
        let left = leave(&mut schedule, ms(0), 5);
        schedule.told(told(95), left[4], ms(10));
        assert_eq!(schedule.learnt(ms(10)).1, 0, "those were ours");
        schedule.told(told(60), left[4], ms(20));
        schedule.told(told(60), left[4], ms(30));
        assert_eq!(schedule.learnt(ms(30)).1, 35);
        let next = leave(&mut schedule, ms(30), 1)[0];
        assert!(
            (ms(12_000)..ms(13_000)).contains(&next),
            "forty, of which twenty may be debt: {next:?}"
        );
        let throttled = schedule.throttled(next, 6, None);
        assert_eq!((throttled.cause, throttled.lesson), (Cause::ForeignUse, None));
    }

    #[test]
    fn what_is_told_of_another_limit_or_too_late_or_of_our_own_share_says_nothing() {
        let fresh = || Schedule::new(terms(), None, Start::Idle, ms(0));
        for (told, departed, others) in [
            (Told { limit: 1000, ..told(0) }, ms(5000), 0),
            (Told { window: Some(ms(1000)), ..told(0) }, ms(5000), 0),
            (told(0), ms(1000), 0),
            (Told { limit: 300, ..told(100) }, ms(5000), 200),
            (told(99), ms(5000), 0),
        ] {
            let mut schedule = fresh().beside(others);
            schedule.told(told, departed, ms(5010));
            assert_eq!(schedule.learnt(ms(5010)).1, 0, "{told:?}");
        }
        let mut schedule = fresh();
        schedule.told(Told { limit: 7, window: Some(ms(60_000)), ..told(7) }, ms(1), ms(2));
        assert_eq!(schedule.learnt(ms(2)).1, 93, "the limit itself is lower");
    }
}
