//! How long to wait before the next try: exponential, with full jitter. Pure: the caller waits.

use std::time::Duration;

/// A growing bound on the wait between tries.
///
/// The wait before try *n* is drawn uniformly from zero to `min(cap, base × 2ⁿ)` ("full jitter"),
/// so that many sidecars that failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    /// `base` bounds the first wait, `cap` every wait.
    #[must_use]
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap, failures: 0 }
    }

    /// As if there had been so many failures already.
    #[must_use]
    pub const fn after(self, failures: u32) -> Self {
        Self { failures, ..self }
    }

    /// Counts a failure and draws the wait that follows it, with the thread's generator: a test that
    /// counts tries seeds it, or fails in one history of thousands.
    pub fn next_wait(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(fastrand::f64())
    }

    /// The largest wait that [`Self::next_wait`] could draw now.
    #[must_use]
    pub fn bound(&self) -> Duration {
        self.base.saturating_mul(1_u32 << self.failures.min(20)).min(self.cap)
    }

    /// A success: the next failure starts from `base` again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_a_success_starts_over() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut bounds = Vec::new();
        for _ in 0..8 {
            bounds.push(backoff.bound().as_secs());
            assert!(backoff.next_wait() <= Duration::from_secs(*bounds.last().unwrap()));
        }
        assert_eq!(bounds, [1, 2, 4, 8, 16, 32, 60, 60]);
        backoff.reset();
        assert_eq!((backoff.bound(), backoff.failures()), (Duration::from_secs(1), 0));
        let mut long = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for _ in 0..10_000 {
            assert!(long.next_wait() <= Duration::from_secs(60));
        }
    }
}
