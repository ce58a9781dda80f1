//! Who the sidecar is to the API host: the certificate of `upstream.client_cert`, kept up to date.
//!
//! A pair that cannot work never replaces one that does: it is told, and tried again when either part
//! changes.

use std::sync::Arc;

use pingora::utils::tls::CertKey;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::config::model::{ClientCert, Upstream};
use crate::secret::{SecretRef, SecretValue};
use crate::store::{SecretStore, SecretWatch, Secrets, StoreError, watched};
use crate::telemetry::{Metrics, error_chain};
use crate::tls::{OwnCertificate, OwnCertificateError};

/// The certificate that is shown now, in the forms that its users take it in.
pub struct Identity {
    own: OwnCertificate,
    peer: Arc<CertKey>,
    pool: u64,
}

/// The read side of [`IdentityKeeper`]. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ClientIdentity(watch::Receiver<State>);

/// Reads the pair at the start, at a reload and whenever it changes. [`ClientIdentity`] is the read
/// side. Cloning shares it.
#[derive(Debug, Clone)]
pub struct IdentityKeeper {
    secrets: Secrets,
    state: Arc<watch::Sender<State>>,
    metrics: Metrics,
}

/// A pair that was read and works, not shown yet; or that nothing changes.
#[derive(Debug)]
pub struct Loaded(Option<State>);

/// Why there is no usable pair.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of the two cannot be read: see the cause.
    #[error("upstream.client_cert cannot be read")]
    Store(#[from] StoreError),
    /// They cannot be used: see the cause.
    #[error("upstream.client_cert ({pair})")]
    Unusable {
        /// Where the certificate and its key are.
        pair: Box<str>,
        /// What is wrong with them.
        #[source]
        cause: OwnCertificateError,
    },
}

/// The certificate as `/status` shows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct IdentityReport {
    /// Until it ends; 0: it has.
    pub expires_in_seconds: u64,
    /// Why what is in its files now is not shown; absent when it is.
    pub last_error: Option<String>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// As configured.
    named: Option<ClientCert>,
    pair: Option<Arc<Pair>>,
    shown: Option<Arc<Identity>>,
    problem: Option<String>,
}

#[derive(Debug)]
struct Pair {
    certificate: SecretWatch,
    key: SecretWatch,
}

impl Identity {
    fn new(own: OwnCertificate) -> Self {
        let chain = own.chain().iter().map(|one| one.to_vec()).collect();
        // Parsed before: pingora would panic.
        let peer = Arc::new(CertKey::new(chain, own.key().secret_der().to_vec()));
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        own.chain().iter().for_each(|one| digest.update(one));
        let digest = digest.finish();
        let pool = digest.as_ref().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        Self { own, peer, pool }
    }

    /// As pingora takes it.
    #[must_use]
    pub const fn peer(&self) -> &Arc<CertKey> {
        &self.peer
    }

    /// Tells connections apart by the certificate that they were made with.
    #[must_use]
    pub const fn pool(&self) -> u64 {
        self.pool
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Identity").field(&self.own).finish()
    }
}

impl ClientIdentity {
    /// The certificate that is shown now; `None`: none is configured.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Identity>> {
        self.0.borrow().shown.clone()
    }

    /// As `/status` shows it.
    #[must_use]
    pub fn report(&self) -> Option<IdentityReport> {
        let state = self.0.borrow();
        let expires_at = state.shown.as_ref()?.own.expires_at();
        let expires_at = u64::try_from(expires_at).unwrap_or(0);
        Some(IdentityReport {
            expires_in_seconds: expires_at.saturating_sub(clock::unix_seconds()),
            last_error: state.problem.clone(),
        })
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(
        &self,
        _issuers: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.current().map(|identity| Arc::clone(identity.own.certified()))
    }

    fn has_certs(&self) -> bool {
        self.0.borrow().shown.is_some()
    }
}

