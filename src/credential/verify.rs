//! Tries a token at the API before it replaces one that works.
//!
//! Only a plain "no" counts: an API that is down, slow or odd is no reason to keep an old secret.

use http::header;

use super::MintError;
use super::own_calls::{Ended, Permits};
use crate::secret::SecretValue;
use crate::tls;

/// Asks `auth.verify_path` of the API host.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    http: reqwest::Client,
    url: url::Url,
    permits: Permits,
}

/// What the API says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// It is taken, and belongs to the organisation of this name.
    Organisation(String),
    /// It is taken.
    Unnamed,
    /// It is rejected with this status: 401 or 403.
    Rejected(u16),
    /// The API cannot be asked, or says something else.
    Unknown,
}

/// The largest name that is shown, in characters.
const NAME_CHARS_MAX: usize = 200;

impl Verifier {
    /// `http` trusts the API host's roots.
    pub(super) const fn new(http: reqwest::Client, url: url::Url, permits: Permits) -> Self {
        Self { http, url, permits }
    }

    /// Whose a token is.
    ///
    /// # Errors
    /// As [`Self::rejection`].
    pub(super) async fn whose(&self, token: &SecretValue) -> Result<Whose, MintError> {
        let request = self.http.get(self.url.clone()).header(header::ACCEPT, "application/json");
        let Some(text) = token.expose_str() else { return Ok(Whose::Unknown) };
        let call = self.permits.next().await?;
        let outcome = request.bearer_auth(text).send().await;
        call.ended(Ended::of(&outcome));
        let Ok(answer) = outcome else { return Ok(Whose::Unknown) };
        match answer.status().as_u16() {
            200 => Ok(Self::organisation(answer, text).await),
            status @ (401 | 403) => Ok(Whose::Rejected(status)),
            _ => Ok(Whose::Unknown),
        }
    }

    async fn organisation(answer: reqwest::Response, token: &str) -> Whose {
        let body = tls::read_capped(answer, tls::ANSWER_BYTES_MAX).await.unwrap_or_default();
        let said: Result<serde_json::Value, _> = serde_json::from_slice(&body);
        let name = said.ok().and_then(|said| said.get("org_name")?.as_str().map(str::to_owned));
        // What an answer holds may be anything, the token among it.
        match name.filter(|name| !name.contains(token) && !name.contains(char::is_control)) {
            Some(name) => Whose::Organisation(name.chars().take(NAME_CHARS_MAX).collect()),
            None => Whose::Unnamed,
        }
    }

    /// The status that the API rejects this token with: 401 or 403. `None`: it accepts it, or says
    /// nothing of it.
    ///
    /// # Errors
    /// When the API cannot be asked yet, for want of room in the quota.
    pub(super) async fn rejection(&self, token: &SecretValue) -> Result<Option<u16>, MintError> {
        let request = self.http.get(self.url.clone()).header(header::ACCEPT, "application/json");
        let Some(token) = token.expose_str() else { return Ok(None) };
        let call = self.permits.next().await?;
        let outcome = request.bearer_auth(token).send().await;
        call.ended(Ended::of(&outcome));
        match outcome {
            Ok(answer) => Ok(Some(answer.status().as_u16()).filter(|s| matches!(s, 401 | 403))),
            Err(error) => {
                let cause = error.without_url();
                tracing::info!(%cause, "a changed secret could not be tried; it is used untried");
                Ok(None)
            }
        }
    }
}
