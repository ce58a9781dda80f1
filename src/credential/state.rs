//! What is known of a credential at a moment: the one value that its task publishes.

use std::sync::Arc;

use super::{AccessToken, Generation, KeyPrint, MintError};
use crate::clock::Moment;

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
        }
    }

    /// Every word that [`Self::word`] gives.
    pub(super) const WORDS: [&'static str; 4] = ["pending", "fresh", "stale", "expired"];

    /// The token, used up or not.
    pub(super) const fn token(&self) -> Option<&Arc<AccessToken>> {
        match self {
            Self::Fresh(token) | Self::Stale { token, .. } => Some(token),
            Self::Pending(_) | Self::Expired(_) => None,
        }
    }

    /// Why the last try failed.
    pub(super) const fn cause(&self) -> Option<&Arc<MintError>> {
        match self {
            Self::Stale { cause, .. } => Some(cause),
            Self::Pending(cause) | Self::Expired(cause) => cause.as_ref(),
            Self::Fresh(_) => None,
        }
    }

    /// This state at `now`, if nothing happens but time: a token past its last use is expired.
    pub(super) fn at(&self, now: Moment) -> Self {
        match self.token() {
            Some(token) if !token.is_usable_at(now) => Self::Expired(self.cause().cloned()),
            _ => self.clone(),
        }
    }
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
    /// Whether a try is under way.
    pub(super) is_minting: bool,
    /// When the next one begins, if nothing else happens.
    pub(super) next_try: Option<Moment>,
    /// The issuer wants no call before.
    pub(super) not_before: Option<Moment>,
    /// A rejected token causes no refresh before.
    pub(super) cooling_until: Option<Moment>,
    /// The store lacks a renewed secret that is in use.
    pub(super) is_unpersisted: bool,
    /// Tries to write it that have ended.
    pub(super) writes: u64,
}

impl Published {
    pub(super) const fn new() -> Self {
        Self {
            state: CredentialState::Pending(None),
            generation: Generation(0),
            key: None,
            attempts: 0,
            is_minting: false,
            next_try: None,
            not_before: None,
            cooling_until: None,
            is_unpersisted: false,
            writes: 0,
        }
    }

    /// The token, if it may be used now.
    pub(super) fn usable(&self, now: Moment) -> Option<Arc<AccessToken>> {
        self.state.token().filter(|token| token.is_usable_at(now)).cloned()
    }
}
