//! The name of the place where a secret is kept: `file:…`, `env:…`, `vault:…`, `aws:…`.
//!
//! Parsed once, when the configuration is read. No error repeats the text: it may be a pasted secret.

use std::fmt;
use std::path::PathBuf;

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
    /// `vault:<mount>/<path>#<field>`. Where the mount ends, Vault knows: it may have slashes in it.
    Vault {
        /// Mount and path, at least two segments; without the `data/` of KV v2's own URLs.
        path: String,
        /// A top-level field of the secret.
        field: String,
    },
    /// `aws:<name or ARN>[@AWSPREVIOUS]#<json key>`; without a key the whole text is the secret.
    Aws {
        /// A name or an ARN, as AWS takes it.
        id: String,
        /// Which version.
        stage: AwsStage,
        /// A top-level key of the JSON object in the secret.
        key: Option<String>,
    },
}

/// Which version of a secret in AWS Secrets Manager. A pending one is never used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AwsStage {
    /// `AWSCURRENT`, unless the reference says otherwise.
    Current,
    /// `AWSPREVIOUS`: for `fallback` and for webhooks.
    Previous,
}

impl AwsStage {
    /// As AWS writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "AWSCURRENT",
            Self::Previous => "AWSPREVIOUS",
        }
    }
}

/// Why a text is no usable secret reference. Never holds the text: it may be a pasted secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretRefError {
    /// No known scheme in front: most likely the secret itself was written into the file.
    #[error(
        "expected a reference to a secret (vault:MOUNT/PATH#FIELD, aws:NAME#KEY, file:PATH, file:PATH#KEY or env:NAME), not a secret itself"
    )]
    Inline,
    /// A scheme with nothing behind it, or an empty key.
    #[error("the reference names nothing; write file:PATH, file:PATH#KEY or env:NAME")]
    Empty,
    /// The name is no environment variable name.
    #[error(
        "an environment variable's name is letters, digits and `_`, and does not begin with a digit"
    )]
    EnvName,
    /// A file's name has no line break in it.
    #[error("a file's path is not empty, and has no line break in it")]
    FilePath,
    /// Only a mount, or something that is no path.
    #[error(
        "a secret in Vault is vault:MOUNT/PATH#FIELD: at least two segments, none of them empty, `.` or `..`, and none of `?`, `%`, `*` or a line break"
    )]
    VaultPath,
    /// A secret in Vault is a set of fields; one of them has to be named.
    #[error("a secret in Vault has fields: name one, vault:MOUNT/PATH#FIELD")]
    VaultField,
    /// AWS takes no such name.
    #[error(
        "a secret in AWS is aws:NAME, aws:NAME#KEY or the same with an ARN; a name has letters, digits and /_+=.@-"
    )]
    AwsName,
    /// An ARN of something else, or half of one.
    #[error(
        "the ARN is none of a secret; one is arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX"
    )]
    AwsArn,
    /// A stage that is not to be used, or none at all.
    #[error("after `@` stands AWSCURRENT or AWSPREVIOUS; a pending version is never used")]
    AwsStage,
}