impl IdentityKeeper {
    /// Shows what the configuration names.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn start(
        upstream: &Upstream,
        secrets: &Secrets,
        metrics: &Metrics,
    ) -> Result<(Self, ClientIdentity), IdentityError> {
        let (state, reader) = watch::channel(State::default());
        let (secrets, metrics) = (secrets.clone(), metrics.clone());
        let keeper = Self { secrets, state: Arc::new(state), metrics };
        keeper.show(keeper.load(upstream.client_cert.as_ref()).await?);
        Ok((keeper, ClientIdentity(reader)))
    }

    /// Reads what the configuration names, and checks it. What it named before is kept up to date
    /// already, and is not read again: what is in its files by now may be worse.
    ///
    /// # Errors
    /// See [`IdentityError`].
    pub async fn load(&self, named: Option<&ClientCert>) -> Result<Loaded, IdentityError> {
        if self.state.borrow().named.as_ref() == named {
            return Ok(Loaded(None));
        }
        let Some(named) = named else { return Ok(Loaded(Some(State::default()))) };
        let certificate = SecretRef::File { path: named.cert_file.clone(), key: None };
        let pair = Pair {
            certificate: self.secrets.watch_document(&certificate),
            key: self.secrets.watch_document(&named.key),
        };
        let shown = Some(Arc::new(pair.read().await?));
        let (named, pair) = (Some(named.clone()), Some(Arc::new(pair)));
        Ok(Loaded(Some(State { named, pair, shown, problem: None })))
    }

    /// The same one, to [`Self::load`] through other stores.
    #[must_use]
    pub fn through(&self, stores: Arc<dyn SecretStore>) -> Self {
        Self { secrets: watched(stores).0, ..self.clone() }
    }

    /// One more read side.
    #[must_use]
    pub fn reader(&self) -> ClientIdentity {
        ClientIdentity(self.state.subscribe())
    }

    /// From now on this is what is shown, to be kept up to date by [`Self::run`].
    pub fn show(&self, loaded: Loaded) {
        if let Some(state) = loaded.0 {
            self.tell(state.shown.as_deref());
            self.state.send_replace(state);
        }
    }

    /// Shows each pair that takes the place of the last, until the process ends.
    pub async fn run(self) {
        let mut state = self.state.subscribe();
        loop {
            let pair = state.borrow_and_update().pair.clone();
            let renewed = async {
                match &pair {
                    Some(pair) => pair.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = state.changed() => continue,
                () = renewed => {}
            }
            if let Some(pair) = pair {
                self.renew(&pair, pair.read().await);
            }
        }
    }

    fn renew(&self, pair: &Arc<Pair>, read: Result<Identity, IdentityError>) {
        let read = read.map(Arc::new);
        if let Err(error) = &read {
            let cause = error_chain(error);
            tracing::warn!(
                cause,
                "the client certificate changed and cannot be used; the one before stays"
            );
        }
        let is_renewed = self.state.send_if_modified(|state| {
            // A reload may have put another in its place meanwhile.
            let is_ours = state.pair.as_ref().is_some_and(|current| Arc::ptr_eq(current, pair));
            if !is_ours {
                return false;
            }
            match &read {
                Ok(identity) => (state.shown, state.problem) = (Some(Arc::clone(identity)), None),
                Err(error) => state.problem = Some(error_chain(error)),
            }
            true
        });
        if is_renewed && let Ok(identity) = &read {
            tracing::info!("the client certificate changed; new connections show it");
            self.tell(Some(identity));
        }
    }

    /// The gauge, and a warning for one that no server will take.
    fn tell(&self, shown: Option<&Identity>) {
        let expires_at = shown.map_or(0, |identity| identity.own.expires_at());
        self.metrics.client_cert_expiry.set(expires_at);
        let now = i64::try_from(clock::unix_seconds()).unwrap_or(i64::MAX);
        if shown.is_some() && expires_at <= now {
            tracing::warn!("the client certificate has expired (upstream.client_cert)");
        }
    }
}

impl Pair {
    async fn changed(&self) {
        tokio::select! {
            () = self.certificate.changed() => {}
            () = self.key.changed() => {}
        }
    }

