//! What a person let a client do for them: a refresh token is spent for a bearer token (RFC 6749
//! section 6), and the issuer may give another one in its place.

use async_trait::async_trait;

use super::super::oauth::{Shown, TokenEndpoint, asking};
use super::super::{Effect, Given, MintError, TokenSource};
use crate::config::model::{ClientAuth, RefreshToken};
use crate::secret::SecretValue;
use crate::store::SecretWatch;

/// Asks the token endpoint with a refresh token, as the client that it was given to.
#[derive(Debug)]
pub(in super::super) struct RefreshTokenGrant {
    grant: RefreshToken,
    /// What the client shows; `None`: it is a public one.
    client: Option<(ClientAuth, SecretWatch)>,
    scope: String,
    endpoint: TokenEndpoint,
}

impl RefreshTokenGrant {
    /// `client` follows the secret or the key of `grant.auth`.
    pub(in super::super) fn new(
        grant: RefreshToken,
        client: Option<SecretWatch>,
        endpoint: TokenEndpoint,
    ) -> Self {
        let client = grant.auth.clone().zip(client);
        Self { scope: grant.asks_for.scopes.join(" "), grant, client, endpoint }
    }
}

#[async_trait]
impl TokenSource for RefreshTokenGrant {
    /// What the client shows is read anew; while that cannot be had, what was read last will do.
    async fn prepare(&self) -> Result<(), MintError> {
        let Some((_, watch)) = &self.client else { return Ok(()) };
        watch.or_last(watch.insist().await)?;
        Ok(())
    }

    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        let RefreshToken { client_id, asks_for, .. } = &self.grant;
        let client = match &self.client {
            Some((auth, watch)) => Some((auth, watch.recall().await?.value)),
            None => None,
        };
        let shown = client
            .as_ref()
            .map(|(auth, secret)| Shown::new(auth, secret, client_id, self.endpoint.url()));
        let shown = shown.transpose()?;
        let mut form = asking(asks_for, &self.scope);
        form.insert("grant_type", "refresh_token");
        form.insert("refresh_token", secret.expose_str().unwrap_or_default());
        form.insert("client_id", client_id);
        if let Some(shown) = &shown {
            shown.add_to(&mut form);
        }
        let mut given = self.endpoint.ask(&form).await?;
        // An issuer may say that the same one stays.
        given.next_secret = given.next_secret.filter(|next| next != secret);
        Ok(given)
    }

    fn effect(&self) -> Effect {
        Effect::Spends
    }

    fn client(&self) -> &str {
        &self.grant.client_id
    }
}
