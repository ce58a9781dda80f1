//! From SIGTERM to the end: no accepted call is lost, and none is refused while callers may still
//! come.
//!
//! 1. Serve on, accepting, until nothing is in flight and no call came for a moment; at least
//!    `drain.min`, at most `drain.max`.
//! 2. Close the listeners; what is in flight is answered, for as long as a call may take.
//! 3. End. A second signal ends at once.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::run::{Ended, Shutdown};
use crate::config::model::Drain;
use crate::proxy::Gauge;

/// "A moment": an app that is still there would have called again.
const QUIET: Duration = Duration::from_millis(250);

pub(super) struct Draining {
    pub(super) gauge: Gauge,
    pub(super) drain: Drain,
    /// How long a call may take to be answered.
    pub(super) answer_time: Duration,
    pub(super) stop: watch::Sender<bool>,
    pub(super) accepting: JoinSet<()>,
}

pub(super) async fn drain(
    mut draining: Draining,
    mut shutdown: watch::Receiver<Shutdown>,
) -> Ended {
    let gauge = draining.gauge.clone();
    gauge.drain();
    tracing::info!(in_flight = gauge.count(), "draining: serving what is in flight and what comes");
    let ended = tokio::select! {
        ended = in_order(&mut draining) => ended,
        _ = shutdown.wait_for(|step| *step == Shutdown::Now) => {
            tracing::warn!(in_flight = gauge.count(), "told twice: ending now");
            Ended::Cut { in_flight: gauge.count() }
        }
    };
    match ended {
        Ended::Clean => tracing::info!("drained: every call was answered"),
        Ended::Cut { in_flight } => tracing::warn!(in_flight, "calls were cut off"),
    }
    ended
}

async fn in_order(draining: &mut Draining) -> Ended {
    let began = Instant::now();
    let Drain { min, max } = draining.drain;
    // The upper bound wins where the two contradict each other.
    let at_most = began + max;
    drop(timeout_at(at_most, quiet(&draining.gauge, began + min)).await);
    draining.stop.send_replace(true);
    let answered = async {
        draining.gauge.idle().await;
        while draining.accepting.join_next().await.is_some() {}
    };
    match timeout_at(Instant::now() + draining.answer_time, answered).await {
        Ok(()) => Ended::Clean,
        Err(_elapsed) => Ended::Cut { in_flight: draining.gauge.count() },
    }
}

/// Returns once nothing is in flight and no call came for [`QUIET`], not before `not_before`.
async fn quiet(gauge: &Gauge, not_before: Instant) {
    sleep_until(not_before).await;
    loop {
        gauge.idle().await;
        let since = gauge.last_active();
        if since.elapsed() >= QUIET && gauge.count() == 0 {
            return;
        }
        sleep_until(since + QUIET).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    fn draining(min: u64, max: u64) -> (Draining, watch::Receiver<bool>) {
        let (stop, stopped) = watch::channel(false);
        let mut accepting = JoinSet::new();
        let mut closing = stopped.clone();
        accepting.spawn(async move {
            drop(closing.wait_for(|stop| *stop).await);
        });
        let secs = Duration::from_secs;
        let draining = Draining {
            gauge: Gauge::new(Metrics::new().unwrap()),
            drain: Drain { min: secs(min), max: secs(max) },
            answer_time: secs(30),
            stop,
            accepting,
        };
        (draining, stopped)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_sidecar_ends_after_a_moment_and_not_before_the_minimum() {
        for (min, most) in [(0, 1), (3, 4)] {
            let (draining, _stopped) = draining(min, 5);
            let (_keep, shutdown) = watch::channel(Shutdown::Drain);
            let began = Instant::now();
            assert_eq!(drain(draining, shutdown).await, Ended::Clean);
            let took = began.elapsed();
            assert!(took >= Duration::from_secs(min) && took <= Duration::from_secs(most));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_ends_when_the_last_answer_is_out_and_accepts_until_the_maximum() {
        let (draining, mut stopped) = draining(0, 5);
        let call = draining.gauge.enter();
        let began = Instant::now();
        let (_keep, shutdown) = watch::channel(Shutdown::Drain);
        let mut tasks = JoinSet::new();
        tasks.spawn(drain(draining, shutdown));
        stopped.wait_for(|stop| *stop).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(4)).await;
        drop(call);
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Ended::Clean);
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_at_once_and_says_what_was_cut() {
        let (draining, _stopped) = draining(0, 5);
        let _call = draining.gauge.enter();
        let (step, shutdown) = watch::channel(Shutdown::Drain);
        let mut tasks = JoinSet::new();
        tasks.spawn(drain(draining, shutdown));
        tokio::task::yield_now().await;
        step.send_replace(Shutdown::Now);
        let began = Instant::now();
        assert_eq!(tasks.join_next().await.unwrap().unwrap(), Ended::Cut { in_flight: 1 });
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
