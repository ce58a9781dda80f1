//! Tries a token at the API before it replaces one that works.
//!
//! Only a plain "no" counts: an API that is down, slow or odd is no reason to keep an old secret.

use http::header;

use super::MintError;
use super::own_calls::{Ended, Permits};
use crate::secret::SecretValue;

/// Asks `auth.verify_path` of the API host.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    http: reqwest::Client,
    url: url::Url,
    permits: Permits,
}

impl Verifier {
    /// `http` trusts the API host's roots.
    pub(super) const fn new(http: reqwest::Client, url: url::Url, permits: Permits) -> Self {
        Self { http, url, permits }
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
