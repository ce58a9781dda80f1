//! A certificate of our own with its key: what we show to others, checked before anybody sees it.
//!
//! Nothing of a key is ever printed. What is checked here cannot make pingora panic, which parses
//! certificates and keys anew and believes that it can.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::secret::{SECRET_BYTES_MAX, SecretValue};

/// A chain with the key of its first certificate.
pub struct OwnCertificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certified: Arc<CertifiedKey>,
    expires_at: i64,
}

/// Why a certificate or its key cannot be used. Tells nothing of what is in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OwnCertificateError {
    /// No `BEGIN CERTIFICATE` block: write the chain as PEM, ours first.
    #[error("there is no certificate in PEM (BEGIN CERTIFICATE)")]
    NoCertificate,
    /// Broken PEM, or a block that is no certificate: write it again.
    #[error("certificate {position} cannot be parsed")]
    BadCertificate {
        /// Counted from 1.
        position: usize,
    },
    /// No `BEGIN PRIVATE KEY` block: write the key as PEM.
    #[error("there is no private key in PEM (BEGIN PRIVATE KEY, RSA or EC PRIVATE KEY)")]
    NoKey,
    /// The key has a passphrase, which nobody could type in: store it without one.
    #[error("the private key is encrypted; keep it without a passphrase")]
    EncryptedKey,
    /// Broken, or of a sort that TLS has no use for: RSA from 2048 bits, ECDSA P-256 and P-384, and
    /// Ed25519 work.
    #[error("the private key cannot be used: RSA from 2048 bits, ECDSA P-256 or P-384, or Ed25519")]
    UnusableKey,
    /// One of the two is another's: write both again.
    #[error("the private key is not the certificate's")]
    Mismatch,
}

/// Why the files of a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnFileError {
    /// Check the path and the permissions.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// They were read: see the cause.
    #[error("{files}")]
    Unusable {
        /// Which files.
        files: Box<str>,
        /// What is wrong with them.
        #[source]
        cause: OwnCertificateError,
    },
}

impl OwnCertificate {
    /// Reads both from their files: for start-up and reloads, not for the request path.
    ///
    /// # Errors
    /// See [`OwnFileError`].
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, OwnFileError> {
        let own = Self::from_pem(&read(certificate)?, &read(key)?);
        own.map_err(|cause| {
            let files = format!("{}, {}", certificate.display(), key.display()).into();
            OwnFileError::Unusable { files, cause }
        })
    }

    /// Reads both from PEM. What else is in either is left alone.
    ///
    /// # Errors
    /// See [`OwnCertificateError`].
    pub fn from_pem(
        certificates: &SecretValue,
        key: &SecretValue,
    ) -> Result<Self, OwnCertificateError> {
        let chain = chain(certificates.expose())?;
        let expires_at = expiry(&chain)?;
        let key = private_key(key.expose())?;
        let certified =
            CertifiedKey::from_der(chain.clone(), key.clone_key(), &ring::default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => OwnCertificateError::Mismatch,
            _ => OwnCertificateError::UnusableKey,
        })?;
        Ok(Self { chain, key, certified: Arc::new(certified), expires_at })
    }

    /// Ours first. At least one; each can be parsed.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The key of the first.
    #[must_use]
    pub const fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }

    /// Both as rustls takes them.
    #[must_use]
    pub const fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }

    /// What a server that shows it says and takes: HTTP/1.1, TLS 1.2 and 1.3, and no certificate of
    /// the other side's. The keys of its sessions are never logged.
    ///
    /// # Errors
    /// When rustls and its provider have no protocol in common, which only a bug can bring about.
    pub fn server_config(&self) -> Result<ServerConfig, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let shown = SingleCertAndKey::from(Arc::clone(&self.certified));
        let mut config = builder.with_cert_resolver(Arc::new(shown));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// When it ends, in Unix seconds.
    #[must_use]
    pub const fn expires_at(&self) -> i64 {
        self.expires_at
    }
}

