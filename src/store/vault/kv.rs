//! Secrets of the key-value engine, versions 1 and 2: what is asked, and what the answers mean.
//!
//! Only the field that is wanted is taken out of an answer; its neighbours are skipped unread.

use std::time::SystemTime;

use rustify_derive::Endpoint;
use serde::Deserialize;

use super::super::json::field_at;
use super::super::{SecretVersion, StoreError, Take, Version};
use super::transport::Answer;
use crate::secret::SecretRef;

/// `GET sys/internal/ui/mounts/PATH`: what is mounted there. A token that may read the secret may
/// ask.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/internal/ui/mounts/{self.path}")]
pub(super) struct MountOf {
    #[endpoint(skip)]
    pub(super) path: String,
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Without slashes at its ends.
    pub(super) mount: String,
    /// Below the mount.
    pub(super) path: String,
    pub(super) engine: Engine,
}

/// Which version of the key-value engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    V1,
    V2,
}

#[derive(Deserialize)]
struct Mounted {
    data: MountData,
}

#[derive(Deserialize)]
struct MountData {
    path: String,
    #[serde(rename = "type")]
    engine: String,
    #[serde(default)]
    options: Option<MountOptions>,
}

#[derive(Deserialize, Default)]
struct MountOptions {
    #[serde(default)]
    version: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    data: Versions,
}

#[derive(Deserialize)]
struct Versions {
    current_version: u64,
    #[serde(default)]
    versions: std::collections::BTreeMap<String, VersionState>,
}

#[derive(Deserialize)]
struct VersionState {
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct Read {
    data: ReadData,
}

#[derive(Deserialize)]
struct ReadData {
    metadata: ReadMetadata,
}

#[derive(Deserialize)]
struct ReadMetadata {
    version: u64,
}

/// What is mounted at a path.
pub(super) fn place(answer: &Answer, at: &SecretRef, path: &str) -> Result<Place, StoreError> {
    let MountData { path: mount, engine, options } = answer.json::<Mounted>(at)?.data;
    if !matches!(engine.as_str(), "kv" | "generic") {
        let engine = engine.chars().filter(char::is_ascii_alphanumeric).take(32).collect();
        return Err(StoreError::WrongEngine { at: at.clone(), engine });
    }
    let mount = mount.trim_matches('/').to_owned();
    let below = path.strip_prefix(&mount).and_then(|rest| rest.strip_prefix('/'));
    let Some(below) = below.filter(|below| !below.is_empty()) else {
        return Err(StoreError::NotAnAnswer { at: at.clone() });
    };
    let version = options.unwrap_or_default().version;
    let engine = if version.as_deref() == Some("2") { Engine::V2 } else { Engine::V1 };
    Ok(Place { path: below.to_owned(), mount, engine })
}

/// The current version, out of a secret's metadata. `None`: it may be deleted by now, which only a
/// read can tell.
pub(super) fn version(
    answer: &Answer,
    at: &SecretRef,
    now: SystemTime,
) -> Result<Option<Version>, StoreError> {
    let Versions { current_version, versions } = answer.json::<Metadata>(at)?.data;
    let state = versions.get(&current_version.to_string());
    if state.is_some_and(|state| state.destroyed) || current_version == 0 {
        return Err(StoreError::Deleted { at: at.clone() });
    }
    // With `delete_version_after` it is in the future, and the version is as good as any until then.
    let deletion_time = state.map(|state| &*state.deletion_time).filter(|time| !time.is_empty());
    let is_good = deletion_time
        .is_none_or(|time| humantime::parse_rfc3339(time).is_ok_and(|deleted_at| now < deleted_at));
    Ok(is_good.then_some(Version::Number(current_version)))
}

/// One field of a secret, with its version where the engine keeps one.
pub(super) fn secret(
    answer: &Answer,
    at: &SecretRef,
    engine: Engine,
    name: &str,
    take: Take,
) -> Result<SecretVersion, StoreError> {
    let version = version_read(answer, at, engine)?;
    let within: &[&str] = match engine {
        Engine::V1 => &["data"],
        Engine::V2 => &["data", "data"],
    };
    let bytes = match field_at(at, &answer.body, within, name) {
        // What is no object is no answer of Vault's.
        Err(StoreError::NotJson { at }) => return Err(StoreError::NotAnAnswer { at }),
        found => found?,
    };
    let value = take(bytes).map_err(|problem| StoreError::Unusable { at: at.clone(), problem })?;
    Ok(SecretVersion { value, version })
}

/// The last version of a secret that is not there: 0, or that of the deletion.
pub(super) fn last_version(answer: &Answer) -> u64 {
    let read = serde_json::from_slice::<Read>(answer.body.expose());
    read.map_or(0, |read| read.data.metadata.version)
}

/// The version of what was read; an absent secret and a deleted one are told apart.
pub(super) fn version_read(
    answer: &Answer,
    at: &SecretRef,
    engine: Engine,
) -> Result<Option<Version>, StoreError> {
    if answer.status.as_u16() == 404 {
        // A deleted version is a 404 that has the metadata in it.
        let is_deleted = serde_json::from_slice::<Read>(answer.body.expose()).is_ok();
        let deleted = || StoreError::Deleted { at: at.clone() };
        return Err(if is_deleted { deleted() } else { answer.refusal(at) });
    }
    match engine {
        Engine::V1 if answer.status.is_success() => Ok(None),
        Engine::V1 => Err(answer.refusal(at)),
        Engine::V2 => {
            let read: Read = answer.json(at)?;
            Ok(Some(Version::Number(read.data.metadata.version)))
        }
    }
}
