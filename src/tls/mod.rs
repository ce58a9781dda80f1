//! Whom the sidecar trusts, whom it shows itself as, and the HTTP client for the calls it makes itself.
//!
//! Verification is never off: without a single usable root there is no client. Bundles are checked
//! here before anything else reads them by path, because pingora panics on one that it cannot parse.

mod client;
mod own;

use std::io;
use std::path::{Path, PathBuf};

pub use client::{
    ANSWER_BYTES_MAX, ReadError, SharedClient, delivery_client, failure, http_client,
    http_client_with, read_capped,
};
pub(crate) use own::has_password;
pub use own::{OwnCertificate, OwnCertificateError, OwnFileError};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{PemObject as _, SectionKind};

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
    /// The crypto provider has no protocol version in common with rustls: a mistake of ours.
    #[error("cannot set TLS up")]
    Provider(#[source] rustls::Error),
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
}
