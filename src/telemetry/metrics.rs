//! The metric families, by the names of the contract: `datapulse_sidecar_<noun>_<unit|total>`.
//!
//! Labels come from closed sets (configured names, codes, methods of the allow-list): never a path,
//! never a caller's text. A new `Metrics` has its own registry, so that tests do not share counts.

use std::collections::BTreeMap;

use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use super::families::{Families, by_label, histogram_opts, opts};
use super::quotas::QuotaMetrics;

/// Every metric of the process. Cloning shares the counts.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Calls answered, by `tenant`, `credential`, `method`, `status`.
    pub requests: IntCounterVec,
    /// From a request's head to the end of its answer, by `tenant`.
    pub request_duration: HistogramVec,
    /// From the head sent upstream to the head of the answer, by `credential`.
    pub upstream_duration: HistogramVec,
    /// Answers that the sidecar made itself, by `code`.
    pub rejected: IntCounterVec,
    /// Calls sent upstream once more, by `reason`.
    pub retries: IntCounterVec,
    /// Calls in flight.
    pub in_flight: IntGauge,
    /// Callers' connections.
    pub connections: IntGauge,
    /// 1 for the state that the credential is in, by `credential`, `state`.
    pub credential_state: IntGaugeVec,
    /// When the token in use expires, Unix seconds; 0 where it does not; by `credential`.
    pub credential_expiry: GaugeVec,
    /// 1 while an operator has paused the credential, by `credential`.
    pub credential_paused: IntGaugeVec,
    /// 1 while a renewed secret is in use and not in its store yet, by `credential`.
    pub credential_unpersisted: IntGaugeVec,
    /// How many different tokens there have been, by `credential`.
    pub credential_generation: IntGaugeVec,
    /// Tries to get a token, by `credential`, `outcome`, `reason`.
    pub credential_refreshes: IntCounterVec,
    /// Whether the last read of a store worked, by `store`.
    pub store_up: IntGaugeVec,
    /// Reads of a store, by `store`, `outcome`.
    pub store_reads: IntCounterVec,
    /// Since a store last said what is there, in seconds, by `secret`: its reference.
    pub secret_age: IntGaugeVec,
    /// 1 where a store says that there is nothing to be had, by `secret`.
    pub secret_missing: IntGaugeVec,
    /// 1 while a secret's fallback is used in its place, by `secret`.
    pub secret_fallback: IntGaugeVec,
    /// Values written back to a store, by `store`, `outcome`.
    pub store_writes: IntCounterVec,
    /// Logins to a store and their renewals, by `store`, `outcome`.
    pub store_logins: IntCounterVec,
    /// Configurations that were read while running, by `outcome`.
    pub config_reloads: IntCounterVec,
    /// When the configuration in force was read, Unix seconds.
    pub config_last_reload: IntGauge,
    /// Changes that operators asked for, by `verb`, `status`.
    pub admin_verbs: IntCounterVec,
    /// Callers' TLS handshakes that failed, by `reason`: `timeout` or `tls`.
    pub handshakes_failed: IntCounterVec,
    /// When the client certificate ends, Unix seconds; 0 where there is none.
    pub client_cert_expiry: IntGauge,
    /// 1 while the machine's clock is wrong for certain.
    pub clock_suspect: IntGauge,
    /// Panics that were caught; anything but 0 is a bug.
    pub panics: IntCounter,
    /// Log and audit lines that were dropped because the reader of the stream was too slow, by
    /// `stream`.
    pub lines_dropped: IntCounterVec,
    /// Look-ups of the upstream's name that failed.
    pub resolve_failures: IntCounter,
    /// Seconds that calls waited for a first or renewed token.
    pub token_wait: Histogram,
    /// Calls that wait for their turn, by `quota`.
    pub queue_depth: IntGaugeVec,
    /// From a call's arrival to the moment it was sent, by `quota`.
    pub queue_wait: HistogramVec,
    /// This process's share of the limit, in calls a window, by `quota`.
    pub quota_limit: IntGaugeVec,
    /// Calls sent in the last window, as a part of the limit, by `quota`.
    pub quota_used_ratio: GaugeVec,
    /// What else is told of quotas.
    pub quotas: QuotaMetrics,
    /// Requests that left with a permit, by `quota`: attempts, and the sidecar's own calls.
    pub quota_sent: IntCounterVec,
    /// Writes of the schedules to their file that failed; the first ends them.
    pub state_file_errors: IntCounter,
    /// Answers `429` of the upstream's, by `quota` and `cause` (`unshaped`: without a quota).
    pub upstream_throttled: IntCounterVec,
    /// Deliveries of webhooks, by `endpoint` (a configured path, or `unknown`), `outcome`.
    pub webhook_deliveries: IntCounterVec,
}

