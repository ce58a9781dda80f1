//! Calls beside a test, steady or as many as a clock says, to see whether one of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Process, Rig};

/// Apps that call all the time.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    workers: JoinSet<(u64, u64)>,
    /// Whom they call, if nobody else keeps it.
    _sidecar: Option<Process>,
}

impl Callers {
    const WORKERS: u64 = 4;

    pub(crate) fn start(rig: &Rig, path: &str) -> Self {
        Self::at(&rig.client, &rig.url(path), None)
    }

    pub(super) fn at(client: &reqwest::Client, url: &str, sidecar: Option<Process>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..Self::WORKERS {
            let (client, url, stop) = (client.clone(), url.to_owned(), Arc::clone(&stop));
            workers.spawn(async move {
                let (mut made, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    made += 1;
                    let answer = client.get(&url).send().await;
                    failed += u64::from(!answer.is_ok_and(|answer| answer.status() == 200));
                    // tidy: passes time because an app does something between two calls.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                (made, failed)
            });
        }
        Self { stop, workers, _sidecar: sidecar }
    }

    /// How many calls were made, and how many of them failed.
    pub(crate) async fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = (0, 0);
        while let Some(worker) = self.workers.join_next().await {
            let (made, failed) = worker.expect("it ends");
            sum = (sum.0 + made, sum.1 + failed);
        }
        sum
    }
}

/// A thousand calls a second, begun by the clock. It is over after so long *and* so many calls, so
/// that a slow machine takes longer instead of testing less.
pub(crate) struct Load {
    began: Instant,
    made: Arc<AtomicU64>,
    workers: JoinSet<u64>,
}

/// What became of a [`Load`].
pub(crate) struct Figures {
    pub(crate) made: u64,
    pub(crate) failed: u64,
    pub(crate) took: Duration,
}

impl Load {
    /// Callers at once, each with a connection of its own.
    pub(crate) const WORKERS: usize = 20;
    const A_SECOND: u64 = 1000;

    /// Each worker calls one of the paths, in turn.
    pub(crate) fn start(rig: &Rig, paths: &[&str], at_least: Duration) -> Self {
        let (began, made) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let mut workers = JoinSet::new();
        for path in paths.iter().cycle().take(Self::WORKERS) {
            let (client, url, made) = (rig.client.clone(), rig.url(path), Arc::clone(&made));
            workers.spawn(async move {
                let mut tick = interval(Duration::from_millis(Self::WORKERS as u64));
                tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
                let mut failed = 0;
                while began.elapsed() < at_least || made.load(Ordering::Relaxed) < calls(at_least) {
                    tick.tick().await;
                    made.fetch_add(1, Ordering::Relaxed);
                    let answer = client.get(&url).send().await;
                    failed += u64::from(!answer.is_ok_and(|answer| answer.status() == 200));
                }
                failed
            });
        }
        Self { began, made, workers }
    }

    /// Waits for the end.
    pub(crate) async fn ended(mut self) -> Figures {
        let mut failed = 0;
        while let Some(worker) = self.workers.join_next().await {
            failed += worker.expect("it ends");
        }
        Figures { made: self.made.load(Ordering::Relaxed), failed, took: self.began.elapsed() }
    }
}

impl Figures {
    /// Calls a second.
    pub(crate) fn rate(&self) -> f64 {
        self.made as f64 / self.took.as_secs_f64()
    }
}

fn calls(at_least: Duration) -> u64 {
    at_least.as_secs() * Load::A_SECOND
}
