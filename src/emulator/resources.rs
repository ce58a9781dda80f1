//! From a request to its answer: count, strike, identify, limit, then the resource.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Request, State as Shared},
    http::{HeaderValue, Method, StatusCode, header, request::Parts, uri::Authority},
    response::Response,
};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    authorization::{Identity, invalid_token, page},
    body::Script,
    control::Control,
    counters::Record,
    faults::{Effect, Scope, strike},
    limits,
    streams::{digest, echo, events, export},
};
use crate::config::model::Level;

const MAX_BODY: usize = 64 * 1024;
/// Bytes of a rejected call's body that are read.
const MAX_UNWANTED_BODY: usize = 1024 * 1024;
pub(super) const MINUTE_MS: u64 = 60_000;

pub(super) fn answer(status: StatusCode, kind: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

pub(super) fn json_answer(status: StatusCode, body: &Value) -> Response {
    answer(status, "application/json", body.to_string().into())
}

pub(super) async fn handle(Shared(control): Shared<Arc<Control>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if let Some(what) = parts.uri.path().strip_prefix("/_emulator/") {
        let body = axum::body::to_bytes(body, MAX_BODY).await.unwrap_or_default();
        return control.http(&parts.method, what, &body);
    }
    let in_flight = control.enter();
    let response = serve(&control, &parts, body).await;
    drop(in_flight);
    control.count(|counters| counters.answered(response.status().as_u16()));
    response
}

async fn serve(control: &Control, parts: &Parts, body: Body) -> Response {
    let path = parts.uri.path();
    if path == "/oauth/authorize" {
        return authorize(control, parts, body).await;
    }
    let token = path == "/oauth/token" || path.starts_with("/auth/");
    let scope = if token { Scope::Token } else { Scope::Api };
    let (who, effect, mut healed) = {
        let state = &mut *control.state.lock();
        let who = state.identify(&parts.headers, Instant::now());
        state.counters.arrived(record(parts, who.as_ref()), !token);
        // Subscribed to before the lock is given back: no healing is missed.
        (who, strike(&mut state.faults, scope), control.healed.subscribe())
    };
    if let Some(Effect::LatencyMs(wait)) = effect {
        let wait = Duration::from_millis(wait.min(MINUTE_MS));
        drop(tokio::time::timeout(wait, healed.changed()).await);
    } else if let Some(response) = effect.as_ref().and_then(fault) {
        return response;
    }
    let response = if token {
        authorization(control, parts, body, who, effect.clone()).await
    } else {
        api(control, parts, body, who).await
    };
    match effect {
        Some(Effect::LoseAnswer) => {
            answer(StatusCode::OK, "text/plain", Body::new(Script::reset()))
        }
        Some(Effect::LateAnswerMs(wait)) => {
            let wait = Duration::from_millis(wait.min(MINUTE_MS));
            drop(tokio::time::timeout(wait, healed.changed()).await);
            response
        }
        _ => response,
    }
}

/// The page that asks a person, and the answer to it.
async fn authorize(control: &Control, parts: &Parts, body: Body) -> Response {
    control.count(|counters| counters.arrived(record(parts, None), false));
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else { return too_large() };
    let (mut state, issuer) = (control.state.lock(), own(parts));
    match parts.method.as_str() {
        "GET" => state.authorize(parts.uri.query().unwrap_or_default(), &issuer),
        "POST" => state.decide(&body, &issuer),
        _ => not_found(),
    }
}

/// The endpoints that mint tokens, and the one that says whose a token is.
async fn authorization(
    control: &Control,
    parts: &Parts,
    body: Body,
    who: Option<Identity>,
    effect: Option<Effect>,
) -> Response {
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else { return too_large() };
    let response = {
        let mut state = control.state.lock();
        match (parts.method.as_str(), parts.uri.path()) {
            ("POST", "/oauth/token") => state.token(&parts.headers, &body, effect),
            ("POST", "/auth/refresh") => state.refresh(&parts.headers, effect),
            ("GET", "/auth/verify") => who.map_or_else(invalid_token, |who| {
                let body = json!({"org_name": "Emulator", "level": who.level.as_str(),
                    "credential": who.name});
                json_answer(StatusCode::OK, &body)
            }),
            _ => not_found(),
        }
    };
    control.count(|_| ());
    response
}

async fn api(control: &Control, parts: &Parts, body: Body, who: Option<Identity>) -> Response {
    let Some(who) = who else {
        // What comes with a rejected call is read, as most servers do, so that the caller is not
        // still sending when the answer comes.
        drop(axum::body::to_bytes(body, MAX_UNWANTED_BODY).await);
        return invalid_token();
    };
    let (refusal, told) = limits::count(control, &who);
    let mut response = match refusal {
        Some(refusal) => refusal,
        None if who.level < needed(parts) => {
            json_answer(StatusCode::FORBIDDEN, &json!({"error": "insufficient_level"}))
        }
        None => resource(control, parts, body, &who).await,
    };
    response.headers_mut().extend(told);
    response
}

fn record(parts: &Parts, who: Option<&Identity>) -> Record {
    Record {
        method: parts.method.to_string(),
        path: parts.uri.path().chars().take(256).collect(),
        headers: parts.headers.iter().map(|(name, _)| name.to_string()).collect(),
        authorizations: parts.headers.get_all(header::AUTHORIZATION).iter().count(),
        credential: who.map(|who| who.label.clone()),
    }
}

fn needed(parts: &Parts) -> Level {
    let path = parts.uri.path();
    let below =
        |root: &str| path.strip_prefix(root).is_some_and(|r| r.is_empty() || r.starts_with('/'));
    let write = !matches!(parts.method.as_str(), "GET" | "HEAD");
    if below("/v1/users") {
        Level::Admin
    } else if below("/v1/pipelines") || (write && below("/v1/datasets")) {
        Level::ReadWrite
    } else {
        Level::ReadOnly
    }
}

pub(super) fn status(code: u16, retry_after: Option<&str>) -> Response {
    let code = StatusCode::from_u16(code).ok().filter(|code| code.as_u16() >= 400);
    let code = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if code == StatusCode::UNAUTHORIZED {
        return invalid_token();
    }
    let mut response = json_answer(code, &json!({"error": code.as_str()}));
    if let Some(value) = retry_after.and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(header::RETRY_AFTER, value);
    }
    response
}

