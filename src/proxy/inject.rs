//! Puts the credential into a request: the last thing that happens to its head, on every attempt.
//!
//! Whatever the caller sent in the credential's place was taken off before, in every spelling
//! (`headers.rs`); here exactly one `Authorization` is set. Nothing may change the head after this.

use http::HeaderValue;
use http::header::{AUTHORIZATION, HOST};
use pingora::http::RequestHeader;

use super::headers;
use crate::credential::AccessToken;
use crate::telemetry::trace;

/// The request's identifier, passed on and sent back.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// Join the call to its trace (W3C Trace Context).
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// What is set on a request beside what the caller sent.
#[derive(Debug)]
pub(super) struct Injection<'a> {
    /// The token of this attempt.
    pub(super) token: &'a AccessToken,
    /// `Host`, from the configuration.
    pub(super) authority: &'a HeaderValue,
    /// Passed on, so that both sides can name the call.
    pub(super) request_id: &'a str,
}

/// Takes off what a caller may not send on. Once for a call, on the head that every attempt is
/// cloned from: the framing headers stay, because the body is still to be read by them.
pub(super) fn strip(request: &mut RequestHeader) {
    for name in headers::request_drop_list(&request.headers) {
        request.remove_header(&name);
    }
}

/// Sets what is ours, the credential last.
///
/// # Errors
/// A header value that cannot stand in a request; the head is not sent then.
pub(super) fn inject(
    request: &mut RequestHeader,
    injection: &Injection<'_>,
) -> Result<(), pingora::BError> {
    #[cfg(test)]
    assert!(!request.headers.contains_key("x-panic"), "a test asked for a bug");
    // Again, because pingora's own filters ran in between: what arrives is what we say.
    strip(request);
    request.insert_header(HOST, injection.authority.clone())?;
    request.insert_header(REQUEST_ID, injection.request_id)?;
    if !is_traced(request) {
        request.remove_header(TRACESTATE);
        request.insert_header(TRACEPARENT, trace::new_traceparent())?;
    }
    request.insert_header(AUTHORIZATION, injection.token.header().clone())
}

/// Whether the caller names one trace, in good form (W3C Trace Context, section 3.2). What else it says
/// of it is of no use without.
fn is_traced(request: &RequestHeader) -> bool {
    let mut given = request.headers.get_all(TRACEPARENT).iter();
    let is_good = given.next().is_some_and(|value| trace::is_traceparent(value.as_bytes()));
    is_good && given.next().is_none()
}
