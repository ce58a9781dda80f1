//! Writing what a person has just got, whatever is there: a new secret, a new field, another value.
//!
//! By check-and-set, as everything that is written; the other fields stay, and a claim of somebody
//! else is respected.

use rustify_derive::Endpoint;
use serde::Deserialize;
use serde_json::Map;

use super::super::StoreError;
use super::kv::{self, Place};
use super::write::{CLAIM_FIELD, Whole, read_whole};
use super::{Vault, parts};
use crate::secret::{SecretRef, SecretValue};

/// `POST sys/capabilities-self`: what our token may do there. The default policy lets it ask.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/capabilities-self", method = "POST")]
struct CapabilitiesOf {
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct Capabilities {
    capabilities: Vec<String>,
}

impl Vault {
    pub(super) async fn put_field(
        &self,
        at: &SecretRef,
        new: &SecretValue,
    ) -> Result<(), StoreError> {
        let (path, field) = parts(at)?;
        let mut whole = self.whole_or_new(at, path).await?;
        self.unclaimed(at, path, &whole)?;
        let text = new.expose_str().unwrap_or_default();
        whole.fields.insert(field.to_owned(), text.into());
        whole.fields.remove(CLAIM_FIELD);
        self.write(at, whole).await.map(drop)
    }

    pub(super) async fn may_put_field(&self, at: &SecretRef) -> Result<(), StoreError> {
        let (path, _) = parts(at)?;
        let Whole { place, version, .. } = self.whole_or_new(at, path).await?;
        let request = || CapabilitiesOf { paths: vec![data_path(&place)] };
        let (answer, _) = self.call(at, request).await?;
        if !answer.status.is_success() {
            // It may not ask: then only writing itself will show it.
            return Ok(());
        }
        let has: Capabilities = answer.json(at)?;
        let needed = if version == 0 { "create" } else { "update" };
        let may = has.capabilities.iter().any(|one| one == "root" || one == needed);
        may.then_some(()).ok_or_else(|| StoreError::Denied { at: at.clone(), reason: "denied" })
    }

    /// The secret as it is; without fields where it is not there yet, or not any more.
    async fn whole_or_new(&self, at: &SecretRef, path: &str) -> Result<Whole, StoreError> {
        let place = self.written_place(at, path).await?;
        let (answer, _) = self.get(at, &place).await?;
        match read_whole(&answer, at, place.clone()) {
            Err(StoreError::Missing { .. } | StoreError::Deleted { .. }) => {
                let version = kv::last_version(&answer);
                Ok(Whole { place, fields: Map::new(), version })
            }
            found => found,
        }
    }
}

/// Where policies look.
fn data_path(place: &Place) -> String {
    format!("{}/data/{}", place.mount, place.path)
}
