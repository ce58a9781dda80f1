//! Proof that whoever exchanges a code is who asked for it (RFC 7636), with S256 alone.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::secret::SecretValue;

/// The system gives no randomness, without which nobody can log in safely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no randomness")]
pub struct NoRandomness;

/// 256 random bits as 43 characters that can stand in a URL.
pub(super) fn random() -> Result<String, NoRandomness> {
    let mut random = [0; 32];
    SystemRandom::new().fill(&mut random).map_err(|_unspecified| NoRandomness)?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// What is shown of a verifier before the verifier is (section 4.2).
pub(super) fn challenge(verifier: &SecretValue) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.expose()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_appendix_b() {
        let verifier = SecretValue::new(b"dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_vec());
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let (one, other) = (random().unwrap(), random().unwrap());
        assert!(one.len() == 43 && one != other);
    }
}
