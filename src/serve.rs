//! The small HTTP/1.1 server under the health, admin and emulator ports.
//!
//! It exists because `axum::serve` has no time limit for a request's head and no limit of
//! connections. It must never carry an app's calls to DataPulse: those are the proxy's.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{Sleep, sleep},
};

use crate::backoff::Backoff;

const MAX_HEADERS: usize = 100;
const MAX_BUFFER: usize = 32 * 1024;
/// A client that takes nothing of an answer for this long is given up.
const STALL_MAX: Duration = Duration::from_secs(10);

/// What one server spends on its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at once, from 1; one more is dropped without an answer.
    pub connections: usize,
    /// How long a request's head may take to arrive, idle time between requests included.
    pub head_timeout: Duration,
    /// Whether a connection stays open for the client's next request.
    ///
    /// Who asks just when the idle time ends meets a reset, so a server with a short
    /// `head_timeout` keeps none (RFC 9112 9.5).
    pub keep_alive: bool,
    /// How long answers in flight may take once the server stops.
    pub drain: Duration,
}

/// Serves `app` until `stop` holds true or its sender is gone, then lets answers in flight end.
///
/// Returns once each connection is closed, at the latest `limits.drain` after the stop. Dropping
/// the future cuts all connections.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
    let http = builder(limits);
    loop {
        let stream = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = tasks.join_next() => continue,
            stream = accept(&listener, &mut backoff) => stream,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let service = TowerToHyperService::new(app.clone());
        let connection =
            graceful.watch(http.serve_connection(TokioIo::new(Patient::new(stream)), service));
        tasks.spawn(async move {
            log_end(connection.await);
            drop(place);
        });
    }
    // New connections are refused by the system from here on, not left waiting.
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!(open = tasks.len(), "answers were cut: they took longer than the drain");
    }
    tasks.shutdown().await;
}

async fn accept(listener: &TcpListener, backoff: &mut Backoff) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                backoff.reset();
                return stream;
            }
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn a core.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(backoff.next_wait()).await;
            }
        }
    }
}

fn log_end(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended badly");
    }
}

/// A client's socket; hyper has no time limit for writing an answer.
struct Patient {
    stream: TcpStream,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None }
    }
}

impl AsyncRead for Patient {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, buf) {
            self.stalled = None;
            return Poll::Ready(written);
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(STALL_MAX)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn builder(limits: Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Without the timer, hyper panics on the first time limit.
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .keep_alive(limits.keep_alive)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER);
    http
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
    };

    use super::*;

    struct Server {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        tasks: JoinSet<()>,
        entered: Arc<Notify>,
        go: Arc<Notify>,
    }

    async fn start(connections: usize, head_timeout: Duration, drain: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let (entered, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gate = (Arc::clone(&entered), Arc::clone(&go));
        let app = Router::new().route("/", get(|| async { "ok" })).route(
            "/gate",
            get(|| async move {
                gate.0.notify_one();
                gate.1.notified().await;
                "through"
            }),
        );
        let app = app.route("/large", get(|| async { vec![0_u8; 64 * 1024 * 1024] }));
        let mut tasks = JoinSet::new();
        let limits = Limits { connections, head_timeout, keep_alive: false, drain };
        tasks.spawn(serve(listener, app, limits, stopped));
        Server { address, stop, tasks, entered, go }
    }

    async fn send(address: SocketAddr, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    async fn rest(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        // A reset counts as an end: what matters is what came before it.
        let read = stream.read_to_end(&mut bytes);
        drop(tokio::time::timeout(PATIENCE, read).await.expect("it must end"));
        String::from_utf8(bytes).unwrap()
    }

    /// Longer than the other limits: a paused clock jumps to the next of them whenever nothing has come
    /// over a socket yet.
    const PATIENCE: Duration = Duration::from_secs(120);
    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_slow_head_is_cut() {
        let server = start(4, SHORT, LONG).await;
        let answer = rest(send(server.address, "GET / HTTP/1.1\r\nHost: x").await).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }

    #[tokio::test]
    async fn without_keep_alive_a_connection_ends_with_its_answer_which_says_so() {
        let server = start(4, LONG, LONG).await;
        let answer = rest(send(server.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await).await;
        assert!(answer.contains("connection: close\r\n") && answer.ends_with("ok"), "{answer}");
    }

    #[tokio::test]
    async fn a_connection_over_the_limit_is_dropped_and_its_place_comes_back() {
        let mut server = start(1, LONG, LONG).await;
        let held =
            send(server.address, "GET /gate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let held = held.await;
        server.entered.notified().await;
        let over = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(rest(over).await, "");
        server.go.notify_one();
        assert!(rest(held).await.ends_with("through"));
        server.stop.send(true).unwrap();
        server.tasks.join_next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn an_answer_in_flight_ends_well_on_stop_and_new_connections_are_refused() {
        let mut server = start(4, LONG, LONG).await;
        let held = send(server.address, "GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.entered.notified().await;
        server.stop.send(true).unwrap();
        let refused = async {
            while TcpStream::connect(server.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, refused).await.expect("it stops to listen");
        server.go.notify_one();
        assert!(rest(held).await.ends_with("through"));
        server.tasks.join_next().await.unwrap().unwrap();
    }

    /// More than all buffers on the way hold.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_given_up_and_its_place_comes_back() {
        let server = start(1, LONG, LONG).await;
        let request = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
        let stuck = send(server.address, request).await;
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        for _ in 0..10_000 {
            if rest(send(server.address, request).await).await.ends_with("ok") {
                return drop(stuck);
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("no place after ten thousand seconds");
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_longer_than_the_drain() {
        let mut server = start(4, LONG, SHORT).await;
        let held = send(server.address, "GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
        server.entered.notified().await;
        server.stop.send(true).unwrap();
        server.tasks.join_next().await.unwrap().unwrap();
        assert_eq!(rest(held).await, "");
    }
}
