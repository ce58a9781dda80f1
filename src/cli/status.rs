//! `status`: a running sidecar as a table.

use std::time::Duration;

use comfy_table::{Table, presets};
use tokio::time::interval;

use super::{Failure, runtime, say};
use crate::admin::{ConfigurationReport, Report};
use crate::credential::CredentialReport;
use crate::identity::IdentityReport;
use crate::shaping::{QuotaReport, SharedKey};
use crate::store::SecretReport;
use crate::telemetry;
use crate::tls::{self, Roots};
use crate::webhook::EndpointReport;

/// A status of hundreds of credentials is well below, in bytes.
const STATUS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the sidecar's admin listener is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9465")]
    admin: String,
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
    let text = fetch(&args.admin).await.map_err(|cause| {
        Failure::failed(format!(
            "no status from {}: {cause}; is the sidecar running, and is --admin its admin.listen?",
            args.admin
        ))
    })?;
    if args.json {
        return Ok(text);
    }
    let report: Report = serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("the answer is no sidecar's status: {error}")))?;
    Ok(table(&report))
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

fn table(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header([
        "credential",
        "level",
        "state",
        "generation",
        "age",
        "expires in",
        "last error",
    ]);
    for credential in &report.credentials {
        table.add_row([
            credential.name.clone(),
            credential.level.as_str().to_owned(),
            if credential.paused {
                format!("paused ({})", credential.state)
            } else {
                credential.state.clone()
            },
            credential.generation.to_string(),
            credential.age_seconds.map_or_else(String::new, seconds),
            match (credential.age_seconds, credential.expires_in_seconds) {
                (None, _) => String::new(),
                (Some(_), None) => "never".to_owned(),
                (Some(_), Some(left)) => seconds(left),
            },
            credential.last_error.clone().unwrap_or_default(),
        ]);
    }
    let below = [
        quotas(&report.quotas),
        secrets(report),
        webhooks(&report.webhooks),
        paused(&report.credentials),
        shared(&report.shared_keys),
        unpersisted(&report.credentials),
        client_cert(report.client_cert.as_ref()),
        configuration(&report.configuration),
        clock(report).to_owned(),
    ];
    format!(
        "datapulse-sidecar {}: {}, up {}, {} in flight, upstream {}\n{table}{}",
        report.version,
        report.phase,
        seconds(report.uptime_seconds),
        report.in_flight,
        report.upstream,
        below.concat()
    )
}

fn clock(report: &Report) -> &'static str {
    if report.clock_suspect {
        "\nclock_suspect: the machine's clock is years behind; no certificate verifies until it is set"
    } else {
        ""
    }
}

/// The secrets, and the stores that cannot be used.
fn secrets(report: &Report) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["secret", "version", "seen", "problem"]);
    for secret in &report.secrets {
        table.add_row([
            secret.secret.clone(),
            secret.version.clone().unwrap_or_default(),
            secret.age_seconds.map_or_else(String::new, |age| format!("{} ago", seconds(age))),
            problem(secret),
        ]);
    }
    let down = report.stores.iter().filter(|store| !store.up).map(|store| {
        let error = store.last_error.as_deref().unwrap_or_default();
        format!(
            "\nthe store {} has not worked for {}: {error}",
            store.name,
            seconds(store.since_seconds)
        )
    });
    format!("\n{table}{}", down.collect::<String>())
}

/// Where deliveries arrive, and what became of them; nothing when there is no such place.
fn webhooks(endpoints: &[EndpointReport]) -> String {
    if endpoints.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["webhook", "secrets", "deliveries"]);
    for one in endpoints {
        table.add_row([one.path.clone(), one.usable(), one.told()]);
    }
    format!("\n{table}")
}

/// Why a secret cannot be read, and what is used meanwhile.
fn problem(secret: &SecretReport) -> String {
    let mut text = secret.problem.clone().unwrap_or_default();
    if secret.fallback == Some(true) {
        text.push_str("; its fallback is used");
    }
    text
}

/// Until when the client certificate is good, and why a newer one is not shown.
fn client_cert(report: Option<&IdentityReport>) -> String {
    let Some(report) = report else { return String::new() };
    let mut text = match report.expires_in_seconds {
        0 => "\nthe client certificate has expired".to_owned(),
        left => format!("\nthe client certificate ends in {}", seconds(left)),
    };
    if let Some(error) = &report.last_error {
        text.push_str("; what is in its files now is not shown: ");
        text.push_str(error);
    }
    text
}

/// What to do about credentials that are paused; nothing when none is.
fn paused(credentials: &[CredentialReport]) -> String {
    let all = credentials.iter().filter(|credential| credential.paused);
    let names: Vec<&str> = all.map(|credential| &*credential.name).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\ncalls get 503 while their credential is paused; POST /credentials/NAME/resume at the \
         admin listener ends it: {}",
        names.join(", ")
    )
}

/// The quotas as a table; nothing when there are none.
fn quotas(quotas: &[QuotaReport]) -> String {
    if quotas.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["quota", "limit", "used", "waiting", "paused for", "429s"]);
    for quota in quotas {
        let waiting = quota.waiting.iter().map(|one| format!("{}: {}", one.tenant, one.calls));
        table.add_row([
            quota.name.clone(),
            quota.terms(),
            format!("{} ({:.0} %)", quota.used, quota.used_ratio * 100.0),
            waiting.collect::<Vec<_>>().join(", "),
            quota.paused_for_seconds.map_or_else(String::new, seconds),
            quota.throttles(),
        ]);
    }
    format!("\n{table}{}", quotas.iter().map(learnt).collect::<String>())
}

/// What would have become of calls that are not held back, and what a quota learnt from its 429s, a
/// line each.
fn learnt(quota: &QuotaReport) -> String {
    let foreign = (quota.foreign_usage > 0).then(|| {
        format!("\n{}: {} calls of others on the same key of late", quota.name, quota.foreign_usage)
    });
    let shadow = quota.shadow.as_ref().map(|one| format!("\n{}: {}", quota.name, one.told()));
    let lessons = quota.learnt.iter().map(|one| format!("\n{}: {}", one.config, one.reason));
    shadow.into_iter().chain(foreign).chain(lessons).collect()
}

/// Which credentials hold one key, and were given several quotas; nothing when there are none.
fn shared(keys: &[SharedKey]) -> String {
    let told = keys.iter().map(|key| {
        format!(
            "\nthe same key is in {}: their calls draw from one quota, {}; give them the same `quota`",
            key.credentials.join(", "),
            key.quota
        )
    });
    told.collect()
}

/// What a restart would not find; nothing when all is written.
fn unpersisted(credentials: &[CredentialReport]) -> String {
    let all = credentials.iter().filter(|credential| credential.unpersisted);
    let names: Vec<&str> = all.map(|credential| &*credential.name).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(
        "\nrenewed, and cannot be written back to their stores, so that a restart would not find \
         them: {}; see the log",
        names.join(", ")
    )
}

/// What of the configuration's file is not in force; nothing when all of it is.
fn configuration(report: &ConfigurationReport) -> String {
    let mut text = String::new();
    if !report.mistakes.is_empty() {
        text.push_str("\nwhat is in the configuration's file is not in force:\n");
        text.push_str(&report.mistakes.join("\n"));
    }
    if !report.needs_restart.is_empty() {
        text.push_str("\nafter a restart only: ");
        text.push_str(&report.needs_restart.join(", "));
    }
    text
}

fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
