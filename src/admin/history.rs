//! How far the quotas were used of late: for the plot on the page. Ten minutes, and no more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use crate::proxy::Live;
use crate::shaping::QuotaReport;

/// Between two looks.
pub(super) const STEP: Duration = Duration::from_secs(5);
/// Looks that are kept: ten minutes.
pub(super) const LOOKS: usize = 120;

/// The looks at each quota, the newest last; cloning shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct History(Arc<Mutex<BTreeMap<String, VecDeque<Look>>>>);

/// A quota at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Look {
    /// Calls in the last window, as a part of this process's share.
    pub(super) used_ratio: f64,
    /// Calls that waited.
    pub(super) waiting: usize,
}

impl Look {
    fn at(quota: &QuotaReport) -> Self {
        let waiting = quota.waiting.iter().map(|one| one.calls).sum();
        Self { used_ratio: quota.used_ratio, waiting }
    }
}

impl History {
    /// Looks at the quotas, for ever.
    pub(super) async fn run(self, live: Arc<Live>) {
        let mut tick = interval(STEP);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let snapshot = live.load();
            self.note(&snapshot.shaper.report(&snapshot.config));
        }
    }

    /// Keeps a look at each of these; what is no longer configured is forgotten.
    fn note(&self, quotas: &[QuotaReport]) {
        let mut kept = self.0.lock();
        kept.retain(|name, _| quotas.iter().any(|quota| quota.name == *name));
        for quota in quotas {
            let looks = kept.entry(quota.name.clone()).or_default();
            if looks.len() >= LOOKS {
                looks.pop_front();
            }
            looks.push_back(Look::at(quota));
        }
    }

    /// The looks at a quota, and last what it looks like now.
    pub(super) fn up_to(&self, quota: &QuotaReport) -> Vec<Look> {
        let kept = self.0.lock();
        let looks = kept.get(&quota.name).into_iter().flatten().copied();
        let mut looks: Vec<_> = looks.chain([Look::at(quota)]).collect();
        looks.drain(..looks.len().saturating_sub(LOOKS));
        looks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaping::WaitingReport;

    fn quota(name: &str, used_ratio: f64) -> QuotaReport {
        QuotaReport {
            name: name.to_owned(),
            limit: 100,
            window_seconds: 60,
            share: 1.0,
            used: 0,
            used_ratio,
            waiting: vec![WaitingReport { tenant: "a".to_owned(), calls: 2 }],
            paused_for_seconds: None,
            held_back: None,
            throttled: 0,
            throttled_by_cause: BTreeMap::new(),
            learnt: Vec::new(),
            foreign_usage: 0,
            model_error: None,
            near_limit_seconds: 0.0,
            shadow: None,
        }
    }

    #[test]
    fn ten_minutes_are_kept_and_nothing_of_a_quota_that_is_gone() {
        let history = History::default();
        for look in 0..200 {
            history.note(&[quota("a", f64::from(look)), quota("b", 0.5)]);
        }
        let looks = history.up_to(&quota("a", 0.25));
        assert_eq!(looks.len(), LOOKS);
        assert_eq!(looks.first(), Some(&Look { used_ratio: 81.0, waiting: 2 }));
        assert_eq!(looks.last(), Some(&Look { used_ratio: 0.25, waiting: 2 }));
        history.note(&[quota("b", 0.5)]);
        assert_eq!(history.up_to(&quota("a", 0.25)).len(), 1);
    }
}
