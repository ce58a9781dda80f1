//! A stored secret becomes a bearer token, and is kept fresh.
//!
//! Each credential has one writer ([`Refresher`], a task) and any number of readers
//! ([`CredentialHandle`]). A failed refresh never takes away a token that works, and no issuer is
//! asked by anything but its credential's own task.

mod demand;
mod handle;
mod own_calls;
mod key;
mod kind;
mod oauth;
mod refresher;
mod registry;
mod report;
mod schedule;
mod spent;
mod state;
mod succession;
mod supply;
mod token;
mod unanswered;
mod under_way;
mod verify;
mod write_back;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use handle::{CredentialHandle, Unavailable, UnavailableReason};
pub use key::KeyPrint;
pub use oauth::{AuthorizationServer, KeyProblem, NoRandomness, Question, Returned};
pub use own_calls::{Ended, Free, OwnCall, OwnCalls};
pub use refresher::Refresher;
pub use registry::{Issuers, Registry, build};
pub use report::CredentialReport;
pub use state::CredentialState;
pub use token::{AccessToken, Generation};
pub use verify::Whose;

use crate::secret::SecretValue;
use crate::store::StoreError;

/// What an issuer gave.
#[derive(Debug, Clone)]
struct Minted {
    /// Visible ASCII: what follows `Bearer `.
    value: SecretValue,
    /// `None`: it does not expire.
    life: Option<Life>,
}

/// An issuer's whole answer.
#[derive(Debug)]
struct Given {
    token: Result<Minted, MintError>,
    /// What the next token is asked for with, in the place of the secret that was sent. There may be
    /// one although the token is of no use.
    next_secret: Option<SecretValue>,
}

impl From<Minted> for Given {
    fn from(minted: Minted) -> Self {
        Self { token: Ok(minted), next_secret: None }
    }
}

/// For how long a token is good, from the receipt of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Life {
    /// Between 1 s and 30 days.
    length: Duration,
    /// Whether the issuer said something that is not believed.
    is_clamped: bool,
    /// Whether a part of it that nobody told of may be over already.
    is_of_unknown_age: bool,
}

/// What asking for a token does to the secret that it is asked for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing: it is as good as before.
    Keeps,
    /// Another one comes in its place.
    Renews,
    /// It is good for once, and another one may come in its place: it is claimed in its store before,
    /// so that nobody else sends it too.
    Spends,
}

/// Obtains a token: one a kind of credential. Keeps nothing between two calls.
#[async_trait]
trait TokenSource: std::fmt::Debug + Send + Sync {
    /// Asks once. `is_new`: this secret has not given a token yet.
    ///
    /// An error: nothing was given.
    async fn mint(&self, secret: &SecretValue, is_new: bool) -> Result<Given, MintError>;

    /// What is needed beside the secret is read, before the secret is claimed.
    ///
    /// # Errors
    /// Why there is no use in asking.
    async fn prepare(&self) -> Result<(), MintError> {
        Ok(())
    }

    /// What asking does to the secret.
    fn effect(&self) -> Effect {
        Effect::Keeps
    }

    /// Whether a token costs a call to somebody else, and is asked for again while the store is
    /// down.
    fn asks_an_issuer(&self) -> bool {
        true
    }

    /// The public name that the secret belongs to, where it has one.
    fn client(&self) -> &str {
        ""
    }

    /// Whether the API rejects the secret when it rejects a token: they are one.
    fn gives_the_secret(&self) -> bool {
        false
    }
}

