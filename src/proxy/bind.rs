//! Binds the addresses where apps call.
//!
//! At once and without retries: an address that is taken ends the start.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use tokio::net::TcpListener;

use super::socket::{Acceptor, CallerSocket};
use crate::config::model::{Listener, Socket};

/// Bound listeners, not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    bound: Vec<Bound>,
}

#[derive(Debug)]
struct Bound {
    listener: usize,
    name: Arc<str>,
    socket: Acceptor,
}

/// A connection that came in.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The index of its listener.
    pub(super) listener: usize,
    pub(super) stream: CallerSocket,
    /// The user behind it, on a unix socket.
    pub(super) uid: Option<u32>,
}

/// An address that cannot be bound: it is in use, or not this machine's.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (listener {name}); is another program using it?")]
pub struct BindError {
    name: Arc<str>,
    address: String,
    #[source]
    cause: io::Error,
}

impl Listeners {
    /// Binds every address of every listener.
    ///
    /// `localhost` stands for 127.0.0.1 and, where the machine has it, `::1`; with port 0 both get
    /// the same free port.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(listeners: &[Listener]) -> Result<Self, BindError> {
        let mut all = Self { bound: Vec::new() };
        for (index, listener) in listeners.iter().enumerate() {
            match &listener.socket {
                Socket::Tcp(addresses) => all.bind_tcp(index, listener, addresses).await?,
                Socket::Unix { path, mode } => all.bind_unix(index, listener, path, *mode).await?,
            }
        }
        Ok(all)
    }

    async fn bind_tcp(
        &mut self,
        index: usize,
        listener: &Listener,
        addresses: &[SocketAddr],
    ) -> Result<(), BindError> {
        let mut port = None;
        for &address in addresses {
            let address = SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port()));
            let name = Arc::clone(&listener.name);
            match TcpListener::bind(address).await {
                Ok(socket) => {
                    port = socket.local_addr().ok().map(|bound| bound.port());
                    let socket = Acceptor::Tcp(socket);
                    self.bound.push(Bound { listener: index, name, socket });
                }
                // A machine without IPv6, in whichever way, still has its localhost.
                Err(cause) if port.is_some() && cause.kind() != io::ErrorKind::AddrInUse => {
                    tracing::info!(%address, listener = %name, "not on this machine");
                }
                Err(cause) => return Err(BindError { name, address: address.to_string(), cause }),
            }
        }
        Ok(())
    }

    async fn bind_unix(
        &mut self,
        index: usize,
        listener: &Listener,
        path: &Path,
        mode: u32,
    ) -> Result<(), BindError> {
        let name = Arc::clone(&listener.name);
        match Acceptor::unix(path, mode).await {
            Ok(socket) => self.bound.push(Bound { listener: index, name, socket }),
            Err(cause) => {
                return Err(BindError { name, address: path.display().to_string(), cause });
            }
        }
        Ok(())
    }

    /// The TCP addresses that are bound, each with its listener's name.
    #[must_use]
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let address = |bound: &Bound| match &bound.socket {
            Acceptor::Tcp(socket) => Some((Arc::clone(&bound.name), socket.local_addr().ok()?)),
            Acceptor::Unix(..) => None,
        };
        self.bound.iter().filter_map(address).collect()
    }

    /// The names of the listeners on unix sockets: `unix:` and the path.
    #[must_use]
    pub fn unix_sockets(&self) -> Vec<Arc<str>> {
        let unix = self.bound.iter().filter(|bound| matches!(bound.socket, Acceptor::Unix(..)));
        unix.map(|bound| Arc::clone(&bound.name)).collect()
    }

    /// The next connection of any listener.
    pub(super) async fn next_connection(&self) -> io::Result<Accepted> {
        poll_fn(|cx| {
            for bound in &self.bound {
                if let Poll::Ready(accepted) = bound.socket.poll_accept(cx) {
                    return Poll::Ready(accepted.map(|(stream, uid)| Accepted {
                        listener: bound.listener,
                        stream,
                        uid,
                    }));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// A connection that is there already, if there is one.
    pub(super) async fn waiting_connection(&self) -> Option<io::Result<Accepted>> {
        tokio::select! {
            biased;
            connection = self.next_connection() => Some(connection),
            () = std::future::ready(()) => None,
        }
    }
}
