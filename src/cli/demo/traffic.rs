//! The demo's app: it calls the sidecar and knows no credential. Beside it, one measurer calls the
//! same resource through the sidecar and directly, in turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use reqwest::{Client, Method, Request};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::tls::{self, Roots, TlsError};

const WORKERS: usize = 4;
/// Each worker makes a call this often.
const PACE: Duration = Duration::from_millis(20);
/// Pairs of calls that are kept to be compared.
const SAMPLES_MAX: usize = 20_000;

/// Traffic that is being made.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    made: AtomicU64,
    failed: AtomicU64,
    with_credential: AtomicU64,
    samples: Mutex<Vec<Sample>>,
}

/// How long the same call took both ways.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) through: Duration,
    pub(super) direct: Duration,
}

/// What was counted.
#[derive(Debug, Clone)]
pub(super) struct Count {
    /// Calls to the sidecar.
    pub(super) made: u64,
    /// Calls without a 2xx answer.
    pub(super) failed: u64,
    /// Calls in which the app sent an `Authorization`.
    pub(super) with_credential: u64,
    pub(super) samples: Vec<Sample>,
}

impl Traffic {
    pub(super) fn start(sidecar: SocketAddr, emulator: SocketAddr) -> Result<Self, TlsError> {
        let client = tls::http_client(&Roots::none())?;
        let base = format!("http://localhost:{}", sidecar.port());
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = watch::channel(false);
        let mut workers = JoinSet::new();
        for _ in 0..WORKERS {
            let app =
                App { client: client.clone(), base: base.clone(), shared: Arc::clone(&shared) };
            workers.spawn(until(stopped.clone(), app.work()));
        }
        let app = App { client, base, shared: Arc::clone(&shared) };
        workers.spawn(until(stopped, app.measure(format!("http://{emulator}"))));
        Ok(Self { shared, stop, workers })
    }

    /// What was counted so far, without the samples.
    pub(super) fn count(&self) -> Count {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Count {
            made: count(&self.shared.made),
            failed: count(&self.shared.failed),
            with_credential: count(&self.shared.with_credential),
            samples: Vec::new(),
        }
    }

    /// Ends the traffic and gives all that was counted.
    pub(super) async fn stop(mut self) -> Count {
        self.stop.send_replace(true);
        while self.workers.join_next().await.is_some() {}
        let samples = std::mem::take(&mut *self.shared.samples.lock());
        Count { samples, ..self.count() }
    }
}

async fn until(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

struct App {
    client: Client,
    base: String,
    shared: Arc<Shared>,
}

impl App {
    async fn work(self) {
        const CALLS: [(Method, &str); 3] = [
            (Method::GET, "/v1/datasets"),
            (Method::GET, "/v1/pipelines"),
            (Method::POST, "/v1/datasets"),
        ];
        let mut tick = interval(PACE);
        for (method, path) in CALLS.iter().cycle() {
            tick.tick().await;
            let url = format!("{}{path}", self.base);
            if let Ok(request) = self.client.request(method.clone(), url).build() {
                self.call(request).await;
            }
        }
    }

    /// The same call through the sidecar and directly, one after the other.
    async fn measure(self, emulator: String) {
        let key = "Bearer dp_live_emulator_read_write";
        let mut tick = interval(PACE);
        loop {
            tick.tick().await;
            let through = self.client.get(format!("{}/v1/pipelines", self.base)).build();
            let direct = self.client.get(format!("{emulator}/v1/pipelines"));
            let direct = direct.header(AUTHORIZATION, key).build();
            let (Ok(through), Ok(direct)) = (through, direct) else { return };
            let began = Instant::now();
            self.call(through).await;
            let through = began.elapsed();
            let began = Instant::now();
            let answered = self.client.execute(direct).await;
            if let Ok(answer) = answered
                && answer.bytes().await.is_ok()
            {
                let sample = Sample { through, direct: began.elapsed() };
                let mut samples = self.shared.samples.lock();
                if samples.len() < SAMPLES_MAX {
                    samples.push(sample);
                }
            }
        }
    }

    async fn call(&self, request: Request) {
        if request.headers().contains_key(AUTHORIZATION) {
            self.shared.with_credential.fetch_add(1, Ordering::Relaxed);
        }
        let good = match self.client.execute(request).await {
            Ok(answer) => answer.status().is_success() && answer.bytes().await.is_ok(),
            Err(_failed) => false,
        };
        self.shared.made.fetch_add(1, Ordering::Relaxed);
        self.shared.failed.fetch_add(u64::from(!good), Ordering::Relaxed);
    }
}
