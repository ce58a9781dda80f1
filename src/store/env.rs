//! Secrets in the process' environment: for local development.

use std::ffi::OsString;

use async_trait::async_trait;

use super::{SecretStore, SecretVersion, StoreError, Take};
use crate::secret::{SecretRef, SecretValue};

/// Reads `env:NAME` references. A variable that is set and empty is [`StoreError::Unusable`].
#[derive(Debug, Clone, Copy)]
pub struct EnvStore;

#[async_trait]
impl SecretStore for EnvStore {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        read(at, SecretValue::for_header)
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        read(at, SecretValue::document)
    }
}

fn read(at: &SecretRef, take: Take) -> Result<SecretVersion, StoreError> {
    let SecretRef::Env { name } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    let found = std::env::var_os(name).map(OsString::into_encoded_bytes);
    let bytes = found.ok_or_else(|| StoreError::Missing { at: at.clone() })?;
    let value = take(bytes).map_err(|problem| StoreError::Unusable { at: at.clone(), problem })?;
    Ok(SecretVersion { value, version: None })
}

/// A variable that says who we are to a store; `None` where it is empty or no text.
pub(super) fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.into_string().ok()?;
    Some(value).filter(|value| !value.is_empty())
}

/// The URLs in all variables whose names begin so.
pub(super) fn urls(prefix: &str) -> Vec<url::Url> {
    let named = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with(prefix));
    named.filter_map(|(_, value)| value.to_string_lossy().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_variable_that_is_not_set_is_missing() {
        let at = "env:DATAPULSE_SIDECAR_NO_SUCH_VARIABLE".parse().unwrap();
        assert!(matches!(EnvStore.read(&at).await, Err(StoreError::Missing { .. })));
        let file = "file:/nowhere".parse().unwrap();
        assert!(matches!(EnvStore.read(&file).await, Err(StoreError::OtherStore { .. })));
    }
}