    /// As they are now; a part that cannot be read as it was found last.
    async fn read(&self) -> Result<Identity, IdentityError> {
        let (certificates, key) = (part(&self.certificate).await, part(&self.key).await);
        let (certificates, key) = (certificates?, key?);
        let own = OwnCertificate::from_pem(&certificates, &key);
        own.map(Identity::new).map_err(|cause| {
            let pair = format!("{}, {}", self.certificate.at(), self.key.at()).into();
            IdentityError::Unusable { pair, cause }
        })
    }
}

/// Once it was read, nothing has to be tried again here.
async fn part(stored: &SecretWatch) -> Result<SecretValue, StoreError> {
    Ok(stored.or_last(stored.read().await)?.value)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::store::polled::{POLL, Polled};

    const CERTIFICATE: &str = "file:/pair/client.crt";
    const KEY: &str = "vault:secret/pair#key";
    const HOUR: Duration = Duration::from_secs(3600);

    /// A certificate and its key that stay for the rest of the process.
    fn pair() -> [&'static str; 2] {
        let made = rcgen::generate_simple_self_signed(["sidecar".to_owned()]).unwrap();
        [made.cert.pem(), made.signing_key.serialize_pem()].map(|text| &*text.leak())
    }

    struct Bench {
        store: Arc<Polled>,
        identity: ClientIdentity,
        _tasks: JoinSet<()>,
    }

    impl Bench {
        async fn new() -> Self {
            crate::tls::install_provider();
            let store = Arc::new(Polled::default());
            let (secrets, watcher) = watched(Arc::clone(&store) as Arc<dyn SecretStore>);
            let [certificate, key] = pair();
            store.put(CERTIFICATE, certificate);
            store.put(KEY, key);
            let text = "version: 1\n\
                listeners: [{listen: 'localhost:0'}]\n\
                credentials: [{name: a, level: admin, api_key: 'file:/k'}]\n\
                stores: {vault: {address: 'https://v', auth: {method: token, token: 'file:/t'}}}\n\
                upstream: {client_cert: {cert_file: /pair/client.crt, key: 'vault:secret/pair#key'}}\n";
            let (config, _) = crate::config::parse(text, "test", &|_| None).unwrap();
            let metrics = Metrics::new().unwrap();
            let started = IdentityKeeper::start(&config.upstream, &secrets, &metrics).await;
            let (keeper, identity) = started.unwrap();
            let mut tasks = JoinSet::new();
            tasks.spawn(watcher.run());
            tasks.spawn(keeper.run());
            Self { store, identity, _tasks: tasks }
        }

        /// Whether both are asked for as often as is stated.
        async fn asked_in_an_hour(&self) -> bool {
            fastrand::seed(1);
            let asked = || [CERTIFICATE, KEY].map(|at| self.store.asked(at));
            sleep(POLL * 2).await;
            asked();
            sleep(HOUR).await;
            asked().iter().all(|count| (40..=150).contains(count))
        }

        /// Waits until another certificate is shown than this one.
        async fn shows_another(&self, than: u64) {
            let mut shown = self.identity.0.clone();
            let another = shown.wait_for(|state| state.shown.as_ref().unwrap().pool() != than);
            timeout(Duration::from_secs(90), another).await.unwrap().unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_cannot_be_read_is_asked_for_by_and_by_and_stays_what_it_was() {
        let bench = Bench::new().await;
        let first = bench.identity.current().unwrap().pool();
        let [certificate, key] = pair();
        let down = |at| StoreError::Timeout { at };
        bench.store.fail(CERTIFICATE, Some(down));
        bench.store.put(KEY, key);
        assert!(bench.asked_in_an_hour().await, "the key changed, and not the certificate");
        assert_eq!(bench.identity.current().unwrap().pool(), first);
        assert!(bench.identity.report().unwrap().last_error.is_some());
        bench.store.fail(KEY, Some(down));
        assert!(bench.asked_in_an_hour().await, "neither can be read");
        bench.store.put(CERTIFICATE, certificate);
        bench.store.fail(CERTIFICATE, None);
        bench.shows_another(first).await;
        assert_eq!(bench.identity.report().unwrap().last_error, None, "the key is known");
    }
}
