//! What the browser shows in the end: fixed texts, and nothing of what was sent.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use maud::{DOCTYPE, PreEscaped, html};

use crate::credential::Returned;

/// What a browser may do with the page: show it, with the style inside, and nothing else.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// What there is to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The refresh token is kept.
    Done,
    /// The person said no.
    Denied,
    /// Something else went wrong.
    Failed,
    /// Somebody came with another login's answer, or none.
    NotOurs,
    /// The answer was given before.
    Again,
    /// There is no such page.
    NotHere,
}

impl Said {
    /// Of an answer, and whether all went well with it.
    pub(super) fn of(returned: &Returned, is_good: bool) -> Self {
        match returned {
            _ if is_good => Self::Done,
            Returned::Refused(Some("access_denied")) => Self::Denied,
            _ => Self::Failed,
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Done | Self::Denied => StatusCode::OK,
            Self::Failed => StatusCode::BAD_GATEWAY,
            Self::NotOurs => StatusCode::BAD_REQUEST,
            Self::Again => StatusCode::CONFLICT,
            Self::NotHere => StatusCode::NOT_FOUND,
        }
    }

    /// A mark, a title, and a sentence.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Done => ("good", "You are logged in", "You can close this page."),
            Self::Denied => {
                ("bad", "Access was denied", "Nothing was changed. Log in again to be asked again.")
            }
            Self::Failed => (
                "bad",
                "The login failed",
                "The terminal where it was begun says why, and what to do.",
            ),
            Self::NotOurs => (
                "bad",
                "This is not the answer to this login",
                "It may belong to an older one. Open the address that the terminal shows now.",
            ),
            Self::Again => ("", "This login was answered", "You can close this page."),
            Self::NotHere => ("", "There is nothing here", "A login waits at another address."),
        }
    }
}

/// The page that says it.
pub(super) fn page(said: Said) -> Response {
    let (mark, title, text) = said.words();
    let body = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { (title) " · datapulse-sidecar" }
                style { (PreEscaped(include_str!("page.css"))) }
            }
            body {
                main class=(mark) {
                    p class="brand" { "datapulse-sidecar" }
                    h1 { (title) }
                    p { (text) }
                }
            }
        }
    };
    let mut response = Response::new(Body::from(body.into_string()));
    *response.status_mut() = said.status();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
