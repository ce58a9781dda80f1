//! What `run` and `exec` do first: they lock the process up, read the configuration, and set up
//! metrics and log lines. No secret is read here.

use std::path::Path;

use super::{Failure, load};
use crate::clock;
use crate::config::Config;
use crate::config::watch::ConfigWatch;
use crate::os::{self, Hardened, OpenFiles};
use crate::telemetry::Metrics;
use crate::telemetry::logging::{DroppedLines, LevelSwitch, Logging};

/// Variables that would reroute calls or write out session keys. Our clients never look at them.
const IGNORED: [&str; 9] = [
    "SSLKEYLOGFILE",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Ready to bind addresses; no secret was read.
pub(super) struct Prepared {
    pub(super) config: Config,
    /// The file that it is from.
    pub(super) watch: ConfigWatch,
    pub(super) metrics: Metrics,
    pub(super) hardened: Hardened,
    pub(super) open_files: OpenFiles,
    pub(super) dropped: DroppedLines,
    pub(super) levels: LevelSwitch,
}

/// [`Logging`] is to be dropped last: it writes out what waits.
///
/// `adapt` changes what the command sees differently than the file says.
pub(super) fn prepare(
    path: &Path,
    adapt: impl FnOnce(&mut Config) -> Result<(), Failure>,
) -> Result<(Prepared, Logging), Failure> {
    let (hardened, open_files) = (os::harden(), os::raise_open_files());
    let (mut config, warnings, watch) = load(path)?;
    adapt(&mut config)?;
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let logging = Logging::start(&config.log, &metrics);
    let logging = logging.map_err(|error| Failure::from_error(&error))?;
    for warning in &warnings {
        tracing::warn!(%warning, "configuration");
    }
    if let Some(problem) = hardened.problem() {
        tracing::warn!(%problem, "core dumps and tracing could not be turned off");
    }
    if clock::is_suspect() {
        tracing::warn!(
            now = %humantime::format_rfc3339_seconds(clock::wall()),
            "clock_suspect: the machine's clock is earlier than this version; no certificate \
             verifies until it is set"
        );
    }
    let ignored = ignored(&config);
    if !ignored.is_empty() {
        tracing::warn!(variables = ignored.join(" "), "the sidecar ignores variables that are set");
    }
    let (dropped, levels) = (logging.dropped_lines(), logging.level_switch());
    Ok((Prepared { config, watch, metrics, hardened, open_files, dropped, levels }, logging))
}

/// The variables that are set, that the like of us heeds, and that we do not.
fn ignored(config: &Config) -> Vec<String> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let is_ignored = |name: &String| {
        IGNORED.contains(&&**name)
            || (config.stores.aws.is_some()
                && (name.starts_with("AWS_ENDPOINT_URL") || name == "AWS_CA_BUNDLE"))
    };
    let mut names: Vec<String> = names.filter(is_ignored).collect();
    names.sort();
    names
}
