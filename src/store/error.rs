//! Why a secret cannot be read or written: what is wrong, whose it is, and when to try again.
//!
//! Names the reference, never a value; no text of a store's answer is kept.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::secret::{SecretProblem, SecretRef};

/// Why a secret cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is there yet: create the secret, or correct the reference.
    #[error("{at}: there is no such secret")]
    Missing {
        /// What was asked for.
        at: SecretRef,
    },
    /// The secret is there and its current version was deleted or destroyed: restore it, or write a
    /// new one.
    #[error("{at}: the secret was deleted")]
    Deleted {
        /// What was asked for.
        at: SecretRef,
    },
    /// Something is there that this process may not read, or the disk failed: check the
    /// permissions and the mount.
    #[error("{at}: cannot be read")]
    Unreadable {
        /// What was asked for.
        at: SecretRef,
        /// What the system said.
        source: io::Error,
    },
    /// A directory, a pipe or a device is in the place of the file: correct the path.
    #[error("{at}: is not a regular file")]
    NotAFile {
        /// What was asked for.
        at: SecretRef,
    },
    /// The reference has a `#key`, and what is kept there is no JSON object (or names a key twice).
    #[error("{at}: what is kept there is not a JSON object")]
    NotJson {
        /// What was asked for.
        at: SecretRef,
    },
    /// There is no such key at the top: correct the reference.
    #[error("{at}: the secret has no such key")]
    NoSuchKey {
        /// What was asked for.
        at: SecretRef,
    },
    /// The key's value is null, a number, a list or an object: it must be a string.
    #[error("{at}: the value is not a string")]
    NotAString {
        /// What was asked for.
        at: SecretRef,
    },
    /// The value cannot work as a credential: write it again.
    #[error("{at}: {problem}")]
    Unusable {
        /// What was asked for.
        at: SecretRef,
        /// What is wrong with it.
        problem: SecretProblem,
    },
    /// The reference leads to a part of the store that keeps no such secrets (a database, a
    /// certificate authority): correct the mount.
    #[error("{at}: the mount is of type {engine:?}; only key-value secrets (kv) can be read")]
    WrongEngine {
        /// What was asked for.
        at: SecretRef,
        /// The mount's type, as the store calls it: a word.
        engine: String,
    },
    /// AWS knows a secret in its own region alone: set `stores.aws.region`, or replicate the secret.
    #[error("{at}: the ARN is of another region than the one that is asked; set stores.aws.region")]
    OtherRegion {
        /// What was asked for.
        at: SecretRef,
    },
    /// No connection: check the address, the network, and `ca_file`.
    #[error("{at}: the store cannot be reached ({reason})")]
    Unreachable {
        /// What was asked for.
        at: SecretRef,
        /// `dns`, `refused`, `tls`, `connect` or `interrupted`: a metric label.
        reason: &'static str,
        /// What the client said; without a URL.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No whole answer in time: the store is slow, or something in between drops packets.
    #[error("{at}: the store did not answer in time")]
    Timeout {
        /// What was asked for.
        at: SecretRef,
    },
    /// The store says that it cannot serve now: sealed, throttled, no leader.
    #[error("{at}: the store cannot serve now ({reason})")]
    Unavailable {
        /// What was asked for.
        at: SecretRef,
        /// Such as `sealed`, `standby`, `throttled`, `internal`: a metric label.
        reason: &'static str,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// The store refuses: grant what `check --online` says is missing.
    #[error("{at}: permission denied")]
    Denied {
        /// What was asked for.
        at: SecretRef,
        /// `denied`, or closer to the cause: a metric label.
        reason: &'static str,
    },
    /// The store refuses to let us in: check `stores.*.auth`, the role, and what it is proven with.
    #[error("{at}: logging in to the store was refused ({reason})")]
    LoginRefused {
        /// What was asked for.
        at: SecretRef,
        /// Such as `login_refused`: a metric label.
        reason: &'static str,
    },
    /// What the login is proven with (a token's file, a secret id, an identity) cannot be had.
    #[error("{at}: what proves who we are cannot be had")]
    NoIdentity {
        /// What was asked for.
        at: SecretRef,
        /// Why not.
        source: Box<dyn Error + Send + Sync>,
    },
    /// HTML, half a JSON, or another shape than the store's: something else answers at the address.
    #[error("{at}: the answer is not the store's")]
    NotAnAnswer {
        /// What was asked for.
        at: SecretRef,
    },
    /// More than 1 MiB.
    #[error("{at}: the store's answer is larger than 1 MiB")]
    TooLarge {
        /// What was asked for.
        at: SecretRef,
    },
    /// A redirect, which is not followed, because our token would follow: give the address of the
    /// store's active node, or of its load balancer.
    #[error("{at}: the store answers with a redirect, which is not followed")]
    Redirected {
        /// What was asked for.
        at: SecretRef,
    },
    /// The store cannot be written to: keep what is renewed in one that can.
    #[error("{at}: this store cannot be written to")]
    ReadOnly {
        /// What was to be written.
        at: SecretRef,
    },
    /// The system refused: make the folder writable for this process.
    #[error("{at}: cannot be written")]
    Unwritable {
        /// What was to be written.
        at: SecretRef,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else wrote another value meanwhile: theirs stays, and is used.
    #[error("{at}: was changed by somebody else meanwhile")]
    Conflict {
        /// What was to be written.
        at: SecretRef,
    },
    /// Another process is about to replace it: wait for what it writes.
    #[error("{at}: is being replaced by another process")]
    Claimed {
        /// What was to be claimed.
        at: SecretRef,
    },
    /// No such store is configured (any more): name it under `stores`.
    #[error("{at}: the store is not configured")]
    NotConfigured {
        /// What was asked for.
        at: SecretRef,
    },
    /// The reference belongs to another kind of store: a mistake of ours.
    #[error("{at}: belongs to another store")]
    OtherStore {
        /// What was asked for.
        at: SecretRef,
    },
}
