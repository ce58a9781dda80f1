//! What one watched secret's user has, and what was noticed since.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{SecretVersion, Version};
use crate::backoff::Backoff;
use crate::secret::SecretValue;

pub(super) struct Known {
    /// What the user read last.
    pub(super) used: Option<SecretVersion>,
    /// Another value that is there now, and that the user has not read yet.
    pub(super) noticed: Option<SecretVersion>,
    /// An older version than the last one was found there, once.
    pub(super) older: Option<Version>,
    /// Why the last look found none; told once while the secret is in use.
    pub(super) problem: Option<Problem>,
    /// Whether its fallback is used in its place; `None`: it has none.
    pub(super) replaced: Option<bool>,
    /// A value of its own that was turned down while its fallback is used.
    pub(super) refused: Option<SecretValue>,
    /// Nobody uses it: what is found there is not kept.
    pub(super) is_resting: bool,
    /// When the store last said what is there.
    pub(super) seen_at: Option<Instant>,
    /// When to look again. `None`: nobody has read it yet, and who wants it tries by itself.
    pub(super) due: Option<Instant>,
    /// The same, if it came to be used.
    pub(super) next: Option<Instant>,
    pub(super) backoff: Backoff,
}

pub(super) struct Problem {
    pub(super) kind: &'static str,
    /// Whether there is nothing to be had under this name.
    pub(super) is_missing: bool,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            used: None,
            noticed: None,
            older: None,
            problem: None,
            replaced: None,
            refused: None,
            is_resting: false,
            seen_at: None,
            due: None,
            next: None,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(60)),
        }
    }
}
