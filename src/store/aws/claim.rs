//! Names for the versions that are written, so that AWS itself lets only one writer win.
//!
//! AWS has no check-and-set. But it makes a version of one name once: a second one with another
//! content is refused. Whoever has seen the same state derives the same name.

use std::sync::Arc;

use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use ring::digest::{SHA256, digest};

use crate::secret::AwsStage;

/// The stage of a claim's version. Its content is no secret, and the current version stays current.
pub(super) const CLAIM_STAGE: &str = "DATAPULSE_SIDECAR_CLAIM";
/// As much of a claim's name as says which version it is a claim to.
const PREFIX_CHARS: usize = 32;

/// What is known of a secret's versions, without any value.
#[derive(Debug)]
pub(super) struct Versions(DescribeSecretOutput);

impl Versions {
    pub(super) const fn new(described: DescribeSecretOutput) -> Self {
        Self(described)
    }

    /// The version that has a stage.
    pub(super) fn at(&self, stage: AwsStage) -> Option<&str> {
        self.with(stage.as_str())
    }

    /// The last claim, whoever's and of whatever version.
    pub(super) fn claim(&self) -> Option<&str> {
        self.with(CLAIM_STAGE)
    }

    fn with(&self, stage: &str) -> Option<&str> {
        let versions = self.0.version_ids_to_stages()?;
        let has = |stages: &Vec<String>| stages.iter().any(|one| one == stage);
        versions.iter().find(|(_, stages)| has(stages)).map(|(id, _)| id.as_str())
    }

    /// The claim to `current`, where there is one.
    pub(super) fn claim_to(&self, current: &str) -> Option<&str> {
        self.claim().filter(|claim| claim.starts_with(&hash(&["claim to", current])))
    }
}

/// The name of the next claim to `current`, after the last claim of all.
pub(super) fn claim_name(current: &str, last_claim: Option<&str>) -> String {
    let after = hash(&["claim after", current, last_claim.unwrap_or_default()]);
    format!("{}{after}", hash(&["claim to", current]))
}

/// The name of the version that follows `current` by this claim.
pub(super) fn successor_name(current: &str, claim: &str) -> Arc<str> {
    hash(&["successor", current, claim]).into()
}

/// 128 bits of a digest in hexadecimal: AWS takes 32 to 64 characters.
fn hash(parts: &[&str]) -> String {
    let digest = digest(&SHA256, parts.join("\n").as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(PREFIX_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(stages: &[(&str, &str)]) -> Versions {
        let mut described = DescribeSecretOutput::builder();
        for (id, stage) in stages {
            described = described.version_ids_to_stages(*id, vec![(*stage).to_owned()]);
        }
        Versions::new(described.build())
    }

    #[test]
    fn whoever_has_seen_the_same_derives_the_same_name() {
        let first = claim_name("v1", None);
        assert_eq!(first, claim_name("v1", None));
        assert_eq!(first.len(), 64, "AWS takes no longer one");
        let second = claim_name("v1", Some(&first));
        assert_ne!(first, second, "a claim that lapsed is followed by another");
        assert_ne!(successor_name("v1", &first), successor_name("v1", &second));
        assert_eq!(successor_name("v1", &first).len(), 32);
    }

    #[test]
    fn a_claim_is_to_one_version_and_a_pending_version_is_none() {
        let claim = claim_name("v1", None);
        let seen = versions(&[("v1", "AWSCURRENT"), ("v0", "AWSPREVIOUS"), (&claim, CLAIM_STAGE)]);
        assert_eq!(seen.claim_to("v1"), Some(claim.as_str()));
        assert_eq!(seen.claim_to("v2"), None);
        assert_eq!(seen.at(AwsStage::Current), Some("v1"));
        assert_eq!(seen.at(AwsStage::Previous), Some("v0"));
        assert_eq!(versions(&[("v1", "AWSPENDING")]).at(AwsStage::Current), None);
    }
}
