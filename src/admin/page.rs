//! `/` of the admin listener: the state of everything, for people. It refreshes itself, and needs no
//! script and nothing from elsewhere.
//!
//! Everything is escaped; no value of a secret is in what it shows, because none is in [`Report`].

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use maud::{DOCTYPE, Markup, html};

use super::history::{History, STEP};
use super::plot::plot;
use super::status::{Report, Status};
use crate::credential::CredentialReport;
use crate::identity::IdentityReport;
use crate::shaping::QuotaReport;
use crate::webhook::EndpointReport;

/// What a browser may do with the page: show it, with our own style, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// A client certificate that ends within so many seconds is something to look at: a week.
const OWN_ENDS_SOON: u64 = 7 * 24 * 3600;

/// What the page is made of.
#[derive(Debug, Clone)]
pub(super) struct Page {
    pub(super) status: Status,
    pub(super) history: History,
}

/// The page.
pub(super) async fn page(State(page): State<Page>) -> impl IntoResponse {
    let body = render(&page.status.report(), &page.history);
    (headers("text/html; charset=utf-8"), body.into_string())
}

/// Its style.
pub(super) async fn style() -> impl IntoResponse {
    (headers("text/css; charset=utf-8"), include_str!("page.css"))
}

fn headers(kind: &'static str) -> [(HeaderName, HeaderValue); 5] {
    [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ]
}

fn render(report: &Report, history: &History) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta name="color-scheme" content="light dark";
                meta http-equiv="refresh" content=(STEP.as_secs());
                title { "datapulse-sidecar: " (report.phase) }
                link rel="stylesheet" href="/page.css";
            }
            body {
                header {
                    h1 { "datapulse-sidecar" }
                    span class={ "badge " (report.phase) } { (report.phase) }
                    p {
                        "version " (report.version) " · up " (span(report.uptime_seconds)) " · "
                        (report.in_flight) " in flight · calls go to " code { (report.upstream) }
                    }
                }
                main {
                    (problems(report))
                    (credentials(&report.credentials))
                    (quotas(&report.quotas, history))
                    (stores(report))
                    (webhooks(&report.webhooks))
                }
            }
        }
    }
}

/// What somebody should do something about; nothing where there is nothing.
fn problems(report: &Report) -> Markup {
    let configuration = &report.configuration;
    let paused = report.credentials.iter().filter(|credential| credential.paused);
    let paused: Vec<&str> = paused.map(|credential| &*credential.name).collect();
    let own = report.client_cert.as_ref().and_then(client_cert);
    let any = !configuration.mistakes.is_empty()
        || !configuration.needs_restart.is_empty()
        || !report.shared_keys.is_empty()
        || !paused.is_empty()
        || own.is_some()
        || report.clock_suspect;
    html! {
        @if any {
            section class="problems" {
                h2 { "To be looked at" }
                ul {
                    @for mistake in &configuration.mistakes {
                        li { "not in force: " code { (mistake) } }
                    }
                    @if !configuration.needs_restart.is_empty() {
                        li { "after a restart only: " (configuration.needs_restart.join(", ")) }
                    }
                    @for key in &report.shared_keys {
                        li {
                            "the same key is in " (key.credentials.join(", "))
                            ": their calls draw from one quota, " (key.quota)
                        }
                    }
                    @if !paused.is_empty() {
                        li { "paused, their calls get 503: " (paused.join(", ")) }
                    }
                    @if let Some(own) = own { li { (own) } }
                    @if report.clock_suspect {
                        li { "the machine's clock is years behind: no certificate verifies" }
                    }
                }
            }
        }
    }
}

/// What is wrong with the client certificate, or soon will be.
fn client_cert(own: &IdentityReport) -> Option<String> {
    match (&own.last_error, own.expires_in_seconds) {
        (Some(error), _) => Some(format!("the new client certificate is not shown: {error}")),
        (None, 0) => Some("the client certificate has expired".to_owned()),
        (None, left) if left < OWN_ENDS_SOON => {
            Some(format!("the client certificate ends in {}", span(left)))
        }
        (None, _) => None,
    }
}

fn credentials(credentials: &[CredentialReport]) -> Markup {
    html! {
        section {
            h2 { "Credentials" }
            table {
                thead {
                    tr {
                        th { "name" } th { "level" } th { "state" } th { "time left" }
                        th class="number" { "generation" } th { "last error" }
                    }
                }
                tbody {
                    @for one in credentials {
                        tr {
                            td { (one.name) }
                            td { (one.level.as_str()) }
                            td { span class={ "badge " (state(one)) } { (state(one)) } }
                            td { (time_left(one)) }
                            td class="number" { (one.generation) }
                            td { (one.last_error.as_deref().unwrap_or_default()) }
                        }
                    }
                }
            }
        }
    }
}

fn state(credential: &CredentialReport) -> &str {
    if credential.paused { "paused" } else { &credential.state }
}

/// How long the token is still good, as words and as what is left of its life.
fn time_left(credential: &CredentialReport) -> Markup {
    let (Some(age), left) = (credential.age_seconds, credential.expires_in_seconds) else {
        return html! { "none yet" };
    };
    html! {
        @if let Some(left) = left {
            meter min="0" max=((age + left).max(1)) value=(left) {}
            " " (span(left))
        } @else {
            "does not expire"
        }
    }
}

