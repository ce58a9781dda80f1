//! A body that follows a script: so many bytes, so fast, and an end that is clean or a cut.

use std::{
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::HttpBody;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

/// A piece of the script: the bytes, repeated `times`, each after `every`.
pub(super) struct Script {
    pub(super) piece: Box<dyn FnMut(u64) -> Bytes + Send>,
    pub(super) pieces: u64,
    pub(super) every: Duration,
    /// What `Content-Length` says; chunked without it.
    pub(super) length: Option<u64>,
    /// End in an error, which closes the connection.
    pub(super) cut: bool,
    pub(super) sent: u64,
    pub(super) wait: Option<Pin<Box<Sleep>>>,
}

impl Script {
    pub(super) fn new(pieces: u64, piece: impl FnMut(u64) -> Bytes + Send + 'static) -> Self {
        let (every, length) = (Duration::ZERO, None);
        Self { piece: Box::new(piece), pieces, every, length, cut: false, sent: 0, wait: None }
    }

    /// An error before the first byte: hyper has not flushed the head yet, so the client sees its
    /// connection close without an answer.
    pub(super) fn reset() -> Self {
        Self { cut: true, ..Self::new(0, |_| Bytes::new()) }
    }
}

impl HttpBody for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let due = self.sent > 0 && (self.sent < self.pieces || self.cut);
        if due && (self.cut || !self.every.is_zero()) {
            // Even a wait of nothing lets hyper flush what it has, before a cut.
            let every = self.every.max(Duration::from_millis(1));
            let wait = self.wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(every)));
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        if self.sent < self.pieces {
            let index = self.sent;
            self.sent += 1;
            return Poll::Ready(Some(Ok(Frame::data((self.piece)(index)))));
        }
        let cut = std::mem::take(&mut self.cut);
        Poll::Ready(cut.then(|| Err(std::io::Error::other("a fault that was asked for"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.filter(|_| self.sent == 0).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
