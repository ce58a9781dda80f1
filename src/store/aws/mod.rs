//! Secrets in AWS Secrets Manager: read by stage, watched by version, written back by a claim.
//!
//! Only `AWSCURRENT` is read, or `AWSPREVIOUS` where a reference says so; a pending version never.
//! The SDK's own retries are off: whoever asks waits and tries again. Endpoints, certificates and
//! proxies come from the configuration alone, who we are from the SDK's sources.

mod client;
mod claim;
mod connector;
mod identity;
mod put;
mod problem;
mod web_identity;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use self::claim::{CLAIM_STAGE, claim_name, successor_name};
use self::client::Client;
use self::problem::Problem;
use super::json::{field, with_field};
use super::{CLAIM_LAPSE, Claim, SecretStore, SecretVersion, StoreError, Take, Version};
use crate::clock::Moment;
use crate::config::model;
use crate::secret::{AwsStage, SecretRef, SecretValue};
use crate::tls::TlsError;

/// What the role may do is asked again after this long.
const UNDESCRIBED_FOR: Duration = Duration::from_secs(3600);

/// AWS Secrets Manager in one region.
#[derive(Debug)]
pub struct AwsStore {
    client: Client,
    poll: Duration,
    /// Secrets whose versions we may not list; no more of them than references.
    undescribed: Mutex<BTreeMap<String, Undescribed>>,
    /// Claims of others to what we want to claim, by secret, and since when we know them; no more of
    /// them than references.
    claims_seen: Mutex<BTreeMap<String, (String, Instant)>>,
}

/// A secret whose value may be read, and its versions not be listed.
#[derive(Debug)]
struct Undescribed {
    /// When AWS said so last.
    since: Instant,
    /// Whether we did.
    is_told: bool,
}

/// A reference that has been found to lead here.
#[derive(Debug, Clone, Copy)]
struct Place<'r> {
    at: &'r SecretRef,
    id: &'r str,
    stage: AwsStage,
    key: Option<&'r str>,
}

impl<'r> Place<'r> {
    fn new(at: &'r SecretRef) -> Result<Self, StoreError> {
        match at {
            SecretRef::Aws { id, stage, key } => {
                Ok(Self { at, id, stage: *stage, key: key.as_deref() })
            }
            _ => Err(StoreError::OtherStore { at: at.clone() }),
        }
    }

    /// The part of a secret's text that the reference names.
    fn pick(&self, text: &SecretValue, take: Take) -> Result<SecretValue, StoreError> {
        let bytes = match self.key {
            Some(key) => field(self.at, text, key)?,
            None => text.expose().to_vec(),
        };
        let unusable = |problem| StoreError::Unusable { at: self.at.clone(), problem };
        take(bytes).map_err(unusable)
    }

    fn conflict(&self) -> StoreError {
        StoreError::Conflict { at: self.at.clone() }
    }
}

impl AwsStore {
    /// Reads the certificates; no call is made yet.
    ///
    /// # Errors
    /// When there is no certificate to trust, or `ca_file` cannot be used.
    pub fn new(spec: &model::AwsStore) -> Result<Self, TlsError> {
        Ok(Self {
            client: Client::new(spec)?,
            poll: spec.poll,
            undescribed: Mutex::default(),
            claims_seen: Mutex::default(),
        })
    }

    /// Whether a claim that is in our way has been there for so long that whoever made it is dead.
    /// Counted from when we saw it, so that no two clocks have to agree.
    fn has_lapsed(&self, id: &str, claim: &str) -> bool {
        let mut seen = self.claims_seen.lock();
        let now = Instant::now();
        let known = seen.entry(id.to_owned()).or_insert_with(|| (claim.to_owned(), now));
        if known.0 != claim {
            *known = (claim.to_owned(), now);
        }
        now.duration_since(known.1) >= CLAIM_LAPSE
    }

    async fn read_as(&self, at: &SecretRef, take: Take) -> Result<SecretVersion, StoreError> {
        let place = Place::new(at)?;
        let found = self.client.get(place.id, place.stage).await;
        self.note_undescribed(&place, &found);
        let (text, version) = found.map_err(|problem| problem.at(at))?;
        Ok(SecretVersion { value: place.pick(&text, take)?, version: Some(Version::Name(version)) })
    }

    /// A refusal to describe means something where the value is given: where nothing is, it may be
    /// over with the refusal of the value.
    fn note_undescribed<T>(&self, place: &Place<'_>, found: &Result<T, Problem>) {
        let mut undescribed = self.undescribed.lock();
        match (undescribed.get_mut(place.id), found) {
            (Some(one), Ok(_)) if !one.is_told => {
                one.is_told = true;
                tracing::warn!(
                    secret = %place.at,
                    "the role may not list this secret's versions, so that each look reads its \
                     value; allow secretsmanager:DescribeSecret"
                );
            }
            (Some(_), Err(Problem::Denied)) => drop(undescribed.remove(place.id)),
            _ => {}
        }
    }

