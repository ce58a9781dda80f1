//! What the sidecar tells about itself: log lines, audit lines, metrics, trace identifiers.
//!
//! Nothing here may hold a secret, a path or a caller's text in a label.

mod families;
mod quotas;
pub mod metrics;
pub mod trace;
pub mod audit;
pub mod logging;

use std::error::Error;
use std::fmt::Write as _;

pub use metrics::Metrics;
pub use quotas::QuotaMetrics;

/// An error and its causes in one line, for a log line: `reading the secret: permission denied`.
#[must_use]
pub fn error_chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        // Writing to a String cannot fail.
        let _ = write!(text, ": {inner}");
        cause = inner.source();
    }
    text
}
