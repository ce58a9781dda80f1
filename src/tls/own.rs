//! A certificate of our own with its key: what we show to others, checked before anybody sees it.
//!
//! Nothing of a key is ever printed. What is checked here cannot make pingora panic, which parses
//! certificates and keys anew and believes that it can.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::secret::SecretValue;

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

impl OwnCertificate {
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
    let text = String::from_utf8_lossy(pem);
    let encrypted = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];
    if encrypted.iter().any(|mark| text.contains(mark)) {
        return Err(OwnCertificateError::EncryptedKey);
    }
    Err(OwnCertificateError::NoKey)
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
