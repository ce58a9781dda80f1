//! For tests: a store that is looked at from time to time. It counts versions and what it is asked
//! for, and is down when a test says so.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Claim, SecretStore, SecretVersion, StoreError, Take, Version};
use crate::secret::{SecretRef, SecretValue};

/// How often it is looked at, for whatever is not in a file.
pub(crate) const POLL: Duration = Duration::from_secs(60);
/// More questions than any test allows: whoever asks without end is stopped.
const ASKED_MAX: u32 = 5_000;

/// What it says of one secret in place of its value.
pub(crate) type Failure = fn(SecretRef) -> StoreError;

/// The store.
#[derive(Debug, Default)]
pub(crate) struct Polled(Mutex<BTreeMap<String, Secret>>);

#[derive(Debug, Default)]
struct Secret {
    text: Option<&'static str>,
    version: u64,
    failure: Option<Failure>,
    asked: u32,
}

impl Polled {
    /// The next version of a secret.
    pub(crate) fn put(&self, at: &str, text: &'static str) {
        let mut secrets = self.0.lock();
        let secret = secrets.entry(at.to_owned()).or_default();
        (secret.text, secret.version) = (Some(text), secret.version + 1);
    }

    /// From now on it says this of the secret; `None`: what is there.
    pub(crate) fn fail(&self, at: &str, failure: Option<Failure>) {
        self.0.lock().entry(at.to_owned()).or_default().failure = failure;
    }

    /// How often it was asked for the secret, version or value, since this was called last.
    pub(crate) fn asked(&self, at: &str) -> u32 {
        self.0.lock().get_mut(at).map_or(0, |secret| std::mem::take(&mut secret.asked))
    }

    fn answer(&self, at: &SecretRef, take: Take) -> Result<SecretVersion, StoreError> {
        let mut secrets = self.0.lock();
        let secret = secrets.entry(at.to_string()).or_default();
        secret.asked += 1;
        assert!(secret.asked < ASKED_MAX, "{at} is asked for without end");
        if let Some(failure) = secret.failure {
            return Err(failure(at.clone()));
        }
        let missing = || StoreError::Missing { at: at.clone() };
        let value = take(secret.text.ok_or_else(missing)?.into());
        let unusable = |problem| StoreError::Unusable { at: at.clone(), problem };
        let value = value.map_err(unusable)?;
        Ok(SecretVersion { value, version: Some(Version::Number(secret.version)) })
    }
}

#[async_trait]
impl SecretStore for Polled {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.answer(at, SecretValue::for_header)
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.answer(at, SecretValue::document)
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        self.answer(at, SecretValue::document).map(|found| found.version)
    }

    async fn claim(&self, _at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        Ok(Claim::by_version(old.clone()))
    }

    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        (!matches!(at, SecretRef::File { .. })).then_some(POLL)
    }
}
