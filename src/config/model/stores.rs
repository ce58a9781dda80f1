//! Where secrets are kept, beside files and the environment.

use std::path::PathBuf;
use std::time::Duration;

use crate::secret::SecretRef;

/// The stores that have to be told where they are. A reference into one that is `None` is refused
/// when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stores {
    /// HashiCorp Vault or OpenBao.
    pub vault: Option<VaultStore>,
    /// AWS Secrets Manager.
    pub aws: Option<AwsStore>,
}

/// HashiCorp Vault or OpenBao.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultStore {
    /// Its URL, perhaps with a path in front of `/v1`; no query.
    pub address: url::Url,
    /// Visible ASCII, without slashes at its ends.
    pub namespace: Option<String>,
    /// PEM certificates; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// How to log in.
    pub auth: VaultAuth,
    /// Where the method is mounted, without `auth/` and without slashes at its ends.
    pub auth_mount: String,
    /// How often a secret's version is looked at.
    pub poll: Duration,
}

/// A way to log in to Vault. What it reads is read anew at each login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultAuth {
    /// By the pod's service account.
    Kubernetes {
        /// The role.
        role: String,
        /// Holds the account's JWT.
        token_file: PathBuf,
    },
    /// By a role's id and secret.
    Approle {
        /// Public.
        role_id: String,
        /// In a file or the environment.
        secret_id: SecretRef,
    },
    /// By a JWT in a file.
    Jwt {
        /// The role.
        role: String,
        /// Holds the JWT.
        token_file: PathBuf,
    },
    /// By a token that somebody else obtained and replaces in time.
    Token {
        /// In a file or the environment.
        token: SecretRef,
    },
}

impl VaultAuth {
    /// The secret that it logs in with, where it is one by reference.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretRef> {
        match self {
            Self::Approle { secret_id: at, .. } | Self::Token { token: at } => Some(at),
            Self::Kubernetes { .. } | Self::Jwt { .. } => None,
        }
    }
}

/// AWS Secrets Manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsStore {
    /// Default: what `AWS_REGION`, `AWS_DEFAULT_REGION` or the profile says.
    pub region: Option<String>,
    /// In place of AWS's own.
    pub endpoint: Option<url::Url>,
    /// In place of AWS's own, for web identities.
    pub sts_endpoint: Option<url::Url>,
    /// PEM certificates; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// How often a secret's version is looked at; each look is billed.
    pub poll: Duration,
}
