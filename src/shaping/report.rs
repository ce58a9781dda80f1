//! What is told of quotas: to `/status`, its table and its page. No field holds a secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Shaper;
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
        let near = std::time::Duration::try_from_secs_f64(self.near_limit_seconds);
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
