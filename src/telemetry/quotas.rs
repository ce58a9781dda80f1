//! The metric families of quotas that a scrape brings up to date, and those of calls in shadow.

use prometheus::{CounterVec, HistogramVec, IntCounterVec, IntGaugeVec};

use super::families::{Families, opts};

/// What is told of each quota beside its use.
#[derive(Clone)]
pub struct QuotaMetrics {
    /// Calls that wait, by `quota`, `tenant`.
    pub waiting: IntGaugeVec,
    /// Until the upstream's silence ends, in seconds; 0 where there is none; by `quota`.
    pub paused: IntGaugeVec,
    /// Calls of others on the same key that the upstream told of of late, by `quota`.
    pub foreign: IntGaugeVec,
    /// What is assumed of the limiter since it refused calls, by `quota`.
    pub lessons: IntGaugeVec,
    /// What the upstream said of late that is used, less what we count, by `quota`; none where it says
    /// nothing.
    pub model_error: IntGaugeVec,
    /// For how long nine tenths of our share or more were used, by `quota`.
    pub near_limit: CounterVec,
    /// Calls that were not held back, by `quota` and `outcome`: what would have become of them.
    pub shadow_calls: IntCounterVec,
    /// How long they would have waited, those that would have left; by `quota`.
    pub shadow_wait: HistogramVec,
}

impl std::fmt::Debug for QuotaMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuotaMetrics")
    }
}

impl QuotaMetrics {
    /// Nobody of this tenant's waits for this quota any more: one of the two is no longer configured.
    pub fn forget_tenant(&self, quota: &str, tenant: &str) {
        // What was never set cannot be removed.
        drop(self.waiting.remove_label_values(&[quota, tenant]));
    }

    pub(super) fn new(family: &Families) -> Result<Self, prometheus::Error> {
        let quota = ["quota"];
        Ok(Self {
            waiting: family.gauges("queue_waiting", "Calls that wait", &["quota", "tenant"])?,
            paused: family.gauges("quota_paused_seconds", "Silence that is left", &quota)?,
            foreign: family.gauges("quota_foreign_calls", "Calls of others", &quota)?,
            lessons: family.gauges("quota_lessons", "What its 429s taught", &quota)?,
            model_error: family.gauges(
                "quota_model_error_calls",
                "What DataPulse said of late that is used, less what we count",
                &quota,
            )?,
            near_limit: family.add(CounterVec::new(
                opts("quota_near_limit_seconds_total", "Time at 90 % of our share or more"),
                &quota,
            )?)?,
            shadow_calls: family.counters(
                "shadow_calls_total",
                "Calls not held back, by what would have become of them",
                &["quota", "outcome"],
            )?,
            shadow_wait: family.histograms(
                "shadow_wait_seconds",
                "How long calls that are not held back would have waited",
                &quota,
            )?,
        })
    }
}
