//! `run`: the proxy.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::signals::Signals;
use super::{Failure, load, runtime};
use crate::app::{Ended, Shutdown, Sidecar};
use crate::config::{Config, ConfigWarning};
use crate::telemetry::Metrics;
use crate::telemetry::logging::Logging;

const THREADS: usize = 2;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (config, warnings) = load(path)?;
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let logging = Logging::start(&config.log, &metrics);
    let logging = Arc::new(logging.map_err(|error| Failure::from_error(&error))?);
    let runtime = runtime(THREADS)?;
    let ended = runtime.block_on(serve(config, &warnings, metrics, Arc::clone(&logging)));
    // What still runs has no call any more; waiting for it would only delay the end.
    runtime.shutdown_background();
    drop(logging);
    match ended? {
        // A second signal is the operator's wish, and a drain that ran into its bound is in the log.
        Ended::Clean | Ended::Cut { .. } => Ok(()),
    }
}

async fn serve(
    config: Config,
    warnings: &[ConfigWarning],
    metrics: Metrics,
    logging: Arc<Logging>,
) -> Result<Ended, Failure> {
    for warning in warnings {
        tracing::warn!(%warning, "configuration");
    }
    let signals = Signals::listen();
    let signals =
        signals.map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    let sidecar = Sidecar::bind(config, metrics).await;
    let sidecar = sidecar.map_err(|error| Failure::from_error(&error))?.with_logging(logging);
    for (listener, address) in sidecar.addresses() {
        tracing::info!(%listener, %address, "apps can call");
    }
    let (health, admin) = (sidecar.health_address(), sidecar.admin_address());
    if let (Ok(health), Ok(admin)) = (health, admin) {
        tracing::info!(%health, %admin, "health and metrics; status");
    }
    let (step, shutdown) = watch::channel(Shutdown::No);
    let running = sidecar.run(shutdown);
    tokio::pin!(running);
    let driving = signals.drive(step);
    tokio::select! {
        ended = &mut running => Ok(ended),
        // It ends after the second signal, which the run still has to see.
        () = driving => Ok(running.await),
    }
}
