//! One quota's whole schedule: its limit, a second one where there is, and the upstream's pauses.
//! Pure: `now` is an argument.

use std::time::Duration;

use super::also::Also;
use super::envelope::Envelope;
use super::history::{History, Marks, Sent};
use super::learner::Learner;
use super::model_error::ModelError;
use super::pace::{Pace, Start, Terms};
use super::pause::Pause;

/// When requests of one quota may leave.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub(super) pace: Pace,
    pub(super) also: Option<Also>,
    pub(super) pause: Pause,
    pub(super) charges: u64,
    pub(super) learner: Learner,
    pub(super) model_error: ModelError,
    /// From when on it was not looked at yet whether the limit was nearly used.
    pub(super) near_from: Duration,
    /// What others may use of the limit, beside our share.
    pub(super) others: u32,
    /// False: what is sent is counted, and nothing is held back.
    pub(super) is_kept: bool,
}

/// A request that was charged, and may not have left yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    /// When.
    pub at: Duration,
    /// Counted from 1.
    pub number: u64,
    /// What it costs in time.
    cost: Duration,
}

impl Schedule {
    /// A schedule that begins at `now`; `also` is a second limit and its window.
    #[must_use]
    pub fn new(terms: Terms, also: Option<(u32, Duration)>, start: Start, now: Duration) -> Self {
        let also = also.map(|also| Also::new(terms, also));
        let unknown_until = match start {
            Start::Unknown => now + terms.window * 2 + terms.spread,
            Start::Idle | Start::UsedUp => Duration::ZERO,
        };
        let learner = Learner::new(terms, unknown_until);
        Self { also, ..Self::of(Pace::new(terms, start, now), learner, now) }
    }

    /// The same, beside others who may use so many requests of the limit.
    #[must_use]
    pub fn beside(self, others: u32) -> Self {
        Self { others, ..self }
    }

    /// The schedule of a bound that is our own: see [`Pace::own`].
    #[must_use]
    pub fn own(limit: u32, window: Duration, now: Duration) -> Self {
        let pace = Pace::own(limit, window, now);
        let learner = Learner::new(pace.terms(), Duration::ZERO);
        Self::of(pace, learner, now)
    }

    fn of(pace: Pace, learner: Learner, now: Duration) -> Self {
        let (pause, model_error) = (Pause::default(), ModelError::default());
        Self {
            pace,
            also: None,
            pause,
            charges: 0,
            learner,
            model_error,
            near_from: now,
            others: 0,
            is_kept: true,
        }
    }

    /// Goes on under other terms, with what was sent under these and the upstream's pause.
    pub fn change(
        &mut self,
        terms: Terms,
        also: Option<(u32, Duration)>,
        others: u32,
        now: Duration,
    ) {
        self.learner.change(terms);
        self.others = others;
        self.rebuild(terms, also, now);
    }

    pub(super) fn rebuild(&mut self, terms: Terms, also: Option<(u32, Duration)>, now: Duration) {
        let history = self.history(now);
        self.pace = Pace::new(terms, Start::Idle, now);
        self.also = also.map(|also| Also::new(terms, also));
        self.recall(&history, now);
        // What the last charge cost under the terms before is not taken off the new clock.
        self.charges += 1;
    }

    /// One charge for all requests that left elsewhere: it is before any of its own from now on.
    pub(super) const fn charge_for_all_before(&mut self) -> u64 {
        self.charges += 1;
        self.charges
    }

    /// Whether anything is held back from now on. What was sent while nothing was counts as far back
    /// as a limiter remembers it.
    pub const fn keep(&mut self, is_kept: bool) {
        self.is_kept = is_kept;
    }

    /// Whether anything is held back.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// So many requests were sent that nobody asked for a permit for.
    pub fn add(&mut self, count: u32, now: Duration) {
        self.pace.add(count, now);
        if let Some(also) = &mut self.also {
            also.envelope.recall(Sent { at: now, count });
        }
    }

