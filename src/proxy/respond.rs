//! Writes the sidecar's own answers to the caller, and finds out which one a failure asks for.
//!
//! What they say is in `reject.rs`; what went wrong goes to the log, without a path, a query or a
//! byte that somebody sent.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::call::Call;
use super::reject::{ERROR_HEADER, PROBLEM_JSON, Rejection};
use super::{REJECTED, inject};
use crate::config::model::Credential;

/// How long, and how many bytes, a refused caller is listened to.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers the call; nothing was sent upstream.
///
/// # Errors
/// The caller is gone.
pub(super) async fn reject(
    session: &mut Session,
    call: &mut Call,
    rejection: Rejection,
) -> Result<()> {
    tracing::debug!(request_id = &*call.request_id, code = rejection.code(), "refused");
    write(session, call, rejection).await
}

/// Ends an attempt with an answer of our own, which [`to_error`] writes.
///
/// # Errors
/// Always: pingora takes no other way out of a filter.
pub(super) fn fail<T>(call: &mut Call, rejection: Rejection) -> Result<T> {
    call.rejection = Some(rejection);
    Error::e_explain(REJECTED, "answered by the sidecar")
}

/// The last word on a call that failed: an answer where the caller can still read one.
pub(super) async fn to_error(session: &mut Session, call: &mut Call, error: &Error) -> FailToProxy {
    let dead = FailToProxy { error_code: 0, can_reuse_downstream: false };
    let Some(rejection) = rejection_of(call, error) else {
        tracing::debug!(request_id = &*call.request_id, "the caller went away");
        return dead;
    };
    tracing::warn!(
        request_id = &*call.request_id,
        code = rejection.code(),
        cause = error.root_etype().as_str(),
        attempts = call.attempts,
        "a call failed"
    );
    if session.response_written().is_some_and(|written| !written.status.is_informational()) {
        // Half an answer is out: closing the connection is how the caller learns.
        call.rejection = Some(rejection);
        return dead;
    }
    session.set_keepalive(None);
    let code = rejection.status().as_u16();
    match write(session, call, rejection).await {
        Ok(()) => FailToProxy { error_code: code, can_reuse_downstream: false },
        Err(_gone) => dead,
    }
}

/// Which answer a failure asks for; `None` where nobody is there to read it.
fn rejection_of(call: &Call, error: &Error) -> Option<Rejection> {
    if let Some(rejection) = call.rejection {
        return Some(rejection);
    }
    if call.remaining().is_zero() && !call.answered {
        return Some(Rejection::UpstreamTimeout);
    }
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, ErrorType::ConnectionClosed | ErrorType::WriteError) => None,
        (ErrorSource::Downstream, ErrorType::ReadError) => None,
        (ErrorSource::Downstream, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => None,
        (ErrorSource::Downstream, _) => {
            Some(Rejection::BadRequest("the request's body is not framed as its head says"))
        }
        (
            _,
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::BindError
            | ErrorType::SocketError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert
            | ErrorType::HandshakeError,
        ) => Some(Rejection::UpstreamUnreachable),
        (_, ErrorType::ReadTimedout | ErrorType::WriteTimedout) => Some(Rejection::UpstreamTimeout),
        _ => Some(Rejection::UpstreamInvalid),
    }
}

/// The credential that the call would have got.
fn credential(call: &Call) -> Option<&Credential> {
    let grant = call.grant.as_ref()?;
    call.snapshot.config.credentials.get(grant.credential)
}

async fn write(session: &mut Session, call: &mut Call, rejection: Rejection) -> Result<()> {
    let body = match (rejection.retry_after(), credential(call)) {
        (Some(_), Some(credential)) => rejection.body_naming(&call.request_id, credential),
        _ => rejection.body(&call.request_id),
    };
    let body = Bytes::from(body);
    let mut head = ResponseHeader::build(rejection.status(), Some(6))?;
    head.insert_header(CONTENT_TYPE, PROBLEM_JSON)?;
    head.insert_header(CONTENT_LENGTH, body.len())?;
    head.insert_header(CACHE_CONTROL, "no-store")?;
    head.insert_header(ERROR_HEADER, rejection.code())?;
    head.insert_header(inject::REQUEST_ID, &*call.request_id)?;
    if let Some(seconds) = rejection.retry_after_secs() {
        head.insert_header(RETRY_AFTER, seconds)?;
    }
    // A body that was not read, or a head that was not understood, must not be taken for the next
    // request.
    if rejection.closes() || !session.as_downstream_mut().is_body_empty() {
        session.set_keepalive(None);
    }
    call.rejection = Some(rejection);
    let headless = session.req_header().method == Method::HEAD;
    session.write_response_header(Box::new(head), headless).await?;
    if !headless {
        session.write_response_body(Some(body), true).await?;
    }
    // Writes out what is buffered, also where the connection is about to be dropped.
    session.as_downstream_mut().finish_body().await?;
    linger(session).await;
    Ok(())
}

/// Reads what the caller still sends, for a moment: closing a socket with unread bytes resets it, and
/// takes the answer away from a caller that is not done sending (RFC 9112 section 9.6).
async fn linger(session: &mut Session) {
    let reading = async {
        let mut read = 0;
        while read < LINGER_BYTES_MAX && !session.as_downstream_mut().is_body_done() {
            match session.as_downstream_mut().read_request_body().await {
                Ok(Some(piece)) => read += piece.len(),
                Ok(None) | Err(_) => return,
            }
        }
    };
    // What is sent after that is lost with the connection.
    drop(tokio::time::timeout(LINGER, reading).await);
}
