//! `status`: a running sidecar as a table. `explain` asks it too, for one quota.

pub(super) mod quotas;
mod table;

use std::time::Duration;

use tokio::time::interval;
use url::Url;

use super::{Failure, http_url, runtime, say};
use crate::admin::Report;
use crate::telemetry;
use crate::tls::{self, Roots};

/// A status of hundreds of credentials is well below, in bytes.
const STATUS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the sidecar's admin listener is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9465", value_parser = http_url)]
    admin: Url,
    /// Prints the JSON as it came.
    #[arg(long)]
    json: bool,
    /// Shows it anew each second until Ctrl-C.
    #[arg(long, conflicts_with = "json")]
    watch: bool,
}

/// How often `--watch` asks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Clears the terminal: cursor home, erase below (ECMA-48).
const CLEAR: &str = "\u{1b}[H\u{1b}[J";

pub(super) fn status(args: &Args) -> Result<(), Failure> {
    runtime(1)?.block_on(async {
        if !args.watch {
            say(&show(args).await?);
            return Ok(());
        }
        let mut tick = interval(WATCH_INTERVAL);
        loop {
            tick.tick().await;
            // A sidecar that restarts is worth watching, too.
            let shown = show(args).await.unwrap_or_else(|failure| failure.text);
            say(&format!("{CLEAR}{shown}"));
        }
    })
}

/// The status as it is to be printed.
async fn show(args: &Args) -> Result<String, Failure> {
    let text = asked(&args.admin).await?;
    if args.json {
        return Ok(text);
    }
    Ok(table::table(&read(&text)?))
}

/// What the sidecar with this admin listener tells.
pub(super) async fn report(admin: &Url) -> Result<Report, Failure> {
    read(&asked(admin).await?)
}

async fn asked(admin: &Url) -> Result<String, Failure> {
    fetch(admin.as_str()).await.map_err(|cause| {
        Failure::failed(format!(
            "no status from {admin}: {cause}; is the sidecar running, and is --admin its admin.listen?"
        ))
    })
}

fn read(text: &str) -> Result<Report, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::failed(format!("the answer is no sidecar's status: {error}")))
}

/// The JSON of `/status`.
pub(super) async fn fetch(admin: &str) -> Result<String, String> {
    // Plain text over loopback: no certificate is ever looked at.
    let client =
        tls::http_client(&Roots::none()).map_err(|error| telemetry::error_chain(&error))?;
    let url = format!("{}/status", admin.trim_end_matches('/'));
    let answer = client.get(url).send().await.map_err(|error| telemetry::error_chain(&error))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("it answered {status}"));
    }
    let body = tls::read_capped(answer, STATUS_BYTES_MAX)
        .await
        .map_err(|error| telemetry::error_chain(&error))?;
    String::from_utf8(body).map_err(|_bytes| "it is no text".to_owned())
}
