//! How often the upstream refused calls of a quota, and why.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::learn::Cause;

/// Answers 429 of the upstream's, by their cause.
#[derive(Debug, Default)]
pub(super) struct ThrottleCounts([AtomicU64; Cause::ALL.len()]);

impl ThrottleCounts {
    /// One more.
    pub(super) fn add(&self, cause: Cause) {
        self.each().filter(|(known, _)| *known == cause).for_each(|(_, count)| {
            count.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// All of them.
    pub(super) fn count(&self) -> u64 {
        self.each().map(|(_, count)| count.load(Ordering::Relaxed)).sum()
    }

    /// How many of each cause that there was, by its name.
    pub(super) fn by_cause(&self) -> BTreeMap<String, u64> {
        let counts = self.each().map(|(cause, count)| (cause, count.load(Ordering::Relaxed)));
        let seen = counts.filter(|(_, count)| *count > 0);
        seen.map(|(cause, count)| (cause.as_str().to_owned(), count)).collect()
    }

    fn each(&self) -> impl Iterator<Item = (Cause, &AtomicU64)> {
        Cause::ALL.into_iter().zip(&self.0)
    }
}
