//! What a `429` of the upstream's means for a quota: silence, then one probe. Pure.
//!
//! Requests are known by the numbers of their charges: what left before a pause says nothing about
//! whether it is over, however late its answer comes.

use std::time::Duration;

/// Added to what the upstream asks for: its clock is not ours.
const MARGIN: Duration = Duration::from_secs(1);
/// The longest pause without a `Retry-After`.
const UNTOLD_MAX: Duration = Duration::from_secs(60);
/// A probe that is not answered holds the others for so long.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// A quota's pause.
#[derive(Debug, Clone, Default)]
pub struct Pause {
    until: Duration,
    probe: Probe,
    /// The last charge before the pause.
    last_before: u64,
    /// Throttles in a row that did not say how long, or not at all.
    untold: u32,
}

#[derive(Debug, Default, Clone, Copy)]
enum Probe {
    /// None is needed.
    #[default]
    Over,
    /// The next request is it.
    Due,
    /// It left, and its answer is awaited.
    Out { at: Duration, number: u64 },
}

/// A `429`, as far as the pause needs it.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// The charge of the request that met it.
    pub number: u64,
    /// The last charge so far.
    pub newest: u64,
    /// Its `Retry-After`.
    pub asked: Option<Duration>,
    /// The pause where it has none, doubling with each that follows a pause.
    pub least: Duration,
}

impl Pause {
    /// Whether a refusal of the request with this charge is not a part of an earlier one.
    #[must_use]
    pub const fn is_new(&self, number: u64) -> bool {
        number > self.last_before
    }

    /// The upstream refused a request. Gives the moment at which the pause ends.
    pub fn throttled(&mut self, now: Duration, throttle: Throttle) -> Duration {
        let Throttle { number, newest, asked, least } = throttle;
        // Those that were under way together are one throttle.
        let is_late = !self.is_new(number);
        let doublings = self.untold.min(16);
        let doubled = least.saturating_mul(1 << doublings).min(UNTOLD_MAX.max(least));
        let wait = match asked {
            None if is_late => return self.until,
            None => doubled,
            // A wait that is over, and it refuses all the same: nobody knows for how long.
            Some(Duration::ZERO) if !is_late => doubled.max(MARGIN),
            Some(asked) => asked + MARGIN,
        };
        let is_told = asked.is_some_and(|asked| !asked.is_zero());
        self.untold = if is_told { 0 } else { self.untold.saturating_add(u32::from(!is_late)) };
        let until = now + wait;
        if until > self.until {
            (self.until, self.probe, self.last_before) = (until, Probe::Due, newest);
        }
        self.until
    }

    /// As if the upstream had never refused a request; those that are under way are of the past.
    pub const fn forget(&mut self, newest: u64) {
        (self.until, self.probe, self.untold) = (Duration::ZERO, Probe::Over, 0);
        self.last_before = newest;
    }

    /// A pause that another process was told of: a probe goes first, unless that is long ago.
    pub fn recall(&mut self, until: Duration, now: Duration) {
        if until > self.until && until + PROBE_MAX > now {
            (self.until, self.probe) = (until, Probe::Due);
        }
    }

    /// Whether a request may leave, as far as the pause goes.
    ///
    /// # Errors
    /// When it is worth asking again.
    pub fn check(&self, now: Duration) -> Result<(), Duration> {
        let until = match self.probe {
            Probe::Over | Probe::Due => self.until,
            Probe::Out { at, .. } => self.until.max(at + PROBE_MAX),
        };
        if now >= until { Ok(()) } else { Err(until) }
    }

    /// A request leaves.
    pub const fn sent(&mut self, number: u64, now: Duration) {
        if matches!(self.probe, Probe::Due) {
            self.probe = Probe::Out { at: now, number };
        }
    }

    /// Whether a request that may leave was charged before a pause that is not over.
    #[must_use]
    pub fn overtook(&self, number: u64, now: Duration) -> bool {
        number <= self.last_before && now < self.until
    }

    /// The request does not leave after all.
    pub const fn not_sent(&mut self, number: u64) {
        if let Probe::Out { number: probe, .. } = self.probe
            && probe == number
        {
            self.probe = Probe::Due;
        }
    }

    /// The upstream answered a request with anything else: true when that was the probe's answer, or
    /// that of one that left after it, and the others may follow.
    pub const fn answered(&mut self, number: u64) -> bool {
        let Probe::Out { number: probe, .. } = self.probe else { return false };
        let probed = number >= probe;
        if probed {
            (self.probe, self.untold) = (Probe::Over, 0);
        }
        probed
    }

