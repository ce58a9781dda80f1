//! Steady calls beside a test, to see whether one of them fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;

use super::Rig;

/// Apps that call all the time.
pub(crate) struct Callers {
    stop: Arc<AtomicBool>,
    workers: JoinSet<(u64, u64)>,
}

impl Callers {
    const WORKERS: u64 = 4;

    pub(crate) fn start(rig: &Rig, path: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for _ in 0..Self::WORKERS {
            let (client, url, stop) = (rig.client.clone(), rig.url(path), Arc::clone(&stop));
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
        Self { stop, workers }
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
