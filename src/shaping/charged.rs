//! What becomes of a request after it was charged: it leaves a little later, is late, or never leaves.
//! Pure.

use std::time::Duration;

use super::pace::Pace;
#[cfg(doc)]
use super::terms::LATE_MAX;
use super::terms::SLACK;

impl Pace {
    /// The request that was charged at `at` leaves at `now` instead, [`LATE_MAX`] later at most.
    pub fn restamp(&mut self, at: Duration, now: Duration) {
        self.envelope.uncount(at);
        self.envelope.count(now);
    }

    /// The request that left at `at` arrived at `now` perhaps, later than the spread allows for: those
    /// behind it are spaced from there.
    pub fn land(&mut self, at: Duration, now: Duration) {
        if now > at + self.terms.spread {
            self.clear_at = self.clear_at.max(now.saturating_sub(SLACK)) + self.interval;
        }
    }

    /// The request that was charged at `at` does not leave; `last`: what it cost, if nothing was
    /// charged since.
    ///
    /// Only the last charge can be taken off the clock: what was spaced behind it has left. For any
    /// other the clock is set from what did leave, as far as that alone set it.
    pub fn give_back(&mut self, at: Duration, last: Option<Duration>, now: Duration) {
        self.envelope.uncount(at);
        if let Some(cost) = last {
            self.clear_at = self.clear_at.saturating_sub(cost);
        } else if now >= self.bursts_from().max(self.slow_until) {
            let left = self.envelope.sent(now);
            self.clear_at = self.clear_at.min(self.repaid(Duration::ZERO, &left, now));
        }
    }
}
