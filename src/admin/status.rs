//! `/status`: the state of everything as JSON, which the `status` command shows as a table.
//!
//! Loopback only, and only under a loopback `Host`: a page in a browser must not read it by DNS
//! rebinding. Names, states and ages; never a value.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use super::health::Health;
use super::history::History;
use super::page::{self, Page};
use super::verbs::{self, Verbs};
use crate::clock;
use crate::credential::CredentialReport;
use crate::identity::{ClientIdentity, IdentityReport};
use crate::proxy::{Gauge, Live};
use crate::serve::{self, Limits};
use crate::shaping::{QuotaReport, SharedKey};
use crate::store::{SecretReport, StoreReport};
use crate::webhook::{EndpointReport, Webhooks};

const LIMITS: Limits = Limits {
    connections: 16,
    head_timeout: Duration::from_secs(5),
    keep_alive: false,
    drain: Duration::from_secs(1),
};

/// What status answers from.
#[derive(Debug, Clone)]
pub struct Status {
    live: Arc<Live>,
    health: Health,
    gauge: Gauge,
    reloads: watch::Receiver<ReloadState>,
    identity: ClientIdentity,
    webhooks: Option<Webhooks>,
    started_at: Instant,
}

/// What became of the configuration file: whoever reloads it publishes this.
#[derive(Debug, Clone)]
pub struct ReloadState {
    /// When the configuration in force was read.
    pub applied_at: Instant,
    /// Why what is in the file now is not in force; empty when it is.
    pub mistakes: Vec<String>,
    /// What of the file takes effect with the next start.
    pub needs_restart: Vec<&'static str>,
}

impl ReloadState {
    /// The configuration was read just now, and all of it is in force.
    #[must_use]
    pub fn new() -> Self {
        Self { applied_at: Instant::now(), mistakes: Vec::new(), needs_restart: Vec::new() }
    }
}

impl Default for ReloadState {
    fn default() -> Self {
        Self::new()
    }
}

/// The answer of `/status`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The sidecar's version.
    pub version: String,
    /// `starting`, `ready` or `draining`.
    pub phase: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether the machine's clock is wrong for certain; certificates do not verify then.
    pub clock_suspect: bool,
    /// Calls in flight.
    pub in_flight: usize,
    /// Where calls go.
    pub upstream: String,
    /// In the order of the configuration.
    pub credentials: Vec<CredentialReport>,
    /// Credentials that hold the same key although the configuration gives them different quotas.
    pub shared_keys: Vec<SharedKey>,
    /// By name; those that shape.
    pub quotas: Vec<QuotaReport>,
    /// Where secrets are kept: the stores that were used so far.
    pub stores: Vec<StoreReport>,
    /// By their references.
    pub secrets: Vec<SecretReport>,
    /// Where deliveries arrive, in the order of the configuration.
    #[serde(default)]
    pub webhooks: Vec<EndpointReport>,
    /// The certificate that is shown to the upstream; absent where none is.
    pub client_cert: Option<IdentityReport>,
    /// Whether what is in its file is in force.
    pub configuration: ConfigurationReport,
}

/// The configuration as `/status` shows it. No text of the file is in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConfigurationReport {
    /// Since the one in force was read.
    pub age_seconds: u64,
    /// Why what is in the file now is not in force; empty when it is.
    pub mistakes: Vec<String>,
    /// What of the file takes effect with the next start.
    pub needs_restart: Vec<String>,
}

impl Status {
    /// Reads from what the proxy serves from.
    #[must_use]
    pub fn new(
        live: &Arc<Live>,
        health: &Health,
        gauge: Gauge,
        reloads: watch::Receiver<ReloadState>,
        identity: ClientIdentity,
    ) -> Self {
        let started_at = Instant::now();
        let (live, health) = (Arc::clone(live), health.clone());
        Self { live, health, gauge, reloads, identity, webhooks: None, started_at }
    }

    /// With the endpoints that deliveries arrive at.
    #[must_use]
    pub fn with_webhooks(self, webhooks: &Webhooks) -> Self {
        Self { webhooks: Some(webhooks.clone()), ..self }
    }

    pub(super) fn report(&self) -> Report {
        let snapshot = self.live.load();
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            phase: self.health.phase().as_str().to_owned(),
            uptime_seconds: self.started_at.elapsed().as_secs(),
            clock_suspect: clock::is_suspect(),
            in_flight: self.gauge.count(),
            upstream: snapshot.config.upstream.origin.base_url(),
            credentials: snapshot.credentials.report(),
            shared_keys: snapshot.shaper.shared_keys(&snapshot.credentials),
            quotas: snapshot.shaper.report(&snapshot.config),
            stores: self.health.stores.report(),
            secrets: self.health.secrets.report(),
            webhooks: self.webhooks.as_ref().map(Webhooks::report).unwrap_or_default(),
            client_cert: self.identity.report(),
            configuration: self.configuration(),
        }
    }

    fn configuration(&self) -> ConfigurationReport {
        let reloads = self.reloads.borrow();
        ConfigurationReport {
            age_seconds: reloads.applied_at.elapsed().as_secs(),
            mistakes: reloads.mistakes.clone(),
            needs_restart: reloads.needs_restart.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Serves status, the page and the changing verbs until `stop`.
pub async fn serve_admin(
    socket: TcpListener,
    status: Status,
    verbs: Verbs,
    stop: watch::Receiver<bool>,
) {
    let history = History::default();
    let looking = history.clone().run(Arc::clone(&status.live));
    let pages = Router::new()
        .route("/", get(page::page))
        .route("/page.css", get(page::style))
        .with_state(Page { status: status.clone(), history });
    let router = Router::new()
        .route("/status", get(|State(status): State<Status>| async move { Json(status.report()) }))
        .with_state(status)
        .merge(pages)
        .merge(verbs::router(verbs))
        .layer(middleware::from_fn(loopback_host));
    tokio::select! {
        () = serve::serve(socket, router, LIMITS, stop) => {}
        () = looking => {}
    }
}

async fn loopback_host(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if host.is_some_and(is_loopback_host) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, "the Host must be localhost, 127.0.0.1 or [::1]\n")
        .into_response()
}

fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let known = ["localhost", "127.0.0.1", "[::1]"];
    port.bytes().all(|b| b.is_ascii_digit()) && known.iter().any(|k| name.eq_ignore_ascii_case(k))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_may_ask_for_the_status() {
        for host in ["localhost", "LOCALHOST:9465", "127.0.0.1:9465", "[::1]:9465", "[::1]"] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "127.0.0.1:x", "10.0.0.1:9465"] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }
}
