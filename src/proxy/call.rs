//! What a call carries from phase to phase.
//!
//! It frees what it holds when it is dropped, however the call ends: answered, failed, or cut off by
//! a panic in a filter.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pingora::http::ResponseHeader;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::connection::Connection;
use super::gauge::InFlight;
use super::live::Snapshot;
use super::reject::Rejection;
use crate::access::{Denial, Grant, Identity};
use crate::config::model::{Listener, Rule};
use crate::credential::{AccessToken, CredentialHandle, KeyPrint};
use crate::shaping::Place;
use crate::telemetry::trace;

/// pingora's `CTX`: one call.
#[derive(Debug)]
pub struct Call {
    /// Counts as in flight until it is dropped.
    _in_flight: InFlight,
    /// What was in force when the call began.
    pub(super) snapshot: Arc<Snapshot>,
    /// Where it came in.
    pub(super) connection: Option<Arc<Connection>>,
    /// When its head was read.
    pub(super) started_at: Instant,
    /// The head of the answer must be there by then.
    pub(super) deadline: Instant,
    /// The caller's, if well-formed, else ours. Safe to print.
    pub(super) request_id: Box<str>,
    /// `http://localhost:8080`: how the caller reached us, for links that lead back here.
    pub(super) caller_base: Box<str>,
    /// How the caller was known.
    pub(super) identity: Option<Identity>,
    /// What the policy said.
    pub(super) grant: Option<Grant>,
    /// What the policy said where it did not grant.
    pub(super) denial: Option<Denial>,
    /// The credential that was chosen.
    pub(super) handle: Option<CredentialHandle>,
    /// The token of the next or current attempt.
    pub(super) token: Option<Arc<AccessToken>>,
    /// The place in the quota's queue.
    pub(super) place: Option<Place>,
    /// The key whose quota that is.
    pub(super) key: Option<KeyPrint>,
    /// The body, kept to be sent again.
    pub(super) body: KeptBody,
    /// Attempts made upstream, those that got no connection too.
    pub(super) attempts: u32,
    /// Attempts whose head was written.
    pub(super) sent: u32,
    /// The token of the last of these.
    pub(super) sent_token: Option<Arc<AccessToken>>,
    /// Whether a 401 was already answered with a newer token.
    pub(super) replayed: bool,
    /// Whether it was already sent again after a 502, 503 or 504.
    pub(super) retried: bool,
    /// Attempts that got no connection.
    pub(super) unconnected: u32,
    /// Attempts made because of a 429.
    pub(super) throttled: u32,
    /// Waited before the next attempt.
    pub(super) pause: Duration,
    /// When the last attempt's head was written.
    pub(super) sent_at: Option<Instant>,
    /// How long the call waited for a token.
    pub(super) token_wait: Duration,
    /// Why the sidecar answered itself.
    pub(super) rejection: Option<Rejection>,
    /// What was changed about the head of the answer is written in `answer.rs`.
    pub(super) answered: bool,
}

/// What is kept of a request's body.
#[derive(Debug, Default)]
pub(super) enum KeptBody {
    /// pingora's own buffer keeps up to 64 KiB while the body streams by.
    #[default]
    Streamed,
    /// Longer than `replay_body`: it goes by once.
    TooLong,
    /// Read whole before the first attempt.
    Whole {
        /// All of it.
        bytes: Bytes,
        /// Whether the current attempt got it.
        handed_over: bool,
        /// Its part of the budget for all calls.
        _budget: OwnedSemaphorePermit,
    },
}

impl Call {
    /// A call whose head was just read.
    pub(super) fn new(snapshot: Arc<Snapshot>, in_flight: InFlight) -> Self {
        let now = Instant::now();
        Self {
            _in_flight: in_flight,
            deadline: now + snapshot.config.upstream.request_timeout,
            snapshot,
            connection: None,
            started_at: now,
            request_id: trace::new_request_id().into(),
            caller_base: Box::default(),
            identity: None,
            grant: None,
            denial: None,
            handle: None,
            token: None,
            place: None,
            key: None,
            body: KeptBody::default(),
            attempts: 0,
            sent: 0,
            sent_token: None,
            replayed: false,
            retried: false,
            unconnected: 0,
            throttled: 0,
            pause: Duration::ZERO,
            sent_at: None,
            token_wait: Duration::ZERO,
            rejection: None,
            answered: false,
        }
    }

    /// The listener that the call came in on.
    pub(super) fn listener(&self) -> Option<&Listener> {
        let connection = self.connection.as_ref()?;
        self.snapshot.config.listeners.get(connection.listener)
    }

    /// Whose call it is, once that is decided.
    pub(super) fn tenant(&self) -> Option<&str> {
        match (&self.grant, &self.denial) {
            (Some(grant), _) => Some(&grant.tenant),
            (None, Some(denial)) => denial.tenant().map(|tenant| &**tenant),
            (None, None) => None,
        }
    }

    /// Which line of the policy decided, once one has.
    pub(super) fn rule(&self) -> Option<&Rule> {
        match (&self.grant, &self.denial) {
            (Some(grant), _) => Some(&grant.rule),
            (None, Some(denial)) => denial.rule().map(|rule| &**rule),
            (None, None) => None,
        }
    }

    /// The head is about to be written, with this token.
    pub(super) fn note_sent(&mut self, token: Arc<AccessToken>) {
        self.sent += 1;
        self.sent_token = Some(Arc::clone(&token));
        self.token = Some(token);
    }

    /// What the deadline leaves, from now.
    pub(super) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Whether a status is the last word of the upstream.
    pub(super) fn is_final(response: &ResponseHeader) -> bool {
        !response.status.is_informational()
    }
}
