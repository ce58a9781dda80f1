//! Where secrets are kept: files and the environment, so far.
//!
//! A store hands out what is there now and keeps nothing; [`SecretWatch`] knows what was read last. No
//! error holds a value or a part of one.

mod env;
mod file;
mod watch;

use std::fmt;
use std::io;

use async_trait::async_trait;

pub use env::EnvStore;
pub use file::FileStore;
pub use watch::{SecretWatch, SecretWatcher, Secrets, watched};

use crate::secret::{SecretProblem, SecretRef, SecretValue};
use crate::telemetry::Metrics;

/// What a store holds under a name at this moment.
#[derive(Debug, Clone)]
pub struct SecretVersion {
    /// Fit for a header: see [`SecretValue::for_header`].
    pub value: SecretValue,
    /// The store's own count of versions; `None` where it keeps none (files, environment).
    pub version: Option<u64>,
}

/// A place where secrets are kept.
#[async_trait]
pub trait SecretStore: fmt::Debug + Send + Sync {
    /// Reads a secret anew.
    ///
    /// # Errors
    /// Says which reference cannot be read and why.
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError>;

    /// Writes `new` in the place of `old`, unless something else is there by now.
    ///
    /// # Errors
    /// Says why nothing was written: [`StoreError::ReadOnly`] for a store that is never written to.
    async fn replace(
        &self,
        at: &SecretRef,
        old: &SecretValue,
        new: &SecretValue,
    ) -> Result<(), StoreError> {
        let _ = (old, new);
        Err(StoreError::ReadOnly { at: at.clone() })
    }
}

/// Why a secret cannot be read. Names the reference, never the value.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing is there yet: create the file or set the variable, or correct the reference.
    #[error("{at}: there is no such secret")]
    Missing {
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
    /// The reference has a `#key`, and the file is no JSON object (or names a key twice).
    #[error("{at}: the file is not a JSON object")]
    NotJson {
        /// What was asked for.
        at: SecretRef,
    },
    /// The JSON object has no such key at its top: correct the reference.
    #[error("{at}: the file has no such key")]
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
    /// The store cannot be written to: the environment. Keep what is renewed in a file.
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
    /// The reference belongs to another kind of store: a mistake of ours.
    #[error("{at}: belongs to another store")]
    OtherStore {
        /// What was asked for.
        at: SecretRef,
    },
}

impl StoreError {
    /// Whether it may go away without anybody changing what is stored.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Missing { .. }
            | Self::NotAFile { .. }
            | Self::NotJson { .. }
            | Self::NoSuchKey { .. }
            | Self::NotAString { .. }
            | Self::Unusable { .. }
            | Self::ReadOnly { .. }
            | Self::Unwritable { .. }
            | Self::Conflict { .. }
            | Self::OtherStore { .. } => false,
        }
    }

    /// The kind as a metric label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Unreadable { .. } => "unreadable",
            Self::NotAFile { .. } => "not_a_file",
            Self::NotJson { .. } => "not_json",
            Self::NoSuchKey { .. } => "no_such_key",
            Self::NotAString { .. } => "not_a_string",
            Self::Unusable { .. } => "unusable",
            Self::ReadOnly { .. } => "read_only",
            Self::Unwritable { .. } => "unwritable",
            Self::Conflict { .. } => "conflict",
            Self::OtherStore { .. } => "other_store",
        }
    }
}

/// Every store, behind one face: picks the one that a reference names, and counts.
#[derive(Debug)]
pub struct Stores {
    file: FileStore,
    env: EnvStore,
    metrics: Metrics,
}

impl Stores {
    /// The stores of this process.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self { file: FileStore, env: EnvStore, metrics: metrics.clone() }
    }

    /// The store that a reference names, and what metrics call it.
    fn of(&self, at: &SecretRef) -> (&'static str, &dyn SecretStore) {
        match at {
            SecretRef::File { .. } => ("file", &self.file),
            SecretRef::Env { .. } => ("env", &self.env),
        }
    }
}

#[async_trait]
impl SecretStore for Stores {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let (label, store) = self.of(at);
        let found = store.read(at).await;
        let outcome = found.as_ref().map_or_else(StoreError::kind, |_| "ok");
        self.metrics.store_reads.with_label_values(&[label, outcome]).inc();
        self.metrics.store_up.with_label_values(&[label]).set(i64::from(found.is_ok()));
        found
    }

    async fn replace(
        &self,
        at: &SecretRef,
        old: &SecretValue,
        new: &SecretValue,
    ) -> Result<(), StoreError> {
        let (label, store) = self.of(at);
        let written = store.replace(at, old, new).await;
        let outcome = written.as_ref().map_or_else(StoreError::kind, |()| "ok");
        self.metrics.store_writes.with_label_values(&[label, outcome]).inc();
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_dispatched_and_counted() {
        let metrics = Metrics::new().unwrap();
        let stores = Stores::new(&metrics);
        let present = "env:CARGO_PKG_NAME".parse().unwrap();
        let read = stores.read(&present).await.unwrap();
        assert_eq!(read.value.expose_str(), Some("datapulse-sidecar"));
        assert!(stores.read(&"file:/nowhere/key".parse().unwrap()).await.is_err());
        let text = metrics.render().unwrap();
        for line in [
            r#"store_reads_total{outcome="ok",store="env"} 1"#,
            r#"store_reads_total{outcome="missing",store="file"} 1"#,
            r#"store_up{store="env"} 1"#,
            r#"store_up{store="file"} 0"#,
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
    }
}
