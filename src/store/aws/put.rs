//! Writing what a person has just got, whatever the secret holds: another value, or its first.
//!
//! The secret itself has to be there: which key encrypts it, and who may read it, is not for us to say.

use super::claim::successor_name;
use super::problem::Problem;
use super::{AwsStore, Place};
use crate::secret::{AwsStage, SecretValue};
use crate::store::StoreError;
use crate::store::json::with_field;

/// The stage of a version that shows that we may write. Its content is no secret, and the current
/// version stays current.
const TRIAL_STAGE: &str = "DATAPULSE_SIDECAR_LOGIN";

impl AwsStore {
    pub(super) async fn put_value(
        &self,
        place: &Place<'_>,
        new: &SecretValue,
    ) -> Result<(), StoreError> {
        let versions = self.describe(place).await?;
        let (current, text) = self.to_put(place, new).await?;
        if let Some(claim) = versions.claim_to(&current)
            && !self.has_lapsed(place.id, claim)
        {
            return Err(StoreError::Claimed { at: place.at.clone() });
        }
        // Whoever else writes after the same claim derives the same name, and AWS lets one win.
        let name = successor_name(&current, versions.claim().unwrap_or_default());
        self.client.put(place.id, &name, &text, None).await.map_err(|problem| problem.at(place.at))
    }

    pub(super) async fn may_put_value(&self, place: &Place<'_>) -> Result<(), StoreError> {
        self.describe(place).await?;
        let trial = SecretValue::new(b"may be written".to_vec());
        let (current, _) = self.to_put(place, &trial).await?;
        if current.is_empty() {
            // The first version becomes the current one, whatever its stage: nothing to try with.
            return Ok(());
        }
        let name = format!("{:032x}", fastrand::u128(..));
        let put = self.client.put(place.id, &name, &trial, Some(TRIAL_STAGE)).await;
        put.map_err(|problem| problem.at(place.at))
    }

    /// The current version's name, empty where there is none, and the whole text with `new` in it.
    async fn to_put(
        &self,
        place: &Place<'_>,
        new: &SecretValue,
    ) -> Result<(String, SecretValue), StoreError> {
        if place.stage != AwsStage::Current {
            return Err(StoreError::ReadOnly { at: place.at.clone() });
        }
        let (current, text) = match self.client.get(place.id, place.stage).await {
            Ok((text, current)) => (current.to_string(), text),
            // It is there, as its description was: it has no value yet.
            Err(Problem::Missing) => (String::new(), SecretValue::new(b"{}".to_vec())),
            Err(problem) => return Err(problem.at(place.at)),
        };
        let text = match place.key {
            Some(key) => with_field(place.at, &text, key, new)?,
            None => new.clone(),
        };
        Ok((current, text))
    }
}
