//! What `run` and `exec` do first: the configuration, then metrics and log lines.

use std::path::Path;
use std::sync::Arc;

use super::{Failure, load};
use crate::config::Config;
use crate::telemetry::Metrics;
use crate::telemetry::logging::Logging;

/// Ready to bind addresses; no secret was read.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    /// To be dropped last: it writes out what waits.
    pub(super) logging: Arc<Logging>,
}

/// `adapt` changes what the command sees differently than the file says.
pub(super) fn prepare(
    path: &Path,
    adapt: impl FnOnce(&mut Config) -> Result<(), Failure>,
) -> Result<Prepared, Failure> {
    let (mut config, warnings) = load(path)?;
    adapt(&mut config)?;
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let logging = Logging::start(&config.log, &metrics);
    let logging = Arc::new(logging.map_err(|error| Failure::from_error(&error))?);
    for warning in &warnings {
        tracing::warn!(%warning, "configuration");
    }
    Ok(Prepared { config, metrics, logging })
}
