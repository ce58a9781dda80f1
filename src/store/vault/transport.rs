//! Carries vaultrs' requests to Vault over our own HTTP client.
//!
//! vaultrs' own client follows redirects to other hosts with the token on them, reads answers of any
//! size and settings from the environment, panics on a token with a line break, and logs errors by
//! itself. Of vaultrs only requests are used here. Never prints a request or an answer.

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use rustify::client::Client;
use rustify::endpoint::{Endpoint, MiddleWare};
use rustify::errors::ClientError;
use serde::de::IgnoredAny;

use super::super::StoreError;
use crate::clock;
use crate::config::model::VaultStore;
use crate::retry_after;
use crate::secret::{SecretRef, SecretValue};
use crate::tls::{self, ANSWER_BYTES_MAX, ReadError, read_capped};

/// A server, and how it is called. Holds no token.
pub(super) struct Transport {
    http: reqwest::Client,
    base: String,
    namespace: Option<HeaderValue>,
}

/// What came back, whatever it says.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: SecretValue,
    headers: HeaderMap,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no answer in time")]
    Timeout,
    #[error("no connection")]
    Unreachable(#[source] reqwest::Error),
    #[error("the connection broke")]
    Interrupted(#[source] reqwest::Error),
    #[error("the answer is too large")]
    TooLarge,
}

impl Transport {
    /// `http` is [`crate::tls::http_client`]'s.
    pub(super) fn new(http: reqwest::Client, spec: &VaultStore) -> Self {
        let base = format!("{}/v1", spec.address.as_str().trim_end_matches('/'));
        let namespace = spec.namespace.as_deref();
        // A namespace is visible ASCII: the configuration was read so.
        let namespace = namespace.and_then(|name| HeaderValue::from_str(name).ok());
        Self { http, base, namespace }
    }

    /// Makes one call, for the sake of `at`.
    pub(super) async fn call(
        &self,
        at: &SecretRef,
        endpoint: impl Endpoint,
        token: Option<&SecretValue>,
    ) -> Result<Answer, StoreError> {
        let headers = Headers { token, namespace: self.namespace.as_ref() };
        let called = endpoint.with_middleware(&headers).exec(self).await;
        let response = called.map_err(|error| failure(at, error))?.response;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, body: SecretValue::new(body), headers: parts.headers })
    }
}

#[async_trait]
impl Client for Transport {
    fn base(&self) -> &str {
        &self.base
    }

    /// rustify's own would log, and drop the headers of what is no success.
    async fn execute(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        self.send(request).await
    }

    async fn send(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, ClientError> {
        let answered = self.exchange(request).await;
        answered.map_err(|error| ClientError::GenericError { source: error.into() })
    }
}

impl Transport {
    async fn exchange(&self, request: Request<Vec<u8>>) -> Result<Response<Vec<u8>>, CallError> {
        let (parts, body) = request.into_parts();
        // vaultrs' login paths begin with a slash, and the base ends in none.
        let url = parts.uri.to_string().replacen("/v1//", "/v1/", 1);
        let mut request = self.http.request(parts.method, url).headers(parts.headers);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(unanswered)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = read_capped(response, ANSWER_BYTES_MAX).await.map_err(|error| match error {
            ReadError::TooLarge => CallError::TooLarge,
            ReadError::Broken(error) => unanswered(error),
        })?;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn unanswered(error: reqwest::Error) -> CallError {
    let error = error.without_url();
    if error.is_timeout() {
        CallError::Timeout
    } else if error.is_connect() {
        CallError::Unreachable(error)
    } else {
        CallError::Interrupted(error)
    }
}

fn failure(at: &SecretRef, error: ClientError) -> StoreError {
    let at = at.clone();
    // What rustify itself finds wrong is a request that cannot be built: a mistake of ours.
    let ClientError::GenericError { source } = error else {
        return StoreError::OtherStore { at };
    };
    match source.downcast::<CallError>() {
        Ok(CallError::Timeout) => StoreError::Timeout { at },
        Ok(CallError::TooLarge) => StoreError::TooLarge { at },
        Ok(CallError::Unreachable(error)) => {
            StoreError::Unreachable { at, reason: tls::failure(&error), source: Box::new(error) }
        }
        Ok(CallError::Interrupted(error)) => {
            StoreError::Unreachable { at, reason: "interrupted", source: Box::new(error) }
        }
        Err(_) => StoreError::OtherStore { at },
    }
}

/// What each request carries.
struct Headers<'a> {
    token: Option<&'a SecretValue>,
    namespace: Option<&'a HeaderValue>,
}

impl MiddleWare for Headers<'_> {
    fn request<E: Endpoint>(
        &self,
        _endpoint: &E,
        request: &mut Request<Vec<u8>>,
    ) -> Result<(), ClientError> {
        let headers = request.headers_mut();
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = self.namespace {
            headers.insert("x-vault-namespace", namespace.clone());
        }
        // A token is visible ASCII: it was taken in as one.
        if let Some(token) = self.token
            && let Ok(mut value) = HeaderValue::from_bytes(token.expose())
        {
            value.set_sensitive(true);
            headers.insert("x-vault-token", value);
        }
        Ok(())
    }

