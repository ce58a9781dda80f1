//! What `run` and `exec` do first: they lock the process up, read the configuration, and set up
//! metrics and log lines. No secret is read here.

use std::path::Path;

use super::{Failure, environment, load};
use crate::clock;
use crate::config::Config;
use crate::config::model::VaultStore;
use crate::config::watch::ConfigWatch;
use crate::os::{self, Hardened, OpenFiles};
use crate::secret::SecretRef;
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

/// Behind `VAULT_` or `BAO_`: what Vault's own programs heed. A service of that name gives a pod others.
const VAULTS: [&str; 13] = [
    "ADDR",
    "AGENT_ADDR",
    "PROXY_ADDR",
    "HTTP_PROXY",
    "NAMESPACE",
    "TOKEN",
    "CACERT",
    "CACERT_BYTES",
    "CAPATH",
    "CLIENT_CERT",
    "CLIENT_KEY",
    "SKIP_VERIFY",
    "TLS_SERVER_NAME",
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
            || config.stores.vault.as_ref().is_some_and(|vault| is_passed_over(name, vault))
    };
    let mut names: Vec<String> = names.filter(is_ignored).collect();
    names.sort();
    names
}

/// Whether this is one of Vault's variables, and the configuration says something else than it does.
fn is_passed_over(name: &str, vault: &VaultStore) -> bool {
    let Some(key) = name.strip_prefix("VAULT_").or_else(|| name.strip_prefix("BAO_")) else {
        return false;
    };
    let value = environment(name).unwrap_or_default();
    let value = value.trim_matches('/');
    let is_in_force = match key {
        "ADDR" => vault.address.as_str().trim_end_matches('/') == value,
        "NAMESPACE" => vault.namespace.as_deref().unwrap_or_default() == value,
        "CACERT" => vault.ca_file.as_ref().is_some_and(|file| file.ends_with(value)),
        "TOKEN" => {
            matches!(vault.auth.secret(), Some(SecretRef::Env { name: it }) if **it == *name)
        }
        _ => false,
    };
    VAULTS.contains(&key) && !is_in_force
}
