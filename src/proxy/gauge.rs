//! How many calls are in flight, and a way to wait until there are none: what draining stands on.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::telemetry::Metrics;

/// Counts calls; cloning shares the count.
#[derive(Debug, Clone)]
pub struct Gauge {
    state: Arc<watch::Sender<State>>,
    metrics: Metrics,
}

#[derive(Debug, Clone, Copy)]
struct State {
    in_flight: usize,
    last_began: Instant,
}

/// One call; it stops counting when it is dropped.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Gauge {
    /// Counts from zero.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        let state = State { in_flight: 0, last_began: Instant::now() };
        Self { state: Arc::new(watch::Sender::new(state)), metrics }
    }

    /// A call begins.
    #[must_use]
    pub fn enter(&self) -> InFlight {
        self.state.send_modify(|state| {
            state.in_flight += 1;
            state.last_began = Instant::now();
        });
        self.metrics.in_flight.inc();
        InFlight(self.clone())
    }

    /// Calls in flight now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.state.borrow().in_flight
    }

    /// When the last call began (the gauge's own start before the first).
    #[must_use]
    pub fn last_began(&self) -> Instant {
        self.state.borrow().last_began
    }

    /// Returns once no call is in flight.
    pub async fn idle(&self) {
        // The sender lives in `self`, so the channel cannot be closed here.
        drop(self.state.subscribe().wait_for(|state| state.in_flight == 0).await);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.state.send_modify(|state| state.in_flight -= 1);
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
