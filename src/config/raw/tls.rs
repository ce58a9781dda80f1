//! Certificates of our own, as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::REFERENCE;

/// A certificate that is shown to the upstream.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCert {
    /// PEM certificates, ours first.
    #[schemars(required)]
    pub cert_file: Option<String>,
    /// A reference to the private key, in PEM.
    #[schemars(required, regex(pattern = REFERENCE))]
    pub key: Option<String>,
}

/// A listener's certificate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM certificates, ours first.
    #[schemars(required)]
    pub cert_file: Option<String>,
    /// PEM private key, without a passphrase.
    #[schemars(required)]
    pub key_file: Option<String>,
}
