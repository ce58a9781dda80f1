//! Hands a verified delivery to the app, byte for byte, and brings its answer back.
//!
//! Never follows a redirect, and never sends twice: the sender does that.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue};

use super::endpoints::Endpoint;
use super::outcome::Refusal;
use crate::proxy::headers;

/// The name of the request's identifier.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// One try.
///
/// # Errors
/// [`Refusal::AppUnreachable`] or [`Refusal::AppTimeout`].
pub(super) async fn deliver(
    http: &reqwest::Client,
    endpoint: &Endpoint,
    mut head: HeaderMap,
    body: bytes::Bytes,
    request_id: &HeaderValue,
) -> Result<Response, Refusal> {
    for name in headers::delivery_drop_list(&head) {
        head.remove(name);
    }
    head.insert(REQUEST_ID, request_id.clone());
    let request = http.post(endpoint.spec.forward_to.clone());
    let request = request.headers(head).body(body).timeout(endpoint.spec.timeout);
    let answer = request.send().await.map_err(|error| {
        let path = &*endpoint.spec.path;
        let refusal = refusal(&error);
        let cause = error.without_url();
        tracing::warn!(endpoint = path, %cause, "the app did not take a delivery");
        refusal
    })?;
    let (mut head, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
    for name in headers::connection_drop_list(&head.headers) {
        head.headers.remove(name);
    }
    Ok(Response::from_parts(head, Body::new(body)))
}

/// A connection that is not there after its time is an app that is down, not one that hangs.
fn refusal(error: &reqwest::Error) -> Refusal {
    if error.is_timeout() && !error.is_connect() {
        Refusal::AppTimeout
    } else {
        Refusal::AppUnreachable
    }
}
