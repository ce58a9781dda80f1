//! Sends deliveries as DataPulse does, and bad ones on demand.

use axum::http::{HeaderMap, HeaderValue, header};
use serde::Deserialize;
use serde_json::json;

use crate::webhook::signature::{HEADER, SigningKey};

/// The header that names a delivery: assumed, the vendor documents none.
const DELIVERY_ID: &str = "x-datapulse-delivery";

/// What is wrong with a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flaw {
    /// No signature.
    Unsigned,
    /// Signed with another secret.
    Forged,
    /// A byte more in the body than was signed.
    Tampered,
    /// Another hash's name before the digits.
    Sha1,
    /// A digit short.
    Short,
    /// The signature twice.
    Twice,
}

/// Every [`Flaw`], as the command line calls them.
pub const FLAWS: [&str; 6] = ["unsigned", "forged", "tampered", "sha1", "short", "twice"];

/// A delivery, ready to be sent as often as one likes.
#[derive(Debug, Clone)]
pub struct Delivery {
    body: Vec<u8>,
    headers: HeaderMap,
}

impl Delivery {
    /// The body of an event as DataPulse might write it.
    #[must_use]
    pub fn event(kind: &str, id: &str) -> Vec<u8> {
        json!({"id": id, "type": kind, "data": {"dataset": "emulated"}}).to_string().into_bytes()
    }

    /// A body with its signature, and the name of the delivery.
    ///
    /// `None`: the name cannot stand in a header.
    #[must_use]
    pub fn signed(body: Vec<u8>, id: &str, key: &SigningKey) -> Option<Self> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("DataPulse-Emulator"));
        headers.insert(DELIVERY_ID, HeaderValue::from_str(id).ok()?);
        headers.insert(HEADER, HeaderValue::from_str(&key.sign(&body)).ok()?);
        Some(Self { body, headers })
    }

    /// The same delivery, gone wrong. `forger` is some key that the receiver does not know.
    #[must_use]
    pub fn with(mut self, flaw: Flaw, forger: &SigningKey) -> Self {
        let signature = self.headers.get(HEADER).cloned();
        let signature =
            signature.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (good, digits) = (signature.to_owned(), signature.trim_start_matches("sha256="));
        let bad = match flaw {
            Flaw::Unsigned => None,
            Flaw::Forged => Some(forger.sign(&self.body)),
            Flaw::Tampered => {
                self.body.push(b' ');
                Some(good)
            }
            Flaw::Sha1 => Some(format!("sha1={digits}")),
            Flaw::Short => good.get(..good.len().saturating_sub(1)).map(str::to_owned),
            Flaw::Twice => Some(good),
        };
        self.headers.remove(HEADER);
        if let Some(value) = bad.and_then(|text| HeaderValue::from_str(&text).ok()) {
            if flaw == Flaw::Twice {
                self.headers.append(HEADER, value.clone());
            }
            self.headers.append(HEADER, value);
        }
        self
    }

    /// Sends it once.
    ///
    /// # Errors
    /// No answer came.
    pub async fn send(
        &self,
        http: &reqwest::Client,
        to: url::Url,
    ) -> reqwest::Result<reqwest::Response> {
        http.post(to).headers(self.headers.clone()).body(self.body.clone()).send().await
    }
}
