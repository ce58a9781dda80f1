//! Which failures of an attempt are worth another one. The answer's own wishes (a rejected token) are
//! judged in `judge.rs`.
//!
//! A request that the upstream may have acted on is never sent again.

use pingora::proxy::Session;
use pingora::{BError, RetryType};

use super::call::Call;
use super::{SEND_AGAIN, Sidecar};

/// Attempts upstream for one call, all reasons together.
const ATTEMPTS_MAX: u32 = 6;

impl Sidecar {
    /// No byte was sent: another address of the upstream may do.
    pub(super) fn after_no_connection(&self, call: &Call, mut error: BError) -> BError {
        tracing::warn!(
            request_id = &*call.request_id,
            attempt = call.attempts,
            cause = error.etype().as_str(),
            "no connection to the upstream"
        );
        let made = usize::try_from(call.attempts).unwrap_or(usize::MAX);
        let another = made < self.addresses.count() && call.attempts < ATTEMPTS_MAX;
        error.set_retry(another && !call.remaining().is_zero());
        error
    }

    /// The attempt broke off after a connection was there.
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
        // `ReusedOnly`: the upstream closed a pooled connection before the first byte of an answer,
        // the usual race with its keep-alive time-out. Whether it acted on the request cannot be
        // known for certain: `replay: never` turns this off where that matters.
        let stale = reused && matches!(error.retry, RetryType::ReusedOnly);
        let replay = call.grant.as_ref().is_some_and(|grant| grant.rule.replay);
        let repeatable = session.req_header().method.is_idempotent() || replay;
        let at_hand = call.body.is_at_hand(session) && call.attempts < ATTEMPTS_MAX;
        let again = stale && repeatable && at_hand && call.rejection.is_none();
        if again {
            self.metrics.retries.with_label_values(&["stale_connection"]).inc();
        }
        error.set_retry(again);
        error
    }
}
