//! What manifests are refused for. Repeats no value of theirs.

use thiserror::Error;

/// Why manifests were not changed. Nothing was written then.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The input is not YAML from here on: correct it.
    #[error("line {0}: this is not YAML; look at the indentation, quotes and colons")]
    NotYaml(u64),
    /// It has more of something than is read at once: split it.
    #[error(
        "line {0}: too much for one go (documents, values, levels or aliases); inject it in smaller parts"
    )]
    TooMuch(u64),
    /// There is no way to add to it: the sentence says how to write it.
    #[error("line {line}: nothing can be added to `{key}`: {why}")]
    NoPlace {
        /// From 1.
        line: usize,
        /// The key whose value it is.
        key: String,
        /// What about it.
        why: &'static str,
    },
    /// Nothing would be added where somebody wants it.
    #[error("--only {named}: there is no such workload in the input; there is {there}")]
    NotThere {
        /// As it was asked for.
        named: String,
        /// The first workloads that are there.
        there: String,
    },
    /// The pod would open the sidecar to others, or could not run it.
    #[error("{workload}: {why}")]
    Unfit {
        /// Kind and name.
        workload: String,
        /// What to change.
        why: &'static str,
    },
    /// What stands there is also elsewhere, and nothing may be added there.
    #[error(
        "line {line}: `{key}` would be changed, too: it is an alias of what the sidecar is added to; \
         write it out"
    )]
    Repeated {
        /// From 1.
        line: usize,
        /// The key behind which the alias is.
        key: String,
    },
    /// It is part of what is added, and it can be there only once.
    #[error("line {line}: `{key}` is written by this command, with the sidecar; take it out")]
    Taken {
        /// From 1.
        line: usize,
        /// The label or annotation.
        key: String,
    },
    /// What was written does not read as it was meant: a mistake of ours.
    #[error("{0}: the result would not be what was meant; please report it with the manifest")]
    Lost(String),
}
