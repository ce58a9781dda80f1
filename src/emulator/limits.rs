//! A credential's limit as answers tell of it: a 429 with `Retry-After`, and what is left, where the
//! emulator is asked to tell.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use tokio::time::Instant;

use super::authorization::Identity;
use super::control::Control;
use super::limiter::{Limiter, Rate};
use super::resources::status;
use crate::clock;

/// How answers tell what is left of the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RateHeaders {
    /// `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10).
    Policy,
    /// `RateLimit-Limit`, `-Remaining` and `-Reset`, as the drafts before the eighth had them.
    Split,
    /// The same with `X-`, as many APIs have it.
    X,
}

impl RateHeaders {
    /// Reads `policy`, `split` or `x`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "policy" => Some(Self::Policy),
            "split" => Some(Self::Split),
            "x" => Some(Self::X),
            _ => None,
        }
    }

    /// What is left of `rate`, and in how many seconds all of it is there again.
    fn of(self, rate: Rate, remaining: u32, reset: u64) -> HeaderMap {
        let Rate { limit, window } = rate;
        let prefix = match self {
            Self::Policy => {
                let policy = format!("\"plan\";q={limit};w={}", window.as_secs());
                let left = format!("\"plan\";r={remaining};t={reset}");
                return headers([("ratelimit-policy".into(), policy), ("ratelimit".into(), left)]);
            }
            Self::Split => "ratelimit",
            Self::X => "x-ratelimit",
        };
        headers([
            (format!("{prefix}-limit"), limit.to_string()),
            (format!("{prefix}-remaining"), remaining.to_string()),
            (format!("{prefix}-reset"), reset.to_string()),
        ])
    }
}

fn headers<const N: usize>(texts: [(String, String); N]) -> HeaderMap {
    let one = |(name, value): (String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(&value).ok()?))
    };
    texts.into_iter().filter_map(one).collect()
}

/// Counts a call against its credential's limit: the refusal where there is one, and what answers
/// tell.
pub(super) fn count(control: &Control, who: &Identity) -> (Option<Response>, HeaderMap) {
    let state = &mut *control.state.lock();
    let Some(limit) = state.settings.limit else { return (None, HeaderMap::new()) };
    let limiter = state.limiters.entry(who.name.clone());
    let limiter = limiter.or_insert_with(|| Limiter::new(limit.kind, limit.rate));
    let now = Instant::now();
    let wait = limiter.admit(now);
    let told = state.settings.rate_headers.map(|style| {
        style.of(limit.rate, limiter.remaining(now), whole_seconds(limiter.reset(now)))
    });
    let refusal = wait.err().map(|wait| {
        let seconds = whole_seconds(wait).max(1);
        let text = if state.settings.retry_after_date {
            httpdate::fmt_http_date(clock::wall() + Duration::from_secs(seconds))
        } else {
            seconds.to_string()
        };
        status(429, Some(&text))
    });
    (refusal, told.unwrap_or_default())
}

fn whole_seconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis().div_ceil(1000)).unwrap_or(u64::MAX)
}
