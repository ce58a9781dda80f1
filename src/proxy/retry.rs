//! Which failures of an attempt are worth another one, and how long to wait for it.
//!
//! A request that the upstream may have acted on is only sent again where that does no harm, and an
//! upstream in trouble is not met with twice the load: see `budget.rs`. A rejected token is no
//! failure and has its own way (`prepare.rs`).

use std::time::Duration;

use http::StatusCode;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use pingora::upstreams::peer::{HttpPeer, Peer as _};
use pingora::{BError, Error, ErrorType, Result, RetryType};
use tokio::time::Instant;

use super::Sidecar;
use super::call::Call;
use super::judge::{Again, Attempt, Unwell};
use crate::backoff::Backoff;
use crate::{clock, retry_after};

/// The answer asks for another attempt. Made in `upstream_response_filter`, read in
/// `error_while_proxy`, seen by nobody else.
const SEND_AGAIN: ErrorType = ErrorType::Custom("SendAgain");
/// Attempts upstream for one call, all reasons together.
pub(super) const ATTEMPTS_MAX: u32 = 16;
/// Bounds the first wait after a connection could not be had, and after an unwell answer.
const WAIT_FIRST: Duration = Duration::from_millis(100);
/// Bounds every wait.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// What a call has to have left for an attempt, beside the wait.
const ATTEMPT_MIN: Duration = Duration::from_millis(50);

impl Sidecar {
    /// Ends the attempt so that pingora makes another one.
    ///
    /// # Errors
    /// Always: pingora knows no other way.
    pub(super) fn send_again<T>() -> Result<T> {
        let mut again = Error::new_up(SEND_AGAIN);
        again.set_retry(true);
        Err(again)
    }

    /// What `judge.rs` has to know of the attempt.
    pub(super) fn attempt(session: &Session, call: &Call) -> Attempt {
        let request = session.req_header();
        let replay = call.grant.as_ref().is_some_and(|grant| grant.rule.replay);
        let again = if !replay || !call.body.is_at_hand(session) {
            Again::Never
        } else if request.method.is_idempotent() || request.headers.contains_key("idempotency-key")
        {
            Again::Harmless
        } else {
            Again::Unheard
        };
        Attempt { again, replayed: call.replayed, retried: call.retried }
    }

    /// The upstream is unwell: whether the call waits and is sent once more.
    pub(super) fn retry_unwell(
        &self,
        call: &mut Call,
        response: &ResponseHeader,
        unwell: Unwell,
    ) -> bool {
        let asked = retry_after::parse(&response.headers, clock::wall());
        let wait = asked.unwrap_or_else(|| Backoff::new(WAIT_FIRST, WAIT_MAX).next_wait());
        let again = self.may_wait(call, wait) && self.may_retry();
        if again {
            self.metrics.retries.with_label_values(&[unwell.as_str()]).inc();
            call.retried = true;
            call.pause = wait;
        }
        again
    }

    /// No byte was sent: the next address in turn may do, or the same one a moment later.
    pub(super) fn after_no_connection(
        &self,
        peer: &HttpPeer,
        call: &mut Call,
        mut error: BError,
    ) -> BError {
        if let Some(address) = peer.address().as_inet() {
            self.destination.addresses.set_aside(*address);
        }
        tracing::warn!(
            request_id = &*call.request_id,
            attempt = call.attempts,
            cause = error.etype().as_str(),
            "no connection to the upstream"
        );
        call.unconnected += 1;
        let turns = u32::try_from(self.destination.addresses.count()).unwrap_or(u32::MAX);
        // Each address is tried at once; then it is time to wait.
        let wait = match call.unconnected.checked_sub(turns) {
            None => Duration::ZERO,
            Some(rounds) => Backoff::new(WAIT_FIRST, WAIT_MAX).after(rounds).next_wait(),
        };
        // A peer that does not verify does not become another one by asking again.
        let verified =
            !matches!(error.etype(), ErrorType::InvalidCert | ErrorType::TLSHandshakeFailure);
        let again = verified
            && call.unconnected + call.throttled <= call.snapshot.config.upstream.retries
            && self.may_wait(call, wait)
            && self.may_retry();
        if again {
            self.metrics.retries.with_label_values(&["no_connection"]).inc();
            call.pause = wait;
        }
        error.set_retry(again);
        error
    }

    /// A request broke off after a connection was there.
    pub(super) fn after_failure(
        &self,
        session: &Session,
        call: &Call,
        mut error: BError,
        reused: bool,
    ) -> BError {
        if *error.etype() == SEND_AGAIN {
            return error;
        }
        let again = match Self::attempt(session, call).again {
            Again::Never => false,
            // An HTTP/2 stream that the upstream refused, or did not get to before its GOAWAY: it has
            // not acted on it (RFC 9113 section 8.7). `InvalidH2` is no such promise.
            Again::Unheard => is_unheard(&error),
            // `ReusedOnly`: a pooled connection broke, most likely in the race with the upstream's
            // keep-alive time-out. Whether it acted on the request cannot be known (RFC 9110 section
            // 9.2.2).
            Again::Harmless => {
                is_unheard(&error) || (reused && matches!(error.retry, RetryType::ReusedOnly))
            }
        };
        let again = again
            && call.rejection.is_none()
            && call.attempts < ATTEMPTS_MAX
            && !call.remaining().is_zero();
        if again {
            self.metrics.retries.with_label_values(&["connection_lost"]).inc();
        }
        error.set_retry(again);
        error
    }

    fn may_wait(&self, call: &Call, wait: Duration) -> bool {
        call.attempts < ATTEMPTS_MAX && wait.saturating_add(ATTEMPT_MIN) < call.remaining()
    }

    fn may_retry(&self) -> bool {
        self.budget.lock().retry(Instant::now())
    }

    /// The upstream says that the quota is used up: pauses it. True when the call can be sent again
    /// before its deadline, and was not sent as often as `upstream.retries` allows.
    pub(super) fn pause(
        &self,
        session: &Session,
        response: &ResponseHeader,
        call: &mut Call,
    ) -> bool {
        let asked = retry_after::parse(&response.headers, clock::wall());
        if asked.is_some_and(|asked| asked >= retry_after::RETRY_AFTER_MAX) {
            tracing::warn!("the upstream asks for a pause of 15 min or more; 15 min are kept");
        }
        let place = call.place.as_ref();
        let headers = &response.headers;
        let throttled = place.and_then(|place| place.throttled(asked, headers, call.deadline));
        let Some((_pause, fits)) = throttled else {
            self.metrics.upstream_throttled.with_label_values(&["", "unshaped"]).inc();
            return false;
        };
        let replayable = Self::attempt(session, call).again != Again::Never;
        let again = fits
            && replayable
            && call.attempts < ATTEMPTS_MAX
            && call.unconnected + call.throttled < call.snapshot.config.upstream.retries;
        if again {
            call.throttled += 1;
            self.metrics.retries.with_label_values(&["throttled"]).inc();
        }
        again
    }

    /// The upstream took the call: a quota that paused goes on.
    pub(super) fn note_answer(response: &ResponseHeader, call: &Call) {
        if response.status != StatusCode::TOO_MANY_REQUESTS
            && let Some(place) = &call.place
        {
            place.answered(&response.headers);
        }
    }
}

/// Whether the upstream says that it has not acted on the request.
fn is_unheard(error: &Error) -> bool {
    matches!(error.retry, RetryType::Decided(true)) && *error.etype() != ErrorType::InvalidH2
}
