//! OAuth 2.0 client credentials (RFC 6749 section 4.4): a client that acts for itself.

use async_trait::async_trait;

use super::super::oauth::{Shown, TokenEndpoint, asking};
use super::super::{Given, MintError, TokenSource};
use crate::config::model::ClientCredentials;
use crate::secret::SecretValue;

/// Asks the token endpoint with the client's secret, or with what its key signs.
#[derive(Debug)]
pub(in super::super) struct ClientCredentialsGrant {
    client: ClientCredentials,
    scope: String,
    endpoint: TokenEndpoint,
}

impl ClientCredentialsGrant {
    pub(in super::super) fn new(client: ClientCredentials, endpoint: TokenEndpoint) -> Self {
        Self { scope: client.asks_for.scopes.join(" "), client, endpoint }
    }
}

#[async_trait]
impl TokenSource for ClientCredentialsGrant {
    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        let ClientCredentials { client_id, auth, asks_for } = &self.client;
        let shown = Shown::new(auth, secret, client_id, self.endpoint.url())?;
        let mut form = asking(asks_for, &self.scope);
        form.insert("grant_type", "client_credentials");
        form.insert("client_id", client_id);
        shown.add_to(&mut form);
        self.endpoint.ask(&form).await
    }

    fn client(&self) -> &str {
        &self.client.client_id
    }
}
