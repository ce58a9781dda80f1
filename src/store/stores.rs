//! Every store, behind one face: picks the one that a reference names, counts, and knows which of
//! them can be used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Claim, EnvStore, FileStore, SecretStore, SecretVersion, StoreError, Version};
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::{Metrics, error_chain};

/// A store that is reached over the network, and has to be configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// HashiCorp Vault or OpenBao.
    Vault,
    /// AWS Secrets Manager.
    Aws,
}

/// The stores of this process.
#[derive(Debug)]
pub struct Stores {
    file: FileStore,
    env: EnvStore,
    /// Those that are configured; a reload replaces them.
    remote: watch::Sender<Remotes>,
    health: Mutex<BTreeMap<&'static str, Health>>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Default)]
struct Remotes {
    vault: Option<Arc<dyn SecretStore>>,
    aws: Option<Arc<dyn SecretStore>>,
}

/// What is known of one store.
#[derive(Debug)]
struct Health {
    /// Why it cannot be used; `None`: it can.
    problem: Option<Problem>,
    /// Since when.
    since: Instant,
}

#[derive(Debug)]
struct Problem {
    kind: &'static str,
    text: String,
}

/// A store as `/status` shows it. No field holds a secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StoreReport {
    /// `file`, `env`, `vault` or `aws`.
    pub name: String,
    /// Whether its last answer was one that it could be used for.
    pub up: bool,
    /// Why not, as a metric label.
    pub reason: Option<String>,
    /// The same in a sentence.
    pub last_error: Option<String>,
    /// Since it is so.
    pub since_seconds: u64,
}

impl Stores {
    /// Files and the environment; others are added by [`Self::set`].
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            file: FileStore,
            env: EnvStore,
            remote: watch::Sender::new(Remotes::default()),
            health: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    /// The same ones, for what is to be read before another is in force: what is set there is not set here.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            remote: watch::Sender::new(self.remote.borrow().clone()),
            ..Self::new(&self.metrics)
        }
    }

    /// From now on references of this kind lead to this store; `None`: nowhere. Gives back where they
    /// led before.
    pub fn set(
        &self,
        remote: Remote,
        store: Option<Arc<dyn SecretStore>>,
    ) -> Option<Arc<dyn SecretStore>> {
        let mut before = None;
        self.remote.send_modify(|remotes| {
            before = match remote {
                Remote::Vault => std::mem::replace(&mut remotes.vault, store),
                Remote::Aws => std::mem::replace(&mut remotes.aws, store),
            };
        });
        before
    }

    /// Those that were used so far.
    #[must_use]
    pub fn report(&self) -> Vec<StoreReport> {
        let health = self.health.lock();
        let report = |(name, health): (&&str, &Health)| StoreReport {
            name: (*name).to_owned(),
            up: health.problem.is_none(),
            reason: health.problem.as_ref().map(|problem| problem.kind.to_owned()),
            last_error: health.problem.as_ref().map(|problem| problem.text.clone()),
            since_seconds: health.since.elapsed().as_secs(),
        };
        health.iter().map(report).collect()
    }

    /// The store that a reference names.
    fn of(&self, at: &SecretRef) -> Result<Arc<dyn SecretStore>, StoreError> {
        let found: Option<Arc<dyn SecretStore>> = match at {
            SecretRef::File { .. } => Some(Arc::new(self.file)),
            SecretRef::Env { .. } => Some(Arc::new(self.env)),
            SecretRef::Vault { .. } => self.remote.borrow().vault.clone(),
            SecretRef::Aws { .. } => self.remote.borrow().aws.clone(),
        };
        found.ok_or_else(|| StoreError::NotConfigured { at: at.clone() })
    }

    /// Notes how a read ended.
    fn note_read<T>(&self, at: &SecretRef, outcome: &Result<T, StoreError>) {
        let label = label(at);
        let error = outcome.as_ref().err();
        let kind = error.map_or("ok", StoreError::kind);
        self.metrics.store_reads.with_label_values(&[label, kind]).inc();
        let problem = error.filter(|error| error.is_about_the_store());
        self.metrics.store_up.with_label_values(&[label]).set(i64::from(problem.is_none()));
        self.note_health(label, problem);
    }

    /// A store that stops or begins to work is told once.
    fn note_health(&self, label: &'static str, problem: Option<&StoreError>) {
        let mut health = self.health.lock();
        let before = health.get(label).and_then(|health| health.problem.as_ref());
        let before = before.map(|problem| problem.kind);
        let after = problem.map(StoreError::kind);
        if before == after && health.contains_key(label) {
            return;
        }
        match problem {
            Some(error) => {
                let (reason, cause) = (error.kind(), error_chain(error));
                tracing::warn!(store = label, reason, cause, "a store of secrets cannot be used");
            }
            None if before.is_some() => {
                tracing::info!(store = label, "the store of secrets can be used again");
            }
            None => {}
        }
        let problem = problem.map(|error| Problem { kind: error.kind(), text: error_chain(error) });
        health.insert(label, Health { problem, since: Instant::now() });
    }

    fn note_write<T>(&self, at: &SecretRef, outcome: &Result<T, StoreError>) {
        let outcome = outcome.as_ref().map_or_else(StoreError::kind, |_| "ok");
        self.metrics.store_writes.with_label_values(&[label(at), outcome]).inc();
    }
}

