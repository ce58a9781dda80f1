//! An API key: the secret is itself the bearer token, and minting is reading it again.

use async_trait::async_trait;

use super::super::{Given, MintError, Minted, TokenSource};
use crate::secret::SecretValue;

/// Takes the key as it is. It does not expire, as far as we know.
#[derive(Debug)]
pub(in super::super) struct ApiKey;

#[async_trait]
impl TokenSource for ApiKey {
    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        Ok(Minted { value: secret.clone(), life: None }.into())
    }

    fn asks_an_issuer(&self) -> bool {
        false
    }

    fn gives_the_secret(&self) -> bool {
        true
    }
}
