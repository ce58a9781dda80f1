//! What is known of the watched secrets, for `/status` and the metrics. Never a value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Secrets;
use crate::telemetry::Metrics;

/// A secret as `/status` shows it. No field holds the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReport {
    /// The reference, as configured.
    pub secret: String,
    /// Of the value in use; absent where the store counts none.
    pub version: Option<String>,
    /// Since the store last said what is there; absent before it ever did.
    pub age_seconds: Option<u64>,
    /// Whether the store says that there is nothing to be had under this name.
    pub missing: bool,
    /// Whether its fallback is used in its place; absent where it has none.
    pub fallback: Option<bool>,
    /// Why the last look failed, as a metric label.
    pub problem: Option<String>,
}

impl Secrets {
    /// What is known of each secret, by its reference; of one with several users what the one knows
    /// whose last look is longest ago.
    #[must_use]
    pub fn report(&self) -> Vec<SecretReport> {
        let mut reports: BTreeMap<String, SecretReport> = BTreeMap::new();
        for report in self.entries().iter().map(|entry| entry.report()) {
            let known = reports.entry(report.secret.clone()).or_insert_with(|| report.clone());
            let fallback = known.fallback.max(report.fallback);
            if report.age_seconds > known.age_seconds {
                *known = report;
            }
            known.fallback = fallback;
        }
        reports.into_values().collect()
    }

    /// Brings the gauges up to date; those of secrets that nobody uses any more go.
    pub fn observe(&self, metrics: &Metrics) {
        let reports = self.report();
        let mut shown = self.shown.lock();
        for gone in shown.iter().filter(|one| reports.iter().all(|report| report.secret != **one)) {
            drop(metrics.secret_age.remove_label_values(&[gone]));
            drop(metrics.secret_missing.remove_label_values(&[gone]));
            drop(metrics.secret_fallback.remove_label_values(&[gone]));
        }
        shown.clear();
        for report in &reports {
            match report.age_seconds {
                Some(age) => {
                    let age = i64::try_from(age).unwrap_or(i64::MAX);
                    metrics.secret_age.with_label_values(&[&report.secret]).set(age);
                }
                // A fallback that is not used.
                None => drop(metrics.secret_age.remove_label_values(&[&report.secret])),
            }
            let missing = i64::from(report.missing);
            metrics.secret_missing.with_label_values(&[&report.secret]).set(missing);
            if let Some(fallback) = report.fallback {
                let gauge = metrics.secret_fallback.with_label_values(&[&report.secret]);
                gauge.set(i64::from(fallback));
            }
            shown.insert(report.secret.clone());
        }
    }
}