impl Metrics {
    /// All families, registered, all counts zero.
    ///
    /// # Errors
    /// Only when two families have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let family = Families(Registry::new());
        family
            .gauges("build_info", "Always 1; the version as a label", &["version"])?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        let request = ["tenant", "credential", "method", "status"];
        Ok(Self {
            requests: family.counters("requests_total", "Calls answered", &request)?,
            request_duration: family.histograms(
                "request_duration_seconds",
                "From a request's head to the end of its answer",
                &["tenant"],
            )?,
            upstream_duration: family.upstream_duration()?,
            rejected: family.counters("rejected_total", "Answers by the sidecar", &["code"])?,
            retries: family.counters("retries_total", "Calls sent once more", &["reason"])?,
            in_flight: family.gauge("in_flight", "Calls in flight")?,
            connections: family.gauge("connections", "Callers' connections")?,
            credential_state: family.gauges(
                "credential_state",
                "1 for the state that the credential is in",
                &["credential", "state"],
            )?,
            credential_expiry: family.credential_expiry()?,
            credential_paused: family.credential_paused()?,
            credential_unpersisted: family.credential_unpersisted()?,
            credential_generation: family.credential_generation()?,
            credential_refreshes: family.credential_refreshes()?,
            store_up: family.gauges("store_up", "Whether the last read worked", &["store"])?,
            store_reads: family.counters("store_reads_total", "Reads", &["store", "outcome"])?,
            secret_age: family.gauges("secret_age_seconds", "Since it was seen", &["secret"])?,
            secret_missing: family.gauges("secret_missing", "1: it is not there", &["secret"])?,
            secret_fallback: family.gauges("secret_fallback", "1: another is used", &["secret"])?,
            store_writes: family.counters("store_writes_total", "Writes", &["store", "outcome"])?,
            store_logins: family.counters("store_logins_total", "Logins", &["store", "outcome"])?,
            config_reloads: family.counters("config_reloads_total", "Reloads", &["outcome"])?,
            config_last_reload: family.config_last_reload()?,
            admin_verbs: family.admin_verbs()?,
            handshakes_failed: family.handshakes_failed()?,
            client_cert_expiry: family.client_cert_expiry()?,
            clock_suspect: family.clock_suspect()?,
            panics: family.counter("panics_total", "Panics caught; each is a bug")?,
            lines_dropped: family.counters(
                "log_lines_dropped_total",
                "Lines dropped because the reader was too slow",
                &["stream"],
            )?,
            resolve_failures: family.resolve_failures()?,
            token_wait: family.token_wait()?,
            queue_depth: family.gauges("queue_depth", "Calls that wait", &["quota"])?,
            queue_wait: family.queue_wait()?,
            quota_limit: family.gauges("quota_limit", "Our share, calls a window", &["quota"])?,
            quota_used_ratio: family.quota_used_ratio()?,
            quotas: QuotaMetrics::new(&family)?,
            quota_sent: family.counters("quota_sent_total", "Permits used", &["quota"])?,
            state_file_errors: family.counter("state_file_errors_total", "Failed writes")?,
            upstream_throttled: family.upstream_throttled()?,
            webhook_deliveries: family.webhook_deliveries()?,
            registry: family.0,
        })
    }

    /// A credential is no longer configured: its gauges go, its counts stay.
    pub fn forget_credential(&self, name: &str) {
        for state in ["pending", "fresh", "stale", "expired", "login_required"] {
            // What was never set cannot be removed.
            drop(self.credential_state.remove_label_values(&[name, state]));
        }
        drop(self.credential_expiry.remove_label_values(&[name]));
        drop(self.credential_paused.remove_label_values(&[name]));
        drop(self.credential_unpersisted.remove_label_values(&[name]));
        drop(self.credential_generation.remove_label_values(&[name]));
    }

    /// Deliveries to an endpoint since the start, by outcome.
    pub(crate) fn deliveries_to(&self, endpoint: &str) -> BTreeMap<String, u64> {
        by_label(&self.webhook_deliveries, ("endpoint", endpoint), "outcome")
    }

    /// A quota is no longer configured: its gauges go, its counts stay.
    pub fn forget_quota(&self, name: &str) {
        let QuotaMetrics { paused, foreign, lessons, model_error, .. } = &self.quotas;
        let own = [paused, foreign, lessons, model_error];
        for gauge in [&self.queue_depth, &self.quota_limit].into_iter().chain(own) {
            drop(gauge.remove_label_values(&[name]));
        }
        drop(self.quota_used_ratio.remove_label_values(&[name]));
    }

    /// Everything in the Prometheus text format, version 0.0.4.
    ///
    /// # Errors
    /// When a family cannot be written as text.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|e| prometheus::Error::Msg(e.to_string()))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Families {
    fn credential_expiry(&self) -> Result<GaugeVec, prometheus::Error> {
        let help = "When the token in use expires, 0 where it does not";
        let opts = opts("credential_expiry_timestamp_seconds", help);
        self.add(GaugeVec::new(opts, &["credential"])?)
    }

    fn credential_unpersisted(&self) -> Result<IntGaugeVec, prometheus::Error> {
        let help = "1 while a renewed secret is in use and not in its store yet";
        self.gauges("credential_unpersisted", help, &["credential"])
    }

    fn credential_refreshes(&self) -> Result<IntCounterVec, prometheus::Error> {
        let labels = ["credential", "outcome", "reason"];
        self.counters("credential_refreshes_total", "Tries to get a token", &labels)
    }

    fn credential_paused(&self) -> Result<IntGaugeVec, prometheus::Error> {
        self.gauges("credential_paused", "1 while an operator has paused it", &["credential"])
    }

    fn credential_generation(&self) -> Result<IntGaugeVec, prometheus::Error> {
        let help = "How many different tokens there have been";
        self.gauges("credential_generation", help, &["credential"])
    }

    fn admin_verbs(&self) -> Result<IntCounterVec, prometheus::Error> {
        let help = "Changes that operators asked for";
        self.counters("admin_verbs_total", help, &["verb", "status"])
    }

    fn handshakes_failed(&self) -> Result<IntCounterVec, prometheus::Error> {
        let help = "Callers' TLS handshakes that failed";
        self.counters("tls_handshakes_failed_total", help, &["reason"])
    }

    fn client_cert_expiry(&self) -> Result<IntGauge, prometheus::Error> {
        let help = "When the client certificate ends, 0 where there is none";
        self.gauge("client_cert_expiry_timestamp_seconds", help)
    }

    fn config_last_reload(&self) -> Result<IntGauge, prometheus::Error> {
        let help = "When the configuration in force was read";
        self.gauge("config_last_reload_success_timestamp_seconds", help)
    }

    fn upstream_duration(&self) -> Result<HistogramVec, prometheus::Error> {
        let help = "From the head sent upstream to the head of the answer";
        self.histograms("upstream_duration_seconds", help, &["credential"])
    }

    fn clock_suspect(&self) -> Result<IntGauge, prometheus::Error> {
        self.gauge("clock_suspect", "1 while the machine's clock is wrong for certain")
    }

    fn resolve_failures(&self) -> Result<IntCounter, prometheus::Error> {
        self.counter("resolve_failures_total", "Look-ups of the upstream's name that failed")
    }

    fn queue_wait(&self) -> Result<HistogramVec, prometheus::Error> {
        let help = "How long each attempt waited in the queue";
        self.histograms("queue_wait_seconds", help, &["quota"])
    }

    fn upstream_throttled(&self) -> Result<IntCounterVec, prometheus::Error> {
        self.counters("upstream_throttled_total", "Answers 429", &["quota", "cause"])
    }

    fn webhook_deliveries(&self) -> Result<IntCounterVec, prometheus::Error> {
        self.counters("webhook_deliveries_total", "Deliveries", &["endpoint", "outcome"])
    }

    fn quota_used_ratio(&self) -> Result<GaugeVec, prometheus::Error> {
        let help = "Calls sent in the last window, as a part of the limit";
        self.add(GaugeVec::new(opts("quota_used_ratio", help), &["quota"])?)
    }

    fn token_wait(&self) -> Result<Histogram, prometheus::Error> {
        let help = "Time that calls waited for a first or renewed token";
        self.add(Histogram::with_opts(histogram_opts("token_wait_seconds", help))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_the_prefix_and_the_counts_show() {
        let metrics = Metrics::new().unwrap();
        metrics.rejected.with_label_values(&["bad_request"]).inc();
        let text = metrics.render().unwrap();
        assert!(text.contains("datapulse_sidecar_rejected_total{code=\"bad_request\"} 1"));
        assert!(text.contains("datapulse_sidecar_build_info{version="));
        assert!(text.lines().all(|l| l.starts_with("# ") || l.starts_with("datapulse_sidecar_")));
    }
}
