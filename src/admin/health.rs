//! `/livez`, `/startupz`, `/readyz`, `/readyz/credentials` and `/metrics`.
//!
//! Liveness depends on nothing outside the process; readiness does not flip because a store or an
//! authorization server is down, unless somebody asks for just that.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock;
use crate::proxy::Live;
use crate::serve::{self, Limits};
use crate::store::{Secrets, Stores};
use crate::telemetry::Metrics;
use crate::telemetry::logging::DroppedLines;

const LIMITS: Limits = Limits {
    connections: 64,
    head_timeout: Duration::from_secs(5),
    keep_alive: false,
    drain: Duration::from_secs(1),
};

/// What health answers from; cloning shares it.
#[derive(Debug, Clone)]
pub struct Health {
    live: Arc<Live>,
    pub(super) stores: Arc<Stores>,
    pub(super) secrets: Secrets,
    metrics: Metrics,
    phase: Arc<watch::Sender<Phase>>,
    dropped: DroppedLines,
}

/// Where the process is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Some `required` credential was not usable yet.
    Starting,
    /// Start-up is done.
    Ready,
    /// About to end.
    Draining,
}

impl Phase {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

impl Health {
    /// Starting, until [`Self::start_up`] is done.
    #[must_use]
    pub fn new(
        live: &Arc<Live>,
        stores: &Arc<Stores>,
        secrets: &Secrets,
        metrics: Metrics,
    ) -> Self {
        Self {
            live: Arc::clone(live),
            stores: Arc::clone(stores),
            secrets: secrets.clone(),
            metrics,
            phase: Arc::new(watch::Sender::new(Phase::Starting)),
            dropped: DroppedLines::default(),
        }
    }

    /// Counts of dropped lines are shown, too.
    #[must_use]
    pub fn with_dropped_lines(self, dropped: DroppedLines) -> Self {
        Self { dropped, ..self }
    }

    /// Waits for each `required` credential of the configuration in force, at most `timeout`; then
    /// start-up is done either way.
    pub async fn start_up(self, timeout: Duration) {
        let in_time = tokio::time::timeout(timeout, self.usable()).await;
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Ready;
            }
            starting
        });
        // After the change, so that who reads this line and asks gets the new answer.
        match in_time {
            Ok(()) => tracing::info!("started: each required credential is usable"),
            Err(_elapsed) => tracing::warn!(
                seconds = timeout.as_secs(),
                "started without a required credential (startup_timeout is over); its calls answer \
                 503 until it is there"
            ),
        }
    }

    /// Waits until each `required` credential is usable. A reload may change which these are.
    async fn usable(&self) {
        let mut stored = self.live.stored();
        loop {
            let snapshot = self.live.load();
            let usable = async {
                for handle in snapshot.credentials.required() {
                    handle.wait_usable().await;
                }
            };
            tokio::select! {
                () = usable => return,
                _ = stored.changed() => {}
            }
        }
    }

    /// Waits until start-up is done.
    pub async fn started(&self) {
        let mut phase = self.phase.subscribe();
        drop(phase.wait_for(|phase| *phase != Phase::Starting).await);
    }

    /// The process is about to end: `/readyz` says so from now on.
    pub fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Serves until `stop`.
pub async fn serve_health(socket: TcpListener, health: Health, stop: watch::Receiver<bool>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/startupz", get(startupz))
        .route("/readyz", get(readyz))
        .route("/readyz/credentials", get(readyz_credentials))
        .route("/metrics", get(metrics))
        .with_state(health);
    serve::serve(socket, router, LIMITS, stop).await;
}

async fn startupz(State(health): State<Health>) -> Response {
    match health.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response(),
        Phase::Ready | Phase::Draining => "started\n".into_response(),
    }
}

async fn readyz(State(health): State<Health>) -> Response {
    match health.phase() {
        Phase::Ready => "ready\n".into_response(),
        phase => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", phase.as_str())).into_response(),
    }
}

/// For whoever wants to gate on it: 503 unless each `required` credential is usable now.
async fn readyz_credentials(State(health): State<Health>) -> Response {
    let snapshot = health.live.load();
    let missing: Vec<&str> = snapshot
        .credentials
        .required()
        .filter(|handle| handle.current().is_none())
        .map(|handle| &**handle.name())
        .collect();
    if missing.is_empty() {
        return "usable\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("not usable: {}\n", missing.join(", ")))
        .into_response()
}

async fn metrics(State(health): State<Health>) -> Response {
    health.live.load().credentials.observe(&health.metrics);
    health.secrets.observe(&health.metrics);
    health.dropped.observe(&health.metrics);
    health.metrics.clock_suspect.set(i64::from(clock::is_suspect()));
    let snapshot = health.live.load();
    snapshot.shaper.observe();
    // Found out here, too, where no call has done it yet: the log tells it once.
    let _shared = snapshot.shaper.shared_keys(&snapshot.credentials);
    match health.metrics.render() {
        Ok(text) => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, text).into_response()
        }
        Err(_unrenderable) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
