//! Tells which credentials are the same key at DataPulse's, without a value: by keyed hashes, whose
//! key ends with the process.

use std::fmt;
use std::sync::LazyLock;

use ring::{digest, hmac};

use crate::secret::SecretValue;

/// Which key a credential's tokens come from: equal for equal secrets of the same client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyPrint([u8; digest::SHA256_OUTPUT_LEN]);

impl KeyPrint {
    /// `client` is the public name that the secret belongs to, where it has one.
    #[must_use]
    pub fn new(client: &str, secret: &SecretValue) -> Option<Self> {
        let mut context = hmac::Context::with_key(key()?);
        // A secret holds no such byte, and neither does a name.
        context.update(client.as_bytes());
        context.update(&[0]);
        context.update(secret.expose());
        context.sign().as_ref().try_into().ok().map(Self)
    }
}

impl fmt::Debug for KeyPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPrint")
    }
}

/// Eight hexadecimal digits that tell tokens apart in audit lines.
pub(super) fn fingerprint(value: &SecretValue) -> String {
    let Some(key) = key() else { return "unknown".to_owned() };
    let tag = hmac::sign(key, value.expose());
    tag.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// `None` without randomness: an unkeyed hash could be compared with guesses.
fn key() -> Option<&'static hmac::Key> {
    static KEY: LazyLock<Option<hmac::Key>> = LazyLock::new(|| {
        hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new()).ok()
    });
    KEY.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_secret_of_the_same_client_is_the_same_key() {
        let print = |client: &str, secret: &str| {
            KeyPrint::new(client, &SecretValue::new(secret.into())).unwrap()
        };
        assert_eq!(print("", "k"), print("", "k"));
        assert_ne!(print("", "k"), print("", "l"));
        assert_ne!(print("a", "k"), print("b", "k"));
        assert_ne!(print("a", "bk"), print("ab", "k"));
        assert_eq!(format!("{:?}", print("", "dp_live_canary")), "KeyPrint");
    }
}
