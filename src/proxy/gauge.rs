//! How many calls are in flight, and a way to wait until there are none: what draining stands on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// Counts calls; cloning shares the count.
#[derive(Debug, Clone)]
pub struct Gauge {
    state: Arc<watch::Sender<State>>,
    draining: Arc<AtomicBool>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy)]
struct State {
    in_flight: usize,
    last_active: Instant,
}

/// One call; it stops counting when it is dropped.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Gauge {
    /// Counts from zero.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let state = State { in_flight: 0, last_active: Instant::now() };
        Self { state: Arc::new(watch::Sender::new(state)), draining: Arc::default(), metrics }
    }

    /// A call begins.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.state.send_modify(|state| {
            state.in_flight += 1;
            state.last_active = Instant::now();
        });
        self.metrics.in_flight.inc();
        InFlight(self.clone())
    }

    /// Calls in flight now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.borrow().in_flight
    }

    /// When a call began or ended last (the gauge's own start before the first).
    #[must_use]
    pub fn last_active(&self) -> Instant {
        self.state.borrow().last_active
    }

    /// From now on answers ask for their connection to be closed, so that callers come back on a new
    /// one, or to another process.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns once no call is in flight.
    pub async fn idle(&self) {
        // The sender lives in `self`, so the channel cannot be closed here.
        drop(self.state.subscribe().wait_for(|state| state.in_flight == 0).await);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| {
            state.in_flight -= 1;
            state.last_active = Instant::now();
        });
        self.0.metrics.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_gauge_is_idle_when_the_last_call_is_dropped_even_by_a_panic() {
        let gauge = Gauge::new(Metrics::new().unwrap());
        gauge.idle().await;
        let (first, second) = (gauge.enter(), gauge.enter());
        assert_eq!(gauge.count(), 2);
        drop(first);
        let panicked = std::thread::spawn(move || {
            let _second = second;
            panic!("in a filter");
        });
        assert!(panicked.join().is_err());
        gauge.idle().await;
        assert_eq!(gauge.count(), 0);
    }
}
