//! What is told of quotas: to `/status`, its table and its page. No field holds a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::IntGaugeVec;
use serde::{Deserialize, Serialize};

use super::Shaper;
use super::quota::Quota;
use super::schedule::Schedule;
use crate::config::Config;

/// A quota as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuotaReport {
    /// As configured.
    pub name: String,
    /// As configured, in each window.
    pub limit: u32,
    /// The window, in seconds.
    pub window_seconds: u64,
    /// This process's part of the limit, above 0 and at most 1.
    pub share: f64,
    /// Calls sent in the last window.
    pub used: u64,
    /// The same as a part of this process's share.
    pub used_ratio: f64,
    /// Who waits.
    pub waiting: Vec<WaitingReport>,
    /// Until the upstream's silence ends; absent when there is none.
    pub paused_for_seconds: Option<u64>,
    /// Since the start, for what was or may have been sent before it; absent once that is over.
    pub held_back: Option<HeldBack>,
    /// Answers 429 of the upstream's since the quota began.
    pub throttled: u64,
    /// How many of them had which cause: those of `upstream_throttled_total` that there were.
    pub throttled_by_cause: BTreeMap<String, u64>,
    /// What is assumed of the limiter since it refused calls.
    pub learnt: Vec<Learnt>,
    /// Calls of others on the same key that the upstream told of, within the last two windows.
    pub foreign_usage: u64,
    /// What the upstream said within the last two windows that is used, less what we count, at the most;
    /// absent where it says nothing.
    pub model_error: Option<i64>,
    /// For how long nine tenths of the share or more were used, since the process began.
    pub near_limit_seconds: f64,
    /// What would have become of calls; absent unless `shaping.shadow` is on.
    pub shadow: Option<ShadowReport>,
}

/// What a quota holds back since the start, when it cannot know what was sent before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// Until the next call leaves.
    pub silent_for_seconds: u64,
    /// Until calls may leave in bursts again.
    pub paced_for_seconds: u64,
}

/// What would have become of calls that were not held back, since that began.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShadowReport {
    /// Since then.
    pub for_seconds: u64,
    /// Calls that would have left when they came.
    pub at_once: u64,
    /// Calls that would have left later.
    pub would_wait: u64,
    /// Calls that would have been refused.
    pub would_refuse: u64,
    /// Calls that would be waiting now: they are in none of the others yet.
    pub waiting: usize,
    /// The longest of those waits.
    pub longest_wait_seconds: f64,
}

/// What a refusal by the upstream taught. The next start forgets it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Learnt {
    /// Why it is assumed, for people.
    pub reason: String,
    /// Since it was learnt.
    pub for_seconds: u64,
    /// The line of the configuration that would make it last.
    pub config: String,
}

/// A tenant's calls that wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingReport {
    /// Whose.
    pub tenant: String,
    /// How many.
    pub calls: usize,
}

impl QuotaReport {
    /// `3`, or with their causes `3 (2 ours, 1 unknown)`.
    #[must_use]
    pub fn throttles(&self) -> String {
        if self.throttled_by_cause.is_empty() {
            return self.throttled.to_string();
        }
        let causes = self
            .throttled_by_cause
            .iter()
            .map(|(cause, count)| format!("{count} {}", cause.replace('_', " ")));
        format!("{} ({})", self.throttled, causes.collect::<Vec<_>>().join(", "))
    }

    /// `59 more than ours`: the upstream's own count, where it tells.
    #[must_use]
    pub fn told_count(&self) -> Option<String> {
        self.model_error.map(|error| match error {
            0 => "the same as ours".to_owned(),
            more if more > 0 => format!("{more} more than ours"),
            fewer => format!("{} fewer than ours", fewer.unsigned_abs()),
        })
    }

    /// For how long nine tenths of the share or more were used, in whole seconds; `None`: never.
    #[must_use]
    pub fn near_limit(&self) -> Option<u64> {
        let near = Duration::try_from_secs_f64(self.near_limit_seconds);
        near.ok().map(|near| near.as_secs()).filter(|seconds| *seconds > 0)
    }

    /// `100 in 60 s`, with the share where it is not all.
    #[must_use]
    pub fn terms(&self) -> String {
        let per = match self.window_seconds {
            1 => "s",
            60 => "min",
            3600 => "h",
            _ => return format!("{} in {} s", self.limit, self.window_seconds),
        };
        let limit = format!("{}/{per}", self.limit);
        if self.share < 1.0 { format!("{limit}, {:.0} % of it", self.share * 100.0) } else { limit }
    }
}

