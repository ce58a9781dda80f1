//! `run`: the proxy.

use std::path::Path;

use tokio::sync::watch;

use super::prepare::{Prepared, prepare};
use super::signals::Signals;
use super::{Failure, runtime};
use crate::app::{Ended, Ports, Shutdown, Sidecar};

/// Two threads serve tens of thousands of calls a second.
pub(super) const THREADS: usize = 2;

pub(super) fn run(path: &Path) -> Result<(), Failure> {
    let (prepared, logging) = prepare(path, |_config| Ok(()))?;
    let runtime = runtime(THREADS)?;
    let ended = runtime.block_on(serve(prepared));
    // What still runs has no call any more; waiting for it would only delay the end.
    runtime.shutdown_background();
    drop(logging);
    match ended? {
        // A second signal is the operator's wish, and a drain that ran into its bound is in the log.
        Ended::Clean | Ended::Cut { .. } => Ok(()),
    }
}

async fn serve(prepared: Prepared) -> Result<Ended, Failure> {
    let Prepared { config, watch, metrics, hardened: _, open_files: _, dropped, levels } = prepared;
    let signals = Signals::listen().and_then(Signals::of_a_server);
    let signals =
        signals.map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    let reload = watch.asked();
    let sidecar = Sidecar::bind(config, metrics, Ports::All).await;
    let sidecar = sidecar.map_err(|error| Failure::from_error(&error))?.with_dropped_lines(dropped);
    let sidecar = sidecar.with_level_switch(levels).with_watch(watch);
    for (listener, address) in sidecar.addresses() {
        tracing::info!(%listener, %address, "apps can call");
    }
    for listener in sidecar.unix_sockets() {
        tracing::info!(%listener, "apps can call");
    }
    if let (Some(health), Some(admin)) = (sidecar.health_address(), sidecar.admin_address()) {
        tracing::info!(%health, %admin, "health and metrics; status");
    }
    if let Some(address) = sidecar.webhooks_address() {
        tracing::info!(%address, "DataPulse can deliver");
    }
    let (step, shutdown) = watch::channel(Shutdown::No);
    let running = sidecar.run(shutdown);
    tokio::pin!(running);
    let driving = signals.drive(step, &reload);
    tokio::select! {
        ended = &mut running => Ok(ended),
        // It ends after the second signal, which the run still has to see.
        () = driving => Ok(running.await),
    }
}