impl SecretRef {
    /// Parses a reference; `expand` replaces variables in its path, and gives `None` where it cannot
    /// and has said why. What it gives is not split again.
    ///
    /// # Errors
    /// See [`SecretRefError`].
    pub fn parse(
        text: &str,
        expand: impl FnOnce(&str) -> Option<String>,
    ) -> Result<Option<Self>, SecretRefError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(SecretRefError::Inline);
        };
        let (path, key) = match rest.split_once('#') {
            Some((path, key)) => (path, Some(key)),
            None => (rest, None),
        };
        match scheme {
            "file" if path.is_empty() || key == Some("") => Err(SecretRefError::Empty),
            "file" => expand(path).map(|path| Self::in_file(&path, key)).transpose(),
            "env" => Self::in_environment(rest).map(Some),
            "vault" if key.is_none_or(str::is_empty) => Err(SecretRefError::VaultField),
            "vault" => {
                expand(path).map(|path| Self::in_vault(&path, key.unwrap_or_default())).transpose()
            }
            "aws" if path.is_empty() || key == Some("") => Err(SecretRefError::AwsName),
            "aws" => {
                let (id, stage) = staged(path)?;
                expand(id).map(|id| Self::in_aws(&id, stage, key)).transpose()
            }
            _ => Err(SecretRefError::Inline),
        }
    }

    fn in_file(path: &str, key: Option<&str>) -> Result<Self, SecretRefError> {
        if path.is_empty() || path.contains(char::is_control) {
            return Err(SecretRefError::FilePath);
        }
        Ok(Self::File { path: PathBuf::from(path), key: key.map(str::to_owned) })
    }

    fn in_environment(name: &str) -> Result<Self, SecretRefError> {
        let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if name.is_empty() {
            return Err(SecretRefError::Empty);
        }
        if !word || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(SecretRefError::EnvName);
        }
        Ok(Self::Env { name: name.to_owned() })
    }

    fn in_vault(path: &str, field: &str) -> Result<Self, SecretRefError> {
        let plain = |c: char| !c.is_control() && !matches!(c, '?' | '%' | '*' | '#' | '\\');
        let segments = path.split('/');
        let usable = segments.clone().count() >= 2
            && segments.clone().all(|one| !matches!(one, "" | "." | ".."))
            && path.chars().all(plain);
        if !usable {
            return Err(SecretRefError::VaultPath);
        }
        Ok(Self::Vault { path: path.to_owned(), field: field.to_owned() })
    }

    fn in_aws(id: &str, stage: AwsStage, key: Option<&str>) -> Result<Self, SecretRefError> {
        let is_arn = id.starts_with("arn:");
        let plain = |b: u8| {
            b.is_ascii_alphanumeric()
                || matches!(b, b'/' | b'_' | b'+' | b'=' | b'.' | b'@' | b'-')
                || (is_arn && b == b':')
        };
        if id.is_empty() || id.len() > 2048 || !id.bytes().all(plain) {
            return Err(SecretRefError::AwsName);
        }
        if is_arn && !is_secrets_arn(id) {
            return Err(SecretRefError::AwsArn);
        }
        Ok(Self::Aws { id: id.to_owned(), stage, key: key.map(str::to_owned) })
    }
}

/// `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME`, in whatever partition.
fn is_secrets_arn(id: &str) -> bool {
    let parts: Vec<&str> = id.split(':').collect();
    let of_a_secret = matches!(parts.as_slice(), ["arn", _, "secretsmanager", _, _, "secret", _]);
    of_a_secret && parts.iter().all(|part| !part.is_empty())
}

/// The region in an ARN; a name has none.
#[must_use]
pub fn region_of(id: &str) -> Option<&str> {
    id.strip_prefix("arn:")?.split(':').nth(2)
}

/// A name in AWS without the stage behind it. An `@` may be part of a name, unless AWS' own word
/// follows.
fn staged(path: &str) -> Result<(&str, AwsStage), SecretRefError> {
    match path.rsplit_once('@') {
        Some((id, "AWSCURRENT")) => Ok((id, AwsStage::Current)),
        Some((id, "AWSPREVIOUS")) => Ok((id, AwsStage::Previous)),
        Some((_, stage)) if stage.is_empty() || stage.starts_with("AWS") => {
            Err(SecretRefError::AwsStage)
        }
        _ => Ok((path, AwsStage::Current)),
    }
}

impl std::str::FromStr for SecretRef {
    type Err = SecretRefError;

    /// As [`Self::parse`], with nothing replaced.
    fn from_str(text: &str) -> Result<Self, SecretRefError> {
        Self::parse(text, |path| Some(path.to_owned()))?.ok_or(SecretRefError::Empty)
    }
}

