//! A changed configuration takes effect while calls go on.
//!
//! A bad one never replaces a good one. Credentials that are as before keep their tokens; calls in
//! flight keep the snapshot that they began with. What is decided at start is told and left alone.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::build::StartError;
use super::ca_files::{CaFiles, Trusted};
use super::carry_over::carry_over;
use super::clients::endpoints;
use super::known::Known;
use super::named::Named;
use super::run::Shutdown;
use super::stores::Opened;
use crate::access::Access;
use crate::admin::ReloadState;
use crate::clock;
use crate::config::watch::ConfigWatch;
use crate::config::{Config, ConfigWarning, LoadError};
use crate::credential::{self, Issuers, Registry};
use crate::identity::{IdentityKeeper, Loaded};
use crate::proxy::{Certificates, Live, Snapshot};
use crate::secret::SecretValue;
use crate::shaping::Shaper;
use crate::store::{Secrets, Stores};
use crate::telemetry::{Metrics, error_chain};
use crate::webhook::Webhooks;

/// How long new credentials get to become usable before calls may need them.
pub(super) const NEW_CREDENTIALS_WAIT: Duration = Duration::from_secs(5);
/// Mistakes that `/status` shows; all of them are in the log.
const MISTAKES_SHOWN_MAX: usize = 20;
/// Parts on their way to the task that runs them.
pub(super) const NEW_PARTS_MAX: usize = 16;

/// Something long-lived that a new configuration brings, such as a credential's refresher.
pub(super) type Part = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a reload needs of the running parts.
#[derive(Debug)]
pub(super) struct Reloading {
    pub(super) live: Arc<Live>,
    pub(super) issuers: Issuers,
    pub(super) stores: Arc<Stores>,
    pub(super) secrets: Secrets,
    pub(super) webhooks: Webhooks,
    pub(super) metrics: Metrics,
    /// For `/status`.
    pub(super) state: watch::Sender<ReloadState>,
    /// What the listeners show, as it was at the start.
    pub(super) certificates: Certificates,
    /// What servers are verified with.
    pub(super) trusted: Trusted,
    /// Shows the client certificate.
    pub(super) identity: IdentityKeeper,
    /// What operators send.
    pub(super) operators: watch::Sender<Option<SecretValue>>,
}

/// How a reload ended: a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Applied,
    /// The file has mistakes.
    Invalid,
    /// The file cannot be read.
    Unreadable,
    /// It is valid, and names something unusable, such as a broken certificate file.
    Failed,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Invalid => "invalid",
            Self::Unreadable => "unreadable",
            Self::Failed => "failed",
        }
    }
}

impl Reloading {
    /// Applies each configuration that `watch` gives; `new` runs what they bring. Begins none once
    /// the end is near: what works then goes on, and the change is for the process that comes.
    pub(super) async fn run(
        mut self,
        mut watch: ConfigWatch,
        new: mpsc::Sender<Part>,
        mut shutdown: watch::Receiver<Shutdown>,
    ) {
        self.note_success();
        loop {
            let next = tokio::select! {
                biased;
                _ = shutdown.wait_for(|step| *step >= Shutdown::Drain) => return,
                next = watch.next() => next,
            };
            let outcome = match next {
                Ok((config, warnings)) => self.apply(config, &warnings, &new).await,
                Err(error) => self.refuse(&error),
            };
            self.metrics.config_reloads.with_label_values(&[outcome.as_str()]).inc();
            if outcome == Outcome::Applied {
                self.note_success();
            }
        }
    }

    fn note_success(&self) {
        let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
        self.metrics.config_last_reload.set(now);
    }

    fn refuse(&self, error: &LoadError) -> Outcome {
        match error {
            LoadError::Invalid(errors) => {
                for error in &errors.0 {
                    tracing::error!(%error, "configuration");
                }
                tracing::error!("the configuration file has mistakes; the old one stays in force");
                let shown = errors.0.iter().take(MISTAKES_SHOWN_MAX);
                self.show(shown.map(ToString::to_string).collect());
                Outcome::Invalid
            }
            LoadError::Unreadable { .. } => {
                let cause = error_chain(error);
                tracing::error!(cause = &*cause, "the old configuration stays in force");
                self.show(vec![cause]);
                Outcome::Unreadable
            }
        }
    }

    fn show(&self, mistakes: Vec<String>) {
        self.state.send_modify(|state| state.mistakes = mistakes);
    }

    fn fail(&self, error: &StartError) -> Outcome {
        let cause = error_chain(error);
        tracing::error!(cause = &*cause, "the new configuration cannot be used; the old one stays");
        self.show(vec![cause]);
        Outcome::Failed
    }

