//! Whom the sidecar trusts, and the one HTTP client for the calls it makes itself.
//!
//! Verification is never off: without a single usable root there is no client. Bundles are checked
//! here before anything else reads them by path, because pingora panics on one that it cannot parse.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

/// For TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For one whole call, body included.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest answer of an issuer or a store that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// The largest PEM bundle that is read, in bytes; the system's are about 220 KiB.
const BUNDLE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Why there are no roots to trust, or no client.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read: check the path and the permissions.
    #[error("cannot read the certificate file {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate in the file: it needs at least one `BEGIN CERTIFICATE` block.
    #[error("the certificate file {} holds no certificate", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Far larger than any bundle: most likely the wrong file.
    #[error("the certificate file {} is larger than 8 MiB", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is broken PEM, or a block in it is no certificate: write it again.
    #[error("certificate {position} in {} cannot be parsed", path.display())]
    Unparsable {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        position: usize,
    },
    /// A private key (or anything else that is no certificate) is in a file of roots: take it out,
    /// and if it is a key, keep it where only its owner reads it.
    #[error("{} holds something that is no certificate, such as a private key; take it out", path.display())]
    NotOnlyCertificates {
        /// Which file.
        path: PathBuf,
    },
    /// The machine has no usable root: install `ca-certificates`, set `SSL_CERT_FILE`, or `ca_file`.
    #[error("the system has no usable root certificate; set ca_file, or SSL_CERT_FILE")]
    NoSystemRoots,
    /// The client cannot be built: a mistake of ours, such as no crypto provider.
    #[error("cannot build the HTTP client")]
    Client(#[source] reqwest::Error),
}

/// The certificates that the far side's chain must end in. Each of them has been parsed.
#[derive(Debug, Clone)]
pub struct Roots {
    certificates: Vec<CertificateDer<'static>>,
    warnings: Vec<String>,
}

impl Roots {
    /// The roots in a PEM file, or, without one, the system's (`SSL_CERT_FILE` and `SSL_CERT_DIR`
    /// are honoured).
    ///
    /// Reads files: for start-up, not for the request path.
    ///
    /// # Errors
    /// A file must hold certificates, each of them usable, and nothing else. Of the system's, those
    /// that cannot be used are left out with a warning, unless none is left.
    pub fn load(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        match ca_file {
            Some(path) => Self::from_file(path),
            None => Self::from_system(),
        }
    }

    /// No root at all: for a client that speaks to nobody over TLS.
    #[must_use]
    pub const fn none() -> Self {
        Self { certificates: Vec::new(), warnings: Vec::new() }
    }

    /// What was left out of the system's roots, one sentence each. While there is any, the system's
    /// store must not be given to pingora, which panics on it.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The certificates.
    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    fn from_file(path: &Path) -> Result<Self, TlsError> {
        let owned = || path.to_path_buf();
        let unreadable = |source| TlsError::Unreadable { path: owned(), source };
        if std::fs::metadata(path).map_err(unreadable)?.len() > BUNDLE_BYTES_MAX {
            return Err(TlsError::TooLarge { path: owned() });
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        let mut certificates = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(&text) {
            let position = certificates.len() + 1;
            let Ok((kind, der)) = section else {
                return Err(TlsError::Unparsable { path: owned(), position });
            };
            if kind != SectionKind::Certificate {
                return Err(TlsError::NotOnlyCertificates { path: owned() });
            }
            let certificate = CertificateDer::from(der);
            if !is_usable(&certificate) {
                return Err(TlsError::Unparsable { path: owned(), position });
            }
            certificates.push(certificate);
        }
        if certificates.is_empty() {
            return Err(TlsError::Empty { path: owned() });
        }
        Ok(Self { certificates, warnings: Vec::new() })
    }

    fn from_system() -> Result<Self, TlsError> {
        let found = rustls_native_certs::load_native_certs();
        let mut warnings: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        let (usable, unusable): (Vec<_>, Vec<_>) = found.certs.into_iter().partition(is_usable);
        warnings.extend(unusable.iter().map(|certificate| {
            format!(
                "a root certificate of the system cannot be parsed and is left out (SHA-256 {})",
                sha256(certificate)
            )
        }));
        if usable.is_empty() {
            return Err(TlsError::NoSystemRoots);
        }
        Ok(Self { certificates: usable, warnings })
    }
}

fn is_usable(certificate: &CertificateDer<'static>) -> bool {
    RootCertStore::empty().add(certificate.clone()).is_ok()
}

fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes ring the process' crypto provider. Safe to call again: the first one stays.
pub fn install_provider() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Lost a race: then another thread has installed the same.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}

/// The client for every call that the sidecar makes itself: to issuers and stores, not for apps.
///
/// It trusts `roots` alone, uses no proxy, follows no redirect (a secret would follow too), sends no
/// referer, and gives up after 2 s without a connection and after 5 s in all.
///
/// # Errors
/// [`TlsError::Client`] when [`install_provider`] has not been called.
pub fn http_client(roots: &Roots) -> Result<reqwest::Client, TlsError> {
    builder(roots)?.timeout(TOTAL_TIMEOUT).build().map_err(TlsError::Client)
}

/// The client that hands deliveries to the app: as above, but each call says how long it may take.
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
    Ok(reqwest::Client::builder()
        .tls_certs_only(certificates)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .connect_timeout(CONNECT_TIMEOUT)
        // A call or two a minute: a connection that is kept only goes stale, above all while the
        // machine sleeps, and then swallows the one request that matters.
        .pool_max_idle_per_host(0)
        .user_agent(concat!("datapulse-sidecar/", env!("CARGO_PKG_VERSION"))))
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
    use super::*;

    fn load(text: &str) -> Result<Roots, TlsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        Roots::load(Some(&path))
    }

    fn pem() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    #[test]
    fn a_bundle_is_certificates_and_nothing_else() {
        let (cert, key) = pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let two = load(&format!("# a comment\n{cert}{cert}")).unwrap();
        assert_eq!(two.certificates().len(), 2);
        for (text, want) in [
            (String::new(), "holds no certificate"),
            ("no PEM at all".to_owned(), "holds no certificate"),
            (format!("{cert}{key}"), "no certificate, such as a private key"),
            (key, "no certificate, such as a private key"),
            (format!("{cert}{broken}"), "certificate 2 in"),
            ("-----BEGIN CERTIFICATE-----\n!".to_owned(), "certificate 1 in"),
        ] {
            let error = load(&text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let error = Roots::load(Some(Path::new("/nowhere/ca.pem"))).unwrap_err();
        assert!(matches!(error, TlsError::Unreadable { .. }), "{error}");
    }

    async fn failing(url: &str) -> &'static str {
        install_provider();
        let client = http_client(&load(&pem().0).unwrap()).unwrap();
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
        assert!(http_client(&load(&pem().0).unwrap()).is_ok());
    }
}
