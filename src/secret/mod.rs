//! A secret that cannot be printed, and the name of the place where it is kept.
//!
//! Nothing here may give a secret a `Display`, a telling `Debug`, or a serde impl. The bytes leave
//! through [`SecretValue::expose`] alone; `tests/tidy.rs` lists the files that may call it.

mod reference;

use std::fmt;

pub use reference::{AwsStage, SecretRef, SecretRefError, region_of};
use secrecy::{ExposeSecret as _, SecretSlice};

/// The largest secret that is read from any store, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

/// Secret bytes: wiped when dropped, printed as `[redacted]`.
#[derive(Clone)]
pub struct SecretValue(SecretSlice<u8>);

/// Why bytes that a store handed out cannot be used as a secret. Says nothing about their content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    /// Nothing is there, or only a line end.
    #[error("it is empty")]
    Empty,
    /// More than [`SECRET_BYTES_MAX`] bytes: hardly a credential.
    #[error("it is larger than 64 KiB")]
    TooLarge,
    /// Bytes that their store does not take for a text: store it as one.
    #[error("it is binary; store it as a text")]
    Binary,
    /// A byte that cannot stand in an HTTP header: a line end inside, a control character, or
    /// anything that is not visible ASCII. Write the secret again without it.
    #[error(
        "it holds a character that cannot stand in an HTTP header (a line break, a space, a control character, or one that is not ASCII)"
    )]
    NotHeaderSafe,
    /// A document that is no text: write it as PEM or JSON.
    #[error("it is no text (UTF-8 without control characters), as PEM and JSON are")]
    NotText,
}

impl SecretValue {
    /// Takes raw bytes as they are, for secrets that never stand in a header.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(SecretSlice::from(bytes))
    }

    /// Takes what a store handed out for use in a header: one trailing line end is trimmed, and
    /// everything left must be visible ASCII (RFC 6750 section 2.1 allows no more).
    ///
    /// # Errors
    /// Says what is wrong with the bytes, never what they are.
    pub fn for_header(bytes: Vec<u8>) -> Result<Self, SecretProblem> {
        let value = Self::trimmed(bytes)?;
        if value.expose().iter().all(u8::is_ascii_graphic) {
            Ok(value)
        } else {
            Err(SecretProblem::NotHeaderSafe)
        }
    }

    /// Takes what a store handed out that is text of several lines, such as a key in PEM or a JSON
    /// object: one trailing line end is trimmed. It can stand in no header.
    ///
    /// # Errors
    /// Says what is wrong with the bytes, never what they are.
    pub fn document(bytes: Vec<u8>) -> Result<Self, SecretProblem> {
        let value = Self::trimmed(bytes)?;
        let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
        if value.expose_str().is_some_and(|text| !text.contains(is_control)) {
            Ok(value)
        } else {
            Err(SecretProblem::NotText)
        }
    }

    /// Of a size that is believed, and without one trailing line end.
    fn trimmed(bytes: Vec<u8>) -> Result<Self, SecretProblem> {
        // Owned from the start, so that a refused value is wiped as well.
        let raw = Self::new(bytes);
        if raw.expose().len() > SECRET_BYTES_MAX {
            return Err(SecretProblem::TooLarge);
        }
        let trimmed = match raw.expose() {
            [head @ .., b'\r', b'\n'] | [head @ .., b'\n'] => head,
            all => all,
        };
        if trimmed.is_empty() {
            return Err(SecretProblem::Empty);
        }
        Ok(if trimmed.len() == raw.expose().len() { raw } else { Self::new(trimmed.to_vec()) })
    }

    /// The bytes. Each caller is listed in `tests/tidy.rs`.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that opens the box")]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// The bytes as text, where they are UTF-8 (a value made by [`Self::for_header`] always is).
    #[must_use]
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(self.expose()).ok()
    }
}

impl PartialEq for SecretValue {
    /// Equality in constant time for equal lengths.
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.expose(), other.expose());
        a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
    }
}

impl Eq for SecretValue {}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints() {
        let secret = SecretValue::new(b"dp_live_canary".to_vec());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(format!("{:?}", Some(&secret)), "Some([redacted])");
    }

    #[test]
    fn one_line_end_is_trimmed_and_no_more() {
        let read = |text: &str| SecretValue::for_header(text.as_bytes().to_vec());
        for (text, want) in [("k", "k"), ("k\n", "k"), ("k\r\n", "k")] {
            assert_eq!(read(text).unwrap().expose_str(), Some(want), "{text:?}");
        }
        assert_eq!(read("").unwrap_err(), SecretProblem::Empty);
        assert_eq!(read("\n").unwrap_err(), SecretProblem::Empty);
        for text in ["k\n\n", "a\nb", "a b", " k", "k\r", "k\0", "k\u{e9}", "k\t"] {
            assert_eq!(read(text).unwrap_err(), SecretProblem::NotHeaderSafe, "{text:?}");
        }
        assert_eq!(read(&"x".repeat(SECRET_BYTES_MAX + 1)).unwrap_err(), SecretProblem::TooLarge);
    }

    #[test]
    fn a_document_keeps_its_lines() {
        for text in ["-----BEGIN PRIVATE KEY-----\nAAAA\n-----END", "{\r\n\t\"a\": \"\u{e9}\"}"] {
            let document = SecretValue::document(format!("{text}\n").into()).unwrap();
            assert_eq!(document.expose_str(), Some(text));
        }
        let read = |bytes: &[u8]| SecretValue::document(bytes.to_vec()).unwrap_err();
        assert_eq!(read(b"\n"), SecretProblem::Empty);
        assert_eq!(read(b"a\0"), SecretProblem::NotText);
        assert_eq!(read(b"a\x80"), SecretProblem::NotText);
    }
}
