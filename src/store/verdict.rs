//! What follows from a [`StoreError`]: whose fault it is, when to try again, and its word in metrics.

use std::io;
use std::time::Duration;

use super::StoreError;
use crate::secret::SecretRef;
use crate::telemetry::error_chain;

/// Between two tries of what a store refuses: nothing changes until somebody changes it.
pub(super) const DENIED_WAIT: Duration = Duration::from_secs(60);

impl StoreError {
    /// Whether it may go away without anybody changing what is stored or allowed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreadable { source, .. } => source.kind() != io::ErrorKind::PermissionDenied,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Unavailable { .. }
            | Self::NoIdentity { .. }
            | Self::NotAnAnswer { .. }
            | Self::TooLarge { .. }
            | Self::Redirected { .. }
            | Self::Claimed { .. } => true,
            Self::Missing { .. }
            | Self::Deleted { .. }
            | Self::NotAFile { .. }
            | Self::NotJson { .. }
            | Self::NoSuchKey { .. }
            | Self::NotAString { .. }
            | Self::Unusable { .. }
            | Self::WrongEngine { .. }
            | Self::OtherRegion { .. }
            | Self::Denied { .. }
            | Self::LoginRefused { .. }
            | Self::ReadOnly { .. }
            | Self::Unwritable { .. }
            | Self::Conflict { .. }
            | Self::NotConfigured { .. }
            | Self::OtherStore { .. } => false,
        }
    }

    /// The same of another secret, where it is one of the store or of the way in. What was behind it is
    /// told, and is no error of its own any more.
    pub(super) fn of_another(&self, at: &SecretRef) -> Self {
        let at = at.clone();
        let told = |source: &dyn std::error::Error| error_chain(source).into();
        match self {
            Self::Unreachable { reason, source, .. } => {
                Self::Unreachable { at, reason, source: told(&**source) }
            }
            Self::Timeout { .. } => Self::Timeout { at },
            Self::Unavailable { reason, retry_after, .. } => {
                Self::Unavailable { at, reason, retry_after: *retry_after }
            }
            Self::Denied { reason, .. } => Self::Denied { at, reason },
            Self::LoginRefused { reason, .. } => Self::LoginRefused { at, reason },
            Self::NoIdentity { source, .. } => Self::NoIdentity { at, source: told(&**source) },
            Self::TooLarge { .. } => Self::TooLarge { at },
            Self::Redirected { .. } => Self::Redirected { at },
            _ => Self::NotAnAnswer { at },
        }
    }

    /// How long to leave the store alone at least, where backoff alone would not do.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Denied { .. } | Self::LoginRefused { .. } => Some(DENIED_WAIT),
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the store itself could not be used, whatever the secret: `store_up` is 0 then.
    #[must_use]
    pub const fn is_about_the_store(&self) -> bool {
        matches!(
            self,
            Self::Unreadable { .. }
                | Self::Unreachable { .. }
                | Self::Timeout { .. }
                | Self::Unavailable { .. }
                | Self::Denied { .. }
                | Self::LoginRefused { .. }
                | Self::NoIdentity { .. }
                | Self::NotAnAnswer { .. }
                | Self::TooLarge { .. }
                | Self::Redirected { .. }
                | Self::NotConfigured { .. }
        )
    }

    /// Whether the store answered that there is nothing to be had under this name: what was read
    /// before stays in use, and a gauge says that it is missing.
    #[must_use]
    pub const fn is_about_the_secret(&self) -> bool {
        matches!(
            self,
            Self::Missing { .. }
                | Self::Deleted { .. }
                | Self::NotAFile { .. }
                | Self::NotJson { .. }
                | Self::NoSuchKey { .. }
                | Self::NotAString { .. }
                | Self::Unusable { .. }
                | Self::WrongEngine { .. }
                | Self::OtherRegion { .. }
        )
    }

    /// Whether nothing is there yet, or not any more: it has to be put there.
    #[must_use]
    pub const fn is_absence(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Deleted { .. } | Self::NoSuchKey { .. })
    }

    /// The kind as a metric label.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Deleted { .. } => "deleted",
            Self::Unreadable { .. } => "unreadable",
            Self::NotAFile { .. } => "not_a_file",
            Self::NotJson { .. } => "not_json",
            Self::NoSuchKey { .. } => "no_such_key",
            Self::NotAString { .. } => "not_a_string",
            Self::Unusable { .. } => "unusable",
            Self::WrongEngine { .. } => "wrong_engine",
            Self::OtherRegion { .. } => "other_region",
            Self::Unreachable { reason, .. }
            | Self::Unavailable { reason, .. }
            | Self::Denied { reason, .. }
            | Self::LoginRefused { reason, .. } => reason,
            Self::Timeout { .. } => "timeout",
            Self::NoIdentity { .. } => "no_identity",
            Self::NotAnAnswer { .. } => "not_an_answer",
            Self::TooLarge { .. } => "too_large",
            Self::Redirected { .. } => "redirected",
            Self::ReadOnly { .. } => "read_only",
            Self::Unwritable { .. } => "unwritable",
            Self::Conflict { .. } => "conflict",
            Self::Claimed { .. } => "claimed",
            Self::NotConfigured { .. } => "not_configured",
            Self::OtherStore { .. } => "other_store",
        }
    }
}

#[cfg(test)]
mod tests {
    /// What is written here between each of these and the next quotation mark.
    fn words<'t>(source: &'t str, after: &str) -> Vec<&'t str> {
        source.split(after).skip(1).filter_map(|rest| rest.split('"').next()).collect()
    }

    /// Of files and of writing.
    const NEITHER: [&str; 8] = [
        "unreadable",
        "not_a_file",
        "read_only",
        "unwritable",
        "conflict",
        "claimed",
        "not_configured",
        "other_store",
    ];

    #[test]
    fn each_word_for_a_failed_read_stands_in_the_table_of_its_store() {
        let ours = include_str!("verdict.rs").split("mod tests").next().unwrap();
        let kinds = words(ours, "=> \"");
        assert!(kinds.contains(&"missing") && kinds.contains(&"redirected"), "{kinds:?}");
        let vaults = include_str!("vault/transport.rs");
        let vaults = [words(vaults, "unavailable(\""), words(vaults, "reason: \"")].concat();
        let awss = include_str!("aws/problem.rs");
        let awss = [words(awss, "unavailable(at, \""), words(awss, "reason: \"")].concat();
        assert!(vaults.contains(&"lagging") && awss.contains(&"identity_refused"));
        for (page, name, reasons, not_its) in [
            (include_str!("../../docs/vault.md"), "vault", vaults, ["other_region", "not_json"]),
            (include_str!("../../docs/aws.md"), "aws", awss, ["wrong_engine", ""]),
        ] {
            let of_another = |word: &&&str| NEITHER.contains(word) || not_its.contains(word);
            for word in kinds.iter().filter(|word| !of_another(word)).chain(&reasons) {
                assert!(page.contains(&format!("`{word}`")), "`{word}` is not in docs/{name}.md");
            }
        }
    }
}