fn quotas(quotas: &[QuotaReport], history: &History) -> Markup {
    html! {
        section {
            h2 { "Quotas" }
            @if quotas.is_empty() { p class="quiet" { "None is configured: no call waits." } }
            div class="cards" {
                @for quota in quotas {
                    article {
                        h3 {
                            (quota.name) " "
                            span class="quiet" { (quota.terms()) }
                            span class="now" { (format!("{:.0} %", quota.used_ratio * 100.0)) }
                        }
                        (plot(&history.up_to(quota)))
                        dl {
                            dt { "sent in the last window" } dd { (quota.used) }
                            dt { "waiting" } dd { (waiting(quota)) }
                            dt { "429 by DataPulse" } dd { (quota.throttles()) }
                            @if let Some(shadow) = &quota.shadow {
                                dt { "not held back for " (span(shadow.for_seconds)) }
                                dd { (shadow.told()) }
                            }
                            @if let Some(pause) = quota.paused_for_seconds {
                                dt { "paused by DataPulse for" }
                                dd { span class="badge paused" { (span(pause)) } }
                            }
                            @if let Some(held) = quota.held_back {
                                dt { "since the start" } dd { (held.told()) }
                            }
                            @if quota.foreign_usage > 0 {
                                dt { "calls of others on this key" } dd { (quota.foreign_usage) }
                            }
                            @if let Some(count) = quota.told_count() {
                                dt { "DataPulse's own count, of late" } dd { (count) }
                            }
                            @if let Some(near) = quota.near_limit() {
                                dt { "at 90 % or more since the start" } dd { (span(near)) }
                            }
                            @for one in &quota.learnt {
                                dt { "learnt " (span(one.for_seconds)) " ago" }
                                dd { (one.reason) " (" code { (one.config) } " makes it last)" }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn waiting(quota: &QuotaReport) -> String {
    let waiting = quota.waiting.iter().map(|one| format!("{} of {}", one.calls, one.tenant));
    let waiting = waiting.collect::<Vec<_>>().join(", ");
    if waiting.is_empty() { "nobody".to_owned() } else { waiting }
}

fn stores(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Stores" }
            p {
                @for store in &report.stores {
                    @let word = if store.up { "up" } else { "down" };
                    span class="store" { (store.name) " " span class={ "badge " (word) } { (word) } }
                    @if let Some(reason) = &store.reason { span class="quiet" { (reason) " " } }
                }
                @if report.stores.is_empty() { span class="quiet" { "None was read yet." } }
            }
        }
    }
}

fn webhooks(endpoints: &[EndpointReport]) -> Markup {
    html! {
        @if !endpoints.is_empty() {
            section {
                h2 { "Webhooks" }
                table {
                    thead { tr { th { "endpoint" } th { "secrets" } th { "deliveries" } } }
                    tbody {
                        @for one in endpoints {
                            tr {
                                td { code { (one.path) } }
                                td { (one.usable()) }
                                td { (one.told()) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn span(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::ConfigurationReport;
    use crate::config::model::Level;
    use crate::shaping::SharedKey;
    use crate::store::{SecretReport, StoreReport};

    #[test]
    fn whatever_a_text_holds_it_is_no_markup() {
        let hostile = || "<b onload=\"x\">&amp;'".to_owned();
        let report = Report {
            version: hostile(),
            phase: hostile(),
            uptime_seconds: 1,
            clock_suspect: true,
            in_flight: 0,
            upstream: hostile(),
            credentials: vec![CredentialReport {
                name: hostile(),
                level: Level::Admin,
                state: hostile(),
                generation: 1,
                age_seconds: Some(1),
                expires_in_seconds: Some(2),
                last_error: Some(hostile()),
                next_try_in_seconds: None,
                paused: false,
                unpersisted: false,
            }],
            shared_keys: vec![SharedKey { credentials: vec![hostile()], quota: hostile() }],
            quotas: Vec::new(),
            stores: vec![StoreReport {
                name: hostile(),
                up: false,
                reason: Some(hostile()),
                last_error: Some(hostile()),
                since_seconds: 1,
            }],
            secrets: vec![SecretReport {
                secret: hostile(),
                version: Some(hostile()),
                age_seconds: Some(1),
                missing: true,
                fallback: Some(true),
                problem: Some(hostile()),
            }],
            webhooks: vec![EndpointReport {
                path: hostile(),
                secrets: 1,
                secrets_usable: 0,
                deliveries: [(hostile(), 1)].into(),
            }],
            client_cert: Some(IdentityReport {
                expires_in_seconds: 1,
                last_error: Some(hostile()),
            }),
            configuration: ConfigurationReport {
                age_seconds: 1,
                mistakes: vec![hostile()],
                needs_restart: vec![hostile()],
            },
        };
        let page = render(&report, &History::default()).into_string();
        assert!(!page.contains("<b ") && !page.contains("onload=\"x"), "{page}");
        assert!(page.matches("&lt;b onload=").count() >= 10, "{page}");
    }
}
