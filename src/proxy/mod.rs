//! A call: front door, access, shaping, injection, upstream, answer.
//!
//! Each phase is one short call into a file of this folder. Nothing here does I/O but to the one
//! upstream, and no answer of the sidecar's own is made anywhere but in `reject.rs`.

pub mod reject;
pub mod headers;
pub mod rewrite;
pub mod front_door;
mod socket;
mod connection;
mod stream;
mod live;
mod gauge;
mod call;
mod prepare;
mod admit;
mod inject;
pub mod upstream;
mod body;
mod judge;
mod answer;
mod respond;
mod retry;
mod budget;
mod observe;
mod bind;
mod listener;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Version;
use http::header::TRANSFER_ENCODING;
use parking_lot::Mutex;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{BError, Error, ErrorType, Result};
use tokio::time::Instant;

pub use bind::{BindError, Certificates, Listeners};
#[cfg(test)]
pub(crate) use body::BUDGET_BYTES as KEPT_BODIES_BYTES;
pub use call::Call;
pub use gauge::{Gauge, InFlight};
pub use listener::accept;
pub use live::{Live, Snapshot};

use body::Budget;
use budget::RetryBudget;
use judge::Verdict;
use prepare::Unprepared;
use reject::Rejection;
use stream::{CallerStream, unless_gone};
use upstream::Destination;

use crate::telemetry::Metrics;

/// A caller's idle connection is kept this long.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A call waits this long for the upstream's name to be looked up for the first time.
const RESOLVE_WAIT: Duration = Duration::from_secs(2);
/// The sidecar answers the call itself: the reason is in the [`Call`].
const REJECTED: ErrorType = ErrorType::Custom("Rejected");

/// The proxy that pingora drives: the request path's fixed parts.
#[derive(Debug, Clone)]
pub struct Sidecar {
    live: Arc<Live>,
    destination: Destination,
    gauge: Gauge,
    metrics: Metrics,
    kept: Budget,
    budget: Arc<Mutex<RetryBudget>>,
}

impl Sidecar {
    /// Calls go to `destination`.
    #[must_use]
    pub fn new(live: Arc<Live>, destination: Destination, gauge: Gauge, metrics: Metrics) -> Self {
        let budget = Arc::new(Mutex::new(RetryBudget::new(Instant::now())));
        Self { live, destination, gauge, metrics, kept: Budget::default(), budget }
    }
}

#[async_trait]
impl ProxyHttp for Sidecar {
    type CTX = Call;

    fn new_ctx(&self) -> Call {
        Call::new(self.live.load(), self.gauge.enter())
    }

