//! The mark on a secret that was sent to be used up, and whose answer did not come: it may be used up, so
//! that nobody who shares it ever sends it again.
//!
//! It stands in the store, in the secret's place and with the secret behind it. Another secret there, such
//! as a login writes, ends it; and whoever knows that the issuer did nothing can take it off by hand.

use crate::secret::SecretValue;

/// No issuer's tokens begin like this.
const MARK: &[u8] = b"datapulse-sidecar-answer-lost:";

/// The secret with the mark.
pub(super) fn marked(secret: &SecretValue) -> SecretValue {
    SecretValue::new([MARK, secret.expose()].concat())
}

/// Whether what is stored has the mark.
pub(super) fn is_marked(stored: &SecretValue) -> bool {
    stored.expose().starts_with(MARK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_can_be_stored_as_a_secret_is_and_taken_off_by_hand() {
        let secret = SecretValue::new(b"dp_rt_1".to_vec());
        assert!(!is_marked(&secret));
        let marked = marked(&secret);
        assert!(is_marked(&marked));
        let stored = SecretValue::for_header(marked.expose().to_vec()).unwrap();
        assert_eq!(stored.expose_str(), Some("datapulse-sidecar-answer-lost:dp_rt_1"));
    }
}
