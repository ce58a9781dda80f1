//! Waits on loopback for the browser to come back, once (RFC 8252 section 7.3): at a port of this
//! login's own, or at the one of a fixed address that leads to this machine.
//!
//! Whoever comes without this login's `state` is sent away, and the wait goes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{Method, Uri};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use url::{Host, Url};

use super::page::{Said, page};
use super::{Arrived, Failure};
use crate::credential::{Question, Returned};
use crate::serve::{self, Limits};

/// Where the browser is sent, on our own port.
const PATH: &str = "/callback";
/// One browser, and whoever else is curious. A page goes out within the drain.
const LIMITS: Limits = Limits {
    connections: 16,
    head_timeout: Duration::from_secs(10),
    keep_alive: false,
    drain: Duration::from_secs(2),
};

/// A free port, bound.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    back: Url,
}

/// A listener at work; dropping it cuts its connections.
#[derive(Debug)]
pub(super) struct Listening {
    stop: watch::Sender<bool>,
    task: JoinSet<()>,
}

#[derive(Debug, Clone)]
struct Wait {
    back: Url,
    question: Arc<Question>,
    arrive: mpsc::Sender<Arrived>,
}

impl Listener {
    pub(super) async fn bind() -> Result<Self, Failure> {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let bound = bound.and_then(|socket| socket.local_addr().map(|address| (socket, address)));
        let (socket, address) = bound.map_err(|error| {
            Failure::unusable(format!(
                "cannot listen on 127.0.0.1: {error}; register an address of your own with the \
                 issuer and name it in `auth.redirect_uri`"
            ))
        })?;
        let back = Url::parse(&format!("http://{address}{PATH}"));
        let back = back.map_err(|error| Failure::unusable(error.to_string()))?;
        Ok(Self { socket, back })
    }

    /// At a fixed address, where that is one of this machine's that can be had. `None`: what the
    /// browser ends up at has to be pasted.
    pub(super) async fn at(back: &Url) -> Option<Self> {
        let ip = match back.host()? {
            Host::Ipv4(ip) => IpAddr::V4(ip),
            Host::Ipv6(ip) => IpAddr::V6(ip),
            Host::Domain("localhost") => IpAddr::V4(Ipv4Addr::LOCALHOST),
            Host::Domain(_) => return None,
        };
        let port = back.port()?;
        if back.scheme() != "http" || !ip.is_loopback() || port == 0 {
            return None;
        }
        let socket = TcpListener::bind(SocketAddr::new(ip, port)).await.ok()?;
        Some(Self { socket, back: back.clone() })
    }

    /// Where the browser is to come back to.
    pub(super) fn url(&self) -> Url {
        self.back.clone()
    }

    /// Sends what comes as an answer to `arrive`.
    pub(super) fn serve(self, question: Arc<Question>, arrive: mpsc::Sender<Arrived>) -> Listening {
        let wait = Wait { back: self.back, question, arrive };
        let app = Router::new().fallback(came).with_state(wait);
        let (stop, stopped) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(serve::serve(self.socket, app, LIMITS, stopped));
        Listening { stop, task }
    }
}

impl Listening {
    /// Lets the last page go out.
    pub(super) async fn stop(mut self) {
        self.stop.send_replace(true);
        self.task.join_next().await;
    }
}

async fn came(State(wait): State<Wait>, method: Method, uri: Uri) -> Response {
    // A browser that looks ahead with HEAD has not answered.
    if method != Method::GET || uri.path() != wait.back.path() {
        return page(Said::NotHere);
    }
    let mut address = wait.back.clone();
    address.set_query(uri.query());
    let returned = wait.question.returned(&address);
    if returned == Returned::NotOurs {
        return page(Said::NotOurs);
    }
    let (told, said) = oneshot::channel();
    if wait.arrive.try_send(Arrived { returned, told: Some(told) }).is_err() {
        return page(Said::Again);
    }
    page(said.await.unwrap_or(Said::Failed))
}
