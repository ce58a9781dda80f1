//! From a valid configuration to bound sockets and parts that are ready to run.
//!
//! Whatever can be wrong with an address, a certificate file or the machine's roots is found here,
//! before the first byte is served.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use pingora::server::configuration::ServerConf;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::ca_files::Trusted;
use super::clients::{shaped_issuers, webhooks};
use super::known::Known;
use super::reload::Reloading;
use super::stores;
use crate::access::{Access, CallersError};
use crate::admin::{Health, ReloadState, Status, Verbs};
use crate::config::Config;
use crate::config::watch::ConfigWatch;
use crate::credential::{self, Refresher};
use crate::identity::{ClientIdentity, IdentityError, IdentityKeeper};
use crate::proxy::upstream::{Destination, Resolver, resolver};
use crate::proxy::{self, BindError, Gauge, Listeners, Live, Snapshot};
use crate::secret::SecretRef;
use crate::shaping::Shaper;
use crate::store::{self, SecretStore, SecretWatcher, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::logging::{DroppedLines, LevelSwitch};
use crate::tls::TlsError;
use crate::webhook::KeyKeeper;

/// pingora's own bound on attempts: far above ours, so that only ours decides.
const PINGORA_ATTEMPTS_MAX: usize = 64;
/// Idle connections to the upstream that are kept.
const POOL_SIZE: usize = 256;

/// Which addresses a sidecar listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Those where apps call, `health` and `admin`.
    All,
    /// Only those where apps call.
    ProxyOnly,
}

/// The sockets for probes and operators.
#[derive(Debug)]
pub(super) struct OwnSockets {
    pub(super) health: TcpListener,
    pub(super) admin: TcpListener,
    /// Where DataPulse delivers, if it does.
    pub(super) webhooks: Option<TcpListener>,
}

/// A sidecar whose sockets are bound and whose parts wait to be run.
#[derive(Debug)]
pub struct Sidecar {
    pub(super) live: Arc<Live>,
    pub(super) reloading: Reloading,
    pub(super) watch: Option<ConfigWatch>,
    pub(super) listeners: Listeners,
    pub(super) own_sockets: Option<OwnSockets>,
    pub(super) health: Health,
    pub(super) status: Status,
    pub(super) verbs: Verbs,
    pub(super) gauge: Gauge,
    pub(super) resolver: Resolver,
    pub(super) refreshers: Vec<Refresher>,
    pub(super) keepers: Vec<KeyKeeper>,
    pub(super) watcher: SecretWatcher,
    pub(super) identity: IdentityKeeper,
    pub(super) proxy: proxy::Sidecar,
    pub(super) server: Arc<ServerConf>,
}

