//! The resources whose bodies matter: exports, events, uploads and the echo.

use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::json;

use super::authorization::Identity;
use super::body::Script;
use super::control::Control;
use super::resources::{MINUTE_MS, answer, authority, json_answer, query, status};

pub(super) fn export(parts: &Parts, count: u64) -> Response {
    const PIECE: u64 = 16 * 1024;
    let script = Script::new(count.div_ceil(PIECE), move |index| {
        let left = count.saturating_sub(index.saturating_mul(PIECE)).min(PIECE);
        vec![b'x'; usize::try_from(left).unwrap_or(0)].into()
    });
    let length = query(parts, "chunked").is_none().then_some(count);
    answer(StatusCode::OK, "application/octet-stream", Body::new(Script { length, ..script }))
}

pub(super) fn events(parts: &Parts) -> Response {
    let every = Duration::from_millis(query(parts, "every_ms").unwrap_or(100).min(MINUTE_MS));
    let script = Script::new(query(parts, "n").unwrap_or(10), |index| {
        format!("id: {index}\ndata: tick\n\n").into()
    });
    answer(StatusCode::OK, "text/event-stream", Body::new(Script { every, ..script }))
}

pub(super) async fn digest(control: &Control, mut body: Body) -> Option<(u64, String)> {
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut bytes = 0_u64;
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame.ok()?.into_data() {
            let piece = u64::try_from(data.len()).unwrap_or(0);
            bytes += piece;
            control.count(|counters| counters.uploaded_bytes += piece);
            digest.update(&data);
        }
    }
    let hex = digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    Some((bytes, hex))
}

pub(super) async fn echo(control: &Control, parts: &Parts, body: Body, who: &Identity) -> Response {
    let Some((bytes, sha256)) = digest(control, body).await else { return status(400, None) };
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            let secret = name == header::AUTHORIZATION;
            (name.to_string(), if secret { who.label.clone() } else { value })
        })
        .collect();
    let target = parts.uri.path_and_query().map(ToString::to_string);
    json_answer(
        StatusCode::OK,
        &json!({
            "method": parts.method.as_str(),
            "target": target,
            "version": format!("{:?}", parts.version),
            "authority": authority(parts),
            "credential": who.name,
            "authorizations": parts.headers.get_all(header::AUTHORIZATION).iter().count(),
            "headers": headers,
            "bytes": bytes,
            "sha256": sha256,
        }),
    )
}
