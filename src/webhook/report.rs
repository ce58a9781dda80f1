//! What became of each endpoint's deliveries, for status. Numbers and paths of the configuration;
//! nothing of a delivery.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Webhooks;

/// One endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Where deliveries arrive.
    pub path: String,
    /// How many secrets are listed.
    pub secrets: usize,
    /// How many of them verify now: the others could not be read, or be used.
    pub secrets_usable: usize,
    /// Deliveries since the start by what became of them, as in the label `outcome` of
    /// `webhook_deliveries_total`.
    pub deliveries: BTreeMap<String, u64>,
}

impl EndpointReport {
    /// `1 of 2`: how many secrets verify.
    #[must_use]
    pub fn usable(&self) -> String {
        format!("{} of {}", self.secrets_usable, self.secrets)
    }

    /// `delivered: 3, signature_mismatch: 1`.
    #[must_use]
    pub fn told(&self) -> String {
        let all = self.deliveries.iter().map(|(outcome, count)| format!("{outcome}: {count}"));
        all.collect::<Vec<_>>().join(", ")
    }
}

impl Webhooks {
    /// Every endpoint, in the order of the configuration.
    #[must_use]
    pub fn report(&self) -> Vec<EndpointReport> {
        let table = self.table();
        let report = table.all().map(|endpoint| EndpointReport {
            path: endpoint.spec.path.to_string(),
            secrets: endpoint.spec.secrets.len(),
            secrets_usable: endpoint.keys.count(),
            deliveries: self.metrics.deliveries_to(&endpoint.spec.path),
        });
        report.collect()
    }
}
