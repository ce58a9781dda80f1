//! One audit line for each call: who called, with which credential, and how it ended. And one for
//! each thing that an operator changed, or tried to.
//!
//! The token appears as a keyed fingerprint only; no path, no query and no header is written.

use std::time::Duration;

/// What an audit line says.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// The call's identifier, as both sides know it.
    pub request_id: &'a str,
    /// Whose call; empty where the front door refused it.
    pub tenant: &'a str,
    /// How the caller was known: `listener`, `token`, `uid N`; empty: it was not.
    pub caller: &'a str,
    /// Where it came in.
    pub listener: &'a str,
    /// Which credential it got; empty: none.
    pub credential: &'a str,
    /// A keyed hash of the token that was sent last; empty: none was sent.
    pub fingerprint: &'a str,
    /// The method, from the allow-list.
    pub method: &'a str,
    /// Which line of the policy decided.
    pub rule: &'a str,
    /// What the caller got; 0: it was gone.
    pub status: u16,
    /// Why the sidecar answered itself; empty: the upstream did.
    pub code: &'a str,
    /// Requests sent upstream; those that got no connection do not count.
    pub attempts: u32,
    /// From the head to the end of the answer.
    pub duration: Duration,
    /// Spent waiting for a token.
    pub token_wait: Duration,
    /// Spent waiting for a turn in the quota's queue, by all attempts together.
    pub queue_wait: Duration,
}

/// Writes the line to wherever `log.audit` says.
pub fn write(line: &Line<'_>) {
    tracing::info!(
        target: "audit",
        request_id = line.request_id,
        tenant = line.tenant,
        caller = line.caller,
        listener = line.listener,
        credential = line.credential,
        token = line.fingerprint,
        method = line.method,
        rule = line.rule,
        status = line.status,
        code = line.code,
        attempts = line.attempts,
        duration_ms = millis(line.duration),
        token_wait_ms = millis(line.token_wait),
        queue_wait_ms = millis(line.queue_wait),
    );
}

/// Writes what an operator asked for: `verb` of `name`, a configured one or empty, and the `status`
/// of the answer.
pub fn write_verb(verb: &str, name: &str, status: u16) {
    tracing::info!(target: "audit", verb, name, status);
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
