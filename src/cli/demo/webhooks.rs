//! The demo's page of webhooks: the emulator delivers an event that the app gets, and one that
//! somebody forged, of which the app never hears.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Failure, Stage, say};
use crate::emulator::{Delivery, Flaw};
use crate::secret::SecretValue;
use crate::serve::{self, Limits};
use crate::telemetry::{error_chain, trace};
use crate::tls::{self, Roots};
use crate::webhook::signature::SigningKey;

/// Where deliveries arrive, at the sidecar and at the app.
const PATH: &str = "/webhooks/datapulse";
/// What DataPulse and the sidecar know, and nobody else.
pub(super) const SECRET: &str = "whsec_emulator_demo";
const EVENT: &str = "dataset.updated";
const LIMITS: Limits = Limits {
    connections: 16,
    head_timeout: std::time::Duration::from_secs(10),
    keep_alive: false,
    drain: std::time::Duration::from_secs(1),
};

/// The app's side: what it was handed.
#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<Bytes>>>);

async fn receive(State(received): State<Received>, body: Bytes) -> StatusCode {
    received.0.lock().push(body);
    StatusCode::NO_CONTENT
}

/// An app that waits for deliveries.
pub(super) struct App {
    address: SocketAddr,
    socket: TcpListener,
    received: Received,
}

/// What an app was handed, once it runs.
pub(super) struct Running {
    received: Received,
    /// Kept, because the app ends with it.
    _stop: watch::Sender<bool>,
}

impl App {
    pub(super) async fn bind() -> Result<Self, Failure> {
        let failed = |error| Failure::unusable(format!("cannot bind the app's address: {error}"));
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        Ok(Self { address, socket, received: Received::default() })
    }

    /// The section of the configuration: the secret is a reference.
    pub(super) fn config(&self, secret: &str) -> String {
        format!(
            "webhooks:\n  listen: \"127.0.0.1:0\"\n  endpoints: [{{path: {PATH}, secrets: [\"{secret}\"], \
             forward_to: \"http://{}{PATH}\"}}]\n",
            self.address
        )
    }

    /// Serves beside the caller; ends with what it gives.
    pub(super) fn run(self) -> (Running, impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().fallback(receive).with_state(self.received.clone());
        let serving = serve::serve(self.socket, router, LIMITS, stopped);
        (Running { received: self.received, _stop: stop }, serving)
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// The answer to the one that is signed, and whether the app has it, byte for byte.
    signed: (u16, bool),
    /// The answers to those that are not good, and how many of them the app was handed.
    forged: u16,
    tampered: u16,
    handed: usize,
}

/// Sends a signed delivery, a forged one and one that was changed on its way.
pub(super) async fn drive(stage: &Stage) -> Result<Outcome, Failure> {
    let http = tls::http_client(&Roots::none()).map_err(|error| Failure::from_error(&error))?;
    let key = |text: &str| {
        let key = SigningKey::new(&SecretValue::new(text.as_bytes().to_vec()));
        key.map_err(|error| Failure::from_error(&error))
    };
    let (vendor, forger) = (key(SECRET)?, key("a secret of nobody's")?);
    let signed = || {
        let id = trace::new_request_id();
        let body = Delivery::event(EVENT, &id);
        let delivery = Delivery::signed(body.clone(), &id, &vendor);
        delivery.map(|delivery| (body, delivery)).ok_or_else(|| Failure::failed("no delivery"))
    };
    let url = format!("http://{}{PATH}", stage.webhooks);
    let url: url::Url =
        url.parse().map_err(|_url| Failure::failed("the sidecar's address is no URL"))?;
    let send = async |delivery: &Delivery| {
        let answer = delivery.send(&http, url.clone()).await;
        let answer = answer.map_err(|error| {
            Failure::failed(format!("a delivery got no answer: {}", error_chain(&error)))
        })?;
        Ok(answer.status().as_u16())
    };
    let (body, good) = signed()?;
    let status = send(&good).await?;
    let is_there = stage.app.received.0.lock().iter().any(|got| *got == body);
    let forged = send(&signed()?.1.with(Flaw::Forged, &forger)).await?;
    let tampered = send(&signed()?.1.with(Flaw::Tampered, &forger)).await?;
    let handed = stage.app.received.0.lock().len().saturating_sub(usize::from(is_there));
    let outcome = Outcome { signed: (status, is_there), forged, tampered, handed };
    say(&format!(
        "webhooks: DataPulse sends {EVENT}, signed: {status}, the app {} it; a forged one: {forged}; \
         one that was changed on its way: {tampered}; of these the app got {handed}",
        if is_there { "has" } else { "does not have" }
    ));
    Ok(outcome)
}

impl Outcome {
    /// Whether the app got what was signed and nothing else.
    pub(super) fn is_good(&self) -> bool {
        let Self { signed: (status, is_there), forged, tampered, handed } = *self;
        (200..300).contains(&status) && is_there && (forged, tampered, handed) == (401, 401, 0)
    }

    /// Rows of the report.
    pub(super) fn rows(&self) -> [(&'static str, String); 2] {
        let there =
            if self.signed.1 { "the app has it, byte for byte" } else { "the app has it not" };
        let bad = format!("{} and {}, the app got {}", self.forged, self.tampered, self.handed);
        [
            ("a signed webhook", format!("{}, {there}", self.signed.0)),
            ("a forged one, and a tampered one", bad),
        ]
    }
}
