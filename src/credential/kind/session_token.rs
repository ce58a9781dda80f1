//! A session token of 24 h: it is used as it is found, and renewed by itself before it ends.

use async_trait::async_trait;

use super::super::oauth::TokenEndpoint;
use super::super::own_calls::{Ended, Permits};
use super::super::schedule::session_life;
use super::super::{Effect, Given, MintError, Minted, TokenSource};
use crate::clock;
use crate::secret::SecretValue;

/// Takes a token that is new to us as it is, and gives one that is in use to the API host's refresh
/// path in exchange for the next.
#[derive(Debug)]
pub(in super::super) struct SessionToken {
    endpoint: TokenEndpoint,
    permits: Permits,
}

impl SessionToken {
    pub(in super::super) const fn new(endpoint: TokenEndpoint, permits: Permits) -> Self {
        Self { endpoint, permits }
    }
}

#[async_trait]
impl TokenSource for SessionToken {
    async fn mint(&self, secret: &SecretValue, is_new: bool) -> Result<Given, MintError> {
        if is_new {
            let life = session_life(secret.expose(), clock::believable_unix_seconds());
            return Ok(Minted { value: secret.clone(), life: Some(life) }.into());
        }
        let call = self.permits.next().await?;
        let given = self.endpoint.renew(secret).await;
        call.ended(Ended::of_mint(&given));
        let Given { token, next_secret: _ } = given?;
        let next_secret = token.as_ref().ok().map(|minted| minted.value.clone());
        Ok(Given { token, next_secret })
    }

    fn effect(&self) -> Effect {
        Effect::Renews
    }

    fn gives_the_secret(&self) -> bool {
        true
    }
}
