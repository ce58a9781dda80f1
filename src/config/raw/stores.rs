//! Where secrets are kept, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REFERENCE, Span};

/// Where secrets are kept.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Stores {
    /// HashiCorp Vault or OpenBao.
    pub vault: Option<StoreVault>,
    /// AWS Secrets Manager.
    pub aws: Option<StoreAws>,
}

/// HashiCorp Vault or OpenBao.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreVault {
    /// Its URL.
    pub address: Option<String>,
    /// An enterprise namespace.
    pub namespace: Option<String>,
    /// PEM certificates.
    pub ca_file: Option<String>,
    /// How to log in.
    pub auth: Option<VaultAuth>,
    /// How often to look for changes. Default: 60s.
    pub poll: Option<Span>,
}

/// How to log in to Vault. What is read is read anew at each login.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VaultAuth {
    /// Which method; the other keys depend on it.
    pub method: Option<VaultMethod>,
    /// kubernetes, jwt: the role.
    pub role: Option<String>,
    /// Where the method is mounted. Default: its name.
    pub mount: Option<String>,
    /// kubernetes, jwt: the file that holds the JWT.
    pub token_file: Option<String>,
    /// approle: the role's id.
    pub role_id: Option<String>,
    /// approle: a reference to the secret id.
    #[schemars(regex(pattern = REFERENCE))]
    pub secret_id: Option<String>,
    /// token: a reference to the token.
    #[schemars(regex(pattern = REFERENCE))]
    pub token: Option<String>,
}

/// A way to log in to Vault.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VaultMethod {
    /// By the pod's service account.
    Kubernetes,
    /// By a role's id and secret.
    Approle,
    /// By a JWT in a file.
    Jwt,
    /// By a token that is there already.
    Token,
}

/// AWS Secrets Manager.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreAws {
    /// Its region. Default: what `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile says.
    pub region: Option<String>,
    /// Another URL, for tests and VPC endpoints.
    pub endpoint: Option<String>,
    /// Another URL of the security token service.
    pub sts_endpoint: Option<String>,
    /// PEM certificates.
    pub ca_file: Option<String>,
    /// How often to look for changes; each look is billed. Default: 5m.
    pub poll: Option<Span>,
}

impl VaultMethod {
    /// As the configuration writes it.
    pub(in crate::config) const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Approle => "approle",
            Self::Jwt => "jwt",
            Self::Token => "token",
        }
    }

    /// Whether a key of `auth` says something to this method.
    pub(in crate::config) fn takes(self, key: &str) -> bool {
        match self {
            Self::Kubernetes | Self::Jwt => matches!(key, "role" | "mount" | "token_file"),
            Self::Approle => matches!(key, "role_id" | "mount" | "secret_id"),
            Self::Token => key == "token",
        }
    }
}
