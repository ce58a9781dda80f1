//! What is known of a credential at a moment: the one value that its task publishes.

use std::sync::Arc;

use super::{AccessToken, Generation, KeyPrint, MintError};
use crate::clock::Moment;
use crate::telemetry::error_chain;

/// What a credential can do.
#[derive(Debug, Clone)]
pub enum CredentialState {
    /// No token yet; with the cause once a try failed.
    Pending(Option<Arc<MintError>>),
    /// A token, and no failure since it came.
    Fresh(Arc<AccessToken>),
    /// A token that works, and a refresh that failed.
    Stale {
        /// Used until its last moment.
        token: Arc<AccessToken>,
        /// Why the refresh failed.
        cause: Arc<MintError>,
    },
    /// The last token is past its last use.
    Expired(Option<Arc<MintError>>),
    /// No token, and none comes before somebody logs in.
    LoginRequired(Arc<MintError>),
}

impl CredentialState {
    /// As `/status` and the metrics call it.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Fresh(_) => "fresh",
            Self::Stale { .. } => "stale",
            Self::Expired(_) => "expired",
            Self::LoginRequired(_) => "login_required",
        }
    }

    /// Every word that [`Self::word`] gives.
    pub(super) const WORDS: [&'static str; 5] =
        ["pending", "fresh", "stale", "expired", "login_required"];

    /// The token, used up or not.
    pub(super) const fn token(&self) -> Option<&Arc<AccessToken>> {
        match self {
            Self::Fresh(token) | Self::Stale { token, .. } => Some(token),
            Self::Pending(_) | Self::Expired(_) | Self::LoginRequired(_) => None,
        }
    }

    /// Why the last try failed.
    pub(super) const fn cause(&self) -> Option<&Arc<MintError>> {
        match self {
            Self::Stale { cause, .. } | Self::LoginRequired(cause) => Some(cause),
            Self::Pending(cause) | Self::Expired(cause) => cause.as_ref(),
            Self::Fresh(_) => None,
        }
    }

    /// This state at `now`, if nothing happens but time: a token past its last use is expired.
    pub(super) fn at(&self, now: Moment) -> Self {
        match self.token() {
            Some(token) if !token.is_usable_at(now) => match self.cause() {
                Some(cause) if cause.needs_login() => Self::LoginRequired(Arc::clone(cause)),
                cause => Self::Expired(cause.cloned()),
            },
            _ => self.clone(),
        }
    }

    /// This state after a try that failed. `had_token`: there has been one once.
    pub(super) fn failed(&self, cause: Arc<MintError>, had_token: bool) -> Self {
        match self {
            Self::Fresh(token) | Self::Stale { token, .. } => {
                Self::Stale { token: Arc::clone(token), cause }
            }
            _ if cause.needs_login() => Self::LoginRequired(cause),
            // A store that cannot be read does not say that somebody has logged in.
            Self::LoginRequired(_)
                if matches!(*cause, MintError::Store(_) | MintError::Claim(_)) =>
            {
                self.clone()
            }
            _ if had_token => Self::Expired(Some(cause)),
            _ => Self::Pending(Some(cause)),
        }
    }
}

impl CredentialState {
    /// Logs that it is another one than before.
    pub(super) fn tell(&self, credential: &str, before: &Self) {
        let needs_login = |of: &Self| of.cause().is_some_and(|cause| cause.needs_login());
        let cause = self.cause().map(|cause| error_chain(&**cause));
        let cause = cause.as_deref().unwrap_or("none");
        let state = self.word();
        let is_news = before.word() != state
            || before.cause().is_none() && self.cause().is_some()
            || needs_login(self) && !needs_login(before);
        if !is_news {
            tracing::debug!(credential, state, cause, "a token was asked for");
        } else if let Self::Fresh(token) = self {
            let generation = token.generation().0;
            tracing::info!(credential, state, generation, "the credential is usable");
        } else if needs_login(self) {
            tracing::warn!(credential, state, cause, "somebody has to log in");
        } else {
            tracing::warn!(credential, state, cause, "the credential cannot be refreshed");
        }
    }
}

/// What a refresher is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It waits.
    None,
    /// A try is under way.
    Minting,
    /// The same, and what comes of it must not be missed.
    Spending,
    /// It has ended.
    Ended,
}

/// A state, and what those who wait for the next one have to know.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) state: CredentialState,
    /// How many different tokens there have been.
    pub(super) generation: Generation,
    /// Which key the token in use comes from.
    pub(super) key: Option<KeyPrint>,
    /// Tries that have ended.
    pub(super) attempts: u64,
    pub(super) work: Work,
    /// When the next one begins, if nothing else happens.
    pub(super) next_try: Option<Moment>,
    /// The issuer wants no call before.
    pub(super) not_before: Option<Moment>,
    /// A rejected token causes no refresh before.
    pub(super) cooling_until: Option<Moment>,
    /// The store lacks a renewed secret that is in use.
    pub(super) is_unpersisted: bool,
    /// The store lacks that, or a mark, and can be written to.
    pub(super) has_to_write: bool,
}

impl Published {
    pub(super) const fn new() -> Self {
        Self {
            state: CredentialState::Pending(None),
            generation: Generation(0),
            key: None,
            attempts: 0,
            work: Work::None,
            next_try: None,
            not_before: None,
            cooling_until: None,
            is_unpersisted: false,
            has_to_write: false,
        }
    }

    /// Whether a try is under way.
    pub(super) const fn is_minting(&self) -> bool {
        matches!(self.work, Work::Minting | Work::Spending)
    }

    /// Whether there is no point in waiting: nothing is under way, and a login takes longer.
    pub(super) fn waits_for_a_person(&self, now: Moment) -> bool {
        matches!(self.state.at(now), CredentialState::LoginRequired(_)) && !self.is_minting()
    }

    /// The token, if it may be used now.
    pub(super) fn usable(&self, now: Moment) -> Option<Arc<AccessToken>> {
        self.state.token().filter(|token| token.is_usable_at(now)).cloned()
    }
}
