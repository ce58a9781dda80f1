//! What the process tells, and how it ends.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is written, how, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severe line that is written.
    pub level: LogLevel,
    /// How log lines look; `None`: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// Where audit lines go.
    pub audit: AuditSink,
}

/// The severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something an operator has to act on.
    Error,
    /// Something that may become so.
    Warn,
    /// Each change of state.
    Info,
    /// Each step.
    Debug,
    /// Everything of ours; still no secret.
    Trace,
}

impl LogLevel {
    /// Every level, the most severe first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where audit lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditSink {
    /// Standard output.
    Stdout,
    /// Standard error, among the log lines.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// What happens between SIGTERM and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Calls are accepted for at least this long.
    pub min: Duration,
    /// After this long no new call is accepted, and what is in flight gets this long again.
    pub max: Duration,
}
