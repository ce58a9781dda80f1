//! A secret that cannot be printed, and the name of the place where it is kept.
//!
//! Nothing here may give a secret a `Display`, a telling `Debug`, or a serde impl. The bytes leave
//! through [`SecretValue::expose`] alone; `tests/tidy.rs` lists the files that may call it.

use std::fmt;
use std::path::PathBuf;

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
    /// A byte that cannot stand in an HTTP header: a line end inside, a control character, or
    /// anything that is not visible ASCII. Write the secret again without it.
    #[error(
        "it holds a character that cannot stand in an HTTP header (a line break, a space, a control character, or one that is not ASCII)"
    )]
    NotHeaderSafe,
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
        if !trimmed.iter().all(u8::is_ascii_graphic) {
            return Err(SecretProblem::NotHeaderSafe);
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

/// Names a secret: which store, where in it. Parsed once, when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SecretRef {
    /// `file:<path>#<json key>`; without a key the whole file is the secret.
    File {
        /// Absolute, or relative to the working directory.
        path: PathBuf,
        /// A top-level key of the JSON object in the file.
        key: Option<String>,
    },
    /// `env:<NAME>`: for local development.
    Env {
        /// The variable's name.
        name: String,
    },
}

/// Why a text is no usable secret reference. Never holds the text: it may be a pasted secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// No known scheme in front: most likely the secret itself was written into the file.
    #[error(
        "expected a reference to a secret (file:PATH, file:PATH#KEY or env:NAME), not a secret itself"
    )]
    Inline,
    /// `vault:` and `aws:` are part of the format, and come later.
    #[error("secrets in Vault (vault:) are not supported yet; use file: or env:")]
    Vault,
    /// As above.
    #[error("secrets in AWS Secrets Manager (aws:) are not supported yet; use file: or env:")]
    Aws,
    /// A scheme with nothing behind it, or an empty key.
    #[error("the reference names nothing; write file:PATH, file:PATH#KEY or env:NAME")]
    Empty,
    /// The name is no environment variable name.
    #[error(
        "an environment variable's name is letters, digits and `_`, and does not begin with a digit"
    )]
    EnvName,
}

impl std::str::FromStr for SecretRef {
    type Err = SecretRefError;

    fn from_str(text: &str) -> Result<Self, SecretRefError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(SecretRefError::Inline);
        };
        match scheme {
            "file" => {
                let (path, key) = match rest.split_once('#') {
                    Some((path, key)) => (path, Some(key)),
                    None => (rest, None),
                };
                if path.is_empty() || key == Some("") {
                    return Err(SecretRefError::Empty);
                }
                Ok(Self::File { path: PathBuf::from(path), key: key.map(str::to_owned) })
            }
            "env" if rest.is_empty() => Err(SecretRefError::Empty),
            "env" => {
                let word = rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                if !word || rest.starts_with(|c: char| c.is_ascii_digit()) {
                    return Err(SecretRefError::EnvName);
                }
                Ok(Self::Env { name: rest.to_owned() })
            }
            "vault" => Err(SecretRefError::Vault),
            "aws" => Err(SecretRefError::Aws),
            _ => Err(SecretRefError::Inline),
        }
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, key: None } => write!(f, "file:{}", path.display()),
            Self::File { path, key: Some(key) } => write!(f, "file:{}#{key}", path.display()),
            Self::Env { name } => write!(f, "env:{name}"),
        }
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
    fn a_reference_reads_back_as_it_was_written() {
        for text in ["file:/run/secrets/key", "file:key.json#api_key", "env:DP_KEY"] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_pasted_secret_is_no_reference_and_is_not_repeated() {
        for text in ["dp_live_canary", "https://canary", "canary:x", ""] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert_eq!(error, SecretRefError::Inline, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
        assert_eq!("file:".parse::<SecretRef>(), Err(SecretRefError::Empty));
        assert_eq!("file:/x#".parse::<SecretRef>(), Err(SecretRefError::Empty));
        assert_eq!("env:".parse::<SecretRef>(), Err(SecretRefError::Empty));
        assert_eq!("env:1X".parse::<SecretRef>(), Err(SecretRefError::EnvName));
        assert_eq!("vault:a/b#c".parse::<SecretRef>(), Err(SecretRefError::Vault));
        assert_eq!("aws:a#c".parse::<SecretRef>(), Err(SecretRefError::Aws));
    }
}
