//! The stores that the configuration names: opened at the start, and again where a reload changes
//! them. No call is made here.

use std::path::Path;
use std::sync::Arc;

use super::build::StartError;
use crate::config::{Config, model};
use crate::store::{AwsStore, Remote, SecretStore, Stores, Vault};
use crate::telemetry::Metrics;

/// All stores, with those that the configuration names. Reads their certificates.
pub(super) fn open(config: &Config, metrics: &Metrics) -> Result<Arc<Stores>, StartError> {
    let stores = Arc::new(Stores::new(metrics));
    let opened = Opened::new(&config.stores, &model::Stores::default(), |_| false, metrics)?;
    drop(opened.install(&stores));
    Ok(stores)
}

/// Stores that are opened, and that references do not lead to yet.
#[derive(Debug, Clone)]
pub(super) struct Opened(Vec<(Remote, Option<Arc<dyn SecretStore>>)>);

impl Opened {
    /// Opens what is configured otherwise than before, or is to be verified with others by what its
    /// `ca_file` says now (`is_renewed`); the others stay as they are. Reads their certificates.
    pub(super) fn new(
        now: &model::Stores,
        before: &model::Stores,
        is_renewed: impl Fn(Option<&Path>) -> bool,
        metrics: &Metrics,
    ) -> Result<Self, StartError> {
        let mut opened = Vec::new();
        let vault_ca = now.vault.as_ref().and_then(|vault| vault.ca_file.as_deref());
        let aws_ca = now.aws.as_ref().and_then(|aws| aws.ca_file.as_deref());
        if now.vault != before.vault || is_renewed(vault_ca) {
            let store = now.vault.as_ref().map(|spec| Vault::new(spec, metrics)).transpose()?;
            opened
                .push((Remote::Vault, store.map(|store| Arc::new(store) as Arc<dyn SecretStore>)));
        }
        if now.aws != before.aws || is_renewed(aws_ca) {
            let store = now.aws.as_ref().map(AwsStore::new).transpose()?;
            opened.push((Remote::Aws, store.map(|store| Arc::new(store) as Arc<dyn SecretStore>)));
        }
        Ok(Self(opened))
    }

    /// Whether there is one.
    pub(super) const fn is_any(&self) -> bool {
        !self.0.is_empty()
    }

    /// References lead to these from now on. What they led to before is given back.
    pub(super) fn install(self, stores: &Stores) -> Self {
        let install = |(remote, store)| (remote, stores.set(remote, store));
        Self(self.0.into_iter().map(install).collect())
    }
}
