//! A proxy for HTTP in front of a real server that holds one request, or its answer, for as long as a
//! test wants: what a process was doing when it was killed is known exactly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;
use super::tools::client;

/// What is done to POST requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Nothing.
    Nothing,
    /// The one of this number, from 1, does not reach the server.
    Request(usize),
    /// It does, and its answer does not come back.
    Answer(usize),
    /// Those from this number on are answered with 503 and do not reach the server.
    Fail(usize),
}

/// Passes on what it does not hold, until it is dropped.
pub(crate) struct Gate {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    target: SocketAddr,
    client: reqwest::Client,
    hold: watch::Sender<Hold>,
    posts: AtomicUsize,
    held: watch::Sender<usize>,
}

impl Gate {
    pub(crate) async fn new(target: SocketAddr, hold: Hold) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shared = Arc::new(Shared {
            target,
            client: client(Vec::new()),
            hold: watch::Sender::new(hold),
            posts: AtomicUsize::new(0),
            held: watch::Sender::new(0),
        });
        let app = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.expect("it serves") });
        Self { address, shared, _tasks: tasks }
    }

    /// Waits until something is held.
    pub(crate) async fn holds(&self) {
        let mut held = self.shared.held.subscribe();
        let waited = timeout(PATIENCE, held.wait_for(|held| *held > 0)).await;
        waited.expect("it comes").expect("the gate stands");
    }

    /// What is held is dropped; everything is passed on from now on.
    pub(crate) fn open(&self) {
        self.shared.hold.send_replace(Hold::Nothing);
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let mut holding = shared.hold.subscribe();
    let hold = *holding.borrow_and_update();
    let number = match *request.method() {
        Method::POST => shared.posts.fetch_add(1, Ordering::SeqCst) + 1,
        _ => 0,
    };
    if matches!(hold, Hold::Fail(from) if number >= from) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if hold == Hold::Request(number) {
        shared.held.send_modify(|held| *held += 1);
        drop(holding.changed().await);
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let answer = shared.forward(request).await;
    if hold == Hold::Answer(number) {
        shared.held.send_modify(|held| *held += 1);
        drop(holding.changed().await);
    }
    answer
}

impl Shared {
    async fn forward(&self, request: Request) -> Response {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, 1024 * 1024).await.expect("a small body");
        let url = format!("http://{}{}", self.target, parts.uri);
        let mut headers = parts.headers;
        for name in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
            headers.remove(name);
        }
        let sent = self.client.request(parts.method, url).headers(headers).body(body).send();
        let Ok(answer) = sent.await else { return StatusCode::BAD_GATEWAY.into_response() };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response.headers_mut().remove(TRANSFER_ENCODING);
        response
    }
}
