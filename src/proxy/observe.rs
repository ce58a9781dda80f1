//! What is told of a call when it is over: metrics and one audit line.

use std::borrow::Cow;
use std::time::Duration;

use http::Method;
use pingora::proxy::Session;
use tokio::time::Instant;

use super::call::Call;
use super::reject::Rejection;
use crate::access::Identity;
use crate::shaping::Place;
use crate::telemetry::{Metrics, audit};

/// Counts the call and writes its audit line.
pub(super) fn observe(session: &Session, call: &Call, metrics: &Metrics) {
    let status = session.response_written().map_or(0, |written| written.status.as_u16());
    let method = method_label(&session.req_header().method);
    let tenant = call.tenant().unwrap_or_default();
    let credential = call.handle.as_ref().map_or("", |handle| &**handle.name());
    let duration = call.started_at.elapsed();
    let labels = [tenant, credential, method, status_label(status)];
    metrics.requests.with_label_values(&labels).inc();
    metrics.request_duration.with_label_values(&[tenant]).observe(duration.as_secs_f64());
    if let Some(rejection) = &call.rejection {
        metrics.rejected.with_label_values(&[rejection.code()]).inc();
    }
    audit::write(&audit::Line {
        request_id: &call.request_id,
        tenant,
        caller: &caller(call),
        listener: call.listener().map_or("", |listener| &*listener.name),
        credential,
        fingerprint: call.sent_token.as_ref().map_or("", |token| token.fingerprint()),
        method,
        rule: call.rule().map_or("", |rule| &*rule.name),
        status,
        code: call.rejection.as_ref().map_or("", |rejection| rejection.code()),
        attempts: call.sent,
        duration,
        token_wait: call.token_wait,
        queue_wait: call.place.as_ref().map_or(Duration::ZERO, Place::waited),
    });
}

/// How the caller was known.
fn caller(call: &Call) -> Cow<'static, str> {
    match call.identity {
        None => "".into(),
        Some(Identity::Listener) => "listener".into(),
        Some(Identity::Token) => "token".into(),
        Some(Identity::Header) => "header".into(),
        Some(Identity::Uid(uid)) => format!("uid {uid}").into(),
    }
}

/// A head that pingora refused before there was a call.
pub(super) fn observe_refusal(
    request_id: &str,
    listener: &str,
    rejection: Rejection,
    metrics: &Metrics,
) {
    let status = rejection.status().as_u16();
    metrics.requests.with_label_values(&["", "", "other", status_label(status)]).inc();
    metrics.rejected.with_label_values(&[rejection.code()]).inc();
    audit::write(&audit::Line {
        request_id,
        listener,
        method: "other",
        status,
        code: rejection.code(),
        ..audit::Line::default()
    });
}

/// The head of an answer came in.
pub(super) fn observe_upstream(call: &Call, metrics: &Metrics) {
    if let (Some(sent_at), Some(handle)) = (call.sent_at, &call.handle) {
        let took = Instant::now().saturating_duration_since(sent_at);
        metrics
            .upstream_duration
            .with_label_values(&[&**handle.name()])
            .observe(took.as_secs_f64());
    }
}

/// A label from a closed set.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}

/// A label from a closed set: the status where it is a registered one, else its class.
fn status_label(status: u16) -> &'static str {
    /// The registered codes that an API answers with.
    const USUAL: &[(u16, &str)] = &[
        (200, "200"),
        (201, "201"),
        (202, "202"),
        (204, "204"),
        (206, "206"),
        (304, "304"),
        (400, "400"),
        (401, "401"),
        (403, "403"),
        (404, "404"),
        (405, "405"),
        (409, "409"),
        (412, "412"),
        (413, "413"),
        (417, "417"),
        (421, "421"),
        (422, "422"),
        (429, "429"),
        (431, "431"),
        (500, "500"),
        (502, "502"),
        (503, "503"),
        (504, "504"),
    ];
    let usual = USUAL.iter().find(|(code, _)| *code == status);
    usual.map_or_else(
        || match status {
            0 => "none",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500..=599 => "5xx",
            _ => "other",
        },
        |(_, label)| label,
    )
}