impl fmt::Debug for OwnCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnCertificate")
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// As much of a file as a chain or a key may have.
fn read(path: &Path) -> Result<SecretValue, OwnFileError> {
    let unreadable = |source| OwnFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    // Room for all of it from the start: a buffer that grows leaves copies of a key behind.
    let mut text = Vec::with_capacity(SECRET_BYTES_MAX);
    let limit = u64::try_from(SECRET_BYTES_MAX).unwrap_or(u64::MAX);
    let outcome = file.take(limit).read_to_end(&mut text);
    let text = SecretValue::new(text);
    outcome.map_err(unreadable).map(|_length| text)
}

fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, OwnCertificateError> {
    let mut chain = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let bad = OwnCertificateError::BadCertificate { position: chain.len() + 1 };
        let (kind, der) = section.map_err(|_broken| bad)?;
        if kind == SectionKind::Certificate {
            // As pingora does, which gives up on one that it cannot parse.
            X509Certificate::from_der(&der).map_err(|_broken| bad)?;
            chain.push(CertificateDer::from(der));
        }
    }
    if chain.is_empty() { Err(OwnCertificateError::NoCertificate) } else { Ok(chain) }
}

/// When the first certificate ends.
fn expiry(chain: &[CertificateDer<'static>]) -> Result<i64, OwnCertificateError> {
    let own = chain.first().ok_or(OwnCertificateError::NoCertificate)?;
    let parsed = X509Certificate::from_der(own);
    let (_, own) = parsed.map_err(|_broken| OwnCertificateError::BadCertificate { position: 1 })?;
    Ok(own.validity().not_after.timestamp())
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, OwnCertificateError> {
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem) {
        // As pingora does, which tells the sort of key by its first bytes.
        let told = PrivateKeyDer::try_from(key.secret_der());
        return match told {
            Ok(told) if told == key => Ok(key),
            _ => Err(OwnCertificateError::UnusableKey),
        };
    }
    let has_password = has_password(pem);
    Err(if has_password { OwnCertificateError::EncryptedKey } else { OwnCertificateError::NoKey })
}

/// Whether there is a key in PEM that a password protects, which nobody could type in.
pub(crate) fn has_password(pem: &[u8]) -> bool {
    let holds = |mark: &[u8]| pem.windows(mark.len()).any(|part| part == mark);
    holds(b"-----BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (pair.cert.pem(), pair.signing_key.serialize_pem())
    }

    fn read(certificates: &str, key: &str) -> Result<OwnCertificate, OwnCertificateError> {
        OwnCertificate::from_pem(
            &SecretValue::new(certificates.into()),
            &SecretValue::new(key.into()),
        )
    }

    #[test]
    fn a_chain_and_its_key_are_read_together() {
        let ((certificate, key), (other, _)) = (pair(), pair());
        let own = read(&format!("{certificate}{other}"), &key).unwrap();
        assert_eq!(own.chain().len(), 2);
        assert!(own.expires_at() > 1_700_000_000);
        assert!(!format!("{own:?}").contains("key"), "{own:?}");
        let both = format!("{certificate}{key}");
        assert_eq!(read(&both, &both).unwrap().chain().len(), 1);
    }

    #[test]
    fn what_cannot_work_is_told_apart() {
        use OwnCertificateError::*;
        let ((certificate, key), (other, _)) = (pair(), pair());
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let half = &certificate[..certificate.len() / 2];
        let encrypted =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        let empty = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let renamed = key.replace("PRIVATE KEY", "RSA PRIVATE KEY");
        for (certificates, key, want) in [
            ("", &*key, NoCertificate),
            (&*key, &*key, NoCertificate),
            (broken, &*key, BadCertificate { position: 1 }),
            (&*format!("{certificate}{broken}"), &*key, BadCertificate { position: 2 }),
            (half, &*key, BadCertificate { position: 1 }),
            (&*certificate, "", NoKey),
            (&*certificate, &*certificate, NoKey),
            (&*certificate, encrypted, EncryptedKey),
            (&*certificate, empty, UnusableKey),
            (&*certificate, &*renamed, UnusableKey),
            (&*other, &*key, Mismatch),
        ] {
            assert_eq!(read(certificates, key).map(drop).unwrap_err(), want, "{certificates}");
        }
    }
}
