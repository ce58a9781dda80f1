//! From what is configured, and what is known of the time before, to quotas that calls can use.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::history::History;
use super::pace::{Start, Terms};
use super::quota::Quota;
use super::schedule::Schedule;
use super::state_file::{Past, StateFile};
use crate::config::model::ColdStart;
use crate::config::{Config, model};
use crate::telemetry::Metrics;

/// Waiting calls a quota, whatever its limit, unless `shaping.queue` says otherwise.
const QUEUE_MAX: usize = 10_000;

/// Builds the quotas of one configuration.
pub(super) struct Builder<'a> {
    began_at: Instant,
    file: Option<&'a mut StateFile>,
    metrics: &'a Metrics,
}

impl<'a> Builder<'a> {
    /// All schedules' time begins at `began_at`.
    pub(super) fn new(
        config: &Config,
        began_at: Instant,
        mut file: Option<&'a mut StateFile>,
        metrics: &'a Metrics,
    ) -> Self {
        if let Some(file) = &mut file {
            file.retain(config.quotas.keys().map(String::as_str));
        }
        Self { began_at, file, metrics }
    }

    /// A quota as the process begins; `None` where nothing is shaped.
    pub(super) fn first(&mut self, name: &str, quota: &model::Quota) -> Option<Arc<Quota>> {
        let past = self.file.as_ref().map_or(Past::Untold, |file| file.past(name, self.now()));
        let (start, history) = match past {
            Past::None if quota.cold_start == ColdStart::Paced => (Start::Unknown, None),
            Past::None => (Start::Idle, None),
            Past::Known(history) => (Start::Idle, Some(history)),
            Past::Untold => (Start::Unknown, None),
            Past::Lost(cause) => {
                tracing::warn!(
                    quota = name,
                    %cause,
                    "what was sent before cannot be read from the state file: the quota is taken to \
                     be used up"
                );
                (Start::UsedUp, None)
            }
        };
        self.begun(name, quota, start, history.as_ref())
    }

    /// One of the first quotas of a process that ran without any. What an earlier process sent is in the
    /// file; what this one sent since is nowhere, so that there are no bursts whatever the file says.
    pub(super) fn late(&mut self, name: &str, quota: &model::Quota) -> Option<Arc<Quota>> {
        let history = match self.file.as_ref().map(|file| file.past(name, self.now())) {
            Some(Past::Known(history)) => Some(history),
            _ => None,
        };
        self.begun(name, quota, Start::Unknown, history.as_ref())
    }

    /// A quota that an earlier configuration did not have.
    pub(super) fn added(&mut self, name: &str, quota: &model::Quota) -> Option<Arc<Quota>> {
        self.begun(name, quota, Start::Unknown, None)
    }

    /// A quota that an earlier configuration had with other terms.
    pub(super) fn changed(
        &mut self,
        known: &Arc<Quota>,
        quota: &model::Quota,
    ) -> Option<Arc<Quota>> {
        let Wanted { terms, also, others } = Wanted::of(quota)?;
        known.change(terms, also, others);
        known.keep_in(self.file.as_deref_mut());
        Some(Arc::clone(known))
    }

    fn begun(
        &mut self,
        name: &str,
        quota: &model::Quota,
        start: Start,
        history: Option<&History>,
    ) -> Option<Arc<Quota>> {
        let Wanted { terms, also, others } = Wanted::of(quota)?;
        let is_cautious = quota.cold_start == ColdStart::Cautious;
        let start = if is_cautious { Start::UsedUp } else { start };
        let mut schedule = Schedule::new(terms, also, start, self.now()).beside(others);
        history.into_iter().for_each(|history| schedule.recall(history, self.now()));
        let quota = Quota::new(name, self.began_at, schedule, self.metrics);
        quota.keep_in(self.file.as_deref_mut());
        Some(Arc::new(quota))
    }

    fn now(&self) -> Duration {
        Instant::now().saturating_duration_since(self.began_at)
    }
}

impl Quota {
    /// The configuration does not have it any more: who waits leaves, and nobody is told of it.
    pub(super) fn retire(&self) {
        self.lock().keeper = None;
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// The schedule is written down from now on, if there is a file for it.
    pub(super) fn keep_in(&self, file: Option<&mut StateFile>) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let limit = turns.schedule.limit();
        self.is_retired.store(false, Ordering::Relaxed);
        self.metrics.quota_limit.with_label_values(&[&*self.name]).set(i64::from(limit));
        let history = turns.schedule.history(now);
        turns.keeper = file.and_then(|file| file.keep(&self.name, &history, now));
    }
}

/// How many calls may wait: what can leave in time, at once or paced, unless it is configured.
pub(super) fn length_max(config: &Config, terms: &model::Quota, quota: &Quota) -> usize {
    let burst = terms.limit.map_or(0, |rate| part_of(rate.calls, terms.share) as usize / 5);
    let paced = config.shaping.wait_max.as_nanos() / quota.interval().as_nanos().max(1);
    let leave = usize::try_from(paced).unwrap_or(QUEUE_MAX) + burst + 1;
    config.shaping.queue_max.unwrap_or_else(|| leave.min(QUEUE_MAX))
}

/// What a schedule keeps.
struct Wanted {
    terms: Terms,
    /// A second limit and its window.
    also: Option<(u32, Duration)>,
    /// What is left of the limit to others.
    others: u32,
}

impl Wanted {
    /// `None`: nothing is shaped.
    fn of(quota: &model::Quota) -> Option<Self> {
        let rate = quota.limit?;
        let part = |calls| part_of(calls, quota.share);
        let terms = Terms {
            limit: part(rate.calls),
            window: rate.per,
            spread: quota.spread,
            tick: quota.tick,
            burst: quota.burst.map(part),
        };
        let also = quota.also.map(|also| (part(also.calls), also.per));
        Some(Self { terms, also, others: rate.calls.saturating_sub(terms.limit) })
    }
}

/// This process's part of so many calls; at least one.
fn part_of(calls: u32, share: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most `calls`, and not below zero"
    )]
    let part = (f64::from(calls) * share + 1e-9).floor() as u32;
    part.max(1)
}