impl fmt::Display for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = match self {
            Self::File { path, key } => {
                write!(f, "file:{}", path.display())?;
                key.as_deref()
            }
            Self::Env { name } => {
                write!(f, "env:{name}")?;
                None
            }
            Self::Vault { path, field } => {
                write!(f, "vault:{path}")?;
                Some(field.as_str())
            }
            Self::Aws { id, stage, key } => {
                write!(f, "aws:{id}")?;
                if *stage != AwsStage::Current {
                    write!(f, "@{}", stage.as_str())?;
                }
                key.as_deref()
            }
        };
        key.map_or(Ok(()), |key| write!(f, "#{key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_as_it_was_written() {
        for text in [
            "file:/run/secrets/key",
            "file:key.json#api_key",
            "env:DP_KEY",
            "vault:secret/datapulse/billing#api_key",
            "vault:team/kv/a b#api key",
            "aws:prod/datapulse",
            "aws:prod/datapulse#client_secret",
            "aws:me@example.com#k",
            "aws:prod/datapulse@AWSPREVIOUS#k",
            "aws:arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/datapulse-AbCdEf@AWSPREVIOUS",
        ] {
            assert_eq!(text.parse::<SecretRef>().unwrap().to_string(), text);
        }
        let current: SecretRef = "aws:a@AWSCURRENT#k".parse().unwrap();
        assert_eq!(current.to_string(), "aws:a#k");
    }

    #[test]
    fn an_arn_says_its_region_and_a_name_does_not() {
        let arn = "arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:prod/a-AbCdEf";
        assert_eq!(region_of(arn), Some("cn-north-1"));
        assert_eq!(region_of("prod/datapulse"), None);
    }

    #[test]
    fn a_pasted_secret_is_no_reference_and_is_not_repeated() {
        for text in ["dp_live_canary", "https://canary", "canary:x", ""] {
            let error = text.parse::<SecretRef>().unwrap_err();
            assert_eq!(error, SecretRefError::Inline, "{text}");
            assert!(!error.to_string().contains("canary"));
        }
    }

    #[test]
    fn each_way_to_name_nothing_is_told_apart() {
        use SecretRefError::{AwsArn, AwsName, AwsStage, Empty, EnvName, VaultField, VaultPath};
        for (text, want) in [
            ("file:", Empty),
            ("file:/x#", Empty),
            ("env:", Empty),
            ("env:1X", EnvName),
            ("vault:secret/billing", VaultField),
            ("vault:secret/billing#", VaultField),
            ("vault:secret#key", VaultPath),
            ("vault:/secret/billing#key", VaultPath),
            ("vault:secret/billing/#key", VaultPath),
            ("vault:secret/../sys/raw#key", VaultPath),
            ("vault:secret/a?version=1#key", VaultPath),
            ("vault:secret/a%2fb#key", VaultPath),
            ("vault:secret/a\n#key", VaultPath),
            ("aws:", AwsName),
            ("aws:a#", AwsName),
            ("aws:two words", AwsName),
            ("aws:a:b", AwsName),
            ("aws:@AWSPREVIOUS", AwsName),
            ("aws:arn:aws:s3:::bucket", AwsArn),
            ("aws:arn:aws:secretsmanager:eu-west-1:1:secret", AwsArn),
            ("aws:arn:aws:secretsmanager::1:secret:a-AbCdEf", AwsArn),
            ("aws:a@", AwsStage),
            ("aws:a@AWSPENDING#k", AwsStage),
        ] {
            assert_eq!(text.parse::<SecretRef>(), Err(want), "{text}");
        }
    }

    #[test]
    fn variables_are_replaced_in_the_path_alone_and_split_nothing() {
        let parse = |text: &str| {
            SecretRef::parse(text, |path| Some(path.replace("${V}", "x#y@AWSPREVIOUS")))
        };
        let file = parse("file:/${V}#${V}").unwrap().unwrap();
        assert_eq!(
            file,
            SecretRef::File { path: "/x#y@AWSPREVIOUS".into(), key: Some("${V}".to_owned()) }
        );
        assert_eq!(parse("vault:secret/${V}#k"), Err(SecretRefError::VaultPath));
        assert_eq!(parse("aws:${V}"), Err(SecretRefError::AwsName));
        assert_eq!(SecretRef::parse("vault:a/${X}#k", |_| None), Ok(None));
    }
}
