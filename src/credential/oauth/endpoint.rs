//! Asks a token endpoint (RFC 6749 section 3.2), or the path that renews a session token, and
//! believes as little of the answer as possible.
//!
//! No body, header or URL is kept in an error: any of them may hold a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header;
use serde::Deserialize;

use super::super::schedule::{LIFE_DEFAULT, SESSION_LIFE, life};
use super::super::{Given, MintError, Minted};
use crate::config::model::{Auth, TokenRequest};
use crate::secret::SecretValue;
use crate::tls::{ANSWER_BYTES_MAX, ReadError, SharedClient, read_capped};
use crate::{clock, retry_after};

/// The largest token that is taken, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// For an answer that is not to be missed, connecting included.
const PATIENCE: Duration = Duration::from_secs(8);

/// The `error` codes of RFC 6749 section 5.2: no other text of an issuer is repeated.
const ERROR_CODES: [&str; 6] = [
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "invalid_scope",
];

/// Where tokens are asked for, and how a request is written.
#[derive(Debug, Clone)]
pub(in super::super) struct TokenEndpoint {
    http: SharedClient,
    url: url::Url,
    encoding: TokenRequest,
    /// In place of the client's own.
    timeout: Option<Duration>,
}

impl TokenEndpoint {
    pub(in super::super) fn new(http: impl Into<SharedClient>, auth: &Auth) -> Self {
        let (http, url) = (http.into(), auth.token_url.clone());
        Self { http, url, encoding: auth.token_request, timeout: None }
    }

    /// The path of the API host that renews session tokens.
    pub(in super::super) fn renewing(http: reqwest::Client, url: url::Url) -> Self {
        Self { http: http.into(), url, encoding: TokenRequest::Json, timeout: None }
    }

    /// Waits longer for an answer: without one, what was sent is lost.
    pub(in super::super) fn patient(self) -> Self {
        Self { timeout: Some(PATIENCE), ..self }
    }

    /// Where it is.
    pub(in super::super) const fn url(&self) -> &url::Url {
        &self.url
    }

    /// Asks for the next token with the one in use.
    pub(in super::super) async fn renew(&self, token: &SecretValue) -> Result<Given, MintError> {
        let request =
            self.http.now().post(self.url.clone()).header(header::ACCEPT, "application/json");
        answer(request.bearer_auth(token.expose_str().unwrap_or_default()), SESSION_LIFE).await
    }

    /// One token request with these parameters.
    pub(in super::super) async fn ask(
        &self,
        parameters: &BTreeMap<&str, &str>,
    ) -> Result<Given, MintError> {
        let request =
            self.http.now().post(self.url.clone()).header(header::ACCEPT, "application/json");
        let request = match self.encoding {
            TokenRequest::Json => request.json(parameters),
            TokenRequest::Form => request.form(parameters),
        };
        let request = match self.timeout {
            Some(timeout) => request.timeout(timeout),
            None => request,
        };
        answer(request, LIFE_DEFAULT).await
    }
}

/// `life_default`: of a token that says nothing of it.
async fn answer(
    request: reqwest::RequestBuilder,
    life_default: Duration,
) -> Result<Given, MintError> {
    let response = request.send().await.map_err(transport)?;
    let status = response.status();
    if status.is_redirection() {
        return Err(MintError::Redirected { status: status.as_u16() });
    }
    let retry_after = retry_after::parse(response.headers(), clock::wall());
    let body = read_capped(response, ANSWER_BYTES_MAX).await.map(SecretValue::new);
    if !status.is_success() {
        let code = body.ok().and_then(|body| error_code(&body));
        return Err(MintError::Refused { status: status.as_u16(), code, retry_after });
    }
    let body = body.map_err(|error| match error {
        ReadError::TooLarge => MintError::TooLarge,
        ReadError::Broken(error) => transport(error),
    })?;
    given(&body, clock::believable_unix_seconds(), life_default)
}

fn transport(error: reqwest::Error) -> MintError {
    let error = error.without_url();
    // Without a connection nothing was sent, also where that took too long.
    if error.is_connect() {
        MintError::Unreachable(error)
    } else if error.is_timeout() {
        MintError::Timeout
    } else {
        MintError::Interrupted(error)
    }
}

/// RFC 6749 section 5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Value>,
    refresh_token: Option<String>,
}

fn given(
    body: &SecretValue,
    unix_now: Option<u64>,
    life_default: Duration,
) -> Result<Given, MintError> {
    let Ok(mut answer) = serde_json::from_slice::<Answer>(body.expose()) else {
        return Err(MintError::NotAnAnswer);
    };
    let next_secret = answer.refresh_token.take().filter(|token| !token.is_empty());
    let next_secret = next_secret.map(|token| SecretValue::new(token.into_bytes()));
    if next_secret.as_ref().is_some_and(|next| !is_usable(next)) {
        // It could not be read from its store again, and the one before it is used up.
        return Err(MintError::UnusableToken);
    }
    Ok(Given { token: minted(answer, unix_now, life_default), next_secret })
}

fn is_usable(token: &SecretValue) -> bool {
    let bytes = token.expose();
    (1..=TOKEN_BYTES_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

fn minted(
    answer: Answer,
    unix_now: Option<u64>,
    life_default: Duration,
) -> Result<Minted, MintError> {
    let value = answer.access_token.ok_or(MintError::NotAnAnswer)?;
    let value = SecretValue::new(value.into_bytes());
    if answer.token_type.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(MintError::NotBearer);
    }
    if !is_usable(&value) {
        return Err(MintError::UnusableToken);
    }
    let said = answer.expires_in.as_ref().and_then(seconds);
    let life = life(said, value.expose(), unix_now, life_default);
    Ok(Minted { value, life: Some(life) })
}

/// A number, or a number in a string, as some issuers write it; anything else says nothing.
fn seconds(value: &serde_json::Value) -> Option<f64> {
    let number = match value {
        serde_json::Value::Number(number) => number.as_f64(),
        serde_json::Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|seconds: &f64| seconds.is_finite())
}

fn error_code(body: &SecretValue) -> Option<&'static str> {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let refusal: Refusal = serde_json::from_slice(body.expose()).ok()?;
    ERROR_CODES.into_iter().find(|code| *code == refusal.error)
}
