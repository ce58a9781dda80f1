//! What one schedule watches, and what it learnt from it. Pure.

use std::time::Duration;

use super::learn::{Cause, Lesson, Lessons, Seen};
use super::pace::Terms;

/// What one schedule watches, to learn from it.
#[derive(Debug, Clone)]
pub struct Learner {
    configured: Terms,
    lessons: Lessons,
    /// Until then, something may count that we know nothing of.
    unknown_until: Duration,
    /// For how long a request was held up, and when that was.
    held_up: Option<(Duration, Duration)>,
    /// How many requests of others there were, and when they were told of last.
    foreign: Option<(u64, Duration)>,
    cause: Cause,
}

/// How a schedule stood when the upstream refused a request.
#[derive(Debug, Clone, Copy)]
pub struct Refused {
    /// What it keeps.
    pub terms: Terms,
    /// The most that any limiter can have counted, others' requests included.
    pub level: u64,
    /// How many requests too early the last one left.
    pub debt: u32,
    /// Whether it held anything back.
    pub is_kept: bool,
}

impl Learner {
    /// Nothing was learnt. Until `unknown_until` it is not known what was sent before.
    #[must_use]
    pub fn new(configured: Terms, unknown_until: Duration) -> Self {
        let (lessons, cause) = (Lessons::default(), Cause::Unknown);
        Self { configured, lessons, unknown_until, held_up: None, foreign: None, cause }
    }

    /// Other terms are configured: what was learnt was about the old ones.
    pub fn change(&mut self, configured: Terms) {
        (self.configured, self.lessons) = (configured, Lessons::default());
    }

    /// Nothing was learnt.
    pub fn forget(&mut self) -> Terms {
        self.lessons = Lessons::default();
        self.configured
    }

    /// What was learnt, and when.
    pub fn lessons(&self) -> impl Iterator<Item = (Lesson, Duration)> {
        self.lessons.iter()
    }

    /// A request was held up for so long.
    pub fn note_delay(&mut self, delay: Duration, now: Duration) {
        let known = self.held_up.filter(|held_up| self.counts(held_up.1, now));
        if known.is_none_or(|(longest, _)| delay >= longest) {
            self.held_up = Some((delay, now));
        }
    }

    /// Others sent so many requests.
    pub fn note_foreign(&mut self, count: u64, now: Duration) {
        self.foreign = Some((self.foreign(now).saturating_add(count), now));
    }

    /// How many requests of others count at present.
    #[must_use]
    pub fn foreign(&self, now: Duration) -> u64 {
        self.foreign.filter(|foreign| self.counts(foreign.1, now)).map_or(0, |(count, _)| count)
    }

    /// The upstream refused a request.
    pub fn refused(&mut self, now: Duration, refused: Refused) -> (Cause, Option<Lesson>) {
        let Refused { terms, level, debt, is_kept } = refused;
        let foreign = self.foreign(now);
        let held_up = self.held_up.filter(|held_up| self.counts(held_up.1, now));
        let seen = Seen {
            terms,
            limit: self.configured.limit,
            level: level.saturating_sub(foreign),
            debt,
            held_up: held_up.map_or(Duration::ZERO, |(delay, _)| delay),
            is_shared: foreign > 0,
            is_past_known: now >= self.unknown_until,
            is_kept,
        };
        let (cause, lesson) = self.lessons.learn(now, &seen);
        self.cause = cause;
        (cause, lesson)
    }

    /// Gives back a part of what was learnt, when it is time. Gives whether there is something.
    pub fn recover(&mut self, now: Duration) -> bool {
        self.lessons.recover(now, self.configured.window)
    }

    /// The terms without what was learnt.
    #[must_use]
    pub const fn configured(&self) -> Terms {
        self.configured
    }

    /// Why the last refusal was, for those that belong to it.
    #[must_use]
    pub const fn cause(&self) -> Cause {
        self.cause
    }

    /// The terms to keep.
    #[must_use]
    pub fn terms(&self) -> Terms {
        self.lessons.applied_to(self.configured)
    }

    /// Whether what was at `at` can still be in a limiter's count.
    fn counts(&self, at: Duration, now: Duration) -> bool {
        now <= at + self.configured.window * 2 + self.configured.spread
    }
}