    fn response<E: Endpoint>(
        &self,
        _endpoint: &E,
        _response: &mut Response<Vec<u8>>,
    ) -> Result<(), ClientError> {
        Ok(())
    }
}

impl Answer {
    /// What an answer that is no success says of the store. A 403 and a 404 mean different things in
    /// different places, and are the caller's to judge.
    pub(super) fn refusal(&self, at: &SecretRef) -> StoreError {
        let at = at.clone();
        let unavailable = |reason| StoreError::Unavailable {
            at: at.clone(),
            reason,
            retry_after: retry_after::parse(&self.headers, clock::wall()),
        };
        match self.status.as_u16() {
            300..=399 => StoreError::Redirected { at },
            403 => StoreError::Denied { at, reason: "denied" },
            // What stands in front of Vault says it, too, when Vault is gone.
            404 if self.is_vaults() => StoreError::Missing { at },
            404 => StoreError::NotAnAnswer { at },
            412 => unavailable("lagging"),
            429 => unavailable("throttled"),
            472 => unavailable("dr_secondary"),
            473 | 474 => unavailable("standby"),
            501 => unavailable("uninitialized"),
            503 if self.says("sealed") => unavailable("sealed"),
            530 => unavailable("removed"),
            500..=599 if self.says("node not active") => unavailable("standby"),
            500..=599 => unavailable("internal"),
            _ => unavailable("unexpected"),
        }
    }

    /// Whether it has the shape of Vault's own: a list of errors, or what was asked for with its lease.
    pub(super) fn is_vaults(&self) -> bool {
        #[derive(serde::Deserialize)]
        struct Shape {
            errors: Option<Vec<IgnoredAny>>,
            lease_id: Option<IgnoredAny>,
        }
        let shape: Option<Shape> = serde_json::from_slice(self.body.expose()).ok();
        shape.is_some_and(|shape| shape.errors.is_some() || shape.lease_id.is_some())
    }

    /// Whether one of the server's own messages has these words.
    pub(super) fn says(&self, words: &str) -> bool {
        #[derive(serde::Deserialize)]
        struct Refusal {
            errors: Vec<String>,
        }
        let refusal: Option<Refusal> = serde_json::from_slice(self.body.expose()).ok();
        refusal.is_some_and(|refusal| refusal.errors.iter().any(|text| text.contains(words)))
    }

    /// The JSON of a success.
    pub(super) fn json<T: serde::de::DeserializeOwned>(
        &self,
        at: &SecretRef,
    ) -> Result<T, StoreError> {
        if !self.status.is_success() {
            return Err(self.refusal(at));
        }
        // serde's error is dropped: it quotes values.
        let Ok(parsed) = serde_json::from_slice(self.body.expose()) else {
            return Err(StoreError::NotAnAnswer { at: at.clone() });
        };
        Ok(parsed)
    }
}
