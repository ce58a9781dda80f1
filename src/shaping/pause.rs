//! What a `429` of the upstream's means for a quota: silence, then one probe. Pure.

use std::time::Duration;

/// Added to what the upstream asks for: its clock is not ours.
const MARGIN: Duration = Duration::from_secs(1);
/// The longest pause without a `Retry-After`.
const UNTOLD_MAX: Duration = Duration::from_secs(60);
/// A probe that is not answered holds the others for so long.
const PROBE_MAX: Duration = Duration::from_secs(5);

/// A quota's pause.
#[derive(Debug, Default)]
pub struct Pause {
    until: Duration,
    probe: Probe,
    /// Throttles in a row that did not say how long.
    untold: u32,
}

#[derive(Debug, Default, Clone, Copy)]
enum Probe {
    /// None is needed.
    #[default]
    Over,
    /// The next request is it.
    Due,
    /// It left then, and its answer is awaited.
    Out(Duration),
}

impl Pause {
    /// The upstream refused a request. `asked` is its `Retry-After`; without one the pause is
    /// `least`, doubling with each that follows a pause.
    ///
    /// Gives the moment at which the pause ends.
    pub fn throttled(
        &mut self,
        now: Duration,
        asked: Option<Duration>,
        least: Duration,
    ) -> Duration {
        let wait = match asked {
            Some(asked) => {
                self.untold = 0;
                asked + MARGIN
            }
            None => {
                // Those that were under way together are one throttle.
                if now >= self.until {
                    self.untold = self.untold.saturating_add(1);
                }
                let doublings = self.untold.saturating_sub(1).min(16);
                least.saturating_mul(1 << doublings).min(UNTOLD_MAX.max(least))
            }
        };
        self.until = self.until.max(now + wait);
        self.probe = Probe::Due;
        self.until
    }

    /// As if the upstream had never refused a request.
    pub const fn forget(&mut self) {
        *self = Self { until: Duration::ZERO, probe: Probe::Over, untold: 0 };
    }

    /// Whether a request may leave, as far as the pause goes.
    ///
    /// # Errors
    /// When it is worth asking again.
    pub fn check(&self, now: Duration) -> Result<(), Duration> {
        let until = match self.probe {
            Probe::Over | Probe::Due => self.until,
            Probe::Out(at) => self.until.max(at + PROBE_MAX),
        };
        if now >= until { Ok(()) } else { Err(until) }
    }

    /// A request leaves.
    pub const fn sent(&mut self, now: Duration) {
        if matches!(self.probe, Probe::Due) {
            self.probe = Probe::Out(now);
        }
    }

    /// The request did not leave after all.
    pub const fn not_sent(&mut self) {
        if matches!(self.probe, Probe::Out(_)) {
            self.probe = Probe::Due;
        }
    }

    /// The upstream answered a request with anything else: true when that was the probe's answer,
    /// and the others may follow.
    pub fn answered(&mut self, now: Duration) -> bool {
        let probed = matches!(self.probe, Probe::Out(_)) && now >= self.until;
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

    #[test]
    fn nothing_leaves_until_a_second_after_what_was_asked_for_then_one_probe() {
        let mut pause = Pause::default();
        assert_eq!(pause.check(s(0)), Ok(()));
        assert_eq!(pause.throttled(s(10), Some(s(30)), s(1)), s(41));
        // A shorter one does not shorten it.
        assert_eq!(pause.throttled(s(11), Some(s(1)), s(1)), s(41));
        assert!(!pause.answered(s(12)), "an answer from before the pause is no probe's");
        assert_eq!(pause.check(s(40)), Err(s(41)));
        assert_eq!(pause.check(s(41)), Ok(()));
        pause.sent(s(41));
        assert_eq!(pause.check(s(41)), Err(s(46)), "the others wait for the probe");
        assert!(pause.answered(s(42)));
        assert_eq!(pause.check(s(42)), Ok(()));
    }

    #[test]
    fn a_pause_of_unknown_length_doubles_up_to_a_minute() {
        let mut pause = Pause::default();
        let (mut now, mut waits) = (s(0), Vec::new());
        for _ in 0..8 {
            let until = pause.throttled(now, None, s(1));
            assert_eq!(pause.throttled(now, None, s(1)), until, "one throttle, two answers");
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        pause.sent(now);
        pause.answered(now);
        assert_eq!(pause.throttled(now, None, s(1)) - now, s(1), "a success starts over");
    }

    #[test]
    fn a_probe_that_is_lost_does_not_hold_the_others_for_ever() {
        let mut pause = Pause::default();
        pause.throttled(s(0), Some(s(1)), s(1));
        pause.sent(s(2));
        assert_eq!(pause.check(s(3)), Err(s(7)));
        assert_eq!(pause.check(s(7)), Ok(()));
    }
}
