//! The metric families, by the names of the contract: `datapulse_sidecar_<noun>_<unit|total>`.
//!
//! Labels come from closed sets (configured names, codes, methods of the allow-list): never a path,
//! never a caller's text. A new `Metrics` has its own registry, so that tests do not share counts.

use prometheus::core::Collector;
use prometheus::{
    Encoder as _, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Upper bounds of the duration buckets, in seconds: 1 ms to 60 s.
const SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

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
    /// How many different tokens there have been, by `credential`.
    pub credential_generation: IntGaugeVec,
    /// Tries to get a token, by `credential`, `outcome`, `reason`.
    pub credential_refreshes: IntCounterVec,
    /// Whether the last read of a store worked, by `store`.
    pub store_up: IntGaugeVec,
    /// Reads of a store, by `store`, `outcome`.
    pub store_reads: IntCounterVec,
    /// Panics that were caught; anything but 0 is a bug.
    pub panics: IntCounter,
    /// Log and audit lines that were dropped because the reader of the stream was too slow, by
    /// `stream`.
    pub lines_dropped: IntCounterVec,
    /// Look-ups of the upstream's name that failed.
    pub resolve_failures: IntCounter,
    /// Seconds that calls waited for a first or renewed token.
    pub token_wait: Histogram,
}

impl Metrics {
    /// All families, registered, all counts zero.
    ///
    /// # Errors
    /// Only when two families have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let build = register(
            r,
            IntGaugeVec::new(opts("build_info", "Always 1; the version as a label"), &["version"])?,
        )?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let request = ["tenant", "credential", "method", "status"];
        Ok(Self {
            requests: counters(r, "requests_total", "Calls answered", &request)?,
            request_duration: histograms(
                r,
                "request_duration_seconds",
                "From a request's head to the end of its answer",
                &["tenant"],
            )?,
            upstream_duration: histograms(
                r,
                "upstream_duration_seconds",
                "From the head sent upstream to the head of the answer",
                &["credential"],
            )?,
            rejected: counters(r, "rejected_total", "Answers made by the sidecar", &["code"])?,
            retries: counters(r, "retries_total", "Calls sent upstream once more", &["reason"])?,
            in_flight: register(r, IntGauge::with_opts(opts("in_flight", "Calls in flight"))?)?,
            connections: register(
                r,
                IntGauge::with_opts(opts("connections", "Callers' connections"))?,
            )?,
            credential_state: gauges(
                r,
                "credential_state",
                "1 for the state that the credential is in",
                &["credential", "state"],
            )?,
            credential_expiry: register(
                r,
                GaugeVec::new(
                    opts(
                        "credential_expiry_timestamp_seconds",
                        "When the token in use expires, 0 where it does not",
                    ),
                    &["credential"],
                )?,
            )?,
            credential_generation: gauges(
                r,
                "credential_generation",
                "How many different tokens there have been",
                &["credential"],
            )?,
            credential_refreshes: counters(
                r,
                "credential_refreshes_total",
                "Tries to get a token",
                &["credential", "outcome", "reason"],
            )?,
            store_up: gauges(r, "store_up", "Whether the last read worked", &["store"])?,
            store_reads: counters(r, "store_reads_total", "Reads", &["store", "outcome"])?,
            panics: register(r, IntCounter::with_opts(opts("panics_total", "Panics caught"))?)?,
            lines_dropped: counters(
                r,
                "log_lines_dropped_total",
                "Lines dropped because the reader was too slow",
                &["stream"],
            )?,
            resolve_failures: register(
                r,
                IntCounter::with_opts(opts(
                    "resolve_failures_total",
                    "Look-ups of the upstream's name that failed",
                ))?,
            )?,
            token_wait: register(
                r,
                Histogram::with_opts(histogram_opts(
                    "token_wait_seconds",
                    "Time that calls waited for a first or renewed token",
                ))?,
            )?,
            registry,
        })
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

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("datapulse_sidecar")
}

fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec())
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    register(registry, IntCounterVec::new(opts(name, help), labels)?)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    register(registry, IntGaugeVec::new(opts(name, help), labels)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    register(registry, HistogramVec::new(histogram_opts(name, help), labels)?)
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
