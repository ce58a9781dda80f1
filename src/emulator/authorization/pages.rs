//! What a person sees of an authorization: the question, or what is wrong with it.
//!
//! Everything is escaped. No script, nothing from elsewhere, and no frame around it.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use url::Url;

use super::{super::resources::answer, grants::Approved};
use crate::config::model::Level;

/// The question.
pub(super) fn consent(asked: &Approved, to: &Url, request: &str) -> Response {
    let body = html! {
        h1 { strong { (asked.client) } " asks for access to DataPulse" }
        p { "It could then:" }
        ul { @for right in rights(asked.level) { li { (right) } } }
        p class="quiet" { "The answer goes to " code { (place(to)) } }
        form method="post" action="/oauth/authorize" {
            input type="hidden" name="request" value=(request);
            button class="main" name="decision" value="approve" { "Approve" }
            button name="decision" value="deny" { "Deny" }
        }
    };
    // A browser applies `form-action` to where the answer of a form sends it, too.
    page(StatusCode::OK, &body, &format!("'self' {}", place(to)))
}

/// What is wrong, where the browser cannot be sent back.
pub(super) fn problem(text: &str) -> Response {
    let body = html! { h1 { "This cannot be asked" } p { (text) } };
    page(StatusCode::BAD_REQUEST, &body, "'none'")
}

/// A web address without its path; of an app's own scheme, the scheme.
fn place(to: &Url) -> String {
    let origin = to.origin();
    if origin.is_tuple() { origin.ascii_serialization() } else { format!("{}:", to.scheme()) }
}

fn rights(level: Level) -> &'static [&'static str] {
    const ALL: [&str; 3] = [
        "read datasets, dashboards and reports",
        "change datasets and run pipelines",
        "manage users and everything else",
    ];
    let count = match level {
        Level::ReadOnly => 1,
        Level::ReadWrite => 2,
        Level::Admin => 3,
    };
    ALL.get(..count).unwrap_or(&ALL)
}

fn page(status: StatusCode, body: &Markup, form_action: &str) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "DataPulse emulator" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                main {
                    p class="brand" { "DataPulse emulator " span { "not for production" } }
                    (body)
                }
            }
        }
    };
    let mut response = answer(status, "text/html; charset=utf-8", page.into_string().into());
    let policy = format!(
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'; \
         form-action {form_action}"
    );
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
