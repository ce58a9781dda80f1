//! HashiCorp Vault and OpenBao: key-value secrets, by one shared login.
//!
//! Nothing of an answer is kept but the field that was asked for. `VAULT_*` variables are never
//! looked at, redirects never followed, and no type here prints what it holds.

mod kv;
mod login;
mod put;
mod session;
mod transport;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rustify::endpoint::Endpoint;
use tokio::time::Instant;
use vaultrs::api::kv1::requests::GetSecretRequest;
use vaultrs::api::kv2::requests::{ReadSecretMetadataRequest, ReadSecretRequest};

use super::{Claim, SecretStore, SecretVersion, StoreError, Take, Version};
use crate::clock;
use crate::config::model::VaultStore;
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::Metrics;
use crate::tls::{self, Roots, TlsError};
use kv::{Engine, MountOf, Place};
use session::{Lease, Session};
use transport::{Answer, Transport};

/// Reads and writes `vault:MOUNT/PATH#FIELD`.
#[derive(Debug)]
pub struct Vault {
    session: Session,
    poll: Duration,
    /// By the path of the reference; what Vault said is mounted there.
    places: Mutex<BTreeMap<String, Known>>,
}

/// What is known of one secret, beside its value.
#[derive(Debug, Clone)]
struct Known {
    place: Place,
    /// The login with which its metadata could not be read; after another login it is tried again.
    without_metadata: Option<u64>,
    /// Whether that was said.
    is_said: bool,
    /// A claim of somebody else's, by the version that it made, and when it was seen first.
    claimed: Option<(u64, Instant)>,
}

impl Vault {
    /// A store that has not logged in yet.
    ///
    /// # Errors
    /// When the certificates to trust cannot be read.
    pub fn new(spec: &VaultStore, metrics: &Metrics) -> Result<Self, TlsError> {
        let roots = match spec.address.scheme() {
            "https" => Roots::load(spec.ca_file.as_deref())?,
            _ => Roots::none(),
        };
        let transport = Transport::new(tls::http_client(&roots)?, spec);
        let session = Session::new(transport, spec, metrics);
        Ok(Self { session, poll: spec.poll, places: Mutex::default() })
    }

    /// A call with our token; after a denial one more with that of a fresh login. Gives the login
    /// that it was made with.
    async fn call<E: Endpoint>(
        &self,
        at: &SecretRef,
        request: impl Fn() -> E,
    ) -> Result<(Answer, Arc<Lease>), StoreError> {
        let lease = self.session.lease(at).await?;
        let answer = self.session.transport.call(at, request(), Some(&lease.token)).await?;
        if answer.status.as_u16() != 403 {
            return Ok((answer, lease));
        }
        match self.session.after_denial(at, &lease).await? {
            None => Ok((answer, lease)),
            Some(newer) => {
                let answer = self.session.transport.call(at, request(), Some(&newer.token)).await?;
                Ok((answer, newer))
            }
        }
    }

    /// Where a secret is: asked of Vault once, and again after it was not there.
    async fn place(&self, at: &SecretRef, path: &str) -> Result<Place, StoreError> {
        if let Some(known) = self.places.lock().get(path) {
            return Ok(known.place.clone());
        }
        let (answer, _) = self.call(at, || MountOf { path: path.to_owned() }).await?;
        let place = kv::place(&answer, at, path)?;
        let known =
            Known { place: place.clone(), without_metadata: None, is_said: false, claimed: None };
        self.places.lock().insert(path.to_owned(), known);
        Ok(place)
    }

    async fn get(&self, at: &SecretRef, place: &Place) -> Result<(Answer, Arc<Lease>), StoreError> {
        let (mount, path) = (&place.mount, &place.path);
        match place.engine {
            Engine::V1 => {
                let request = || GetSecretRequest { mount: mount.clone(), path: path.clone() };
                self.call(at, request).await
            }
            Engine::V2 => {
                let request = || ReadSecretRequest {
                    mount: mount.clone(),
                    path: path.clone(),
                    version: None,
                };
                self.call(at, request).await
            }
        }
    }

    async fn read_field(
        &self,
        at: &SecretRef,
        path: &str,
        field: &str,
        take: Take,
    ) -> Result<SecretVersion, StoreError> {
        let place = self.place(at, path).await?;
        let (answer, lease) = self.get(at, &place).await?;
        let found = kv::secret(&answer, at, place.engine, field, take)?;
        self.note_metadata(at, path, &lease);
        Ok(found)
    }

    /// The value could be read with this login; if the metadata could not, that is how it is meant.
    fn note_metadata(&self, at: &SecretRef, path: &str, lease: &Lease) {
        let mut places = self.places.lock();
        let Some(known) = places.get_mut(path) else { return };
        if known.without_metadata == Some(lease.generation) && !known.is_said {
            known.is_said = true;
            tracing::info!(
                secret = %at,
                "its metadata may not be read, so each look reads the value; grant `read` on the \
                 metadata path to spare that"
            );
        }
    }

    async fn current_version(
        &self,
        at: &SecretRef,
        path: &str,
    ) -> Result<Option<Version>, StoreError> {
        let place = self.place(at, path).await?;
        let lease = self.session.lease(at).await?;
        let without = self.places.lock().get(path).and_then(|known| known.without_metadata);
        if place.engine == Engine::V1 || without == Some(lease.generation) {
            return Ok(None);
        }
        let request = ReadSecretMetadataRequest { mount: place.mount, path: place.path };
        // A denial here is no reason to log in: the value may well be readable.
        let answer = self.session.transport.call(at, request, Some(&lease.token)).await?;
        match answer.status.as_u16() {
            403 => {
                if let Some(known) = self.places.lock().get_mut(path) {
                    known.without_metadata = Some(lease.generation);
                }
                Ok(None)
            }
            _ => kv::version(&answer, at, clock::wall()),
        }
    }

    /// What is not where it was may have been mounted in another way.
    fn forget(&self, path: &str, error: &StoreError) {
        if error.is_about_the_secret() || matches!(error, StoreError::NotAnAnswer { .. }) {
            self.places.lock().remove(path);
        } else if error.is_about_the_store() {
            // Whoever has the claim could not write either: they get their time once more.
            if let Some(known) = self.places.lock().get_mut(path) {
                known.claimed = None;
            }
        }
    }
}

/// Mount with path, and field, of a reference into Vault.
fn parts(at: &SecretRef) -> Result<(&str, &str), StoreError> {
    match at {
        SecretRef::Vault { path, field } => Ok((path, field)),
        _ => Err(StoreError::OtherStore { at: at.clone() }),
    }
}

#[async_trait]
impl SecretStore for Vault {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let (path, field) = parts(at)?;
        let found = self.read_field(at, path, field, SecretValue::for_header).await;
        found.inspect_err(|error| self.forget(path, error))
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let (path, field) = parts(at)?;
        let found = self.read_field(at, path, field, SecretValue::document).await;
        found.inspect_err(|error| self.forget(path, error))
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        let (path, _) = parts(at)?;
        let found = self.current_version(at, path).await;
        found.inspect_err(|error| self.forget(path, error))
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(self.poll)
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let (path, _) = parts(at)?;
        let claimed = self.claim_field(at, old).await;
        claimed.inspect_err(|error| self.forget(path, error))
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        self.replace_field(at, claim, new).await
    }

    async fn may_put(&self, at: &SecretRef) -> Result<(), StoreError> {
        self.may_put_field(at).await
    }

    async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
        self.put_field(at, new).await
    }

    async fn keep(&self) {
        self.session.keep().await;
    }
}

#[cfg(test)]
mod tests;
