//! The HTTP clients for calls of our own: to the authorization server, the API host and, with
//! deliveries, to the app. What they trust is read and checked here.

use std::sync::Arc;

use super::build::StartError;
use super::own_calls::Shaped;
use crate::config::Config;
use crate::config::model::Endpoint;
use crate::credential::{AuthorizationServer, Issuers, OwnCalls};
use crate::identity::ClientIdentity;
use crate::store::Secrets;
use crate::telemetry::Metrics;
use crate::tls::{self, Roots};
use crate::webhook::{KeyKeeper, Webhooks};

/// Checks what the API host and the authorization server are verified with, and gives the clients
/// for the calls that the sidecar itself makes to them, to the API host as `identity`; `own_calls`
/// says when that may be called.
pub(super) fn issuers(
    config: &Config,
    identity: &ClientIdentity,
    own_calls: Arc<dyn OwnCalls>,
) -> Result<Issuers, StartError> {
    let (upstream, auth) = (&config.upstream, &config.auth);
    let mut api_roots = Roots::none();
    if upstream.origin.tls {
        api_roots = Roots::load(upstream.ca_file.as_deref())?;
        if let Some(warning) = api_roots.warnings().first() {
            return Err(StartError::SystemRoots(warning.clone()));
        }
    }
    Ok(Issuers {
        auth: auth.clone(),
        api: upstream.origin.clone(),
        auth_client: authorization_server(config)?.client.into(),
        api_client: tls::http_client_with(&api_roots, Arc::new(identity.clone()))?,
        own_calls,
    })
}

/// Checks what the authorization server is verified with, and gives the client for calls to it.
pub(super) fn authorization_server(config: &Config) -> Result<AuthorizationServer, StartError> {
    let (upstream, auth) = (&config.upstream, &config.auth);
    let mut roots = Roots::none();
    if auth.token_url.scheme() == "https" {
        roots = Roots::load(auth.ca_file.as_deref().or(upstream.ca_file.as_deref()))?;
        for warning in roots.warnings() {
            tracing::warn!(warning, "certificates");
        }
    }
    Ok(AuthorizationServer { auth: auth.clone(), client: tls::http_client(&roots)? })
}

/// The same for a start, with what is still to be told which shaper there is.
pub(super) fn shaped_issuers(
    config: &Config,
    identity: &ClientIdentity,
) -> Result<(Issuers, Arc<Shaped>), StartError> {
    let own_calls = Arc::new(Shaped::default());
    let issuers = issuers(config, identity, Arc::clone(&own_calls) as Arc<dyn OwnCalls>)?;
    Ok((issuers, own_calls))
}

/// The client that hands deliveries to the app. Certificates are needed only where one speaks TLS.
pub(super) fn delivery_client(config: &Config) -> Result<reqwest::Client, StartError> {
    let is_tls = endpoints(config).iter().any(|one| one.forward_to.scheme() == "https");
    let roots = if is_tls { Roots::load(None)? } else { Roots::none() };
    Ok(tls::delivery_client(&roots)?)
}

/// What takes deliveries, and the tasks that keep its secrets.
pub(super) fn webhooks(
    config: &Config,
    secrets: &Secrets,
    metrics: &Metrics,
) -> Result<(Webhooks, Vec<KeyKeeper>), StartError> {
    Ok(Webhooks::new(endpoints(config), delivery_client(config)?, secrets, metrics))
}

/// Where deliveries arrive; nowhere, mostly.
pub(super) fn endpoints(config: &Config) -> &[Endpoint] {
    config.webhooks.as_ref().map_or(&[], |webhooks| &webhooks.endpoints)
}
