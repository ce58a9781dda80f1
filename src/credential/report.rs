//! A credential as operators see it.

use serde::{Deserialize, Serialize};

use crate::config::model::Level;

/// A credential as `/status` shows it. No field holds a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CredentialReport {
    /// As configured.
    pub name: String,
    /// As configured.
    pub level: Level,
    /// `pending`, `fresh`, `stale`, `expired` or `login_required`.
    pub state: String,
    /// How many different tokens there have been.
    pub generation: u64,
    /// Since the token in use was received.
    pub age_seconds: Option<u64>,
    /// Until the token in use expires; absent where it does not.
    pub expires_in_seconds: Option<u64>,
    /// Why the last try failed; absent when it did not.
    pub last_error: Option<String>,
    /// Until the next try; absent where none is planned.
    pub next_try_in_seconds: Option<u64>,
    /// Whether an operator keeps it from being used.
    pub paused: bool,
    /// Whether what was renewed is not in its store yet: a restart would not find it.
    pub unpersisted: bool,
}
