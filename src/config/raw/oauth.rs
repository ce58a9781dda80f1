//! The OAuth kinds of credentials, as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::REFERENCE;

/// An OAuth client that acts for itself.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCredentials {
    /// The client's public name.
    #[schemars(required)]
    pub client_id: Option<String>,
    /// A reference to its secret; or `private_key_jwt`.
    #[schemars(regex(pattern = REFERENCE))]
    pub client_secret: Option<String>,
    /// A key in place of the secret.
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// What to ask for.
    pub scopes: Option<Vec<String>>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: Option<BTreeMap<String, String>>,
}

/// A person's refresh token (RFC 6749 section 6): `login` puts it into its store.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshToken {
    /// The client's public name.
    #[schemars(required)]
    pub client_id: Option<String>,
    /// A reference to its secret; or `private_key_jwt`; or neither, for a public client.
    #[schemars(regex(pattern = REFERENCE))]
    pub client_secret: Option<String>,
    /// A key in place of the secret.
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// A reference to the refresh token; one that takes its place is written back there.
    #[schemars(required, regex(pattern = REFERENCE))]
    pub token: Option<String>,
    /// What to ask for.
    pub scopes: Option<Vec<String>>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: Option<BTreeMap<String, String>>,
}

/// A key that signs the client's assertion.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivateKeyJwt {
    /// A reference to the key: PEM (PKCS#8), a JWK, or the JSON of a service account.
    #[schemars(required, regex(pattern = REFERENCE))]
    pub key: Option<String>,
}

/// A service account's key (RFC 7523).
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// A reference to its JSON: `client_id`, `private_key`.
    #[schemars(required, regex(pattern = REFERENCE))]
    pub key: Option<String>,
    /// What to ask for.
    pub scopes: Option<Vec<String>>,
    /// Sent as `audience`.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: Option<BTreeMap<String, String>>,
}
