//! `check`: every mistake of the configuration, with its line; or whether a running sidecar is well.

use std::path::Path;

use super::{Failure, environment, runtime, say};
use crate::config::{self, LoadError};
use crate::telemetry;
use crate::tls::{self, Roots};

/// What to look at.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Asks a running sidecar's health listener instead, such as `http://127.0.0.1:9464/readyz`.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) fn check(path: &Path, args: &Args) -> Result<(), Failure> {
    match &args.url {
        Some(url) => runtime(1)?.block_on(ask(url)),
        None => check_file(path),
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

fn check_file(path: &Path) -> Result<(), Failure> {
    match config::load(path, &environment) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                say(&format!("warning: {warning}"));
            }
            say(&format!(
                "{}: no mistakes; {} listeners, {} credentials, {} tenants",
                path.display(),
                config.listeners.len(),
                config.credentials.len(),
                config.tenants.len()
            ));
            Ok(())
        }
        Err(error @ LoadError::Unreadable { .. }) => {
            Err(Failure::unusable(telemetry::error_chain(&error)))
        }
        Err(LoadError::Invalid(errors)) => Err(Failure::failed(errors.to_string())),
    }
}
