//! What operators may change while it runs: refresh, pause and resume a credential, forget what was
//! learnt of a quota, set the level of log lines.
//!
//! Off without `admin.token`, and never for a web page, whatever it sends. Each request leaves a log
//! line and an audit line; no line and no answer repeats what came with the request.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{post, put};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::config::model::LogLevel;
use crate::config::suggestion;
use crate::credential::CredentialHandle;
use crate::proxy::{Live, Snapshot};
use crate::secret::SecretValue;
use crate::telemetry::logging::LevelSwitch;
use crate::telemetry::{Metrics, audit};

/// How long an operator waits for a refresh; longer than one try may take.
const REFRESH_WAIT: Duration = Duration::from_secs(15);
/// A level is a word; more is not read, in bytes.
const LEVEL_BYTES_MAX: usize = 64;

/// What the verbs change.
#[derive(Debug, Clone)]
pub struct Verbs {
    live: Arc<Live>,
    /// What operators send; `None`: the verbs are off.
    token: watch::Receiver<Option<SecretValue>>,
    metrics: Metrics,
    levels: Option<LevelSwitch>,
}

/// What an operator asked for: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Refresh,
    Pause,
    Resume,
    Forget,
    LogLevel,
}

/// How it went: the answer, and the configured name that it was about, where there is one.
struct Outcome {
    name: Box<str>,
    answer: Response,
}

impl Verbs {
    /// `token` is what operators have to send.
    #[must_use]
    pub fn new(
        live: &Arc<Live>,
        token: watch::Receiver<Option<SecretValue>>,
        metrics: Metrics,
    ) -> Self {
        Self { live: Arc::clone(live), token, metrics, levels: None }
    }

    /// The level of log lines can be set, too.
    #[must_use]
    pub fn with_level_switch(self, levels: LevelSwitch) -> Self {
        Self { levels: Some(levels), ..self }
    }

    /// Why the request is not obeyed, if it is not.
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let from_a_page = headers.contains_key(header::ORIGIN)
            || headers
                .get("sec-fetch-site")
                .is_some_and(|site| site != "none" && site != "same-origin");
        if from_a_page {
            return Some(told(StatusCode::FORBIDDEN, "requests of web pages are refused"));
        }
        let token = self.token.borrow();
        let Some(token) = &*token else {
            let text = "the changing verbs are off: set admin.token, and reload";
            return Some(told(StatusCode::FORBIDDEN, text));
        };
        if bearer(headers).is_some_and(|sent| sent == *token) {
            return None;
        }
        let text = "send the admin token: `Authorization: Bearer TOKEN` (admin.token)";
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        Some((challenge, told(StatusCode::UNAUTHORIZED, text)).into_response())
    }

    fn credential(&self, name: &str) -> Option<CredentialHandle> {
        self.live.load().credentials.by_name(name).cloned()
    }

    fn unknown_credential(&self, name: &str) -> Outcome {
        let snapshot = self.live.load();
        let names = snapshot.credentials.iter().map(|handle| &**handle.name());
        Outcome::unknown("credential", name, names)
    }

    fn set_paused(&self, verb: Verb, name: &str, paused: bool) -> Response {
        let outcome = match self.credential(name) {
            Some(handle) => {
                handle.set_paused(paused);
                Outcome::done(handle.name(), handle.report())
            }
            None => self.unknown_credential(name),
        };
        self.conclude(verb, outcome)
    }

    /// Tells of the request, whatever became of it, and gives its answer.
    fn conclude(&self, verb: Verb, outcome: Outcome) -> Response {
        let Outcome { name, answer } = outcome;
        let (verb, name, status) = (verb.as_str(), &*name, answer.status());
        self.metrics.admin_verbs.with_label_values(&[verb, status.as_str()]).inc();
        audit::write_verb(verb, name, status.as_u16());
        let is_done = status.is_success();
        let status = status.as_u16();
        if is_done {
            tracing::info!(verb, name, status, "an operator's request was done");
        } else {
            tracing::warn!(verb, name, status, "an operator's request was not done");
        }
        answer
    }
}

impl Verb {
    const ALL: [Self; 5] = [Self::Refresh, Self::Pause, Self::Resume, Self::Forget, Self::LogLevel];

    /// The last segment of its path.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refresh => "refresh",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Forget => "forget",
            Self::LogLevel => "log-level",
        }
    }
}

impl Outcome {
    fn done(name: &str, answer: impl Serialize) -> Self {
        Self { name: name.into(), answer: Json(answer).into_response() }
    }

    fn told(name: &str, status: StatusCode, text: &str) -> Self {
        Self { name: name.into(), answer: told(status, text) }
    }

    /// Nothing of that name.
    fn unknown<'n>(noun: &str, given: &str, names: impl IntoIterator<Item = &'n str>) -> Self {
        let meant = suggestion(given, names);
        Self::told("", StatusCode::NOT_FOUND, &format!("there is no {noun} of this name{meant}"))
    }
}

