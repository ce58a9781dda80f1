//! The SDK's requests over the process' one HTTP client: the same roots, time-outs and limits as for
//! every other call that the sidecar makes itself, no proxy and no redirect.
//!
//! Nothing here logs: a request holds a signature or a session token, an answer holds the secret.

use std::sync::Arc;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;

use crate::tls::{ANSWER_BYTES_MAX, ReadError, read_capped};

/// Sends what the SDK wants to send. Cloning shares the connections.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    http: reqwest::Client,
    /// Addresses that only an ignored variable names; nothing is ever sent there.
    shunned: Arc<[url::Url]>,
}

/// Why there is no answer of AWS's.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("the request cannot be written as HTTP")]
    Malformed,
    #[error("only an ignored environment variable names this endpoint")]
    Shunned,
    #[error("the request was not answered")]
    Failed(#[source] reqwest::Error),
    #[error("the answer is too large")]
    TooLarge,
    #[error("the answer is a redirect")]
    Redirect,
}

impl Connector {
    pub(super) fn new(http: reqwest::Client, shunned: Vec<url::Url>) -> Self {
        Self { http, shunned: shunned.into() }
    }

    fn outgoing(&self, request: &HttpRequest) -> Result<reqwest::Request, NoAnswer> {
        let url: url::Url = request.uri().parse().map_err(|_invalid| NoAnswer::Malformed)?;
        if self.shunned.iter().any(|shunned| shunned.origin() == url.origin()) {
            return Err(NoAnswer::Shunned);
        }
        let method = request.method().parse().map_err(|_invalid| NoAnswer::Malformed)?;
        let mut outgoing = reqwest::Request::new(method, url);
        for (name, value) in request.headers() {
            let name = http::HeaderName::try_from(name).map_err(|_invalid| NoAnswer::Malformed)?;
            let value = http::HeaderValue::try_from(value);
            let mut value = value.map_err(|_invalid| NoAnswer::Malformed)?;
            value.set_sensitive(true);
            outgoing.headers_mut().append(name, value);
        }
        // Nothing that is sent here is a stream.
        let body = request.body().bytes().ok_or(NoAnswer::Malformed)?;
        *outgoing.body_mut() = Some(body.to_vec().into());
        Ok(outgoing)
    }

    async fn exchange(
        http: reqwest::Client,
        request: reqwest::Request,
    ) -> Result<http::Response<SdkBody>, NoAnswer> {
        let answer = http.execute(request).await;
        let answer = answer.map_err(|error| NoAnswer::Failed(error.without_url()))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        if status.is_redirection() {
            return Err(NoAnswer::Redirect);
        }
        let body = read_capped(answer, ANSWER_BYTES_MAX).await.map_err(|error| match error {
            ReadError::Broken(cause) => NoAnswer::Failed(cause),
            ReadError::TooLarge => NoAnswer::TooLarge,
        })?;
        let mut answer = http::Response::new(SdkBody::from(body));
        *answer.status_mut() = status;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let outgoing = self.outgoing(&request);
        let http = self.http.clone();
        HttpConnectorFuture::new(async move {
            let outgoing = outgoing.map_err(failed)?;
            let answer = Self::exchange(http, outgoing).await.map_err(failed)?;
            HttpResponse::try_from(answer).map_err(|error| ConnectorError::user(error.into()))
        })
    }
}

/// In the SDK's terms, by which its own sources of keys judge.
fn failed(error: NoAnswer) -> ConnectorError {
    match &error {
        NoAnswer::Failed(cause) if cause.is_timeout() => ConnectorError::timeout(error.into()),
        NoAnswer::Failed(_) => ConnectorError::io(error.into()),
        _ => ConnectorError::user(error.into()),
    }
}

impl HttpClient for Connector {
    /// The time-outs are the client's own, whatever the SDK would like.
    fn http_connector(
        &self,
        _settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}