/// Why there is no new token. Holds no body, header or URL of the issuer.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The secret cannot be read: see the cause.
    #[error("reading the secret")]
    Store(#[from] StoreError),
    /// The secret is good for once, and its store does not let us replace it: see the cause.
    #[error("claiming the secret, to replace it")]
    Claim(#[source] StoreError),
    /// The secret was changed, and the new one does not work: the one before it stays in use. Write
    /// a secret that works.
    #[error("the changed secret was rejected with {status}; the one before it stays in use")]
    RejectedSecret {
        /// The HTTP status.
        status: u16,
    },
    /// There is no refresh token that works: somebody has to log in. It heals then, without a
    /// restart.
    #[error("{why}; run `datapulse-sidecar login {credential}`")]
    LoginRequired {
        /// The credential's name.
        credential: Arc<str>,
        /// Why there is none.
        why: NoLogin,
    },
    /// What was renewed is not in its store, and the process that renewed it ends: put a new one into
    /// the store.
    #[error("what was renewed could not be written back and is lost; put a new one into its store")]
    NotKept,
    /// The quota has no room for a call of the sidecar's own to the API host: tried again.
    #[error("the quota has no room for the call to the API host in time")]
    NoRoom,
    /// The key cannot sign: see the cause.
    #[error("the key cannot be used")]
    Key(#[from] KeyProblem),
    /// No connection to the issuer: check `auth.token_url`, the network and `ca_file`.
    #[error("connecting to the token endpoint")]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time: the issuer is slow, or something in between drops packets.
    #[error("the token endpoint did not answer in time")]
    Timeout,
    /// The connection broke: retried.
    #[error("the connection to the token endpoint broke")]
    Interrupted(#[source] reqwest::Error),
    /// The issuer refused. `invalid_client`: check the client's name and secret; 429 and 5xx:
    /// nothing to do but wait.
    #[error("the token endpoint answered {status}{}", code.map(|c| format!(" ({c})")).unwrap_or_default())]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The `error` of RFC 6749 section 5.2, where it is one of its list.
        code: Option<&'static str>,
        /// How long the issuer wants to be left alone, at most 15 min.
        retry_after: Option<Duration>,
    },
    /// A redirect, which is not followed, because the secret would follow: correct
    /// `auth.token_url`.
    #[error("the token endpoint answered with a redirect ({status}), which is not followed")]
    Redirected {
        /// The HTTP status.
        status: u16,
    },
    /// More than 1 MiB: hardly a token endpoint. Correct `auth.token_url`.
    #[error("the token endpoint's answer is larger than 1 MiB")]
    TooLarge,
    /// No JSON object, such as a login page: correct `auth.token_url`.
    #[error("the token endpoint's answer is not JSON with an access_token")]
    NotAnAnswer,
    /// A token is empty, larger than 8 KiB or cannot stand in a header: tell the issuer.
    #[error("the token endpoint gave a token that cannot be used")]
    UnusableToken,
    /// The `token_type` is not `Bearer`, the only one that can be injected.
    #[error("the token endpoint gave a token whose token_type is not Bearer")]
    NotBearer,
}

/// Why there is no refresh token that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoLogin {
    /// The store holds none.
    #[error("nobody has logged in yet: there is no refresh token")]
    Absent,
    /// The issuer refuses it (`invalid_grant`): it expired, it was revoked, or it was used before.
    #[error("the authorization server does not take the refresh token any more (invalid_grant)")]
    Refused,
    /// It was sent, and no answer came that could be used: it may be used up.
    #[error("the answer to the last refresh was lost, and the refresh token may be used up")]
    Lost,
}

impl MintError {
    /// Whether the issuer may have done what it was asked for, although nothing came of it.
    const fn may_have_acted(&self) -> bool {
        match self {
            Self::Timeout
            | Self::Interrupted(_)
            | Self::TooLarge
            | Self::NotAnAnswer
            | Self::UnusableToken
            | Self::NotBearer => true,
            // A gateway's word that the issuer behind it did not answer in time.
            Self::Refused { status, .. } => *status == 504,
            _ => false,
        }
    }

    /// Whether nothing but a login helps.
    const fn needs_login(&self) -> bool {
        matches!(self, Self::LoginRequired { .. })
    }

    /// Whether it may go away without anybody changing the configuration or the secret.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(error) | Self::Claim(error) => error.is_transient(),
            Self::NoRoom | Self::Unreachable(_) | Self::Timeout | Self::Interrupted(_) => true,
            Self::Refused { status, .. } => *status == 429 || *status >= 500,
            Self::RejectedSecret { .. }
            | Self::LoginRequired { .. }
            | Self::NotKept
            | Self::Key(_)
            | Self::Redirected { .. }
            | Self::TooLarge
            | Self::NotAnAnswer
            | Self::UnusableToken
            | Self::NotBearer => false,
        }
    }

    /// The kind as a metric label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Store(error) | Self::Claim(error) => error.kind(),
            Self::RejectedSecret { .. } => "rejected_secret",
            Self::LoginRequired { .. } => "login_required",
            Self::NotKept => "not_kept",
            Self::NoRoom => "no_room",
            Self::Key(_) => "unusable_key",
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::Refused { code: Some(code), .. } => code,
            Self::Refused { .. } => "refused",
            Self::Redirected { .. } => "redirected",
            Self::TooLarge => "too_large",
            Self::NotAnAnswer => "not_an_answer",
            Self::UnusableToken => "unusable_token",
            Self::NotBearer => "not_bearer",
        }
    }

    const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Store(error) | Self::Claim(error) => error.retry_after(),
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