    async fn early_request_filter(&self, session: &mut Session, call: &mut Call) -> Result<()> {
        call.connection = CallerStream::connection_of(session);
        if let Some(connection) = &call.connection {
            connection.start_call(call.deadline);
        }
        let idle = call.snapshot.config.upstream.idle_timeout;
        let closing = headers::asks_to_close(&session.req_header().headers);
        let closing = closing || self.gauge.is_draining();
        // `None`: HTTP/1.0, whose callers expect the connection to be closed.
        let keep = session.get_keepalive().filter(|_| !closing).map(|_| KEEP_ALIVE.as_secs());
        session.set_keepalive(keep);
        session.set_read_timeout(Some(idle));
        session.set_write_timeout(Some(idle));
        // What is left of a request that was answered early must never be read as the next one.
        session.set_close_on_response_before_downstream_finish(true);
        // An early hint or a `100` of the upstream's is not for the app: ours was sent already.
        session.set_ignore_info_resp(true);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, call: &mut Call) -> Result<bool> {
        match self.prepare(session, call).await {
            Ok(()) => Ok(false),
            Err(Unprepared::Fail(error)) => Err(error.into_down()),
            Err(Unprepared::Reject(rejection)) => {
                respond::reject(session, call, rejection).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(&self, session: &mut Session, call: &mut Call) -> Result<Box<HttpPeer>> {
        let pause = std::mem::take(&mut call.pause);
        // A sleep of no time takes a millisecond all the same.
        if !pause.is_zero() && unless_gone(session, tokio::time::sleep(pause)).await.is_none() {
            return Err(stream::gone());
        }
        call.attempts += 1;
        call.body.rewind();
        let turn = unless_gone(session, admit::wait_for_turn(call)).await;
        turn.ok_or_else(stream::gone)?.or_else(|rejection| respond::fail(call, rejection))?;
        if call.attempts == 1 {
            self.budget.lock().call(Instant::now());
        }
        let by = call.deadline.min(Instant::now() + RESOLVE_WAIT);
        let Some(target) = self.destination.addresses.next(by).await else {
            return respond::fail(call, Rejection::UpstreamUnreachable);
        };
        let remaining = call.remaining();
        if remaining.is_zero() {
            return respond::fail(call, Rejection::UpstreamTimeout);
        }
        let identity = self.destination.identity.current();
        let upstream = &call.snapshot.config.upstream;
        Ok(Box::new(upstream::peer(upstream, target, identity.as_deref(), remaining)))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        call: &mut Call,
    ) -> Result<()> {
        let left = unless_gone(session, admit::depart(call)).await.ok_or_else(stream::gone)?;
        let (permit, token) = left.or_else(|rejection| respond::fail(call, rejection))?;
        call.sent_at = Some(permit.departed_at);
        let injection = inject::Injection {
            token: &token,
            authority: &self.destination.authority,
            request_id: &call.request_id,
        };
        inject::inject(request, &injection)?;
        call.note_sent(token);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        piece: &mut Option<Bytes>,
        end: bool,
        call: &mut Call,
    ) -> Result<()> {
        call.body.fill(piece, end);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        call: &mut Call,
    ) -> Result<()> {
        if Call::is_final(response) {
            observe::observe_upstream(call, &self.metrics);
            Self::note_answer(response, call);
        }
        match judge::judge(response.status, Self::attempt(session, call)) {
            Verdict::Pass => Ok(()),
            Verdict::Invalid => respond::fail(call, Rejection::UpstreamInvalid),
            Verdict::PassAndRefresh => {
                if let (Some(handle), Some(token)) = (&call.handle, &call.token) {
                    handle.reject(token.generation());
                }
                Ok(())
            }
            Verdict::Refresh if self.renew(call).await? => Self::send_again(),
            Verdict::Retry(unwell) if self.retry_unwell(call, response, unwell) => {
                Self::send_again()
            }
            Verdict::Pause if self.pause(session, response, call) => Self::send_again(),
            Verdict::Refresh | Verdict::Retry(_) | Verdict::Pause => Ok(()),
        }
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        call: &mut Call,
    ) -> Result<()> {
        if !Call::is_final(response) {
            return Ok(());
        }
        if let Some(connection) = &call.connection {
            // From here on silence is bounded, and not the whole: an answer may stream for hours.
            connection.start_answer(call.snapshot.config.upstream.idle_timeout);
        }
        call.answered = true;
        answer::clean(response, call)?;
        if session.req_header().version == Version::HTTP_10 {
            // It cannot read chunks (RFC 9112 section 6.1): the end of the connection ends the body.
            response.remove_header(&TRANSFER_ENCODING);
            session.set_keepalive(None);
        }
        if self.gauge.is_draining() {
            session.set_keepalive(None);
        }
        Ok(())
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        peer: &HttpPeer,
        call: &mut Call,
        error: BError,
    ) -> BError {
        self.after_no_connection(peer, call, error)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: BError,
        call: &mut Call,
        reused: bool,
    ) -> BError {
        self.after_failure(session, call, error, reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        call: &mut Call,
    ) -> FailToProxy {
        respond::to_error(session, call, error).await
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, call: &mut Call) {
        if let Some(connection) = &call.connection {
            connection.end_call();
        }
        observe::observe(session, call, &self.metrics);
    }

    // pingora's own lines hold paths, queries and parts of malformed heads; `respond.rs` writes ours.
    fn suppress_error_log(&self, _session: &Session, _call: &Call, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _call: &Call,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    fn request_summary(&self, _session: &Session, call: &Call) -> String {
        call.request_id.to_string()
    }
}
