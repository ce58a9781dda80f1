//! The HTTP client for the calls that the sidecar makes itself, and what it says of an answer.
//!
//! It never follows a redirect and never uses a proxy: a secret would go along.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::client::{ResolvesClientCert, Resumption};

use super::{Roots, TlsError};

/// For TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one whole call, body included.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer of an issuer or a store that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// The client for every call that the sidecar makes itself: to issuers and stores, not for apps.
///
/// It trusts `roots` alone, uses no proxy, follows no redirect (a secret would follow too), sends no
/// referer, and gives up after 2 s without a connection and after 5 s in all.
///
/// # Errors
/// [`TlsError::Client`] when [`super::install_provider`] has not been called.
pub fn http_client(roots: &Roots) -> Result<reqwest::Client, TlsError> {
    builder(roots)?.timeout(TOTAL_TIMEOUT).build().map_err(TlsError::Client)
}

/// A client that may be replaced, for all who use it at once. Cloning shares it.
#[derive(Debug, Clone)]
pub struct SharedClient(Arc<ArcSwap<reqwest::Client>>);

impl SharedClient {
    /// The one to make the next call with.
    #[must_use]
    pub fn now(&self) -> Arc<reqwest::Client> {
        self.0.load_full()
    }

    /// Calls that begin from now on are made with this one.
    pub fn replace(&self, client: reqwest::Client) {
        self.0.store(Arc::new(client));
    }
}

impl From<reqwest::Client> for SharedClient {
    fn from(client: reqwest::Client) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(client)))
    }
}

/// The client that hands deliveries to the app: as [`http_client`], but each call says how long it may take.
///
/// # Errors
/// As [`http_client`].
pub fn delivery_client(roots: &Roots) -> Result<reqwest::Client, TlsError> {
    builder(roots)?.http1_only().build().map_err(TlsError::Client)
}

fn builder(roots: &Roots) -> Result<reqwest::ClientBuilder, TlsError> {
    let mut certificates = Vec::with_capacity(roots.certificates.len());
    for root in &roots.certificates {
        certificates.push(reqwest::Certificate::from_der(root).map_err(TlsError::Client)?);
    }
    Ok(client().tls_certs_only(certificates))
}

/// As [`http_client`], showing what `own` gives for each new connection to a server that asks for a
/// certificate.
///
/// # Errors
/// As [`http_client`].
pub fn http_client_with(
    roots: &Roots,
    own: Arc<dyn ResolvesClientCert>,
) -> Result<reqwest::Client, TlsError> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.certificates.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(TlsError::Provider)?;
    let mut config = builder.with_root_certificates(store).with_client_cert_resolver(own);
    // A resumed session would go on with the certificate that it began with.
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = client().tls_backend_preconfigured(config).timeout(TOTAL_TIMEOUT);
    client.build().map_err(TlsError::Client)
}

/// What all clients have in common.
fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        // A call or two a minute: a connection that is kept only goes stale, above all while the
        // machine sleeps, and then swallows the one request that matters.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("datapulse-sidecar/", env!("CARGO_PKG_VERSION")))
}

/// Why there was no whole answer, as a metric label: `timeout`, `refused`, `dns`, `tls`, `connect` or
/// `interrupted`.
#[must_use]
pub fn failure(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        return "timeout";
    }
    if !error.is_connect() {
        return "interrupted";
    }
    std::iter::successors(error.source(), |&cause| inner(cause))
        .find_map(|cause| {
            let system = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            match system {
                _ if cause.is::<rustls::Error>() => Some("tls"),
                Some(io::ErrorKind::ConnectionRefused) => Some("refused"),
                // hyper-util says so in words alone.
                _ if cause.to_string().starts_with("dns error") => Some("dns"),
                _ => None,
            }
        })
        .unwrap_or("connect")
}

/// What is behind an error: the system's type may carry another one, which it does not call its source.
fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(carried) => Some(carried),
        None => error.source(),
    }
}

/// Why an answer's body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// More than was allowed; the rest was not read.
    #[error("the answer is too large")]
    TooLarge,
    /// The connection ended or stalled.
    #[error("the answer broke off")]
    Broken(#[source] reqwest::Error),
}

/// The body of an answer, up to `bytes_max`: reqwest itself has no limit.
///
/// # Errors
/// An announced length over the limit is refused before a byte is read.
pub async fn read_capped(
    mut response: reqwest::Response,
    bytes_max: usize,
) -> Result<Vec<u8>, ReadError> {
    let announced = response.content_length().unwrap_or(0);
    if usize::try_from(announced).map_or(true, |length| length > bytes_max) {
        return Err(ReadError::TooLarge);
    }
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await.map_err(|e| ReadError::Broken(e.without_url()))?;
        let Some(chunk) = chunk else { return Ok(body) };
        if body.len().saturating_add(chunk.len()) > bytes_max {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::super::install_provider;
    use super::*;

    fn roots() -> Roots {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&path, pair.cert.pem()).unwrap();
        Roots::load(Some(&path)).unwrap()
    }

    async fn failing(url: &str) -> &'static str {
        install_provider();
        let client = http_client(&roots()).unwrap();
        failure(&client.get(url).send().await.unwrap_err())
    }

    #[tokio::test]
    async fn each_way_to_fail_has_its_word() {
        use tokio::io::AsyncWriteExt as _;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            // Closes each connection after a few bytes that are neither TLS nor HTTP.
            while let Ok((mut stream, _)) = listener.accept().await {
                drop(stream.write_all(b"hello\r\n\r\n").await);
            }
        });
        assert_eq!(failing(&format!("https://{address}/")).await, "tls");
        assert_eq!(failing(&format!("http://{address}/")).await, "interrupted");
        assert_eq!(failing("https://nowhere.invalid/").await, "dns");
        tasks.shutdown().await;
        assert_eq!(failing(&format!("https://{address}/")).await, "refused");
    }

    #[test]
    fn a_client_is_built_from_checked_roots() {
        install_provider();
        install_provider();
        assert!(http_client(&roots()).is_ok());
    }
}
