//! OAuth 2.0 client credentials (RFC 6749 section 4.4): a client that acts for itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::super::oauth::TokenEndpoint;
use super::super::{MintError, Minted, TokenSource};
use crate::config::model::ClientCredentials;
use crate::store::SecretStore;

/// Asks the token endpoint, with the client secret read anew for each call: a rotated one is found
/// by the next try.
#[derive(Debug)]
pub(in super::super) struct ClientCredentialsGrant {
    client: ClientCredentials,
    scope: String,
    stores: Arc<dyn SecretStore>,
    endpoint: TokenEndpoint,
}

impl ClientCredentialsGrant {
    pub(in super::super) fn new(
        client: ClientCredentials,
        stores: Arc<dyn SecretStore>,
        endpoint: TokenEndpoint,
    ) -> Self {
        Self { scope: client.scopes.join(" "), client, stores, endpoint }
    }
}

#[async_trait]
impl TokenSource for ClientCredentialsGrant {
    async fn mint(&self) -> Result<Minted, MintError> {
        let secret = self.stores.read(&self.client.client_secret).await?;
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
        form.insert("client_secret", secret.value.expose_str().unwrap_or_default());
        self.endpoint.ask(&form).await
    }
}
