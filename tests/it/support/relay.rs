//! A TCP relay in front of a real server, which does to connections what networks do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::PATIENCE;
use super::tools::free_address;

/// What happens to connections. A change ends those that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Passes everything on.
    Open,
    /// Passes everything on, each piece so much later.
    Slow(Duration),
    /// Passes the answers on byte by byte, each so much later.
    Drip(Duration),
    /// Accepts, then resets.
    Reset,
    /// Accepts, then says nothing.
    BlackHole,
    /// Nobody listens.
    Refuse,
}

/// Relays until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    way: watch::Sender<(u64, Way)>,
    applied: watch::Receiver<u64>,
    target: Arc<Mutex<SocketAddr>>,
    connections: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// In front of `target`, open.
    pub(crate) async fn new(target: SocketAddr) -> Self {
        // One that nobody else is given while nobody listens here.
        let address = free_address();
        let listener = TcpListener::bind(address).await.expect("a free port");
        let (way, ways) = watch::channel((0, Way::Open));
        let (tell, applied) = watch::channel(0);
        let target = Arc::new(Mutex::new(target));
        let connections = Arc::new(AtomicUsize::new(0));
        let relaying =
            Relaying { target: Arc::clone(&target), connections: Arc::clone(&connections) };
        let mut tasks = JoinSet::new();
        tasks.spawn(relaying.run(listener, ways, tell));
        Self { address, way, applied, target, connections, _tasks: tasks }
    }

    /// Changes the way; once this returns, no connection of the way before is open.
    pub(crate) async fn set(&self, way: Way) {
        let mut turn = 0;
        self.way.send_modify(|(turns, now)| {
            *turns += 1;
            (turn, *now) = (*turns, way);
        });
        let mut applied = self.applied.clone();
        let applied = timeout(PATIENCE, applied.wait_for(|applied| *applied >= turn)).await;
        applied.expect("it is done soon").expect("the relay runs");
    }

    /// New connections lead to another server.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock() = target;
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

struct Relaying {
    target: Arc<Mutex<SocketAddr>>,
    connections: Arc<AtomicUsize>,
}

impl Relaying {
    async fn run(
        self,
        listener: TcpListener,
        mut ways: watch::Receiver<(u64, Way)>,
        tell: watch::Sender<u64>,
    ) {
        let address = listener.local_addr().expect("bound");
        let mut listener = Some(listener);
        let mut talks = JoinSet::new();
        loop {
            let (turn, way) = *ways.borrow_and_update();
            talks.shutdown().await;
            if way == Way::Refuse {
                listener = None;
            } else if listener.is_none() {
                listener = Some(TcpListener::bind(address).await.expect("the same port again"));
            }
            tell.send_replace(turn);
            loop {
                let accepted = async {
                    match &listener {
                        Some(listener) => listener.accept().await.expect("a connection").0,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = ways.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return,
                    },
                    stream = accepted => {
                        self.connections.fetch_add(1, Ordering::SeqCst);
                        let target = *self.target.lock();
                        talks.spawn(talk(stream, target, way));
                    }
                }
            }
        }
    }
}

/// Either side may end a connection at any time, which is no mistake here.
async fn talk(mut near: TcpStream, target: SocketAddr, way: Way) {
    let piece = match way {
        Way::Reset => return near.set_zero_linger().expect("a socket"),
        Way::BlackHole | Way::Refuse => return std::future::pending().await,
        Way::Open | Way::Slow(_) => 64 * 1024,
        Way::Drip(_) => 1,
    };
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let (Way::Slow(by) | Way::Drip(by)) = way else {
        drop(copy_bidirectional(&mut near, &mut far).await);
        return;
    };
    let (mut request, mut answer) = (vec![0; 64 * 1024], vec![0; piece]);
    loop {
        let moved = tokio::select! {
            read = near.read(&mut request) => match read {
                Ok(read @ 1..) if way == Way::Slow(by) => {
                    later(by, &mut far, &request[..read]).await
                }
                Ok(read @ 1..) => far.write_all(&request[..read]).await,
                _ => return,
            },
            read = far.read(&mut answer) => match read {
                Ok(read @ 1..) => later(by, &mut near, &answer[..read]).await,
                _ => return,
            },
        };
        if moved.is_err() {
            return;
        }
    }
}

async fn later(by: Duration, to: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    // tidy: passes time because the network is slow.
    sleep(by).await;
    to.write_all(bytes).await
}
