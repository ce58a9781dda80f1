//! The only reader of the wall clock: for what other machines wrote down (a JWT's `exp`, an HTTP
//! date) and for what people read.
//!
//! Never for waiting or for expiry inside this process: that is tokio's monotonic clock, which
//! tests pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// The wall clock's time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970 (UTC), as JWTs count them (RFC 7519 section 2, `NumericDate`).
#[must_use]
pub fn unix_seconds() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A moment of the monotonic clock as the wall clock's seconds since 1970, for metrics and
/// `/status`.
#[must_use]
pub fn to_unix_seconds(at: Instant) -> f64 {
    let now = Instant::now();
    let wall_now = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    match at.checked_duration_since(now) {
        Some(ahead) => (wall_now + ahead).as_secs_f64(),
        None => wall_now.saturating_sub(now - at).as_secs_f64(),
    }
}
