//! A status as tables, and a line for each thing to know beside them.

use std::time::Duration;

use comfy_table::{Table, presets};

use super::quotas;
use crate::admin::{ConfigurationReport, Report};
use crate::credential::CredentialReport;
use crate::identity::IdentityReport;
use crate::shaping::SharedKey;
use crate::store::SecretReport;
use crate::webhook::EndpointReport;

/// The status for people.
pub(super) fn table(report: &Report) -> String {
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
        quotas::table(&report.quotas),
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

pub(super) fn seconds(seconds: u64) -> String {
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