    async fn describe(&self, place: &Place<'_>) -> Result<claim::Versions, StoreError> {
        self.client.describe(place.id).await.map_err(|problem| problem.at(place.at))
    }
}

#[async_trait]
impl SecretStore for AwsStore {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let found = self.read_as(at, SecretValue::for_header).await;
        if found.as_ref().is_err_and(StoreError::is_about_the_store) {
            // Whoever has a claim could not write either: they get their time once more.
            self.claims_seen.lock().remove(Place::new(at)?.id);
        }
        found
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.read_as(at, SecretValue::document).await
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        let place = Place::new(at)?;
        let is_recent = |one: &Undescribed| one.since.elapsed() < UNDESCRIBED_FOR;
        if self.undescribed.lock().get(place.id).is_some_and(is_recent) {
            return Ok(None);
        }
        match self.client.describe(place.id).await {
            Ok(versions) => {
                self.undescribed.lock().remove(place.id);
                match versions.at(place.stage) {
                    Some(version) => Ok(Some(Version::Name(version.into()))),
                    None => Err(StoreError::Missing { at: at.clone() }),
                }
            }
            Err(Problem::Denied) => {
                let mut undescribed = self.undescribed.lock();
                let is_told = undescribed.get(place.id).is_some_and(|one| one.is_told);
                let one = Undescribed { since: Instant::now(), is_told };
                undescribed.insert(place.id.to_owned(), one);
                Ok(None)
            }
            Err(problem) => Err(problem.at(at)),
        }
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(self.poll)
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let place = Place::new(at)?;
        if place.stage != AwsStage::Current {
            return Err(StoreError::ReadOnly { at: at.clone() });
        }
        let (text, current) =
            self.client.get(place.id, place.stage).await.map_err(|problem| problem.at(at))?;
        if place.pick(&text, SecretValue::for_header)? != old.value {
            return Err(place.conflict());
        }
        let versions = self.describe(&place).await?;
        if versions.at(AwsStage::Current) != Some(&*current) {
            return Err(place.conflict());
        }
        if let Some(claim) = versions.claim_to(&current)
            && !self.has_lapsed(place.id, claim)
        {
            return Err(StoreError::Claimed { at: at.clone() });
        }
        let name = claim_name(&current, versions.claim());
        // Another one's content differs, so that AWS refuses whoever comes second.
        let content = SecretValue::new(format!("claim {:032x}", fastrand::u128(..)).into());
        let asked_at = Moment::now();
        match self.client.put(place.id, &name, &content, Some(CLAIM_STAGE)).await {
            Ok(()) => {}
            Err(Problem::Exists) => return Err(StoreError::Claimed { at: at.clone() }),
            Err(problem) => return Err(problem.at(at)),
        }
        let held =
            SecretVersion { value: old.value.clone(), version: Some(Version::Name(name.into())) };
        Ok(Claim::since(asked_at, held))
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        let place = Place::new(at)?;
        // The claim's version, or where none was needed the one that was read.
        let Some(Version::Name(ours)) = &claim.held.version else { return Err(place.conflict()) };
        let (text, current) =
            self.client.get(place.id, place.stage).await.map_err(|problem| problem.at(at))?;
        let there = place.pick(&text, SecretValue::for_header)?;
        let written =
            |version| SecretVersion { value: new.clone(), version: Some(Version::Name(version)) };
        if there == *new && claim.held.value != *new {
            // An earlier try was done, and its answer was lost.
            return Ok(written(current));
        }
        let versions = self.describe(&place).await?;
        let is_theirs = versions.claim_to(&current).is_some_and(|claim| claim != &**ours);
        if there != claim.held.value || is_theirs {
            return Err(place.conflict());
        }
        let text = match place.key {
            Some(key) => with_field(at, &text, key, new)?,
            None => new.clone(),
        };
        let name = successor_name(&current, ours);
        let put = self.client.put(place.id, &name, &text, None).await;
        put.map_err(|problem| problem.at(at))?;
        Ok(written(name))
    }

    /// Nothing is written, because AWS bounds how many versions there are in a day: others wait until
    /// it lapses, and we do not have to.
    async fn release(&self, at: &SecretRef, claim: Claim) -> Result<(), StoreError> {
        let place = Place::new(at)?;
        let long_ago = Instant::now().checked_sub(CLAIM_LAPSE);
        if let (Some(Version::Name(name)), Some(long_ago)) = (&claim.held.version, long_ago) {
            self.claims_seen.lock().insert(place.id.to_owned(), (name.to_string(), long_ago));
        }
        Ok(())
    }

    async fn may_put(&self, at: &SecretRef) -> Result<(), StoreError> {
        self.may_put_value(&Place::new(at)?).await
    }

    async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
        self.put_value(&Place::new(at)?, new).await
    }
}

#[cfg(test)]
mod tests;
