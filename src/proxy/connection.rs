//! A caller's connection as pingora sees it: a TCP stream that knows its listener, keeps a request's
//! head as it came, and keeps two deadlines that pingora has no timer for.
//!
//! pingora's parser repairs some heads (a space in the target becomes `%20`) before anybody can see
//! them, so the bytes are kept here, where they pass. And it bounds each single read, never a whole
//! head and never a whole call: once one of these deadlines is over, reading fails with `TimedOut`,
//! while writing still works, so that the caller gets an answer.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::front_door::HEAD_BYTES_MAX;

/// Bytes that are collected before they are written: a response head and a small body leave in one
/// packet.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;

/// What is known of a connection, shared by the stream and the calls on it.
#[derive(Debug)]
pub(crate) struct Connection {
    /// The index of the listener in the configuration that was valid at start.
    pub(crate) listener: usize,
    /// How long a whole request head may take, from its first byte.
    head_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The head of the call, and what of its body came with it.
    head: Vec<u8>,
}

/// Where in a call the connection is, which decides what bounds the next read.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Between two calls: pingora's keep-alive time-out bounds the wait.
    Idle,
    /// Bytes of a request head came in; it must be whole by then.
    Head(Instant),
    /// The head is read; the head of the answer must be there by then, where a bound is set.
    Call(Option<Instant>),
}

impl Connection {
    /// A new connection, no byte read yet.
    pub(crate) const fn new(listener: usize, head_timeout: Duration) -> Self {
        let state = State { phase: Phase::Idle, head: Vec::new() };
        Self { listener, head_timeout, state: Mutex::new(state) }
    }

    /// The connection that a call came in on.
    pub(crate) fn of(session: &Session) -> Option<Arc<Self>> {
        let stream = session.downstream_session.stream()?;
        let stream = stream.as_ref().as_any().downcast_ref::<CallerStream>()?;
        Some(Arc::clone(&stream.connection))
    }

    /// The head that was read last, to the end of its empty line; all that was kept where there is
    /// no end within [`HEAD_BYTES_MAX`]. Taken once: the memory is not held during the call.
    pub(crate) fn take_head(&self) -> Vec<u8> {
        let mut head = std::mem::take(&mut self.state().head);
        if let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.truncate(end + 4);
        }
        head
    }

    /// The request head is whole; what follows must be answered by `deadline`.
    pub(crate) fn start_call(&self, deadline: Option<Instant>) {
        self.set(Phase::Call(deadline));
    }

    /// The call is answered: the next byte begins another head.
    pub(crate) fn end_call(&self) {
        self.set(Phase::Idle);
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state().phase {
            Phase::Idle => None,
            Phase::Head(at) => Some(at),
            Phase::Call(at) => at,
        }
    }

    fn set(&self, phase: Phase) {
        self.state().phase = phase;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, bytes: &[u8]) {
        let mut state = self.state();
        match state.phase {
            Phase::Call(_) => return,
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
}

/// The stream that pingora reads requests from and writes answers to.
#[derive(Debug)]
pub(crate) struct CallerStream {
    stream: BufWriter<TcpStream>,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    id: UniqueIDType,
}

impl CallerStream {
    /// Wraps an accepted socket.
    pub(crate) fn new(stream: TcpStream, connection: Connection) -> Self {
        use std::os::fd::AsRawFd as _;
        Self {
            id: stream.as_raw_fd(),
            stream: BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream),
            connection: Arc::new(connection),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
        }
    }
}

impl AsyncRead for CallerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(at) = self.connection.deadline() {
            if self.timer.deadline() != at {
                self.timer.as_mut().reset(at);
            }
            if self.timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        // pingora leaves an answer of known length in the buffer until it is whole. Whoever waits for
        // the caller lets it have first what was written, so that answers stream.
        if !self.stream.buffer().is_empty()
            && let Poll::Ready(Err(gone)) = Pin::new(&mut self.stream).poll_flush(cx)
        {
            return Poll::Ready(Err(gone));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if let Some(bytes) = buf.filled().get(before..).filter(|bytes| !bytes.is_empty()) {
            self.connection.saw(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CallerStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for CallerStream {
    async fn shutdown(&mut self) {
        // The caller may be gone already; there is nobody left to tell.
        drop(AsyncWriteExt::shutdown(&mut self.stream).await);
    }
}

impl UniqueID for CallerStream {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for CallerStream {}

impl GetTimingDigest for CallerStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for CallerStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for CallerStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl Peek for CallerStream {}
