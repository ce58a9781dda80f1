//! `check`: every mistake of the configuration, with its line, and whether its secrets and tokens can
//! be had; or whether a running sidecar is well.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::signals::Signals;
use super::{Failure, environment, runtime, say};
use crate::app::check_online;
use crate::config::{self, Config, LoadError};
use crate::shaping::state_file::StateFile;
use crate::telemetry::{self, Metrics};
use crate::tls::{self, Roots};

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Asks a running sidecar's health listener instead, such as `http://127.0.0.1:9464/readyz`.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Also reads each secret, obtains each token and asks DataPulse whose it is.
    #[arg(long, conflicts_with = "url")]
    online: bool,
}

pub(super) fn check(path: &Path, args: &Args) -> Result<(), Failure> {
    match &args.url {
        Some(url) => runtime(1)?.block_on(ask(url)),
        None => {
            let config = check_file(path)?;
            if args.online {
                return runtime(1)?.block_on(look(&config));
            }
            Ok(())
        }
    }
}

/// After Ctrl-C it goes on for so long.
const ENDING_MAX: Duration = Duration::from_secs(12);

/// One line for each thing that was looked at; the failures at the end, by number.
async fn look(config: &Config) -> Result<(), Failure> {
    let metrics = Metrics::new().map_err(|error| Failure::from_error(&error))?;
    let mut signals = Signals::listen()
        .map_err(|error| Failure::unusable(format!("cannot listen to signals: {error}")))?;
    let looking = check_online(config, &metrics);
    tokio::pin!(looking);
    let findings = tokio::select! {
        findings = &mut looking => findings,
        // A refresh token may just be replaced: what comes of it must not be missed.
        () = signals.next() => match timeout(ENDING_MAX, &mut looking).await {
            Ok(findings) => findings,
            Err(_elapsed) => return Err(Failure::failed("told to end before all was looked at")),
        },
    };
    let findings = findings.map_err(|error| Failure::from_error(&error))?;
    for finding in &findings {
        say(&format!("{} {}", if finding.is_good { "ok  " } else { "FAIL" }, finding.text));
    }
    match findings.iter().filter(|finding| !finding.is_good).count() {
        0 => Ok(()),
        count => Err(Failure::failed(format!("{count} of these need attention"))),
    }
}

/// For probes and `helm test`: well is 200, and nothing else.
async fn ask(url: &str) -> Result<(), Failure> {
    if !url.starts_with("http://") {
        return Err(Failure::unusable(
            "--url: the health listener speaks http; give http://HOST:9464/readyz",
        ));
    }
    // Plain text: no certificate is ever looked at.
    let client = tls::http_client(&Roots::none()).map_err(|error| Failure::from_error(&error))?;
    let answer = client.get(url).send().await.map_err(|error| {
        let cause = telemetry::error_chain(&error);
        Failure::failed(format!(
            "no answer from {url}: {cause}; is it the sidecar's health.listen?"
        ))
    })?;
    let status = answer.status();
    if status == http::StatusCode::OK {
        say(&format!("{url}: {status}"));
        return Ok(());
    }
    Err(Failure::failed(format!("{url} answered {status}; the sidecar's log says why")))
}

fn check_file(path: &Path) -> Result<Config, Failure> {
    match config::load(path, &environment) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                say(&format!("warning: {warning}"));
            }
            if let Some(objection) = StateFile::objection(&config.shaping.state_file) {
                let at = path.display();
                return Err(Failure::failed(format!("{at}: shaping.state_file: {objection}")));
            }
            say(&format!(
                "{}: no mistakes; {} listeners, {} credentials, {} tenants",
                path.display(),
                config.listeners.len(),
                config.credentials.len(),
                config.tenants.len()
            ));
            Ok(config)
        }
        Err(error @ LoadError::Unreadable { .. }) => {
            Err(Failure::unusable(telemetry::error_chain(&error)))
        }
        Err(LoadError::Invalid(errors)) => Err(Failure::failed(errors.to_string())),
    }
}
