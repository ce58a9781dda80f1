//! An API key: the secret is itself the bearer token, and minting is reading it again.

use std::sync::Arc;

use async_trait::async_trait;

use super::super::{MintError, Minted, TokenSource};
use crate::secret::SecretRef;
use crate::store::SecretStore;

/// Reads the key from its store. It does not expire, as far as we know.
#[derive(Debug)]
pub(in super::super) struct ApiKey {
    at: SecretRef,
    stores: Arc<dyn SecretStore>,
}

impl ApiKey {
    pub(in super::super) fn new(at: SecretRef, stores: Arc<dyn SecretStore>) -> Self {
        Self { at, stores }
    }
}

#[async_trait]
impl TokenSource for ApiKey {
    async fn mint(&self) -> Result<Minted, MintError> {
        let secret = self.stores.read(&self.at).await?;
        Ok(Minted { value: secret.value, life: None })
    }
}
