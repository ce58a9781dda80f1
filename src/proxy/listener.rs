//! Binds the addresses where apps call, and hands accepted connections to pingora.
//!
//! The accept loop is ours because pingora's own server cannot report a bind error, bound the number
//! of connections, or end when the last answer is out.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerApp as _, ServerApp as _};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::{Connection, Refusals};
use super::reject::Rejection;
use super::stream::CallerStream;
use super::{Live, Sidecar, front_door, observe};
use crate::config::model::{Config, FrontDoor, Listener};
use crate::telemetry::{Metrics, trace};

/// How long a refused connection may take to read its answer.
const GOODBYE: Duration = Duration::from_secs(1);
/// The pause after a failed accept (no file descriptor is free, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Bound listeners, not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    bound: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    listener: usize,
    name: Arc<str>,
    socket: TcpListener,
}

/// An address that cannot be bound: it is in use, or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (listener {name}); is another program using the port?")]
pub struct BindError {
    name: Arc<str>,
    address: SocketAddr,
    #[source]
    cause: io::Error,
}

impl Listeners {
    /// Binds every address of every listener, at once and without retries.
    ///
    /// `localhost` stands for 127.0.0.1 and, where the machine has it, `::1`; with port 0 both get
    /// the same free port.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(listeners: &[Listener]) -> Result<Self, BindError> {
        let mut bound = Vec::new();
        for (index, listener) in listeners.iter().enumerate() {
            let mut port = None;
            for &address in &listener.addresses {
                let address = SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port()));
                match TcpListener::bind(address).await {
                    Ok(socket) => {
                        port = socket.local_addr().ok().map(|bound| bound.port());
                        bound.push(Bound {
                            listener: index,
                            name: Arc::clone(&listener.name),
                            socket,
                        });
                    }
                    // A machine without IPv6, in whichever way, still has its localhost.
                    Err(cause) if port.is_some() && cause.kind() != io::ErrorKind::AddrInUse => {
                        tracing::info!(%address, listener = %listener.name, "not on this machine");
                    }
                    Err(cause) => {
                        return Err(BindError { name: Arc::clone(&listener.name), address, cause });
                    }
                }
            }
        }
        Ok(Self { bound })
    }

    /// What is bound: each listener's name with its address.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let all = self.bound.iter();
        all.filter_map(|b| Some((Arc::clone(&b.name), b.socket.local_addr().ok()?))).collect()
    }
}

/// Accepts until `stop` is true, then closes idle connections and returns once those with a call in
/// flight are done.
pub async fn accept(
    listeners: Listeners,
    sidecar: Sidecar,
    server: Arc<ServerConf>,
    stop: watch::Receiver<bool>,
) {
    let live = Arc::clone(&sidecar.live);
    let metrics = sidecar.metrics.clone();
    let mut proxy = HttpProxy::new(sidecar, server);
    proxy.handle_init_modules();
    let refusals = refusals(&live, &metrics);
    let accepting = Accepting { proxy: Arc::new(proxy), live, refusals, metrics, stop };
    accepting.run(listeners).await;
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    head_timeout: Duration,
}

impl Limits {
    fn of(config: &Config) -> Self {
        let FrontDoor { max_connections, header_timeout, .. } = config.front_door;
        Self { connections: max_connections, head_timeout: header_timeout }
    }
}

struct Accepting {
    proxy: Arc<HttpProxy<Sidecar>>,
    live: Arc<Live>,
    /// One for each listener.
    refusals: Vec<Refusals>,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
}

