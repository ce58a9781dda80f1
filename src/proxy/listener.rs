//! Accepts connections and hands them to pingora.
//!
//! The accept loop is ours because pingora's own server cannot report a bind error, bound the number
//! of connections, or end when the last answer is out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerApp as _, ServerApp as _};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bind::{Accepted, Listeners};
use super::connection::{Connection, Refusals};
use super::reject::Rejection;
use super::socket::CallerSocket;
use super::stream::CallerStream;
use super::{Live, Sidecar, front_door, observe};
use crate::config::model::{Config, FrontDoor};
use crate::os;
use crate::telemetry::{Metrics, trace};

/// How long a refused connection may take to read its answer.
const GOODBYE: Duration = Duration::from_secs(1);
/// Files that are kept for everything but calls: probes and operators, stores and issuers, our own.
const FILES_KEPT: u64 = 160;
/// Connections that are taken however few files may be open.
const CONNECTIONS_MIN: usize = 8;
/// The pause after a failed accept (no file descriptor is free, most likely).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    let room = room(os::open_files_max());
    if room < live.load().config.front_door.max_connections {
        tracing::warn!(
            connections = room,
            "the limit of open files (ulimit -n) leaves room for fewer connections than \
             front_door.max_connections"
        );
    }
    let accepting = Accepting { proxy: Arc::new(proxy), live, refusals, metrics, stop, room };
    accepting.run(listeners).await;
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    connections: usize,
    head_timeout: Duration,
}

impl Limits {
    /// `most`: what the system leaves room for.
    fn of(config: &Config, most: usize) -> Self {
        let FrontDoor { max_connections, header_timeout, .. } = config.front_door;
        Self { connections: max_connections.min(most), head_timeout: header_timeout }
    }
}

/// How many connections the limit of open files leaves room for: each may need one more, to the
/// upstream.
fn room(open_files_max: Option<u64>) -> usize {
    let Some(all) = open_files_max else { return usize::MAX };
    usize::try_from(all.saturating_sub(FILES_KEPT) / 2).unwrap_or(usize::MAX).max(CONNECTIONS_MIN)
}

struct Accepting {
    proxy: Arc<HttpProxy<Sidecar>>,
    live: Arc<Live>,
    /// One for each listener.
    refusals: Vec<Refusals>,
    metrics: Metrics,
    stop: watch::Receiver<bool>,
    /// Connections that there are files for.
    room: usize,
}

/// For each listener, what answers in the place of pingora, whose own refusals say nothing.
fn refusals(live: &Arc<Live>, metrics: &Metrics) -> Vec<Refusals> {
    let all = (0..live.load().config.listeners.len()).map(|index| {
        let (live, metrics) = (Arc::clone(live), metrics.clone());
        Refusals(Arc::new(move |head: &[u8]| {
            let live = live.load();
            let (config, header) = (&live.config, live.callers.header());
            // pingora is stricter than we are in a few places.
            let malformed = Rejection::BadRequest("the request's head is malformed");
            let request_id = trace::new_request_id();
            let Some(listener) = config.listeners.get(index) else {
                return malformed.raw_response(&request_id);
            };
            let hosts = &listener.allowed_hosts;
            let judged = front_door::judge(head, &config.front_door, hosts, header);
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
        loop {
            tokio::select! {
                biased;
                () = told(&mut stop) => break,
                Some(ended) = connections.join_next(), if !connections.is_empty() => {
                    self.note_end(ended);
                }
                accepted = listeners.next_connection() => match accepted {
                    Ok(accepted) => self.begin(accepted, &mut connections),
                    Err(cause) => {
                        tracing::warn!(%cause, "cannot accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        // The kernel has taken these callers in already; closing the socket would reset them.
        while let Some(Ok(accepted)) = listeners.waiting_connection().await {
            self.begin(accepted, &mut connections);
        }
        drop(listeners);
        self.proxy.http_cleanup().await;
        while let Some(ended) = connections.join_next().await {
            self.note_end(ended);
        }
    }

    fn begin(&self, accepted: Accepted, connections: &mut JoinSet<()>) {
        let Accepted { listener, stream, uid, tls } = accepted;
        let limits = Limits::of(&self.live.load().config, self.room);
        if connections.len() >= limits.connections {
            self.metrics.rejected.with_label_values(&[Rejection::TooManyConnections.code()]).inc();
            // A few goodbyes at once at most: beyond that the connection is just closed. So is one
            // that would have to be greeted first.
            if tls.is_none() && connections.len() < limits.connections.saturating_add(64) {
                connections.spawn(say_goodbye(stream));
            }
            return;
        }
        let refusals = self.refusals.get(listener).cloned();
        let Some(refusals) = refusals else { return };
        let (proxy, stop) = (Arc::clone(&self.proxy), self.stop.clone());
        let counted = Counted::new(&self.metrics);
        connections.spawn(async move {
            let stream = match greet(stream, tls, limits.head_timeout, &stop).await {
                Ok(stream) => stream,
                Err(cause) => return counted.note_failure(&cause),
            };
            let connection = Connection::new(listener, uid, limits.head_timeout, refusals);
            let stream = CallerStream::new(stream, connection);
            // Runs every call of the connection; what comes back would be an unused stream.
            drop(proxy.process_new(Box::new(stream), &stop).await);
            drop(counted);
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

    /// A caller that did not get as far as its first request.
    fn note_failure(&self, cause: &io::Error) {
        let reason = if cause.kind() == io::ErrorKind::TimedOut { "timeout" } else { "tls" };
        self.0.handshakes_failed.with_label_values(&[reason]).inc();
        tracing::debug!(%cause, "a caller's TLS handshake failed");
    }
}

/// The handshake, where the caller has to speak TLS: within as long as a request's head may take, and
/// for a moment once the sidecar is told to accept no more.
async fn greet(
    stream: CallerSocket,
    tls: Option<Arc<ServerConfig>>,
    head_timeout: Duration,
    stop: &watch::Receiver<bool>,
) -> io::Result<CallerSocket> {
    let Some(tls) = tls else { return Ok(stream) };
    let mut stop = stop.clone();
    let stopped = async {
        told(&mut stop).await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        secured = stream.secure(tls, head_timeout) => secured,
        () = stopped => Err(io::ErrorKind::TimedOut.into()),
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

/// Answers 503 without reading, for a connection over the limit.
async fn say_goodbye(mut stream: CallerSocket) {
    let answer = Rejection::TooManyConnections.raw_response(&trace::new_request_id());
    let write = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    // Whether the caller reads it is its own matter.
    drop(tokio::time::timeout(GOODBYE, write).await);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        for (files, want) in [
            (None, usize::MAX),
            (Some(1_048_576), 524_208),
            (Some(1024), 432),
            (Some(256), 48),
            (Some(64), 8),
            (Some(0), 8),
        ] {
            assert_eq!(room(files), want, "{files:?}");
        }
    }
}
