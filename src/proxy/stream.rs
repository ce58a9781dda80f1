//! The stream that pingora reads requests from and writes answers to.
//!
//! It keeps the deadlines of `connection.rs`: once one is over, reading fails with `TimedOut`, while
//! writing still works, so that the caller gets an answer. It hands over nothing that is not asked
//! for: bytes behind a request stay in the socket until the request is answered.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::proxy::Session;
use pingora::{BError, Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufWriter, ReadBuf};
use tokio::time::Sleep;

use super::connection::Connection;
use super::socket::CallerSocket;

/// Bytes that are collected before they are written: a response head and a small body leave in one
/// packet.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;

/// A caller's socket.
#[derive(Debug)]
pub(crate) struct CallerStream {
    stream: BufWriter<CallerSocket>,
    connection: Arc<Connection>,
    timer: Pin<Box<Sleep>>,
    /// What is written in the place of pingora's own refusal.
    replacement: Vec<u8>,
    id: UniqueIDType,
}

impl CallerStream {
    /// Wraps an accepted socket.
    pub(super) fn new(stream: CallerSocket, connection: Connection) -> Self {
        use std::os::fd::AsRawFd as _;
        Self {
            id: stream.as_raw_fd(),
            stream: BufWriter::with_capacity(WRITE_BUFFER_BYTES, stream),
            connection: Arc::new(connection),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            replacement: Vec::new(),
        }
    }

    fn of(session: &Session) -> Option<&Self> {
        session.downstream_session.stream()?.as_ref().as_any().downcast_ref()
    }

    /// The connection that a call came in on.
    pub(crate) fn connection_of(session: &Session) -> Option<Arc<Connection>> {
        Self::of(session).map(|stream| Arc::clone(&stream.connection))
    }

    /// Returns when the caller hung up, also with unread bytes before its end.
    async fn hung_up(&self) {
        let socket = self.stream.get_ref();
        if poll_fn(|cx| socket.poll_peek(cx)).await.is_ok_and(|bytes| bytes > 0) {
            socket.ended().await;
        }
    }

    /// Ready when the caller's end is next; bytes that wait are left where they are.
    fn poll_hang_up(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.stream.get_ref().poll_peek(cx)) {
            Ok(0) => Poll::Ready(Ok(())),
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Hands over what pingora waits for the caller with, in the place of its own refusal.
    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.replacement.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.replacement))?;
            self.replacement.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Runs `work` unless the caller hangs up meanwhile; then `None`, and `work` is dropped.
pub(crate) async fn unless_gone<F: Future>(session: &Session, work: F) -> Option<F::Output> {
    let Some(stream) = CallerStream::of(session) else { return Some(work.await) };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = stream.hung_up() => None,
    }
}

/// The error for a call whose caller is gone.
pub(crate) fn gone() -> BError {
    Error::explain(ErrorType::ConnectionClosed, "the caller hung up").into_down()
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
        // Once a request's body is over, pingora watches for the caller's end by reading single
        // bytes, and gives the call up when it gets one. A byte there belongs to the next request.
        if buf.remaining() == 1 && self.connection.is_in_call() {
            return self.poll_hang_up(cx);
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
        if let Some(ours) = self.connection.replaces_write() {
            self.replacement.extend_from_slice(ours.as_bytes());
            ready!(self.poll_replacement(cx))?;
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for CallerStream {
    async fn shutdown(&mut self) {
        // The caller may be gone already; there is nobody left to tell.
        drop(AsyncWriteExt::shutdown(self).await);
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