/// Why the sidecar cannot start. All of these are the operator's to change; exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener's address cannot be bound.
    #[error(transparent)]
    Listener(#[from] BindError),
    /// The address of `health`, `admin` or `webhooks` cannot be bound.
    #[error("cannot listen on {address} ({section}.listen); is another program using the port?")]
    Bind {
        /// `health`, `admin` or `webhooks`.
        section: &'static str,
        /// As configured.
        address: SocketAddr,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// The certificate that is shown to the API host, or its key, cannot be used.
    #[error(transparent)]
    ClientCert(#[from] IdentityError),
    /// No usable certificates to verify servers with.
    #[error(transparent)]
    Roots(#[from] TlsError),
    /// pingora reads the system's certificates by itself, and gives up on one that it cannot parse.
    #[error("{0}; set upstream.ca_file to a file with the certificates to trust")]
    SystemRoots(String),
    /// A secret that callers are known by cannot be read; they would be let in or kept out wrongly.
    #[error("a caller token cannot be read; put it there before the start")]
    CallerToken(#[source] StoreError),
    /// What operators are known by cannot be read; nobody could change anything.
    #[error("the admin token cannot be read; put it there before the start")]
    AdminToken(#[source] StoreError),
    /// Whoever may call could change things as well.
    #[error("admin.token and {0} hold the same secret; operators need one of their own")]
    SharedAdminToken(SecretRef),
    /// It would not be clear who may call.
    #[error(transparent)]
    Callers(#[from] CallersError),
    /// The upstream's host and port cannot stand in a `Host` header.
    #[error("upstream.base_url: the host cannot stand in a Host header")]
    Authority,
}

impl Sidecar {
    /// Binds every address of `ports` and checks every file. No call is made yet, and no secret read
    /// but those that callers are known by.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config, metrics: Metrics, ports: Ports) -> Result<Self, StartError> {
        let stores = stores::open(&config, &metrics)?;
        let (secrets, watcher) = store::watched(Arc::clone(&stores) as Arc<dyn SecretStore>);
        let (keeper, shown) = IdentityKeeper::start(&config.upstream, &secrets, &metrics).await?;
        let (issuers, own_calls) = shaped_issuers(&config, &shown)?;
        let listeners = Listeners::bind(&config.listeners).await?;
        let own_sockets = OwnSockets::bind(&config, ports).await?;
        let Known { callers, operators } = Known::read(&config, &*stores).await?;
        let (registry, refreshers) =
            credential::build(&config.credentials, &issuers, &secrets, &metrics, None);
        let (webhooks, keepers) = webhooks(&config, &secrets, &metrics)?;
        let (resolver, destination) = destination(&config, shown, &metrics)?;
        let gauge = Gauge::new(metrics.clone());
        let server = Arc::new(server_conf(&config));
        let live = own_calls.shape_by(Live::new(Snapshot {
            callers,
            access: Access::new(&config),
            shaper: Shaper::new(&config, &metrics),
            config,
            credentials: registry,
        }));
        let (state, reloads) = watch::channel(ReloadState::new());
        let reloading = Reloading {
            live: Arc::clone(&live),
            issuers,
            stores,
            secrets,
            webhooks,
            metrics: metrics.clone(),
            state,
            certificates: listeners.certificates(),
            trusted: Trusted::at_start(&live.load().config),
            identity: keeper.clone(),
            operators: watch::Sender::new(operators),
        };
        let health = Health::new(&live, &reloading.stores, &reloading.secrets, metrics.clone());
        let status = Status::new(&live, &health, gauge.clone(), reloads, keeper.reader());
        let verbs = Verbs::new(&live, reloading.operators.subscribe(), metrics.clone());
        let proxy =
            proxy::Sidecar::new(Arc::clone(&live), destination, gauge.clone(), metrics.clone());
        Ok(Self {
            live,
            reloading,
            watch: None,
            listeners,
            own_sockets,
            health,
            status,
            verbs,
            gauge,
            resolver,
            refreshers,
            keepers,
            watcher,
            identity: keeper,
            proxy,
            server,
        })
    }

    /// Counts of dropped log lines are shown among the metrics.
    #[must_use]
    pub fn with_dropped_lines(self, dropped: DroppedLines) -> Self {
        Self { health: self.health.with_dropped_lines(dropped), ..self }
    }

    /// Operators can change which log lines are written.
    #[must_use]
    pub fn with_level_switch(self, levels: LevelSwitch) -> Self {
        Self { verbs: self.verbs.with_level_switch(levels), ..self }
    }

    /// What changes in this file is applied while it runs.
    #[must_use]
    pub fn with_watch(self, watch: ConfigWatch) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// Where apps can call: each listener's name with a bound address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.listeners.addresses()
    }

    /// The unix sockets where apps can call, as configured.
    #[must_use]
    pub fn unix_sockets(&self) -> Vec<Arc<str>> {
        self.listeners.unix_sockets()
    }

    /// Where health and metrics are served, if they are.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.own_sockets.as_ref()?.health.local_addr().ok()
    }

    /// Where status is served, if it is.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.own_sockets.as_ref()?.admin.local_addr().ok()
    }

    /// Where DataPulse delivers, if it does.
    #[must_use]
    pub fn webhooks_address(&self) -> Option<SocketAddr> {
        self.own_sockets.as_ref()?.webhooks.as_ref()?.local_addr().ok()
    }

    /// Ends when start-up is done: once the sidecar runs, with each required credential usable or
    /// after `startup_timeout`.
    pub fn started(&self) -> impl Future<Output = ()> + use<> {
        let health = self.health.clone();
        async move { health.started().await }
    }
}

impl OwnSockets {
    async fn bind(config: &Config, ports: Ports) -> Result<Option<Self>, StartError> {
        if ports == Ports::ProxyOnly {
            return Ok(None);
        }
        let webhooks = match &config.webhooks {
            Some(webhooks) => Some(bind("webhooks", webhooks.listen).await?),
            None => None,
        };
        Ok(Some(Self {
            health: bind("health", config.health_listen).await?,
            admin: bind("admin", config.admin_listen).await?,
            webhooks,
        }))
    }
}

/// Where calls go, and the task that keeps its addresses.
fn destination(
    config: &Config,
    identity: ClientIdentity,
    metrics: &Metrics,
) -> Result<(Resolver, Destination), StartError> {
    let origin = &config.upstream.origin;
    let authority = HeaderValue::from_str(&origin.authority());
    let authority = authority.map_err(|_invalid| StartError::Authority)?;
    let (resolver, addresses) = resolver(origin.clone(), metrics.clone());
    Ok((resolver, Destination { addresses, authority, identity }))
}

async fn bind(section: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    let mut bound = TcpListener::bind(address).await;
    // "Every address" is one of IPv6, also on a machine that has none.
    if bound.as_ref().is_err_and(|cause| cause.kind() != io::ErrorKind::AddrInUse)
        && address.ip() == Ipv6Addr::UNSPECIFIED
    {
        bound = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    bound.map_err(|cause| StartError::Bind { section, address, cause })
}

/// What pingora is told. The certificate file was read and checked before: pingora panics on a bad
/// one.
fn server_conf(config: &Config) -> ServerConf {
    // Sub-second timers by tokio: pingora's own timer thread wakes a hundred times a second.
    pingora::time::fast_timeout::set_fast_timeout_to_tokio_threshold(Some(Duration::ZERO));
    ServerConf {
        max_retries: PINGORA_ATTEMPTS_MAX,
        upstream_keepalive_pool_size: POOL_SIZE,
        // Whatever SSLKEYLOGFILE says: session keys are secrets.
        upstream_debug_ssl_keylog: false,
        ca_file: config.upstream.ca_file.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ..ServerConf::default()
    }
}