    /// Takes into account what was sent before, under whatever terms.
    pub fn recall(&mut self, history: &History, now: Duration) {
        self.pace.recall(history, now);
        self.recall_rest(history, now);
    }

    /// Takes into account what was sent beside, by another schedule.
    pub fn join(&mut self, history: &History, now: Duration) {
        self.pace.join(history, now);
        self.recall_rest(history, now);
    }

    fn recall_rest(&mut self, history: &History, now: Duration) {
        self.pause.recall(history.marks.paused_until, now);
        if let Some(also) = &mut self.also {
            let same = history.also.is_some_and(|(_, window)| window == also.window);
            let sent = if same { &history.also_sent } else { &history.sent };
            sent.iter().for_each(|sent| also.envelope.recall(*sent));
        }
    }

    /// What was sent and where the clocks stand.
    #[must_use]
    pub fn history(&mut self, now: Duration) -> History {
        let mut history = self.pace.history(now);
        history.marks = self.marks();
        if let Some(also) = &mut self.also {
            history.also = Some((also.limit, also.window));
            history.also_sent = also.envelope.sent(now);
        }
        history
    }

    /// Where the clocks stand.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks { paused_until: self.pause.until(), ..self.pace.marks() }
    }

    /// What is counted under the limit, and under the second one.
    #[must_use]
    pub fn envelopes(&self) -> (&Envelope, Option<&Envelope>) {
        (self.pace.envelope(), self.also.as_ref().map(|also| &also.envelope))
    }

    /// Takes a permit, if a request may leave now.
    ///
    /// # Errors
    /// When it is worth asking again: later than `now`.
    pub fn admit(&mut self, now: Duration) -> Result<Charge, Duration> {
        self.check(now)?;
        if let Some(also) = &mut self.also {
            also.envelope.count(now);
        }
        let cost = if self.is_kept { self.pace.charge(now) } else { self.pace.leave(now) };
        self.charges += 1;
        self.pause.sent(self.charges, now);
        Ok(Charge { at: now, number: self.charges, cost })
    }

    /// Whether a request may leave now.
    ///
    /// # Errors
    /// As [`Self::admit`].
    pub fn check(&mut self, now: Duration) -> Result<(), Duration> {
        if !self.is_kept {
            return Ok(());
        }
        self.pause.check(now)?;
        self.pace.check(now)?;
        if let Some(also) = &mut self.also
            && !also.envelope.allows(now)
        {
            return Err(also.envelope.next_step(now));
        }
        Ok(())
    }

    /// The request leaves a little later than it was charged. False when the upstream asked for
    /// silence meanwhile: it must not leave.
    #[must_use]
    pub fn restamp(&mut self, charge: Charge, now: Duration) -> bool {
        if self.is_kept && self.pause.overtook(charge.number, now) {
            return false;
        }
        self.pace.restamp(charge.at, now);
        if let Some(also) = &mut self.also {
            also.envelope.uncount(charge.at);
            also.envelope.count(now);
        }
        true
    }

    /// The request that left with this charge has arrived by now, if ever: it is counted as late as
    /// that.
    pub fn landed(&mut self, charge: Charge, now: Duration) {
        self.pace.restamp(charge.at, now);
        self.pace.land(charge.at, now);
        if let Some(also) = &mut self.also {
            also.envelope.uncount(charge.at);
            also.envelope.count(now);
        }
    }

    /// The request does not leave.
    pub fn give_back(&mut self, charge: Charge, now: Duration) {
        let last = (charge.number == self.charges).then_some(charge.cost);
        self.pace.give_back(charge.at, last, now);
        self.pause.not_sent(charge.number);
        if let Some(also) = &mut self.also {
            also.envelope.uncount(charge.at);
        }
    }

    /// When a request leaves at the latest, with so many before it, if nothing else comes.
    #[must_use]
    pub fn leaves_by(&mut self, now: Duration, ahead: u64) -> Duration {
        let paused = self.pause.check(now).err().unwrap_or(now);
        let paced = self.pace.leaves_by(paused, ahead);
        let Some(also) = &mut self.also else { return paced };
        if also.envelope.has_room_for(ahead.saturating_add(1), now) {
            return paced;
        }
        let windows = ahead / u64::from(also.limit) + 1;
        let windows = u32::try_from(windows).unwrap_or(u32::MAX);
        // A window, and the cells that count as wholes.
        let counted = also.memory.saturating_mul(windows).saturating_add(also.memory / 40);
        paced.max(paused.saturating_add(counted))
    }

    /// Whether a request leaves by `deadline`, with so many before it, if nothing else comes.
    #[must_use]
    pub fn leaves_in_time(&mut self, now: Duration, ahead: u64, deadline: Duration) -> bool {
        if self.also.is_some() || self.pause.check(now).is_err() {
            return self.leaves_by(now, ahead) <= deadline;
        }
        self.pace.leaves_in_time(now, ahead, deadline)
    }

    /// Until when the upstream wants silence; in the past where it does not.
    #[must_use]
    pub const fn paused_until(&self) -> Duration {
        self.pause.until()
    }

    /// What the limit is counted in.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.pace.terms().window
    }

    /// Between two paced requests.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.pace.interval()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_second_limit_holds_in_each_of_its_windows() {
        let also = Some((3, ms(1000)));
        let mut schedule = Schedule::new(terms(), also, Start::Idle, ms(0));
        let promised = schedule.leaves_by(ms(0), 19);
        let left = leave(&mut schedule, ms(0), 20);
        assert!(left.windows(4).all(|four| four[3] - four[0] >= ms(1250)), "{left:?}");
        assert!(left[19] <= promised, "{left:?} {promised:?}");
    }

    #[test]
    fn the_time_near_the_limit_is_the_same_however_often_it_is_asked_for() {
        let mut often = Schedule::new(terms(), None, Start::Idle, ms(0));
        let mut seldom = often.clone();
        // What is sent and not held back: the ninetieth at 44.5 s, and 117 in all.
        [&mut often, &mut seldom].into_iter().for_each(|one| one.keep(false));
        let (mut near, mut in_all) = (ms(0), ms(0));
        for half in 0..400 {
            let now = ms(half * 500);
            if half < 117 {
                assert!(often.admit(now).is_ok() && seldom.admit(now).is_ok());
            }
            if half % 7 == 0 {
                near += often.near_limit(now);
            }
            if half == 120 || half == 180 {
                in_all += seldom.near_limit(now);
            }
        }
        assert_eq!(near, in_all);
        assert!((ms(28_000)..ms(30_000)).contains(&near), "{near:?}");
    }

    #[test]
    fn of_windows_of_a_second_what_is_not_remembered_is_taken_to_be_like_what_is() {
        let second = Terms { limit: 20, window: Duration::from_secs(1), ..terms() };
        let mut schedule = Schedule::new(second, None, Start::Idle, ms(0));
        schedule.keep(false);
        let mut near = ms(0);
        for tick in 0..3_600 {
            let now = ms(tick * 50);
            assert!(schedule.admit(now).is_ok());
            if tick % 300 == 299 {
                near += schedule.near_limit(now);
            }
        }
        assert!((ms(176_000)..ms(181_000)).contains(&near), "{near:?} of 180 s, asked each 15 s");
        let hours = ms(36_000_000);
        assert_eq!(schedule.near_limit(hours), ms(0), "nothing was sent of late");
    }

    #[test]
    fn a_charge_that_is_given_back_is_a_permit_for_the_next() {
        let mut schedule = Schedule::new(terms(), None, Start::Unknown, ms(0));
        let charge = schedule.admit(ms(0)).unwrap();
        assert!(schedule.admit(ms(1)).is_err());
        schedule.give_back(charge, ms(1));
        assert!(schedule.admit(ms(1)).is_ok());
        assert_eq!(schedule.used(ms(1)), 1);
    }
}
