//! Keeps a request's body, so that the call can be sent again after a 401.
//!
//! pingora keeps up to 64 KiB of any body by itself while it streams by. Longer bodies with a known
//! length up to `replay_body` are read whole first, within a budget for all calls together; what is
//! longer streams by once. Nothing here buffers a body of unknown length.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use pingora::Result;
use pingora::proxy::Session;
use tokio::sync::Semaphore;

use super::call::KeptBody;
use super::front_door::Framing;

/// What pingora's retry buffer holds (`BODY_BUF_LIMIT`), in bytes.
const STREAMED_BYTES_MAX: usize = 64 * 1024;
/// Kept bodies of all calls together, in bytes.
pub(crate) const BUDGET_BYTES: usize = 64 * 1024 * 1024;

/// Memory for kept bodies.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET_BYTES)))
    }
}

/// Decides how the body is kept, and reads it where it has to be read first.
///
/// # Errors
/// The caller went away, or its body breaks off.
pub(super) async fn keep(
    session: &mut Session,
    framing: Framing,
    bytes_max: usize,
    budget: &Budget,
) -> Result<KeptBody> {
    let Framing::Length(length) = framing else { return Ok(KeptBody::Streamed) };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= bytes_max) else {
        return Ok(KeptBody::TooLong);
    };
    if length <= STREAMED_BYTES_MAX {
        return Ok(KeptBody::Streamed);
    }
    let permits = u32::try_from(length).unwrap_or(u32::MAX);
    let Ok(budget) = Arc::clone(&budget.0).try_acquire_many_owned(permits) else {
        return Ok(KeptBody::TooLong);
    };
    let bytes = read_whole(session, length).await?;
    Ok(KeptBody::Whole { bytes, handed_over: false, _budget: budget })
}

/// Reads the body, leaving pingora's own buffer armed with the end of it.
///
/// pingora calls `request_body_filter` on every attempt with what its buffer holds, provided that it
/// holds something and did not overflow: so it is switched on for the last 64 KiB only, and the
/// filter puts the whole body in their place.
async fn read_whole(session: &mut Session, length: usize) -> Result<Bytes> {
    let mut bytes = BytesMut::with_capacity(length);
    loop {
        if length.saturating_sub(bytes.len()) <= STREAMED_BYTES_MAX {
            session.as_downstream_mut().enable_retry_buffering();
        }
        match session.as_downstream_mut().read_request_body().await? {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => break,
        }
        if session.as_downstream_mut().is_body_done() {
            break;
        }
    }
    Ok(bytes.freeze())
}

impl KeptBody {
    /// A new attempt starts: the whole body has to be handed over again.
    pub(super) const fn rewind(&mut self) {
        if let Self::Whole { handed_over, .. } = self {
            *handed_over = false;
        }
    }

    /// Puts the whole body in the place of the end that pingora kept.
    pub(super) fn fill(&mut self, piece: &mut Option<Bytes>, end: bool) {
        if let Self::Whole { bytes, handed_over, .. } = self
            && end
            && !*handed_over
        {
            *piece = Some(bytes.clone());
            *handed_over = true;
        }
    }

    /// Whether all that came in so far is at hand.
    pub(super) fn is_at_hand(&self, session: &Session) -> bool {
        match self {
            Self::Streamed => !session.as_downstream().retry_buffer_truncated(),
            Self::TooLong => false,
            Self::Whole { .. } => true,
        }
    }
}