    /// When the pause ends; in the past where there is none.
    #[must_use]
    pub const fn until(&self) -> Duration {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A 429 for the charge `number`, when `newest` was the last.
    const fn throttle(number: u64, newest: u64, asked: Option<u64>) -> Throttle {
        let asked = match asked {
            Some(seconds) => Some(s(seconds)),
            None => None,
        };
        Throttle { number, newest, asked, least: s(1) }
    }

    #[test]
    fn nothing_leaves_until_a_second_after_what_was_asked_for_then_one_probe() {
        let mut pause = Pause::default();
        assert_eq!(pause.check(s(0)), Ok(()));
        assert_eq!(pause.throttled(s(10), throttle(1, 3, Some(30))), s(41));
        // A shorter one does not shorten it.
        assert_eq!(pause.throttled(s(11), throttle(2, 3, Some(1))), s(41));
        assert_eq!(pause.check(s(40)), Err(s(41)));
        assert_eq!(pause.check(s(41)), Ok(()));
        pause.sent(4, s(41));
        assert_eq!(pause.check(s(41)), Err(s(46)), "the others wait for the probe");
        assert!(pause.answered(4));
        assert_eq!(pause.check(s(42)), Ok(()));
    }

    /// A pause to 41 s; the charges 1 to 3 left before it, 4 is the probe and is out.
    fn probing() -> Pause {
        let mut pause = Pause::default();
        pause.throttled(s(10), throttle(1, 3, Some(30)));
        pause.sent(4, s(41));
        pause
    }

    #[test]
    fn a_late_answer_from_before_the_pause_is_not_the_probes() {
        let mut pause = probing();
        assert!(!pause.answered(2));
        assert_eq!(pause.check(s(42)), Err(s(46)), "the probe is still awaited");
        assert!(pause.answered(4));
        assert!(!pause.answered(3), "nor does it end anything twice");
    }

    #[test]
    fn an_answer_before_the_probe_left_ends_nothing() {
        let mut pause = Pause::default();
        pause.throttled(s(10), throttle(1, 3, Some(30)));
        assert!(!pause.answered(2));
        assert!(!pause.answered(3));
        pause.sent(4, s(41));
        assert_eq!(pause.check(s(42)), Err(s(46)));
    }

    #[test]
    fn a_permit_from_before_the_pause_that_is_given_back_late_does_not_make_a_second_probe() {
        let mut pause = probing();
        pause.not_sent(3);
        assert_eq!(pause.check(s(42)), Err(s(46)));
        pause.not_sent(4);
        assert_eq!(pause.check(s(42)), Ok(()), "the probe's own makes room for another");
        pause.sent(5, s(42));
        assert!(!pause.answered(3));
        assert!(pause.answered(5));
    }

    #[test]
    fn a_late_429_from_before_the_pause_is_the_same_throttle() {
        let mut pause = probing();
        assert_eq!(pause.throttled(s(42), throttle(2, 4, None)), s(41), "it adds nothing");
        assert!(pause.answered(4), "and the probe is still the probe");
        let mut pause = probing();
        assert_eq!(pause.throttled(s(42), throttle(2, 4, Some(30))), s(73), "but it is obeyed");
        assert!(!pause.answered(4), "the next probe counts, not the one that is out");
        pause.sent(5, s(73));
        assert!(pause.answered(5));
    }

    #[test]
    fn the_probes_429_is_a_new_throttle() {
        let mut pause = probing();
        assert_eq!(pause.throttled(s(42), throttle(4, 4, Some(2))), s(45));
        assert!(!pause.answered(4));
        pause.sent(5, s(45));
        assert!(pause.answered(5));
    }

    #[test]
    fn a_permit_from_before_the_pause_may_not_be_used_in_it() {
        let pause = probing();
        assert!(pause.overtook(3, s(40)));
        assert!(!pause.overtook(3, s(41)), "it is over");
        assert!(!pause.overtook(4, s(41)), "the probe itself");
    }

    #[test]
    fn a_pause_of_unknown_length_doubles_up_to_a_minute() {
        let mut pause = Pause::default();
        let (mut now, mut waits, mut number) = (s(0), Vec::new(), 2);
        for _ in 0..8 {
            let until = pause.throttled(now, throttle(number, number, None));
            let again = pause.throttled(now, throttle(number - 1, number, None));
            assert_eq!(again, until, "one throttle, two answers");
            waits.push((until - now).as_secs());
            now = until;
            number += 1;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        pause.sent(number, now);
        assert!(pause.answered(number));
        let next = throttle(number + 1, number + 1, None);
        assert_eq!(pause.throttled(now, next) - now, s(1), "a success starts over");
    }

    #[test]
    fn a_refusal_that_asks_for_no_wait_at_all_again_and_again_is_one_of_unknown_length() {
        let mut pause = Pause::default();
        let (mut now, mut waits) = (s(0), Vec::new());
        for number in 2..8 {
            let until = pause.throttled(now, throttle(number, number, Some(0)));
            let again = pause.throttled(now, throttle(number - 1, number, Some(0)));
            assert_eq!(again, until, "one throttle, two answers");
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32]);
        assert_eq!(pause.throttled(now, throttle(9, 9, Some(5))) - now, s(6));
        assert_eq!(pause.throttled(now + s(6), throttle(10, 10, Some(0))) - now, s(7));
    }

    #[test]
    fn a_pause_goes_on_where_another_process_left_it() {
        let mut pause = Pause::default();
        pause.recall(s(41), s(20));
        assert_eq!(pause.check(s(40)), Err(s(41)));
        pause.sent(1, s(41));
        assert_eq!(pause.check(s(42)), Err(s(46)), "a probe goes first");
        let mut long_over = Pause::default();
        long_over.recall(s(41), s(60));
        assert_eq!(long_over.check(s(60)), Ok(()));
        long_over.sent(1, s(60));
        assert_eq!(long_over.check(s(60)), Ok(()));
    }

    #[test]
    fn a_probe_that_is_lost_does_not_hold_the_others_for_ever() {
        let mut pause = Pause::default();
        pause.throttled(s(0), throttle(1, 1, Some(1)));
        pause.sent(2, s(2));
        assert_eq!(pause.check(s(3)), Err(s(7)));
        assert_eq!(pause.check(s(7)), Ok(()));
        pause.sent(3, s(7));
        assert!(pause.answered(3), "one that left after it says as much");
    }
}
