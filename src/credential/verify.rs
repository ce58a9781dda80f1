//! Tries a token at the API before it replaces one that works.
//!
//! Only a plain "no" counts: an API that is down, slow or odd is no reason to keep an old secret.

use http::header;

use crate::secret::SecretValue;

/// Asks `auth.verify_path` of the API host.
#[derive(Debug, Clone)]
pub(super) struct Verifier {
    http: reqwest::Client,
    url: url::Url,
}

impl Verifier {
    /// `http` trusts the API host's roots.
    pub(super) const fn new(http: reqwest::Client, url: url::Url) -> Self {
        Self { http, url }
    }

    /// The status that the API rejects this token with: 401 or 403. `None`: it accepts it, or says
    /// nothing of it.
    pub(super) async fn rejection(&self, token: &SecretValue) -> Option<u16> {
        let request = self.http.get(self.url.clone()).header(header::ACCEPT, "application/json");
        let request = request.bearer_auth(token.expose_str()?);
        match request.send().await {
            Ok(answer) => Some(answer.status().as_u16()).filter(|s| matches!(s, 401 | 403)),
            Err(error) => {
                let cause = error.without_url();
                tracing::info!(%cause, "a changed secret could not be tried; it is used untried");
                None
            }
        }
    }
}
