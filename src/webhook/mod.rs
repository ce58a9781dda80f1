//! A delivery from DataPulse: read whole, verified, and only then handed to the app.
//!
//! Whoever can reach this listener may send anything, from loopback too: nothing of it reaches the
//! app, and no sender learns why, unless a listed secret signed it. A delivery that the app did not
//! take is never answered as if it had: the sender tries again.
//!
//! 404 and 405 → the body, whole and bounded → the signature, compared with each secret → a repeat?
//! → the app → its answer.

pub mod signature;
mod keys;
mod body;
mod outcome;
mod seen;
mod endpoints;
mod deliver;
mod report;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

#[cfg(test)]
pub(crate) use body::BUDGET_BYTES as DELIVERIES_BYTES;
pub use endpoints::Webhooks;
pub use keys::KeyKeeper;
pub use report::EndpointReport;

use deliver::REQUEST_ID;
use endpoints::{Endpoint, Table};
use outcome::Refusal;
use seen::{Mark, Sight};
use signature::Signature;

use crate::serve::{self, Limits};
use crate::telemetry::trace;

/// An ingress keeps idle connections for about a minute.
const LIMITS: Limits = Limits {
    connections: 256,
    head_timeout: Duration::from_secs(75),
    keep_alive: true,
    drain: Duration::from_secs(30),
};
/// How long a delivery waits for the first read of the secrets, right after the start or a reload.
const SECRETS_WAIT: Duration = Duration::from_secs(2);

/// Takes deliveries until `stop`; those under way are finished.
pub async fn serve(socket: TcpListener, webhooks: Webhooks, stop: watch::Receiver<bool>) {
    let router = Router::new().fallback(receive).with_state(webhooks);
    serve::serve(socket, router, LIMITS, stop).await;
}

/// A request to an endpoint.
struct Arrival {
    head: HeaderMap,
    body: Body,
    request_id: HeaderValue,
}

/// What became of a delivery that was not refused.
enum Taken {
    /// The app answered.
    Answered(Response),
    /// The app had it before.
    Repeat,
}

async fn receive(State(webhooks): State<Webhooks>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let request_id = request_id(&head.headers);
    let table = webhooks.table();
    let endpoint = table.find(head.uri.path());
    let arrival = Arrival { head: head.headers, body, request_id: request_id.clone() };
    let taken = match endpoint {
        None => Err(Refusal::UnknownPath),
        Some(_) if head.method != Method::POST => Err(Refusal::WrongMethod),
        Some(endpoint) => take(&webhooks, &table, endpoint, arrival).await,
    };
    let path = endpoint.map_or("unknown", |endpoint| &*endpoint.spec.path);
    let (outcome, mut response) = answer(taken, request_id.to_str().unwrap_or_default());
    webhooks.metrics.webhook_deliveries.with_label_values(&[path, outcome]).inc();
    let status = response.status().as_u16();
    tracing::info!(endpoint = path, outcome, status, request_id = ?request_id, "delivery");
    response.headers_mut().insert(REQUEST_ID, request_id);
    response
}

async fn take(
    webhooks: &Webhooks,
    table: &Table,
    endpoint: &Endpoint,
    Arrival { head, body, request_id }: Arrival,
) -> Result<Taken, Refusal> {
    let body = body::read(&head, body, endpoint.spec.body_bytes_max, &webhooks.budget).await?;
    let keys = endpoint.keys.within(SECRETS_WAIT).await;
    if keys.is_empty() {
        return Err(Refusal::NoSecret);
    }
    let signature = Signature::of(&head).map_err(Refusal::Unsigned)?;
    let keys = keys.iter().map(|listed| &listed.key);
    signature::verify(&body.bytes, signature, keys).map_err(Refusal::Unsigned)?;
    let in_delivery = match sight(endpoint, &head, signature) {
        None => None,
        Some(Sight::New(one)) => Some(one),
        Some(Sight::Repeat) => return Ok(Taken::Repeat),
        Some(Sight::InDelivery) => return Err(Refusal::InDelivery),
    };
    let bytes = body.bytes.clone();
    let answer = deliver::deliver(&table.http, endpoint, head, bytes, &request_id).await?;
    if let Some(one) = in_delivery.filter(|_| answer.status().is_success()) {
        one.taken(Instant::now());
    }
    Ok(Taken::Answered(answer))
}

/// What is known of this delivery, where repeats are looked for.
fn sight(endpoint: &Endpoint, head: &HeaderMap, signature: Signature) -> Option<Sight> {
    let (seen, dedupe) = (endpoint.seen.as_ref()?, endpoint.spec.dedupe.as_ref()?);
    let id = dedupe.header.as_ref().and_then(|name| head.get(name));
    let id = id.map_or(&[][..], HeaderValue::as_bytes);
    Some(seen.sight(Mark::new(id, signature), Instant::now()))
}

fn answer(taken: Result<Taken, Refusal>, request_id: &str) -> (&'static str, Response) {
    match taken {
        Ok(Taken::Answered(response)) => {
            let label = if response.status().is_success() { "delivered" } else { "refused_by_app" };
            (label, response)
        }
        Ok(Taken::Repeat) => {
            let mut response = Response::new(Body::from("delivered before\n"));
            *response.status_mut() = StatusCode::OK;
            ("repeat", response)
        }
        Err(refusal) => (refusal.label(), refusal.response(request_id)),
    }
}

/// The sender's, where there is one and it is well-formed; else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    let given = given.next().filter(|_| given.next().is_none());
    let given = given.filter(|value| trace::is_request_id(value.as_bytes())).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::from_str(&trace::new_request_id()).unwrap_or(HeaderValue::from_static("none"))
    })
}
