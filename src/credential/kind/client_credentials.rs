//! OAuth 2.0 client credentials (RFC 6749 section 4.4): a client that acts for itself.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::super::oauth::TokenEndpoint;
use super::super::{MintError, Minted, TokenSource};
use crate::config::model::ClientCredentials;
use crate::secret::SecretValue;

/// Asks the token endpoint with the client's secret.
#[derive(Debug)]
pub(in super::super) struct ClientCredentialsGrant {
    client: ClientCredentials,
    scope: String,
    endpoint: TokenEndpoint,
}

impl ClientCredentialsGrant {
    pub(in super::super) fn new(client: ClientCredentials, endpoint: TokenEndpoint) -> Self {
        Self { scope: client.scopes.join(" "), client, endpoint }
    }
}

#[async_trait]
impl TokenSource for ClientCredentialsGrant {
    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Minted, MintError> {
        let mut form: BTreeMap<&str, &str> = self
            .client
            .params
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        if !self.scope.is_empty() {
            form.insert("scope", &self.scope);
        }
        if let Some(audience) = &self.client.audience {
            form.insert("audience", audience);
        }
        // Last, so that no further parameter stands in for one of these.
        form.insert("grant_type", "client_credentials");
        form.insert("client_id", &self.client.client_id);
        form.insert("client_secret", secret.expose_str().unwrap_or_default());
        self.endpoint.ask(&form).await
    }

    fn client(&self) -> &str {
        &self.client.client_id
    }
}