fn fault(effect: &Effect) -> Option<Response> {
    let script = match effect {
        Effect::Status { code, retry_after } => return Some(status(*code, retry_after.as_deref())),
        Effect::Reset => Script::reset(),
        Effect::Truncate => {
            let ten = Script::new(1, |_| Bytes::from_static(b"0123456789"));
            Script { length: Some(1000), cut: true, ..ten }
        }
        Effect::Slow { bytes, every_ms } => {
            let bytes = u64::from(*bytes).max(1);
            let size = usize::try_from(bytes).unwrap_or(1);
            let every = Duration::from_millis((*every_ms).min(MINUTE_MS));
            let slow = Script::new(100_u64.div_ceil(bytes), move |_| vec![b'x'; size].into());
            Script { every, ..slow }
        }
        other => return page(other),
    };
    Some(answer(StatusCode::OK, "application/octet-stream", Body::new(script)))
}

fn too_large() -> Response {
    json_answer(StatusCode::PAYLOAD_TOO_LARGE, &json!({"error": "too_large"}))
}

fn not_found() -> Response {
    json_answer(StatusCode::NOT_FOUND, &json!({"error": "not_found"}))
}

async fn resource(control: &Control, parts: &Parts, body: Body, who: &Identity) -> Response {
    let path: Vec<_> = parts.uri.path().trim_start_matches('/').split('/').collect();
    // The server leaves out the body of an answer to HEAD.
    let method = if parts.method == Method::HEAD { "GET" } else { parts.method.as_str() };
    match (method, path.as_slice()) {
        (_, ["v1", "echo"]) => echo(control, parts, body, who).await,
        ("POST", ["v1", "uploads"]) => match digest(control, body).await {
            Some((bytes, sha256)) => {
                json_answer(StatusCode::OK, &json!({"bytes": bytes, "sha256": sha256}))
            }
            None => status(400, None),
        },
        ("GET", ["v1", "exports", count]) => {
            count.parse().map_or_else(|_| not_found(), |n| export(parts, n))
        }
        ("GET", ["v1", "events"]) => events(parts),
        ("GET", ["v1", "datasets" | "dashboards" | "reports"]) => list(parts),
        ("POST", ["v1", "datasets"]) => located(parts, header::LOCATION, StatusCode::CREATED),
        (_, ["v1", "datasets", id]) => json_answer(StatusCode::OK, &json!({"id": id})),
        (_, ["v1", "pipelines" | "users", ..]) => json_answer(StatusCode::OK, &json!({"data": []})),
        _ => not_found(),
    }
}

pub(super) fn query(parts: &Parts, name: &str) -> Option<u64> {
    let query = parts.uri.query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query).find(|(key, _)| key == name)?.1.parse().ok()
}

/// This server's name as the client wrote it: `Host`, or HTTP/2's `:authority`.
pub(super) fn authority(parts: &Parts) -> &str {
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(Authority::as_str));
    host.unwrap_or("localhost")
}

/// This server's address as the client wrote it.
fn own(parts: &Parts) -> String {
    format!("http://{}", authority(parts))
}

fn located(parts: &Parts, name: header::HeaderName, code: StatusCode) -> Response {
    let mut response = json_answer(code, &json!({"id": "ds_1"}));
    let address = format!("{}/v1/datasets/ds_1", own(parts));
    if let Ok(value) = HeaderValue::from_str(&address) {
        response.headers_mut().insert(name, value);
    }
    response
}

fn list(parts: &Parts) -> Response {
    let page = query(parts, "page").unwrap_or(1);
    let mut response =
        json_answer(StatusCode::OK, &json!({"page": page, "data": [{"id": format!("ds_{page}")}]}));
    let next = format!(
        "<{}{}?page={}>; rel=\"next\"",
        own(parts),
        parts.uri.path(),
        page.saturating_add(1)
    );
    if let (true, Ok(value)) = (page < 3, HeaderValue::from_str(&next)) {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}
