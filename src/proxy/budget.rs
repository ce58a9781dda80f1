//! How many attempts may be repeated: a tenth of the calls of the last ten seconds that were let
//! through to the upstream, and one a second in any case. An upstream that is down must not be met with
//! twice the load. Pure.

use tokio::time::Instant;

/// The length of the window, in seconds, and so the number of cells.
const WINDOW: usize = 10;
/// Retries for each call.
const SHARE: u32 = 10;

/// Counts calls and retries in cells of a second.
#[derive(Debug)]
pub(super) struct RetryBudget {
    began: Instant,
    /// The second of the newest cell, counted from `began`.
    newest: u64,
    calls: [u32; WINDOW],
    retries: [u32; WINDOW],
}

impl RetryBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { began: now, newest: 0, calls: [0; WINDOW], retries: [0; WINDOW] }
    }

    /// A call goes to the upstream, for the first time.
    pub(super) fn call(&mut self, now: Instant) {
        let cell = self.advance(now);
        if let Some(count) = self.calls.get_mut(cell) {
            *count = count.saturating_add(1);
        }
    }

    /// Whether one more attempt may be made now; counts it if so.
    pub(super) fn retry(&mut self, now: Instant) -> bool {
        let cell = self.advance(now);
        let calls: u32 = self.calls.iter().fold(0, |sum, count| sum.saturating_add(*count));
        let retries: u32 = self.retries.iter().sum();
        // `WINDOW` seconds of one retry each.
        let allowed = (calls / SHARE).saturating_add(10);
        match self.retries.get_mut(cell) {
            Some(count) if retries < allowed => {
                *count += 1;
                true
            }
            _ => false,
        }
    }

    /// Empties the cells of the seconds that passed, and gives the one of `now`.
    fn advance(&mut self, now: Instant) -> usize {
        let second = now.saturating_duration_since(self.began).as_secs().max(self.newest);
        let passed = usize::try_from(second - self.newest).unwrap_or(WINDOW).min(WINDOW);
        let first = cell_of(self.newest) + 1;
        for cell in (first..first + passed).map(|cell| cell % WINDOW) {
            for counts in [&mut self.calls, &mut self.retries] {
                if let Some(count) = counts.get_mut(cell) {
                    *count = 0;
                }
            }
        }
        self.newest = second;
        cell_of(second)
    }
}

fn cell_of(second: u64) -> usize {
    usize::try_from(second % 10).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Retries that are granted at once after so many calls.
    fn granted(budget: &mut RetryBudget, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn a_tenth_of_the_calls_and_one_a_second_in_any_case() {
        let now = Instant::now();
        for (calls, want) in [(0, 10), (9, 10), (100, 20), (5_000, 510)] {
            let mut budget = RetryBudget::new(now);
            (0..calls).for_each(|_| budget.call(now));
            assert_eq!(granted(&mut budget, now), want, "{calls} calls");
        }
    }

    #[test]
    fn what_is_ten_seconds_old_no_longer_counts() {
        let now = Instant::now();
        let mut budget = RetryBudget::new(now);
        (0..1_000).for_each(|_| budget.call(now));
        assert_eq!(granted(&mut budget, now), 110);
        assert_eq!(granted(&mut budget, now + Duration::from_secs(9)), 0);
        // The calls are forgotten with the retries.
        assert_eq!(granted(&mut budget, now + Duration::from_secs(10)), 10);
        assert_eq!(granted(&mut budget, now + Duration::from_secs(3600)), 10);
        // A clock that a suspend held up goes on; it never runs back.
        budget.call(now);
        assert_eq!(granted(&mut budget, now + Duration::from_secs(7200)), 10);
    }

    #[test]
    fn over_a_long_time_a_failing_upstream_gets_a_tenth_more() {
        let start = Instant::now();
        let mut budget = RetryBudget::new(start);
        let mut retries = 0;
        for tick in 0..60_000_u64 {
            let now = start + Duration::from_millis(tick);
            budget.call(now);
            retries += u32::from(budget.retry(now));
        }
        assert!((5_900..=6_100).contains(&retries), "{retries} retries for 60,000 calls");
    }
}
