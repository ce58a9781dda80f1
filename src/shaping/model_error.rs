//! How far the upstream's count is from ours, as far as it tells. Pure.

use std::time::Duration;

/// What the upstream's headers say is used, less what we count: the greatest of late.
#[derive(Debug, Clone, Default)]
pub(super) struct ModelError {
    /// In the last window in which it told something, by that window's number.
    latest: Option<(u128, i64)>,
    /// And in the one before.
    before: Option<(u128, i64)>,
}

/// What the upstream counts more than we do, or less where that is below zero; `others` may have used
/// so many, and as far as that explains it there is no error.
pub(super) fn difference(used: u64, counted: u64, others: u64) -> i64 {
    let more = used.saturating_sub(counted.saturating_add(others));
    let fewer = counted.saturating_sub(used);
    let signed = |count| i64::try_from(count).unwrap_or(i64::MAX);
    signed(more) - signed(fewer)
}

impl ModelError {
    /// The upstream told of its count.
    pub(super) fn note(&mut self, error: i64, window: Duration, now: Duration) {
        let number = number(window, now);
        match &mut self.latest {
            Some((known, greatest)) if *known == number => *greatest = error.max(*greatest),
            latest => self.before = latest.replace((number, error)),
        }
    }

    /// The greatest in this window and the one before; `None`: it told nothing.
    pub(super) fn greatest(&self, window: Duration, now: Duration) -> Option<i64> {
        let number = number(window, now);
        let told = [self.latest, self.before].into_iter().flatten();
        told.filter(|(at, _)| at + 1 >= number).map(|(_, error)| error).max()
    }
}

fn number(window: Duration, now: Duration) -> u128 {
    now.as_nanos() / window.as_nanos().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_of_two_windows_is_told_and_nothing_of_older_ones() {
        let s = Duration::from_secs;
        let mut told = ModelError::default();
        let greatest = |told: &ModelError, now| told.greatest(s(60), s(now));
        assert_eq!(greatest(&told, 5), None);
        for (at, error) in [(5, -40), (30, -3), (50, -20), (61, -7)] {
            told.note(error, s(60), s(at));
        }
        assert_eq!(greatest(&told, 100), Some(-3));
        assert_eq!(greatest(&told, 120), Some(-7));
        assert_eq!(greatest(&told, 180), None);
    }

    #[test]
    fn what_others_may_use_is_no_error() {
        for (used, counted, others, error) in
            [(60, 1, 0, 59), (60, 1, 50, 9), (40, 1, 50, 0), (5, 8, 50, -3), (8, 8, 0, 0)]
        {
            assert_eq!(difference(used, counted, others), error, "{used} {counted} {others}");
        }
    }
}
