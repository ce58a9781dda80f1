//! Writing back: a secret is claimed, and replaced, by check-and-set on its version (KV v2).
//!
//! Every other field stays as it is. A claim is a field of its own in the secret; whoever finds one
//! waits for the version that ends it, or until it has been there for too long.

use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::time::Instant;
use vaultrs::api::kv2::requests::{SetSecretRequest, SetSecretRequestOptions};

use super::super::{CLAIM_LAPSE, Claim, SecretVersion, StoreError, Version};
use super::kv::{self, Engine, Place};
use super::transport::Answer;
use super::{Vault, parts};
use crate::clock::Moment;
use crate::secret::{SecretRef, SecretValue};

/// The field that says that a process is about to replace the secret.
pub(super) const CLAIM_FIELD: &str = "datapulse_sidecar_claim";

/// A whole secret, to be written again with one field changed.
pub(super) struct Whole {
    pub(super) place: Place,
    pub(super) fields: Map<String, Value>,
    pub(super) version: u64,
}

#[derive(Deserialize)]
struct Read {
    data: ReadData,
}

#[derive(Deserialize)]
struct ReadData {
    data: Map<String, Value>,
}

#[derive(Deserialize)]
struct Written {
    data: WrittenData,
}

#[derive(Deserialize)]
struct WrittenData {
    version: u64,
}

impl Vault {
    pub(super) async fn claim_field(
        &self,
        at: &SecretRef,
        old: &SecretVersion,
    ) -> Result<Claim, StoreError> {
        let (path, field) = parts(at)?;
        let mut whole = self.whole(at, path).await?;
        self.unclaimed(at, path, &whole)?;
        if whole.fields.get(field).and_then(Value::as_str) != old.value.expose_str() {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        let token = format!("{:016x}", fastrand::u64(..));
        whole.fields.insert(CLAIM_FIELD.to_owned(), token.into());
        let asked_at = Moment::now();
        let version = self.write(at, whole).await?;
        let held = SecretVersion { value: old.value.clone(), version: Some(version) };
        Ok(Claim::since(asked_at, held))
    }

    pub(super) async fn replace_field(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        let (path, field) = parts(at)?;
        let mut whole = self.whole(at, path).await?;
        let there = Version::Number(whole.version);
        let is_new = whole.fields.get(field).and_then(Value::as_str) == new.expose_str();
        if is_new && !whole.fields.contains_key(CLAIM_FIELD) {
            // The last try was written, and its answer lost.
            return Ok(SecretVersion { value: new.clone(), version: Some(there) });
        }
        if claim.held.version.as_ref() != Some(&there) {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        let text = new.expose_str().unwrap_or_default();
        whole.fields.insert(field.to_owned(), text.into());
        whole.fields.remove(CLAIM_FIELD);
        let version = self.write(at, whole).await?;
        Ok(SecretVersion { value: new.clone(), version: Some(version) })
    }

    async fn whole(&self, at: &SecretRef, path: &str) -> Result<Whole, StoreError> {
        let place = self.written_place(at, path).await?;
        let (answer, _) = self.get(at, &place).await?;
        read_whole(&answer, at, place)
    }

    /// A place of the one engine that can be written to.
    pub(super) async fn written_place(
        &self,
        at: &SecretRef,
        path: &str,
    ) -> Result<Place, StoreError> {
        let place = self.place(at, path).await?;
        if place.engine == Engine::V1 {
            // It knows no check-and-set: two writers would not notice each other.
            return Err(StoreError::ReadOnly { at: at.clone() });
        }
        Ok(place)
    }

    /// Whether nobody else has it: a claim that has been there for too long is one of the dead.
    pub(super) fn unclaimed(
        &self,
        at: &SecretRef,
        path: &str,
        whole: &Whole,
    ) -> Result<(), StoreError> {
        let mut places = self.places.lock();
        let Some(known) = places.get_mut(path) else { return Ok(()) };
        if !whole.fields.contains_key(CLAIM_FIELD) {
            known.claimed = None;
            return Ok(());
        }
        let now = Instant::now();
        match known.claimed {
            Some((version, since)) if version == whole.version => {
                if now >= since + CLAIM_LAPSE {
                    Ok(())
                } else {
                    Err(claimed(at))
                }
            }
            _ => {
                known.claimed = Some((whole.version, now));
                Err(claimed(at))
            }
        }
    }

    pub(super) async fn write(&self, at: &SecretRef, whole: Whole) -> Result<Version, StoreError> {
        let Whole { place, fields, version } = whole;
        let Ok(cas) = u32::try_from(version) else {
            return Err(StoreError::NotAnAnswer { at: at.clone() });
        };
        let data = Value::Object(fields);
        let request = || SetSecretRequest {
            mount: place.mount.clone(),
            path: place.path.clone(),
            data: data.clone(),
            options: Some(SetSecretRequestOptions { cas }),
        };
        let (answer, _) = self.call(at, request).await?;
        if answer.status.as_u16() == 400 && answer.says("check-and-set") {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        Ok(Version::Number(answer.json::<Written>(at)?.data.version))
    }
}

fn claimed(at: &SecretRef) -> StoreError {
    StoreError::Claimed { at: at.clone() }
}

/// A secret as it is now, out of Vault's answer.
pub(super) fn read_whole(
    answer: &Answer,
    at: &SecretRef,
    place: Place,
) -> Result<Whole, StoreError> {
    let Some(Version::Number(version)) = kv::version_read(answer, at, place.engine)? else {
        return Err(StoreError::NotAnAnswer { at: at.clone() });
    };
    let fields = answer.json::<Read>(at)?.data.data;
    Ok(Whole { place, fields, version })
}
