//! The shape of what is not built yet: part of the schema, refused by [`super::NOT_YET`].

use schemars::JsonSchema;
use serde::Deserialize;

use super::REFERENCE;

/// Replicas that share a quota.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The URL of Redis or Valkey.
    pub redis: Option<String>,
    /// A reference to its password.
    #[schemars(regex(pattern = REFERENCE))]
    pub password: Option<String>,
    /// How many there may be.
    pub max_replicas: Option<u32>,
}