/// The routes, behind the token.
pub(super) fn router(verbs: Verbs) -> Router {
    Router::new()
        .route("/credentials/{name}/refresh", post(refresh))
        .route("/credentials/{name}/pause", post(pause))
        .route("/credentials/{name}/resume", post(resume))
        .route("/quotas/{name}/forget", post(forget))
        .route("/log-level", put(set_level))
        .route_layer(middleware::from_fn_with_state(verbs.clone(), only_operators))
        .with_state(verbs)
}

async fn only_operators(State(verbs): State<Verbs>, request: Request, next: Next) -> Response {
    let Some(answer) = verbs.refusal(request.headers()) else { return next.run(request).await };
    let last = request.uri().path().rsplit('/').next();
    let verb = Verb::ALL.into_iter().find(|verb| Some(verb.as_str()) == last);
    // Each route ends in a verb.
    match verb {
        Some(verb) => verbs.conclude(verb, Outcome { name: "".into(), answer }),
        None => answer,
    }
}

async fn refresh(State(verbs): State<Verbs>, Path(name): Path<String>) -> Response {
    let outcome = match verbs.credential(&name) {
        Some(handle) => refreshed(&handle).await,
        None => verbs.unknown_credential(&name),
    };
    verbs.conclude(Verb::Refresh, outcome)
}

async fn pause(State(verbs): State<Verbs>, Path(name): Path<String>) -> Response {
    verbs.set_paused(Verb::Pause, &name, true)
}

async fn resume(State(verbs): State<Verbs>, Path(name): Path<String>) -> Response {
    verbs.set_paused(Verb::Resume, &name, false)
}

async fn forget(State(verbs): State<Verbs>, Path(name): Path<String>) -> Response {
    let Snapshot { config, shaper, .. } = &*verbs.live.load();
    let outcome = match config.quotas.get_key_value(&name) {
        None => Outcome::unknown("quota", &name, config.quotas.keys().map(String::as_str)),
        Some((name, _)) => {
            // Of one that is unlimited there is nothing.
            let forgotten = shaper.forget(name);
            Outcome::done(name, json!({"quota": name, "forgotten": forgotten}))
        }
    };
    verbs.conclude(Verb::Forget, outcome)
}

/// The body is the level's word.
async fn set_level(State(verbs): State<Verbs>, body: Body) -> Response {
    let outcome = match (&verbs.levels, level_of(body).await) {
        (Some(levels), Some(level)) => {
            let before = levels.set(level);
            let answer = json!({"before": before.as_str(), "level": level.as_str()});
            Outcome::done(level.as_str(), answer)
        }
        (None, _) => {
            let text = "the log lines of this process are not set up by the sidecar";
            Outcome::told("", StatusCode::NOT_FOUND, text)
        }
        (Some(_), None) => {
            let levels = LogLevel::ALL.map(LogLevel::as_str).join(", ");
            let text = format!("send the level alone as the body, one of: {levels}");
            Outcome::told("", StatusCode::BAD_REQUEST, &text)
        }
    };
    verbs.conclude(Verb::LogLevel, outcome)
}

async fn level_of(body: Body) -> Option<LogLevel> {
    let bytes = axum::body::to_bytes(body, LEVEL_BYTES_MAX).await.ok()?;
    let word = std::str::from_utf8(&bytes).ok()?.trim();
    LogLevel::ALL.into_iter().find(|level| level.as_str() == word)
}

/// The credential as `/status` shows it, once a new token was asked for.
async fn refreshed(handle: &CredentialHandle) -> Outcome {
    let ended = handle.refresh(Instant::now() + REFRESH_WAIT).await;
    let report = handle.report();
    let (status, text) = match (&report.last_error, report.next_try_in_seconds) {
        (None, _) if ended => return Outcome::done(handle.name(), report),
        (Some(error), _) if ended => {
            (StatusCode::BAD_GATEWAY, format!("it could not be refreshed: {error}"))
        }
        (_, Some(seconds)) if seconds > 0 => {
            let text = format!("its issuer wants to be left alone: the next try is in {seconds} s");
            (StatusCode::SERVICE_UNAVAILABLE, text)
        }
        _ => (StatusCode::GATEWAY_TIMEOUT, "its issuer has not answered yet".to_owned()),
    };
    Outcome::told(handle.name(), status, &text)
}

/// The one token that was sent (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<SecretValue> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = one.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| SecretValue::new(token.to_vec()))
}

/// A sentence for a person.
fn told(status: StatusCode, text: &str) -> Response {
    (status, format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_read_once_and_whole() {
        let check = |lines: &[&str], want: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, line.parse().unwrap());
            }
            let want = want.map(|want| SecretValue::new(want.into()));
            assert_eq!(bearer(&headers), want, "{lines:?}");
        };
        check(&["Bearer abc"], Some("abc"));
        check(&["bearer abc"], Some("abc"));
        check(&["Bearer  abc"], Some(" abc"));
        check(&["Bearer "], Some(""));
        check(&[], None);
        check(&["Bearer"], None);
        check(&["Basic abc"], None);
        check(&["Bearer abc", "Bearer abc"], None);
    }
}
