//! A service account: it signs for itself, and gets a token for that (RFC 7523 section 2.1).

use async_trait::async_trait;

use super::super::oauth::{Account, TokenEndpoint, asking, assertion};
use super::super::{Given, MintError, TokenSource};
use crate::config::model::ServiceAccount;
use crate::secret::SecretValue;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Asks the token endpoint with an assertion of the account's own.
#[derive(Debug)]
pub(in super::super) struct ServiceAccountGrant {
    account: ServiceAccount,
    scope: String,
    endpoint: TokenEndpoint,
}

impl ServiceAccountGrant {
    pub(in super::super) fn new(account: ServiceAccount, endpoint: TokenEndpoint) -> Self {
        Self { scope: account.asks_for.scopes.join(" "), account, endpoint }
    }
}

#[async_trait]
impl TokenSource for ServiceAccountGrant {
    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        let Account { client_id, token_uri, key } = Account::read(secret)?;
        // A key file decides what the assertion says, never where it is sent.
        let audience = token_uri.as_deref().unwrap_or_else(|| self.endpoint.url().as_str());
        let assertion = assertion(&key, &client_id, audience)?;
        let mut form = asking(&self.account.asks_for, &self.scope);
        form.insert("grant_type", GRANT);
        form.insert("assertion", &assertion);
        self.endpoint.ask(&form).await
    }
}
