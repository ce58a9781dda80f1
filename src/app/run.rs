//! Runs every part until it is told to stop: the one place that owns long-lived tasks.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::build::{OwnSockets, Sidecar};
use super::drain::{self, Draining};
use super::reload::{NEW_CREDENTIALS_WAIT, NEW_PARTS_MAX, Part};
use crate::credential::Registry;
use crate::{admin, proxy, webhook};

/// The end waits this long for what has to be written. (The gateway's chart reckons with it.)
pub const LAST_WRITE_MAX: Duration = Duration::from_secs(12);

/// Tells a running sidecar to stop, in two steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// Go on.
    No,
    /// Serve what is in flight and what still comes for a moment, then end (SIGTERM).
    Drain,
    /// End at once (a second SIGTERM).
    Now,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Every accepted call was answered.
    Clean,
    /// Calls were cut off.
    Cut {
        /// How many.
        in_flight: usize,
    },
}

impl Sidecar {
    /// Serves until `shutdown` says otherwise.
    ///
    /// A long-lived task that ends before, which only a bug can do, ends the run: a process that
    /// half works is worse than one that is restarted.
    pub async fn run(self, mut shutdown: watch::Receiver<Shutdown>) -> Ended {
        let (stop, stopped) = watch::channel(false);
        let (gauge, health, live) = (self.gauge.clone(), self.health.clone(), self.live);
        let startup_timeout = live.load().config.startup_timeout;
        let webhooks = self.reloading.webhooks.clone();
        let status = self.status.with_webhooks(&webhooks);
        let mut accepting = JoinSet::new();
        accepting.spawn(proxy::accept(self.listeners, self.proxy, self.server, stopped.clone()));
        let mut parts = JoinSet::new();
        spawn(&mut parts, self.resolver.run());
        spawn(&mut parts, self.watcher.run());
        spawn(&mut parts, self.identity.run());
        for refresher in self.refreshers {
            spawn(&mut parts, refresher.run());
        }
        for keeper in self.keepers {
            spawn(&mut parts, keeper.run());
        }
        spawn(&mut parts, health.clone().start_up(startup_timeout));
        let (more, mut new) = mpsc::channel(NEW_PARTS_MAX);
        if let Some(watch) = self.watch {
            spawn(&mut parts, self.reloading.run(watch, more, shutdown.clone()));
        } else {
            drop(more);
        }
        // Health and status answer until the very end, also while calls are drained.
        let (_last, serving) = watch::channel(false);
        if let Some(OwnSockets { health: socket, admin, webhooks: hooks }) = self.own_sockets {
            if let Some(socket) = hooks {
                accepting.spawn(webhook::serve(socket, webhooks, stopped));
            }
            spawn(&mut parts, admin::serve_health(socket, health.clone(), serving.clone()));
            spawn(&mut parts, admin::serve_admin(admin, status, self.verbs, serving));
        }
        tokio::select! {
            _ = shutdown.wait_for(|step| *step >= Shutdown::Drain) => {}
            _ = accepting.join_next() => {
                tracing::error!("the listeners ended by themselves; stopping");
                return Ended::Cut { in_flight: gauge.count() };
            }
            () = first_panic(&mut parts, &mut new) => {
                tracing::error!("a part of the sidecar panicked; stopping");
            }
        }
        health.drain();
        let snapshot = live.load();
        let drain = snapshot.config.drain;
        let answer_time = snapshot.config.answer_time();
        drop(snapshot);
        let draining = Draining { gauge, drain, answer_time, stop, accepting };
        let ended = tokio::select! {
            ended = drain::drain(draining, shutdown.clone()) => ended,
            never = go_on(&mut parts, &mut new) => match never {},
        };
        let deadline = Instant::now() + LAST_WRITE_MAX;
        reloaded(&mut parts, &mut new, &mut shutdown).await;
        finish(&live.load().credentials, deadline, shutdown).await;
        ended
    }
}

/// Answers of issuers are awaited, and what was renewed and could not be written gets one last try: a
/// restart would not find it.
async fn finish(
    credentials: &Registry,
    deadline: Instant,
    mut shutdown: watch::Receiver<Shutdown>,
) {
    let unwritten = tokio::select! {
        unwritten = credentials.finish(deadline) => unwritten,
        _ = shutdown.wait_for(|step| *step == Shutdown::Now) => return,
    };
    for credential in unwritten {
        tracing::error!(
            %credential,
            "a renewed secret could not be written back and is lost; put a new one into its store"
        );
    }
}

fn spawn(parts: &mut JoinSet<()>, part: impl Future<Output = ()> + Send + 'static) {
    parts.spawn(part);
}

/// Waits until a part panics, and meanwhile runs those that a reload adds. Parts may end: a start-up
/// that is over, a refresher nobody reads.
async fn first_panic(parts: &mut JoinSet<()>, new: &mut mpsc::Receiver<Part>) {
    loop {
        tokio::select! {
            Some(part) = new.recv() => spawn(parts, part),
            Some(ended) = parts.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    return;
                }
            }
            else => std::future::pending().await,
        }
    }
}

/// Runs what the last reload brings, until that is over or takes too long: what its credentials took over
/// is theirs to write.
async fn reloaded(
    parts: &mut JoinSet<()>,
    new: &mut mpsc::Receiver<Part>,
    shutdown: &mut watch::Receiver<Shutdown>,
) {
    // Otherwise a part panicked, and the reloads go on.
    if *shutdown.borrow() < Shutdown::Drain {
        return;
    }
    let over = async {
        while let Some(part) = new.recv().await {
            spawn(parts, part);
        }
    };
    tokio::select! {
        _ = timeout(NEW_CREDENTIALS_WAIT, over) => {}
        _ = shutdown.wait_for(|step| *step == Shutdown::Now) => {}
    }
}

/// Runs what a reload brings that was under way when draining began: its calls are served, too. A part
/// that panics by then is only missing.
async fn go_on(parts: &mut JoinSet<()>, new: &mut mpsc::Receiver<Part>) -> Infallible {
    loop {
        first_panic(parts, new).await;
    }
}
