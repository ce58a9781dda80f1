//! The shape of what is not built yet: part of the schema, refused by [`super::NOT_YET`].

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::PrivateKeyJwt;

/// A person's refresh token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    /// The client's public name.
    pub client_id: Option<String>,
    /// A reference to the client's secret.
    pub client_secret: Option<String>,
    /// A key in place of the secret.
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// A reference to the refresh token.
    pub token: Option<String>,
    /// What to ask for.
    pub scopes: Option<Vec<String>>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: Option<BTreeMap<String, String>>,
}

/// Replicas that share a quota.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fleet {
    /// The URL of Redis or Valkey.
    pub redis: Option<String>,
    /// A reference to its password.
    pub password: Option<String>,
    /// How many there may be.
    pub max_replicas: Option<u32>,
}

/// A header that tells tenants apart.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerHeader {
    /// Its name.
    pub name: Option<String>,
    /// Its value.
    pub value: Option<String>,
}
