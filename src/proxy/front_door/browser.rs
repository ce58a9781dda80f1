//! Keeps web pages out: DNS rebinding and drive-by requests to the local port.
//!
//! Node's fetch sends `Sec-Fetch-Mode` by itself and is no browser, so only `Origin` and
//! `Sec-Fetch-Site` are looked at.

use crate::config::model::Choice;
use crate::proxy::reject::Rejection;

const RULE: Rejection = Rejection::CallerNotAllowed(
    "requests of web pages (Origin, cross-site Sec-Fetch-Site) are refused; \
     front_door.browser_origin: allow lets them pass",
);

/// Any `Origin`, whatever its value.
pub(super) const fn origin(choice: Choice) -> Result<(), Rejection> {
    match choice {
        Choice::Allow => Ok(()),
        Choice::Refuse => Err(RULE),
    }
}

/// `Sec-Fetch-Site` (Fetch Metadata): only what the user did, or our own page.
pub(super) fn fetch_site(value: &[u8], choice: Choice) -> Result<(), Rejection> {
    if choice == Choice::Allow || value == b"none" || value == b"same-origin" {
        return Ok(());
    }
    Err(RULE)
}