    /// As the function of this name, for the files that the configuration names as well; told.
    fn carry_over(
        &self,
        new: Config,
        old: &Config,
        ca_files: &CaFiles,
    ) -> (Config, Vec<&'static str>) {
        let (config, mut restart) = carry_over(new, old);
        let is_renewed =
            ca_files.differ(&self.trusted.at_start, config.upstream.ca_file.as_deref());
        if is_renewed && !restart.contains(&"upstream.ca_file") {
            restart.push("upstream.ca_file");
        }
        if self.certificates.have_changed(&config.listeners) {
            restart.push("listeners[].tls");
        }
        for part in &restart {
            tracing::warn!(part, "this change of the configuration needs a restart");
        }
        (config, restart)
    }

    async fn apply(
        &mut self,
        config: Config,
        warnings: &[ConfigWarning],
        new: &mpsc::Sender<Part>,
    ) -> Outcome {
        for warning in warnings {
            tracing::warn!(%warning, "configuration");
        }
        let before = self.live.load();
        let ca_files = CaFiles::read(&[&config, &before.config]);
        let (config, restart) = self.carry_over(config, &before.config, &ca_files);
        let named = match Named::read(&config, &before.config, &ca_files, self).await {
            Ok(named) => named,
            Err(error) => return self.fail(&error),
        };
        let Named { known, delivery_client, stores, auth_client } = named;
        let (replaced, identity) = match self.install(stores, &config).await {
            Ok(installed) => installed,
            Err(error) => return self.fail(&error),
        };
        match auth_client {
            Some(client) if config.auth == self.issuers.auth => {
                self.issuers.auth_client.replace(client);
            }
            Some(client) => {
                (self.issuers.auth, self.issuers.auth_client) =
                    (config.auth.clone(), client.into());
            }
            None => {}
        }
        let Known { callers, operators } = known;
        self.identity.show(identity);
        for keeper in self.webhooks.renew(endpoints(&config), delivery_client, &self.secrets) {
            drop(new.send(Box::pin(keeper.run())).await);
        }
        let credentials = self.credentials(&config, &before, new).await;
        let names = |registry: &Registry| -> BTreeSet<Arc<str>> {
            registry.iter().map(|handle| Arc::clone(handle.name())).collect()
        };
        let gone = names(&before.credentials);
        let gone = gone.difference(&names(&credentials)).cloned().collect::<Vec<_>>();
        let access = Access::new(&config);
        if replaced.is_any() {
            self.secrets.look_again();
        }
        self.trusted.now = ca_files;
        let shaper = before.shaper.renewed(&before.config, &config, &self.metrics);
        self.operators.send_replace(operators);
        self.live.store(Snapshot { config, callers, access, credentials, shaper });
        for name in gone {
            self.metrics.forget_credential(&name);
        }
        Shaper::forget_gauges(&before.config, &self.live.load().config, &self.metrics);
        self.state.send_replace(ReloadState { needs_restart: restart, ..ReloadState::new() });
        tracing::info!("the configuration was reloaded");
        Outcome::Applied
    }

    /// References lead to these stores from now on; gives those that they led to before. The client
    /// certificate was read a moment ago: from now on it is kept up to date.
    async fn install(
        &self,
        opened: Opened,
        config: &Config,
    ) -> Result<(Opened, Loaded), StartError> {
        let replaced = opened.install(&self.stores);
        match self.identity.load(config.upstream.client_cert.as_ref()).await {
            Ok(identity) => Ok((replaced, identity)),
            Err(error) => {
                drop(replaced.install(&self.stores));
                self.secrets.look_again();
                Err(error.into())
            }
        }
    }

    /// The credentials of a new configuration: those that are as before with their tokens, the
    /// others with the time to get one.
    async fn credentials(
        &self,
        config: &Config,
        before: &Snapshot,
        new: &mpsc::Sender<Part>,
    ) -> Registry {
        let (registry, refreshers) = credential::build(
            &config.credentials,
            &self.issuers,
            &self.secrets,
            &self.metrics,
            Some(&before.credentials),
        );
        let names: Vec<_> = refreshers.iter().map(|one| Arc::clone(one.name())).collect();
        for refresher in refreshers {
            // Nobody receives any more only when the process ends.
            drop(new.send(Box::pin(refresher.run())).await);
        }
        let usable = async {
            for handle in names.iter().filter_map(|name| registry.by_name(name)) {
                handle.wait_usable().await;
            }
        };
        if timeout(NEW_CREDENTIALS_WAIT, usable).await.is_err() {
            tracing::warn!("a new credential is not usable yet; its calls answer 503 until it is");
        }
        registry
    }
}
