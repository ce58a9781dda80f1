//! The credentials.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// What a credential may do. Ordered: each level includes those below it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Datasets, dashboards, reports.
    ReadOnly,
    /// All of `read_only`, and pipelines.
    ReadWrite,
    /// Everything, and user management.
    Admin,
}

impl Level {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
            Self::Admin => "admin",
        }
    }
}

/// One DataPulse credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Unique; a metric label.
    pub name: Arc<str>,
    /// What it may do.
    pub level: Level,
    /// A name in `Config::quotas`; without one it is not shaped.
    pub quota: Option<Arc<str>>,
    /// Whether start-up waits for it.
    pub required: bool,
    /// Whether a changed secret is tried at the API before it replaces one that works.
    pub verify: bool,
    /// What is used while the kind's own secret cannot be read.
    pub fallback: Option<SecretRef>,
    /// Where its bearer token comes from.
    pub kind: CredentialKind,
}

impl Credential {
    /// Each secret that it needs, and whether that is a document of several lines; then what stands in
    /// for the first.
    pub fn secrets(&self) -> impl Iterator<Item = (&SecretRef, bool)> {
        let is_document = self.kind.has_document();
        let client = match &self.kind {
            CredentialKind::RefreshToken(grant) => grant.auth.as_ref(),
            _ => None,
        };
        let client = client.map(|auth| (auth.secret(), auth.has_document()));
        let fallback = self.fallback.as_ref().map(|at| (at, is_document));
        [Some((self.kind.secret(), is_document)), client, fallback].into_iter().flatten()
    }
}

/// Where a bearer token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// The secret is itself the bearer token.
    ApiKey(SecretRef),
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4).
    ClientCredentials(ClientCredentials),
    /// The secret is a bearer token of about 24 h, which the API exchanges for the next.
    SessionToken(SecretRef),
    /// A service account signs for itself (RFC 7523 section 2.1).
    ServiceAccount(ServiceAccount),
    /// A person let a client act for them (RFC 6749 section 6).
    RefreshToken(RefreshToken),
}

impl CredentialKind {
    /// The secret that it all comes from, and that what is renewed takes the place of.
    #[must_use]
    pub const fn secret(&self) -> &SecretRef {
        match self {
            Self::ApiKey(at) | Self::SessionToken(at) => at,
            Self::ClientCredentials(client) => client.auth.secret(),
            Self::ServiceAccount(account) => &account.key,
            Self::RefreshToken(grant) => &grant.token,
        }
    }

    /// Whether that secret is replaced by what it gives, and written back: it has one place then.
    #[must_use]
    pub const fn is_written_back(&self) -> bool {
        match self {
            Self::SessionToken(_) | Self::RefreshToken(_) => true,
            Self::ApiKey(_) | Self::ClientCredentials(_) | Self::ServiceAccount(_) => false,
        }
    }

    /// Whether that secret is a document of several lines, such as a key.
    #[must_use]
    pub const fn has_document(&self) -> bool {
        match self {
            Self::ApiKey(_) | Self::SessionToken(_) | Self::RefreshToken(_) => false,
            Self::ClientCredentials(client) => client.auth.has_document(),
            Self::ServiceAccount(_) => true,
        }
    }
}

/// An OAuth client that acts for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Public name of the client.
    pub client_id: String,
    /// How it shows that it is the client.
    pub auth: ClientAuth,
    /// What it asks for.
    pub asks_for: AsksFor,
}

/// How a client shows at the token endpoint who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_secret` in the request.
    Secret(SecretRef),
    /// A JWT that this key signs (`private_key_jwt`, RFC 7523 section 2.2).
    Key(SecretRef),
}

impl ClientAuth {
    /// The secret or the key.
    #[must_use]
    pub const fn secret(&self) -> &SecretRef {
        match self {
            Self::Secret(at) | Self::Key(at) => at,
        }
    }

    /// Whether that is a document of several lines.
    #[must_use]
    pub const fn has_document(&self) -> bool {
        matches!(self, Self::Key(_))
    }
}

/// An account of no person, with a key of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceAccount {
    /// JSON with its name and its private key.
    pub key: SecretRef,
    /// What it asks for.
    pub asks_for: AsksFor,
}

/// What a person has let a client do for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    /// Public name of the client.
    pub client_id: String,
    /// How it shows that it is the client; `None`: it is a public one, and shows nothing.
    pub auth: Option<ClientAuth>,
    /// Where the refresh token is kept, and is written when it is replaced.
    pub token: SecretRef,
    /// What it asks for.
    pub asks_for: AsksFor,
}

/// What a token request asks for, whatever the grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsksFor {
    /// Sent as one `scope`, separated by spaces; none: not sent.
    pub scopes: Vec<String>,
    /// Sent as `audience` where given.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: BTreeMap<String, String>,
}
