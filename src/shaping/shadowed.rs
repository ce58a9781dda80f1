//! A quota whose calls are not held back: what would become of them is counted beside.
//!
//! The turns' lock is taken before the shadow's, where both are.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::lines::Line;
use super::quota::Quota;
use super::report::ShadowReport;
use super::shadow::{Outcome, Shadow};
use crate::config::model::Tenant;

impl Quota {
    /// Whether calls are held back from now on; if not, what would become of those of these tenants
    /// is counted. Whoever waits leaves as soon as nothing is held back.
    pub(super) fn hold(&self, is_held: bool, tenants: &[Tenant], length_max: usize) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let mut shadow = self.shadow();
        if is_held {
            turns.schedule.keep(true);
            *shadow = None;
            return;
        }
        let shadow = shadow.get_or_insert_with(|| Shadow::new(turns.schedule.clone(), now));
        shadow.arrange(tenants, length_max, now);
        turns.schedule.keep(false);
        self.wake_everybody(&turns);
    }

    /// Whether calls are held back.
    pub(super) fn is_held(&self) -> bool {
        self.lock().schedule.is_kept()
    }

    /// A call leaves that was not held back: it would have come just now, to leave by `deadline`. One
    /// that never leaves, for want of a token or a connection, is none.
    pub(super) fn leaves_in_shadow(&self, line: &Line, deadline: Instant) {
        let deadline = self.since(deadline);
        self.in_shadow(|shadow, now| shadow.arrive(&line.name, deadline, now));
    }

    /// So many requests leave that no call asked for: those sent again, our own, and others'.
    pub(super) fn more_in_shadow(&self, count: u32) {
        self.in_shadow(|shadow, now| shadow.schedule().add(count, now));
    }

    /// What would have become of the calls; `None`: they are held back.
    pub(super) fn shadow_report(&self) -> Option<ShadowReport> {
        self.in_shadow(|shadow, now| shadow.report(now))
    }

    /// Does something to the shadow, if there is one, and counts what became of calls meanwhile.
    pub(super) fn in_shadow<T>(&self, act: impl FnOnce(&mut Shadow, Duration) -> T) -> Option<T> {
        let mut shadow = self.shadow();
        let shadow = shadow.as_mut()?;
        let now = self.since(Instant::now());
        shadow.advance(now);
        let done = act(shadow, now);
        let metrics = &self.metrics.quotas;
        for outcome in shadow.take_outcomes() {
            metrics.shadow_calls.with_label_values(&[&*self.name, outcome.as_str()]).inc();
            let wait = match outcome {
                Outcome::AtOnce => Duration::ZERO,
                Outcome::Waited(wait) => wait,
                Outcome::Refused => continue,
            };
            metrics.shadow_wait.with_label_values(&[&*self.name]).observe(wait.as_secs_f64());
        }
        Some(done)
    }

    fn shadow(&self) -> MutexGuard<'_, Option<Shadow>> {
        // No code under the lock panics; if it did, the counts would still be counts.
        self.shadow.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
