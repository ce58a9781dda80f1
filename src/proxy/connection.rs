//! What is known of a caller's connection: where in a call it is, the request's head as it came, and
//! the deadlines that pingora has no timer for.
//!
//! pingora's parser repairs some heads (a space in the target becomes `%20`) before anybody can see
//! them, so the bytes are kept here. And it bounds each single read, never a whole head, a whole call
//! or the silence inside an answer: these bounds are here, and `stream.rs` keeps them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::front_door::HEAD_BYTES_MAX;

/// A connection, shared by its stream and the calls on it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The index of the listener in the configuration that was valid at start.
    pub(crate) listener: usize,
    /// The user behind it, on a unix socket.
    pub(crate) uid: Option<u32>,
    /// How long a whole request head may take, from its first byte.
    head_timeout: Duration,
    refusals: Refusals,
    state: Mutex<State>,
}

type Refuse = dyn Fn(&[u8]) -> String + Send + Sync;

/// Makes the answer to a head that pingora refuses before the front door can, and counts it.
#[derive(Clone)]
pub(crate) struct Refusals(pub(crate) Arc<Refuse>);

impl fmt::Debug for Refusals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals")
    }
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The head of the call, and what of its body came with it.
    head: Vec<u8>,
}

/// Where in a call the connection is.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Between two calls: pingora's keep-alive time-out bounds the wait.
    Idle,
    /// Bytes of a request head came in; it must be whole by then.
    Head(Instant),
    /// The head is read; the head of the answer must be there by then.
    Call(Instant),
    /// The head of the answer is out; the next piece of its body must be there by then.
    Answer { idle: Duration, until: Instant },
    /// pingora refused the head, and the caller was told by us.
    Refused,
}

impl Connection {
    /// A new connection, no byte read yet.
    pub(crate) const fn new(
        listener: usize,
        uid: Option<u32>,
        head_timeout: Duration,
        refusals: Refusals,
    ) -> Self {
        let state = State { phase: Phase::Idle, head: Vec::new() };
        Self { listener, uid, head_timeout, refusals, state: Mutex::new(state) }
    }

    /// The head that was read last, to the end of its empty line; all that was kept where there is
    /// no end within [`HEAD_BYTES_MAX`]. Taken once: the memory is not held during the call.
    pub(crate) fn take_head(&self) -> Vec<u8> {
        head_of(std::mem::take(&mut self.state().head))
    }

    /// The request head is whole; the head of the answer must be there by `deadline`.
    pub(crate) fn start_call(&self, deadline: Instant) {
        self.state().phase = Phase::Call(deadline);
    }

    /// The head of the answer is there; from now on no silence in it is longer than `idle`.
    pub(crate) fn start_answer(&self, idle: Duration) {
        self.state().phase = Phase::Answer { idle, until: Instant::now() + idle };
    }

    /// The call is answered: the next byte begins another head.
    pub(crate) fn end_call(&self) {
        self.state().phase = Phase::Idle;
    }

    /// When the caller has waited, or kept us waiting, for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Idle | Phase::Refused => None,
            Phase::Head(at) | Phase::Call(at) | Phase::Answer { until: at, .. } => Some(at),
        }
    }

    /// Whether a call is under way, its head read.
    pub(super) fn is_in_call(&self) -> bool {
        matches!(self.state().phase, Phase::Call(_) | Phase::Answer { .. })
    }

    /// Bytes came from the caller.
    pub(super) fn saw(&self, bytes: &[u8]) {
        let mut state = self.state();
        match state.phase {
            Phase::Call(_) | Phase::Answer { .. } | Phase::Refused => return,
            Phase::Head(_) => {}
            Phase::Idle => {
                state.phase = Phase::Head(Instant::now() + self.head_timeout);
                state.head.clear();
            }
        }
        // One byte too many tells that the head is too long.
        let room = (HEAD_BYTES_MAX + 1).saturating_sub(state.head.len());
        state.head.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
    }

    /// Bytes are about to be written to the caller. While its head was not even handed to us, they
    /// are pingora's own bare refusal: what has to be written in their place, nothing at all from the
    /// second time on.
    pub(super) fn replaces_write(&self) -> Option<String> {
        let mut state = self.state();
        match state.phase {
            Phase::Head(_) => {
                state.phase = Phase::Refused;
                let head = head_of(std::mem::take(&mut state.head));
                drop(state);
                Some((self.refusals.0)(&head))
            }
            Phase::Refused => Some(String::new()),
            Phase::Answer { idle, .. } => {
                state.phase = Phase::Answer { idle, until: Instant::now() + idle };
                None
            }
            Phase::Idle | Phase::Call(_) => None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A head without the empty lines before it, which RFC 9112 section 2.2 has a server ignore, and
/// without what came after it.
fn head_of(mut bytes: Vec<u8>) -> Vec<u8> {
    let empty = bytes.chunks_exact(2).take_while(|pair| pair == b"\r\n").count();
    bytes.drain(..empty * 2);
    if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
        bytes.truncate(end + 4);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_kept_as_it_came_and_without_what_stands_around_it() {
        let refusals = Refusals(Arc::new(|head| format!("refused {}", head.len())));
        let connection = Connection::new(0, None, Duration::from_secs(10), refusals);
        connection.saw(b"\r\n\r\nGET /a b HT");
        connection.saw(b"TP/1.1\nHost: x\r\n\r\nbody");
        assert!(connection.deadline().is_some());
        assert_eq!(connection.take_head(), b"GET /a b HTTP/1.1\nHost: x\r\n\r\n");
        connection.start_call(Instant::now());
        connection.saw(b"GET /of-the-body HTTP/1.1\r\n\r\n");
        assert_eq!(connection.take_head(), b"");
        connection.end_call();
        connection.saw(&[b'x'; HEAD_BYTES_MAX + 100]);
        assert_eq!(connection.take_head().len(), HEAD_BYTES_MAX + 1);
    }

    #[test]
    fn a_write_before_the_head_was_handed_over_is_replaced_once() {
        let refusals = Refusals(Arc::new(|head| String::from_utf8_lossy(head).into_owned()));
        let connection = Connection::new(0, None, Duration::from_secs(10), refusals);
        assert_eq!(connection.replaces_write(), None);
        connection.saw(b"BAD");
        assert_eq!(connection.replaces_write().as_deref(), Some("BAD"));
        assert_eq!(connection.replaces_write().as_deref(), Some(""));
    }
}
