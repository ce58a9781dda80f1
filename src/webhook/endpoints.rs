//! The endpoints in force: swapped as one when the configuration changes, each with its secrets and
//! what it remembers.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::body::Budget;
use super::keys::{KeyKeeper, Keys, keys};
use super::seen::Seen;
use crate::config::model;
use crate::store::Secrets;
use crate::telemetry::Metrics;

/// Where deliveries arrive, and what they need. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Webhooks {
    table: Arc<ArcSwap<Table>>,
    pub(super) budget: Budget,
    pub(super) metrics: Metrics,
}

#[derive(Debug)]
pub(super) struct Table {
    pub(super) http: reqwest::Client,
    endpoints: Vec<Arc<Endpoint>>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) spec: model::Endpoint,
    pub(super) keys: Keys,
    pub(super) seen: Option<Arc<Seen>>,
}

impl Webhooks {
    /// With these endpoints, and the tasks that keep their secrets: whoever calls runs them.
    ///
    /// `http` is [`crate::tls::delivery_client`]'s.
    #[must_use]
    pub fn new(
        endpoints: &[model::Endpoint],
        http: reqwest::Client,
        secrets: &Secrets,
        metrics: &Metrics,
    ) -> (Self, Vec<KeyKeeper>) {
        let (table, keepers) = Table::new(endpoints, http, secrets, &[]);
        let table = Arc::new(ArcSwap::from_pointee(table));
        (Self { table, budget: Budget::default(), metrics: metrics.clone() }, keepers)
    }

    /// From now on these endpoints; deliveries under way keep theirs. What is as before keeps its
    /// secrets and what it remembers.
    #[must_use]
    pub fn renew(
        &self,
        endpoints: &[model::Endpoint],
        http: reqwest::Client,
        secrets: &Secrets,
    ) -> Vec<KeyKeeper> {
        let before = self.table.load_full();
        let (table, keepers) = Table::new(endpoints, http, secrets, &before.endpoints);
        self.table.store(Arc::new(table));
        keepers
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.table.load_full()
    }
}

impl Table {
    fn new(
        specs: &[model::Endpoint],
        http: reqwest::Client,
        secrets: &Secrets,
        before: &[Arc<Endpoint>],
    ) -> (Self, Vec<KeyKeeper>) {
        let mut keepers = Vec::new();
        let endpoint = |spec: &model::Endpoint| {
            let same = before.iter().find(|old| old.spec.path == spec.path);
            let kept = same.filter(|old| old.spec.secrets == spec.secrets);
            let keys = kept.map(|old| old.keys.clone()).unwrap_or_else(|| {
                let known = before.iter().map(|old| &old.keys);
                let (keys, keeper) = keys(&spec.secrets, secrets, known);
                keepers.push(keeper);
                keys
            });
            let kept = same.filter(|old| old.spec.dedupe == spec.dedupe);
            let seen = kept.and_then(|old| old.seen.clone()).or_else(|| {
                spec.dedupe.as_ref().map(|dedupe| Seen::new(dedupe.entries, dedupe.keep))
            });
            Arc::new(Endpoint { keys, seen, spec: spec.clone() })
        };
        let endpoints = specs.iter().map(endpoint).collect();
        (Self { http, endpoints }, keepers)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.iter().map(|endpoint| &**endpoint)
    }

    pub(super) fn find(&self, path: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| &*endpoint.spec.path == path)
    }
}