impl HeldBack {
    /// At `now`, where that lasts until then.
    pub(super) fn of(schedule: &Schedule, until: Duration, now: Duration) -> Option<Self> {
        // A second that has begun is told as one.
        let left = |until: Duration| until.saturating_sub(now).as_millis().div_ceil(1000);
        let seconds = |until| u64::try_from(left(until)).unwrap_or(u64::MAX);
        (schedule.is_kept() && now < until).then(|| Self {
            silent_for_seconds: seconds(schedule.marks().clear_at),
            paced_for_seconds: seconds(until),
        })
    }

    /// In a sentence, for people.
    #[must_use]
    pub fn told(self) -> String {
        let Self { silent_for_seconds: silent, paced_for_seconds: paced } = self;
        let silent = if silent > 0 { format!("no call for {silent} s, ") } else { String::new() };
        format!(
            "held back since the start, for what was or may have been sent before it: {silent}no \
             bursts for {paced} s"
        )
    }
}

impl ShadowReport {
    /// In a sentence, for people.
    #[must_use]
    pub fn told(&self) -> String {
        format!(
            "shadow, nothing is held back: {} calls would have left at once, {} would have waited \
             (up to {:.1} s), {} would have been refused, {} would be waiting",
            self.at_once,
            self.would_wait,
            self.longest_wait_seconds,
            self.would_refuse,
            self.waiting
        )
    }
}

impl Quota {
    /// Brings the gauges up to date that change by themselves.
    pub(super) fn observe(&self) {
        let (report, label) = (self.report(), [&*self.name]);
        let lessons = self.learnt(1.0).len();
        let metrics = &self.metrics;
        let set = |gauge: &IntGaugeVec, value: u64| {
            gauge.with_label_values(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        metrics.quota_used_ratio.with_label_values(&label).set(report.used_ratio);
        set(&metrics.quotas.paused, report.paused_for_seconds.unwrap_or_default());
        set(&metrics.quotas.foreign, report.foreign_usage);
        set(&metrics.quotas.lessons, lessons as u64);
        let gauge = &metrics.quotas.model_error;
        match report.model_error {
            Some(error) => gauge.with_label_values(&label).set(error),
            None => drop(gauge.remove_label_values(&label)),
        }
    }
}

impl Shaper {
    /// All quotas that shape, by name.
    #[must_use]
    pub fn report(&self, config: &Config) -> Vec<QuotaReport> {
        let report = |(name, shaped): (&String, &super::Shaped)| {
            let terms = config.quotas.get(name)?;
            let limit = terms.limit?;
            Some(QuotaReport {
                name: name.clone(),
                limit: limit.calls,
                window_seconds: limit.per.as_secs(),
                share: terms.share,
                learnt: shaped.quota.learnt(terms.share),
                ..shaped.quota.report()
            })
        };
        self.quotas.iter().filter_map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::config;
    use crate::os::Boot;
    use crate::telemetry::Metrics;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_back_since_the_start_is_told_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule");
        std::fs::write(&path, [0; 100]).unwrap();
        let text = format!(
            "version: 1\nlisteners: [{{listen: 'localhost:1'}}]\nquotas: {{q: {{limit: 61/min}}}}\n\
             shaping: {{state_file: '{}'}}\n\
             credentials: [{{name: a, level: admin, quota: q, api_key: 'file:/k'}}]\n",
            path.display()
        );
        let (config, _) = config::parse(&text, "test", &|_| None).unwrap();
        let at = Instant::now().checked_sub(Duration::from_secs(1000)).unwrap();
        let boot = Boot { id: [1; 16], at };
        let start = || Shaper::begin(&config, &Metrics::new().unwrap(), Some(boot));
        let held = |shaper: &Shaper| shaper.report(&config)[0].held_back;
        let shaper = start();
        let first = held(&shaper).unwrap();
        assert!((10..20).contains(&first.silent_for_seconds), "{first:?}");
        assert_eq!(first.paced_for_seconds, 121);
        assert!(first.told().contains("no call for 1"), "{}", first.told());
        drop(shaper);
        // The file is whole again, and what was not known before is not known now.
        let shaper = start();
        assert_eq!(held(&shaper), Some(first));
        tokio::time::advance(Duration::from_secs(first.silent_for_seconds)).await;
        let later = held(&shaper).unwrap();
        assert!(!later.told().contains("no call"), "{}", later.told());
        tokio::time::advance(Duration::from_secs(later.paced_for_seconds)).await;
        assert_eq!(held(&shaper), None);
    }
}
