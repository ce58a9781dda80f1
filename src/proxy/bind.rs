//! Binds the addresses where apps call.
//!
//! At once and without retries: an address that is taken ends the start.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use rustls::ServerConfig;
use tokio::net::TcpListener;

use super::socket::{Acceptor, CallerSocket};
use crate::config::model::{Listener, Socket};
use crate::telemetry::error_chain;
use crate::tls::{OwnCertificate, OwnFileError};

/// Bound listeners, not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    bound: Vec<Bound>,
    /// By the index of the listener.
    certificates: Certificates,
}

#[derive(Debug)]
struct Bound {
    listener: usize,
    name: Arc<str>,
    socket: Acceptor,
    tls: Option<Arc<ServerConfig>>,
}

/// A connection that came in.
#[derive(Debug)]
pub(super) struct Accepted {
    /// The index of its listener.
    pub(super) listener: usize,
    pub(super) stream: CallerSocket,
    /// The user behind it, on a unix socket.
    pub(super) uid: Option<u32>,
    /// What its handshake is made with, where it has to speak TLS.
    pub(super) tls: Option<Arc<ServerConfig>>,
}

/// Why a listener cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// An address that cannot be bound: it is in use, or not this machine's.
    #[error("cannot listen on {address} (listener {name}); is another program using it?")]
    Address {
        /// The listener.
        name: Arc<str>,
        /// What was to be bound.
        address: String,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// Its certificate or key cannot be used: see the cause.
    #[error("the certificate of listener {name} cannot be used (listeners[].tls)")]
    Certificate {
        /// The listener.
        name: Arc<str>,
        /// What is wrong with it.
        #[source]
        cause: OwnFileError,
    },
    /// TLS cannot be set up: a mistake of ours.
    #[error("cannot set TLS up")]
    Tls(#[from] rustls::Error),
}

/// The certificates that listeners show, by their index; `None`: the listener speaks plain HTTP.
#[derive(Debug, Clone, Default)]
pub struct Certificates(Vec<Option<Arc<OwnCertificate>>>);

impl Certificates {
    fn read(listeners: &[Listener]) -> Result<Self, BindError> {
        let read = |listener: &Listener| -> Result<_, BindError> {
            let Some(tls) = &listener.tls else { return Ok(None) };
            let own = OwnCertificate::from_files(&tls.cert_file, &tls.key_file);
            let name = Arc::clone(&listener.name);
            let own = own.map_err(|cause| BindError::Certificate { name, cause })?;
            Ok(Some(Arc::new(own)))
        };
        Ok(Self(listeners.iter().map(read).collect::<Result<_, _>>()?))
    }

    /// Whether the files of the listeners, which are those of the start, hold others by now. A
    /// warning says so where they could not be used.
    #[must_use]
    pub fn have_changed(&self, listeners: &[Listener]) -> bool {
        match Self::read(listeners) {
            Ok(now) => self.0.iter().zip(&now.0).any(|(then, now)| {
                then.as_ref().map(|own| own.chain()) != now.as_ref().map(|own| own.chain())
            }),
            Err(error) => {
                let cause = error_chain(&error);
                tracing::warn!(cause, "after a restart this listener could not be served");
                true
            }
        }
    }
}

impl Listeners {
    /// Binds every address of every listener.
    ///
    /// `localhost` stands for 127.0.0.1 and, where the machine has it, `::1`; with port 0 both get
    /// the same free port.
    ///
    /// # Errors
    /// The first certificate that cannot be used, or address that cannot be bound.
    pub async fn bind(listeners: &[Listener]) -> Result<Self, BindError> {
        let certificates = Certificates::read(listeners)?;
        let mut all = Self { bound: Vec::new(), certificates };
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
        let own = self.certificates.0.get(index).and_then(Option::as_ref);
        let tls = own.map(|own| own.server_config()).transpose()?.map(Arc::new);
        let mut port = None;
        for &address in addresses {
            let address = SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port()));
            let name = Arc::clone(&listener.name);
            match TcpListener::bind(address).await {
                Ok(socket) => {
                    port = socket.local_addr().ok().map(|bound| bound.port());
                    let (socket, tls) = (Acceptor::Tcp(socket), tls.clone());
                    self.bound.push(Bound { listener: index, name, socket, tls });
                }
                // A machine without IPv6, in whichever way, still has its localhost.
                Err(cause) if port.is_some() && cause.kind() != io::ErrorKind::AddrInUse => {
                    tracing::info!(%address, listener = %name, "not on this machine");
                }
                Err(cause) => {
                    let address = address.to_string();
                    return Err(BindError::Address { name, address, cause });
                }
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
            Ok(socket) => self.bound.push(Bound { listener: index, name, socket, tls: None }),
            Err(cause) => {
                let address = path.display().to_string();
                return Err(BindError::Address { name, address, cause });
            }
        }
        Ok(())
    }

    /// What they show to callers.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
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
                        tls: bound.tls.clone(),
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
