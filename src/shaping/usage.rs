//! How much of a limit there is, and how much of it is used. Pure.

use std::time::Duration;

use super::schedule::Schedule;

/// What was used longer ago says nothing of now; who wants to know all of it asks more often.
const LOOK_BACK: Duration = Duration::from_secs(120);

impl Schedule {
    /// Requests in the last window.
    #[must_use]
    pub fn used(&mut self, now: Duration) -> u64 {
        self.pace.used(now)
    }

    /// For how long nine tenths of the limit or more were used, since this was asked last, or in the last
    /// two minutes. Of windows of a second, some three are remembered: the rest is estimated.
    pub fn near_limit(&mut self, now: Duration) -> Duration {
        let least = (u64::from(self.limit()) * 9).div_ceil(10);
        let from = self.near_from.max(now.saturating_sub(LOOK_BACK));
        let (near, until) = self.pace.envelope.time_at(least, from, now);
        self.near_from = until;
        near
    }

    /// Requests in each window, as it is configured.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.learner.configured().limit
    }

    /// The part of the vendor's limit that this is.
    #[must_use]
    pub fn share(&self) -> f64 {
        let limit = f64::from(self.limit());
        limit / (limit + f64::from(self.others))
    }
}
