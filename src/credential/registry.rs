//! Every credential of a configuration, by index and by name.

use std::sync::Arc;

use super::TokenSource;
use super::handle::{CredentialHandle, CredentialReport};
use super::kind::{ApiKey, ClientCredentialsGrant};
use super::oauth::TokenEndpoint;
use super::refresher::Refresher;
use crate::config::model::{Auth, Credential, CredentialKind};
use crate::store::SecretStore;
use crate::telemetry::Metrics;

/// The read sides of all credentials. Cloning is cheap; while a clone lives, so do the refreshers.
#[derive(Debug, Clone)]
pub struct Registry {
    entries: Arc<[Entry]>,
}

#[derive(Debug)]
struct Entry {
    handle: CredentialHandle,
    is_required: bool,
}

/// Builds a handle for each credential, and the tasks that keep them: whoever calls runs
/// [`Refresher::run`] of each.
///
/// `http` is [`crate::tls::http_client`]'s, with the roots of `auth`.
#[must_use]
pub fn build(
    credentials: &[Credential],
    auth: &Auth,
    stores: &Arc<dyn SecretStore>,
    http: &reqwest::Client,
    metrics: &Metrics,
) -> (Registry, Vec<Refresher>) {
    let mut entries = Vec::with_capacity(credentials.len());
    let mut refreshers = Vec::with_capacity(credentials.len());
    for credential in credentials {
        let stores = Arc::clone(stores);
        let source: Box<dyn TokenSource> = match &credential.kind {
            CredentialKind::ApiKey(at) => Box::new(ApiKey::new(at.clone(), stores)),
            CredentialKind::ClientCredentials(client) => Box::new(ClientCredentialsGrant::new(
                client.clone(),
                stores,
                TokenEndpoint::new(http.clone(), auth),
            )),
        };
        let (refresher, handle) = Refresher::new(credential, source, metrics);
        entries.push(Entry { handle, is_required: credential.required });
        refreshers.push(refresher);
    }
    (Registry { entries: entries.into() }, refreshers)
}

impl Registry {
    /// The handle of the credential at this index of `Config::credentials`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&CredentialHandle> {
        self.entries.get(index).map(|entry| &entry.handle)
    }

    /// The handle of the credential of this name.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&CredentialHandle> {
        self.iter().find(|handle| &**handle.name() == name)
    }

    /// All handles, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &CredentialHandle> {
        self.entries.iter().map(|entry| &entry.handle)
    }

    /// The handles of those that start-up waits for.
    pub fn required(&self) -> impl Iterator<Item = &CredentialHandle> {
        self.entries.iter().filter(|entry| entry.is_required).map(|entry| &entry.handle)
    }

    /// All credentials as `/status` shows them.
    #[must_use]
    pub fn report(&self) -> Vec<CredentialReport> {
        self.iter().map(CredentialHandle::report).collect()
    }

    /// Sets the gauges of every credential: before a scrape is answered.
    pub fn observe(&self, metrics: &Metrics) {
        self.iter().for_each(|handle| handle.observe(metrics));
    }
}