/// For each listener, what answers in the place of pingora, whose own refusals say nothing.
fn refusals(live: &Arc<Live>, metrics: &Metrics) -> Vec<Refusals> {
    let all = (0..live.load().config.listeners.len()).map(|index| {
        let (live, metrics) = (Arc::clone(live), metrics.clone());
        Refusals(Arc::new(move |head: &[u8]| {
            let config = &live.load().config;
            // pingora is stricter than we are in a few places.
            let malformed = Rejection::BadRequest("the request's head is malformed");
            let request_id = trace::new_request_id();
            let Some(listener) = config.listeners.get(index) else {
                return malformed.raw_response(&request_id);
            };
            let judged = front_door::judge(head, &config.front_door, &listener.allowed_hosts);
            let rejection = judged.err().unwrap_or(malformed);
            observe::observe_refusal(&request_id, &listener.name, rejection, &metrics);
            rejection.raw_response(&request_id)
        }))
    });
    all.collect()
}

impl Accepting {
    async fn run(self, listeners: Listeners) {
        let mut connections = JoinSet::new();
        let mut stop = self.stop.clone();
        let sockets = listeners.bound;
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    self.note_end(ended);
                }
                (listener, accepted) = next_connection(&sockets) => match accepted {
                    Ok(stream) => self.begin(stream, listener, &mut connections),
                    Err(cause) => {
                        tracing::warn!(%cause, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // The kernel has taken these callers in already; closing the socket would reset them.
        while let Some((listener, Ok(stream))) = waiting_connection(&sockets).await {
            self.begin(stream, listener, &mut connections);
        }
        drop(sockets);
        self.proxy.http_cleanup().await;
        while let Some(ended) = connections.join_next().await {
            self.note_end(ended);
        }
    }

    fn begin(&self, stream: TcpStream, listener: usize, connections: &mut JoinSet<()>) {
        // Answers are written whole; waiting to fill a packet only delays them.
        drop(stream.set_nodelay(true));
        let limits = Limits::of(&self.live.load().config);
        if connections.len() >= limits.connections {
            self.metrics.rejected.with_label_values(&[Rejection::TooManyConnections.code()]).inc();
            // A few goodbyes at once at most: beyond that the connection is just closed.
            if connections.len() < limits.connections.saturating_add(64) {
                connections.spawn(say_goodbye(stream));
            }
            return;
        }
        let refusals = self.refusals.get(listener).cloned();
        let Some(refusals) = refusals else { return };
        let connection = Connection::new(listener, limits.head_timeout, refusals);
        let stream = CallerStream::new(stream, connection);
        let (proxy, stop) = (Arc::clone(&self.proxy), self.stop.clone());
        let counted = Counted::new(&self.metrics);
        connections.spawn(async move {
            let _counted = counted;
            // Runs every call of the connection; what comes back would be an unused stream.
            drop(proxy.process_new(Box::new(stream), &stop).await);
        });
    }

    fn note_end(&self, ended: Result<(), tokio::task::JoinError>) {
        if ended.is_err_and(|error| error.is_panic()) {
            // Where it happened was already written by the panic hook.
            tracing::error!("a call ended in a panic; its connection was closed");
        }
    }
}

/// A connection in the gauge, until it is dropped.
struct Counted(Metrics);

impl Counted {
    fn new(metrics: &Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// Returns once the sidecar is told to accept no more.
async fn told(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// The next connection of any listener.
async fn next_connection(sockets: &[Bound]) -> (usize, io::Result<TcpStream>) {
    std::future::poll_fn(|cx| {
        for bound in sockets {
            if let std::task::Poll::Ready(accepted) = bound.socket.poll_accept(cx) {
                let stream = accepted.map(|(stream, _peer)| stream);
                return std::task::Poll::Ready((bound.listener, stream));
            }
        }
        std::task::Poll::Pending
    })
    .await
}

/// A connection that is there already, if there is one.
async fn waiting_connection(sockets: &[Bound]) -> Option<(usize, io::Result<TcpStream>)> {
    tokio::select! {
        biased;
        connection = next_connection(sockets) => Some(connection),
        () = std::future::ready(()) => None,
    }
}

/// Answers 503 without reading, for a connection over the limit.
async fn say_goodbye(mut stream: TcpStream) {
    let answer = Rejection::TooManyConnections.raw_response(&trace::new_request_id());
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whether the caller reads it is its own matter.
    drop(tokio::time::timeout(GOODBYE, write).await);
}
