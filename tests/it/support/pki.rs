//! Certificates made for one test, and a TLS server that shows them, with HTTP/2 where asked for.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

/// A certificate authority of its own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A server's certificate with its key.
pub(crate) struct Leaf {
    chain: Vec<rustls_pki_types::CertificateDer<'static>>,
    pem: String,
    key: KeyPair,
}

impl Authority {
    /// A new one, trusted by nobody yet.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("signed") }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The file for `ca_file`.
    pub(crate) fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("ca.pem");
        std::fs::write(&path, self.issuer.pem()).expect("written");
        path
    }

    /// A certificate for `names`; expired ones ended in 2001.
    pub(crate) fn issue(&self, names: &[&str], expired: bool) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        if expired {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("signed");
        Leaf { chain: vec![certificate.der().clone()], pem: certificate.pem(), key }
    }

    /// The roots of who trusts it alone.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        roots
    }
}

impl Leaf {
    /// The files of certificate and key, for a server that reads them.
    pub(crate) fn write(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (dir.join("server.pem"), dir.join("server.key"));
        self.write_to(&certificate, &key);
        (certificate, key)
    }

    /// Writes the certificate and its key as PEM: first the one, then the other.
    pub(crate) fn write_to(&self, certificate: &Path, key: &Path) {
        std::fs::write(certificate, &self.pem).expect("written");
        std::fs::write(key, self.key.serialize_pem()).expect("written");
    }
}

/// The certificates that clients showed, connection by connection.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<Vec<Vec<u8>>>>);

/// Serves a router over TLS until it is dropped.
pub(crate) struct TlsServer {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    handshakes: Arc<AtomicUsize>,
    clients: Clients,
    leave: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

impl TlsServer {
    /// `alpn`: `&["h2", "http/1.1"]`, or fewer.
    pub(crate) async fn start(router: Router, leaf: &Leaf, alpn: &[&str]) -> Self {
        Self::serve(router, leaf, alpn, WebPkiClientVerifier::no_client_auth()).await
    }

    /// Asks each client for a certificate of this authority, and ends the handshake without one.
    pub(crate) async fn start_asking(
        router: Router,
        leaf: &Leaf,
        alpn: &[&str],
        clients: &Authority,
    ) -> Self {
        let verifier = WebPkiClientVerifier::builder(Arc::new(clients.roots())).build();
        Self::serve(router, leaf, alpn, verifier.expect("one root")).await
    }

    async fn serve(
        router: Router,
        leaf: &Leaf,
        alpn: &[&str],
        verifier: Arc<dyn ClientCertVerifier>,
    ) -> Self {
        let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).expect("a key");
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(leaf.chain.clone(), key)
            .expect("they match");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let handshakes = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&handshakes);
        let clients = Clients::default();
        let seen = clients.clone();
        let (leave, leaving) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                let (counted, seen) = (Arc::clone(&counted), seen.clone());
                let mut leaving = leaving.clone();
                leaving.mark_unchanged();
                connections.spawn(async move {
                    // A client that refuses the certificate ends the handshake.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let shown = stream.get_ref().1.peer_certificates();
                    if let Some(shown) = shown.and_then(|chain| chain.first()) {
                        seen.0.lock().expect("not poisoned").push(shown.to_vec());
                    }
                    let service = TowerToHyperService::new(router);
                    let server = auto::Builder::new(TokioExecutor::new());
                    let serving = server.serve_connection(TokioIo::new(stream), service);
                    tokio::pin!(serving);
                    tokio::select! {
                        _ = &mut serving => return,
                        _ = leaving.changed() => serving.as_mut().graceful_shutdown(),
                    }
                    drop(serving.await);
                });
            }
        });
        Self { address, handshakes, clients, leave, _tasks: tasks }
    }

    /// Connections that showed this certificate.
    pub(crate) fn showed(&self, leaf: &Leaf) -> usize {
        let seen = self.clients.0.lock().expect("not poisoned");
        seen.iter().filter(|shown| **shown == leaf.chain[0].to_vec()).count()
    }

    /// Every connection is left once what is under way is answered: in HTTP/2 by a GOAWAY.
    pub(crate) fn leave(&self) {
        self.leave.send_modify(|times| *times += 1);
    }

    /// Handshakes that both sides finished.
    pub(crate) fn handshakes(&self) -> usize {
        self.handshakes.load(Ordering::SeqCst)
    }
}