/// What metrics call the store that a reference names.
const fn label(at: &SecretRef) -> &'static str {
    match at {
        SecretRef::File { .. } => "file",
        SecretRef::Env { .. } => "env",
        SecretRef::Vault { .. } => "vault",
        SecretRef::Aws { .. } => "aws",
    }
}

#[async_trait]
impl SecretStore for Stores {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let found = match self.of(at) {
            Ok(store) => store.read(at).await,
            Err(error) => Err(error),
        };
        self.note_read(at, &found);
        found
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let found = match self.of(at) {
            Ok(store) => store.read_document(at).await,
            Err(error) => Err(error),
        };
        self.note_read(at, &found);
        found
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        let found = match self.of(at) {
            Ok(store) => store.version(at).await,
            Err(error) => Err(error),
        };
        // Where nothing was asked, nothing was read.
        if !matches!(found, Ok(None)) {
            self.note_read(at, &found);
        }
        found
    }

    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        self.of(at).ok()?.poll(at)
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let claimed = self.of(at)?.claim(at, old).await;
        self.note_write(at, &claimed);
        claimed
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        let written = self.of(at)?.replace(at, claim, new).await;
        self.note_write(at, &written);
        written
    }

    async fn may_put(&self, at: &SecretRef) -> Result<(), StoreError> {
        self.of(at)?.may_put(at).await
    }

    async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
        let written = self.of(at)?.put(at, new).await;
        self.note_write(at, &written);
        written
    }

    async fn release(&self, at: &SecretRef, claim: Claim) -> Result<(), StoreError> {
        let released = self.of(at)?.release(at, claim).await;
        self.note_write(at, &released);
        released
    }

    /// Lets each configured store do its own work, and begins anew when one is replaced.
    async fn keep(&self) {
        let mut changes = self.remote.subscribe();
        loop {
            let Remotes { vault, aws } = changes.borrow_and_update().clone();
            let keep = async |store: Option<Arc<dyn SecretStore>>| match store {
                Some(store) => store.keep().await,
                None => std::future::pending().await,
            };
            tokio::select! {
                () = keep(vault) => {}
                () = keep(aws) => {}
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_are_dispatched_and_counted() {
        let metrics = Metrics::new().unwrap();
        let stores = Stores::new(&metrics);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "the-key").unwrap();
        let present = format!("file:{}", file.display()).parse().unwrap();
        assert_eq!(stores.read(&present).await.unwrap().value.expose_str(), Some("the-key"));
        let absent = "env:DATAPULSE_SIDECAR_NO_SUCH_VARIABLE".parse().unwrap();
        assert!(stores.read(&absent).await.is_err());
        assert!(stores.read(&"vault:a/b#c".parse().unwrap()).await.is_err());
        let text = metrics.render().unwrap();
        for line in [
            r#"store_reads_total{outcome="ok",store="file"} 1"#,
            r#"store_reads_total{outcome="missing",store="env"} 1"#,
            r#"store_reads_total{outcome="not_configured",store="vault"} 1"#,
            r#"store_up{store="env"} 1"#,
            r#"store_up{store="file"} 1"#,
            r#"store_up{store="vault"} 0"#,
        ] {
            assert!(text.contains(line), "{line} not in {text}");
        }
        let reports = stores.report();
        let reports: Vec<_> = reports.iter().map(|r| (&*r.name, r.reason.as_deref())).collect();
        assert_eq!(reports, [("env", None), ("file", None), ("vault", Some("not_configured"))]);
    }
}
