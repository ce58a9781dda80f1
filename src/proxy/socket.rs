//! What a listener binds and what it accepts: TCP, with TLS or without, or a unix socket with the user
//! behind it.
//!
//! A socket's file is taken over only when nobody listens on it any more, and removed at the end.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::os;

/// A bound socket.
#[derive(Debug)]
pub(super) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// An accepted connection.
#[derive(Debug)]
pub(super) enum CallerSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// The lock is never waited for: whoever peeks and whoever reads are one task.
    Tls(Box<Mutex<TlsStream<TcpStream>>>),
}

/// A socket's file, removed when this is dropped.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: the file may be another process' by then.
    identity: (u64, u64),
}

impl Acceptor {
    /// Binds a unix socket that has `mode` from its first moment on.
    pub(super) async fn unix(path: &Path, mode: u32) -> io::Result<Self> {
        make_room(path).await?;
        let socket = os::bind_unix_socket(path, mode)?;
        let file = std::fs::symlink_metadata(path)?;
        let identity = (file.dev(), file.ino());
        let socket = UnixListener::from_std(socket)?;
        Ok(Self::Unix(socket, SocketFile { path: path.to_owned(), identity }))
    }

    /// The next connection, with the user behind it where that can be known.
    pub(super) fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(CallerSocket, Option<u32>)>> {
        match self {
            Self::Tcp(socket) => socket.poll_accept(cx).map_ok(|(stream, _peer)| {
                // Answers are written whole; waiting to fill a packet only delays them.
                drop(stream.set_nodelay(true));
                (CallerSocket::Tcp(stream), None)
            }),
            Self::Unix(socket, _file) => socket.poll_accept(cx).map(|accepted| {
                let (stream, _peer) = accepted?;
                let uid = stream.peer_cred()?.uid();
                Ok((CallerSocket::Unix(stream), Some(uid)))
            }),
        }
    }
}

/// Removes a file that a process left behind that was killed.
async fn make_room(path: &Path) -> io::Result<()> {
    let file = match std::fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !file.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file, and no socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_stream) => Err(io::ErrorKind::AddrInUse.into()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "removing a socket that nobody listens on");
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|file| (file.dev(), file.ino()) == self.identity);
        if ours {
            // A leftover is taken over by the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

impl CallerSocket {
    /// Has the caller prove that it can speak TLS, within so much time.
    pub(super) async fn secure(self, tls: Arc<ServerConfig>, limit: Duration) -> io::Result<Self> {
        let Self::Tcp(stream) = self else { return Ok(self) };
        let stream = tokio::time::timeout(limit, TlsAcceptor::from(tls).accept(stream)).await;
        let stream = stream.map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self::Tls(Box::new(Mutex::new(stream))))
    }

    /// Returns when the caller's end is known, whatever waits to be read before it. Where the system has
    /// no more files, never.
    pub(super) async fn ended(&self) {
        // A registration of its own: what is noted here as seen is missed by nobody who reads.
        let Ok(watched) = self.duplicate() else { return std::future::pending().await };
        while let Ok(ready) = watched.next_event().await {
            if ready.is_read_closed() || ready.is_error() {
                return;
            }
        }
    }

    /// What the system tells of the socket next.
    async fn next_event(&self) -> io::Result<Ready> {
        let seen = || Err::<(), io::Error>(io::ErrorKind::WouldBlock.into());
        match self {
            Self::Tcp(stream) => {
                let ready = stream.ready(Interest::READABLE).await;
                drop(stream.try_io(Interest::READABLE, seen));
                ready
            }
            Self::Unix(stream) => {
                let ready = stream.ready(Interest::READABLE).await;
                drop(stream.try_io(Interest::READABLE, seen));
                ready
            }
            Self::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The same socket below TLS, as another file.
    fn duplicate(&self) -> io::Result<Self> {
        let tcp = |stream: &TcpStream| {
            let file = stream.as_fd().try_clone_to_owned()?;
            Ok(Self::Tcp(TcpStream::from_std(file.into())?))
        };
        match self {
            Self::Tcp(stream) => tcp(stream),
            Self::Tls(stream) => tcp(stream.lock().get_ref().0),
            Self::Unix(stream) => {
                let file = stream.as_fd().try_clone_to_owned()?;
                Ok(Self::Unix(UnixStream::from_std(file.into())?))
            }
        }
    }

    /// Whether a byte waits (1) or the caller's end does (0); it is left where it is.
    pub(super) fn poll_peek(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut byte = [0];
        let stream = match self {
            Self::Tcp(stream) => return stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)),
            Self::Unix(stream) => stream,
            // What waits is encrypted: only rustls can tell a request's byte from a goodbye.
            Self::Tls(stream) => {
                let mut stream = stream.lock();
                return Pin::new(&mut *stream).poll_fill_buf(cx).map_ok(|bytes| bytes.len().min(1));
            }
        };
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let look = || Ok(recv(stream.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK)?);
            match stream.try_io(Interest::READABLE, look) {
                // It was ready and is not any more: waits again.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                seen => return Poll::Ready(seen),
            }
        }
    }
}

impl AsRawFd for CallerSocket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.lock().get_ref().0.as_raw_fd(),
        }
    }
}

impl AsyncRead for CallerSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.get_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for CallerSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream.get_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream.get_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream.get_mut()).poll_shutdown(cx),
        }
    }
}
