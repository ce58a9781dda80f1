//! Quotas of a running sidecar, for people: all of them as a table, or one in lines.

use comfy_table::{Table, presets};

use super::table::seconds;
use crate::admin::Report;
use crate::shaping::QuotaReport;

/// What is told of each quota, and what that is called.
fn cells(quota: &QuotaReport) -> [(&'static str, String); 5] {
    let waiting = quota.waiting.iter().map(|one| format!("{}: {}", one.tenant, one.calls));
    [
        ("limit", quota.terms()),
        ("used", format!("{} ({:.0} %)", quota.used, quota.used_ratio * 100.0)),
        ("waiting", waiting.collect::<Vec<_>>().join(", ")),
        ("paused for", quota.paused_for_seconds.map_or_else(String::new, seconds)),
        ("429s", quota.throttles()),
    ]
}

/// What is held back since the start, what would have become of calls that are not, what others used,
/// how DataPulse's count differs from ours, how long the quota was nearly used up, and what it learnt
/// from its 429s.
fn beside(quota: &QuotaReport) -> impl Iterator<Item = String> {
    let foreign = (quota.foreign_usage > 0).then(|| {
        format!("{}: {} calls of others on the same key of late", quota.name, quota.foreign_usage)
    });
    let shadow = quota.shadow.as_ref().map(|one| format!("{}: {}", quota.name, one.told()));
    let held = quota.held_back.map(|one| format!("{}: {}", quota.name, one.told()));
    let lessons = quota.learnt.iter().map(|one| format!("{}: {}", one.config, one.reason));
    let count = quota
        .told_count()
        .map(|count| format!("{}: DataPulse's own count, of late: {count}", quota.name));
    let near = quota.near_limit().map(|near| {
        format!("{}: 90 % or more of the share used for {} in all", quota.name, seconds(near))
    });
    held.into_iter().chain(shadow).chain(foreign).chain(count).chain(near).chain(lessons)
}

/// The quotas as a table; nothing when there are none.
pub(super) fn table(quotas: &[QuotaReport]) -> String {
    let Some(first) = quotas.first() else { return String::new() };
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(["quota"].into_iter().chain(cells(first).map(|(name, _)| name)));
    for quota in quotas {
        let told = cells(quota).map(|(_, told)| told);
        table.add_row([quota.name.clone()].into_iter().chain(told));
    }
    let lines = quotas.iter().flat_map(beside).map(|line| format!("\n{line}"));
    format!("\n{table}{}", lines.collect::<String>())
}

/// The quota that calls with this credential draw from as the sidecar runs, a line for each thing to
/// know; `configured` is the one that the configuration gives it.
pub(in crate::cli) fn of_credential(
    report: &Report,
    credential: &str,
    configured: Option<&str>,
) -> Vec<(&'static str, String)> {
    let is_one = |name: &String| name == credential;
    let shared = report.shared_keys.iter().find(|key| key.credentials.iter().any(is_one));
    let Some(name) = shared.map(|key| &*key.quota).or(configured) else { return Vec::new() };
    let Some(quota) = report.quotas.iter().find(|quota| quota.name == name) else {
        let told = format!("{name} is not spaced, or not in its configuration");
        return vec![("running", told)];
    };
    let running = match shared {
        Some(key) => format!("{name}, as the same key is in {}", key.credentials.join(", ")),
        None => name.to_owned(),
    };
    let none = |told: String| if told.is_empty() { "none".to_owned() } else { told };
    let told = cells(quota).map(|(name, told)| (name, none(told)));
    let beside = beside(quota).map(|line| ("", line));
    [("running", running)].into_iter().chain(told).chain(beside).collect()
}
