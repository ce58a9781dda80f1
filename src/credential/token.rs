//! A bearer token in use, and which one it is.
//!
//! Its bytes are in one place, the header value, which is marked sensitive and never printed.

use std::fmt;
use std::sync::Arc;

use http::HeaderValue;

use super::key::fingerprint;
use super::schedule::last_use_after;
use super::{MintError, Minted};
use crate::clock::Moment;
use crate::secret::SecretValue;

/// Counts the different tokens of one credential, from 1: "which token was rejected?" has an exact
/// answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

/// A bearer token, ready to be injected.
pub struct AccessToken {
    header: HeaderValue,
    value: SecretValue,
    generation: Generation,
    minted_at: Moment,
    expires_at: Option<Moment>,
    last_use: Option<Moment>,
    fingerprint: Arc<str>,
}

impl AccessToken {
    /// Takes what an issuer gave at `now`.
    pub(super) fn new(
        minted: &Minted,
        generation: Generation,
        now: Moment,
    ) -> Result<Self, MintError> {
        let bytes = [b"Bearer ", minted.value.expose()].concat();
        let header = HeaderValue::from_bytes(&bytes);
        // Wipes the copy.
        drop(SecretValue::new(bytes));
        let Ok(mut header) = header else { return Err(MintError::UnusableToken) };
        header.set_sensitive(true);
        Ok(Self {
            header,
            fingerprint: fingerprint(&minted.value).into(),
            value: minted.value.clone(),
            generation,
            minted_at: now,
            expires_at: minted.life.map(|life| now + life.length),
            last_use: minted.life.map(|life| now + last_use_after(life.length)),
        })
    }

    /// The value of the `Authorization` header: `Bearer …`, marked sensitive.
    #[must_use]
    pub const fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Which of the credential's tokens it is.
    #[must_use]
    pub const fn generation(&self) -> Generation {
        self.generation
    }

    /// When it was received.
    #[must_use]
    pub const fn minted_at(&self) -> Moment {
        self.minted_at
    }

    /// When its issuer stops accepting it; `None`: not that we know.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Moment> {
        self.expires_at
    }

    /// Up to when it is put into calls: the lesser of 30 s and 10 % of its life before it expires.
    #[must_use]
    pub const fn last_use(&self) -> Option<Moment> {
        self.last_use
    }

    /// Whether it may be put into a call that leaves at `now`.
    #[must_use]
    pub fn is_usable_at(&self, now: Moment) -> bool {
        self.last_use.is_none_or(|last| now < last)
    }

    /// Eight hexadecimal digits that tell tokens apart in audit lines: a keyed hash, whose key ends
    /// with the process.
    #[must_use]
    pub fn fingerprint(&self) -> &Arc<str> {
        &self.fingerprint
    }

    /// The token itself, to find it where it must not be.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.value.expose()
    }

    /// Whether `value` is the same token.
    pub(super) fn is_same(&self, value: &SecretValue) -> bool {
        self.value == *value
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessToken")
            .field("generation", &self.generation)
            .field("fingerprint", &self.fingerprint)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
