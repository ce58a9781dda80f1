//! Everything between a request's head and its first attempt, and between a rejected token and the
//! next one.
//!
//! Nothing is sent upstream here.

use http::header::HOST;
use pingora::proxy::Session;
use pingora::{BError, Result};

use super::call::Call;
use super::front_door::Head;
use super::reject::Rejection;
use super::retry::ATTEMPTS_MAX;
use super::stream::{gone, unless_gone};
use super::{Sidecar, admit, body, inject, respond};

impl Sidecar {
    /// Everything before the call may be sent, or the reason why it may not.
    pub(super) async fn prepare(
        &self,
        session: &mut Session,
        call: &mut Call,
    ) -> Result<(), Unprepared> {
        let raw = call.connection.as_ref().map(|connection| connection.take_head());
        let head = admit::judge_head(&raw.unwrap_or_default(), call)?;
        // pingora made its own reading of the same bytes, and that is what is sent.
        let request = session.req_header();
        let sent = (&request.method, request.raw_path());
        if sent != (&head.method, head.target.raw().as_str().as_bytes()) {
            return Err(Rejection::BadRequest("the request line can be read in two ways").into());
        }
        if let Some(given) = &head.request_id {
            call.request_id = given.as_str().into();
        }
        // The front door let this `Host` pass: it is how the app reached us.
        let host = session.req_header().headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_tls = call.listener().is_some_and(|listener| listener.tls.is_some());
        let scheme = if is_tls { "https" } else { "http" };
        call.caller_base = format!("{scheme}://{}", host.unwrap_or_default()).into();
        admit::grant(&head, call)?;
        if let Some(connection) = &call.connection {
            connection.start_call(call.deadline);
        }
        match unless_gone(session, admit::prepare(call)).await {
            Some(turn) => turn?,
            None => return Err(gone().into()),
        }
        self.take_body(session, call, &head).await?;
        match unless_gone(session, admit::wait_for_turn(call)).await {
            Some(turn) => turn?,
            None => return Err(gone().into()),
        }
        inject::strip(session.req_header_mut());
        if let Some(name) = call.snapshot.callers.header() {
            // It was for us.
            session.req_header_mut().remove_header(name);
        }
        Ok(())
    }

    async fn take_body(&self, session: &mut Session, call: &mut Call, head: &Head) -> Result<()> {
        if head.expects_continue {
            // pingora takes this for an answer before the body, and would close the connection.
            let keep = session.get_keepalive();
            session.as_downstream_mut().write_continue_response().await?;
            session.set_keepalive(keep);
        }
        let bytes_max = call.snapshot.config.upstream.replay_body_bytes_max;
        call.body = body::keep(session, head.body, bytes_max, &self.kept).await?;
        Ok(())
    }

    /// The answer says that the token is no good: waits for a newer one. Whether there is one.
    ///
    /// # Errors
    /// There is, of another key, whose quota has no room in time.
    pub(super) async fn renew(&self, call: &mut Call) -> Result<bool> {
        let (Some(handle), Some(token)) = (&call.handle, &call.token) else {
            return Ok(false);
        };
        if call.attempts >= ATTEMPTS_MAX {
            return Ok(false);
        }
        let Some(newer) = handle.renewed(token.generation(), call.deadline).await else {
            return Ok(false);
        };
        call.token = Some(newer);
        admit::keep_place(call).or_else(|refused| respond::fail(call, refused))?;
        self.metrics.retries.with_label_values(&["token_rejected"]).inc();
        call.replayed = true;
        Ok(true)
    }
}

/// Why a call is not sent.
pub(super) enum Unprepared {
    /// The sidecar answers.
    Reject(Rejection),
    /// The caller is gone, or what it sends breaks off.
    Fail(BError),
}

impl From<Rejection> for Unprepared {
    fn from(rejection: Rejection) -> Self {
        Self::Reject(rejection)
    }
}

impl From<BError> for Unprepared {
    fn from(error: BError) -> Self {
        Self::Fail(error)
    }
}
