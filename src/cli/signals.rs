//! SIGTERM and SIGINT, turned into the two steps of a shutdown.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::app::Shutdown;

/// The signals that end a command, listened to from now on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// # Errors
    /// The system refuses another signal handler.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next SIGTERM or SIGINT.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first asks for draining, the second for the end.
    pub(super) async fn drive(mut self, step: watch::Sender<Shutdown>) {
        self.next().await;
        step.send_replace(Shutdown::Drain);
        self.next().await;
        step.send_replace(Shutdown::Now);
    }
}
