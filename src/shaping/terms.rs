//! What a schedule keeps, and what follows from it. Pure.

use std::time::Duration;

/// What is given back of the lateness of timers.
pub(super) const SLACK: Duration = Duration::from_millis(10);
/// A permit may be used for so long after it was charged.
pub const LATE_MAX: Duration = Duration::from_millis(10);
/// What we add to the spread ourselves.
pub(super) const OWN_SPREAD: Duration = SLACK.saturating_add(LATE_MAX);

/// A limit, and what is known of the limiter that keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Requests in each window: this process's share of them; 0 is read as 1.
    pub limit: u32,
    /// Above zero.
    pub window: Duration,
    /// Between our send and the upstream's count, at most; what we are late ourselves comes on top.
    pub spread: Duration,
    /// How coarsely the upstream reads its clock.
    pub tick: Duration,
    /// What the upstream takes at once, where that is less than the limit.
    pub burst: Option<u32>,
}

/// What is assumed of the time before the first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing was sent: bursts are allowed.
    Idle,
    /// Nobody knows: paced from the start, no bursts until a window went by.
    Unknown,
    /// The quota was used up, bursts included.
    UsedUp,
}

impl Terms {
    /// Between two paced requests.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let Self { limit, window, tick, .. } = *self;
        let spread = self.whole_spread();
        // One less than the limit: a window that is closed at both ends holds one more.
        match limit.checked_sub(1).filter(|others| *others > 0) {
            Some(others) => {
                (window + spread + tick).div_f64(f64::from(others)) + Duration::from_nanos(1)
            }
            None => window + spread + window + tick,
        }
    }

    /// How many requests may leave sooner than evenly spaced.
    #[must_use]
    pub fn debt_max(&self) -> u32 {
        let known = self.burst.map_or(u32::MAX, |burst| burst.saturating_sub(self.burst_of(0)));
        (self.limit.max(1) / 5).min(known)
    }

    /// The burst of a limiter that takes so much debt: beside it the request itself, and what the
    /// way there pushes together.
    #[must_use]
    pub fn burst_of(&self, debt: u32) -> u32 {
        let jittered = self.whole_spread().as_nanos().div_ceil(self.interval().as_nanos().max(1));
        let jittered = u32::try_from(jittered).unwrap_or(u32::MAX);
        debt.saturating_add(jittered).saturating_add(1)
    }

    /// Between the moment that a request is charged for and the upstream's count.
    fn whole_spread(&self) -> Duration {
        self.spread + OWN_SPREAD
    }
}
