//! SIGTERM and SIGINT, turned into the two steps of a shutdown; SIGHUP into a reload.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::app::Shutdown;
use crate::os;

/// The signals that end a command, listened to from now on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Where there is none, SIGHUP ends the process.
    hangup: Option<Signal>,
}

/// What a signal says.
enum Told {
    Reload,
    Stop,
}

impl Signals {
    /// # Errors
    /// The system refuses another signal handler.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: None,
        })
    }

    /// SIGHUP asks for a reload.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub(super) fn with_reload(self) -> std::io::Result<Self> {
        Ok(Self { hangup: Some(signal(SignalKind::hangup())?), ..self })
    }

    /// The next SIGTERM or SIGINT.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The first asks for draining, the second for the end; SIGHUP asks `reload` before and between.
    pub(super) async fn drive(mut self, step: watch::Sender<Shutdown>, reload: &Notify) {
        for next in [Shutdown::Drain, Shutdown::Now] {
            while let Told::Reload = self.told().await {
                reload.notify_one();
            }
            step.send_replace(next);
        }
    }

    async fn told(&mut self) -> Told {
        let Some(hangup) = &mut self.hangup else {
            self.next().await;
            return Told::Stop;
        };
        tokio::select! {
            _ = hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
        }
    }
}

/// Every signal that a parent would pass on to its child.
#[derive(Debug)]
pub(super) struct PassedOn(Vec<(os::Signal, Signal)>);

impl PassedOn {
    const SIGNALS: [os::Signal; 6] = [
        os::Signal::SIGTERM,
        os::Signal::SIGINT,
        os::Signal::SIGHUP,
        os::Signal::SIGQUIT,
        os::Signal::SIGUSR1,
        os::Signal::SIGUSR2,
    ];

    /// # Errors
    /// As [`Signals::listen`].
    pub(super) fn listen() -> std::io::Result<Self> {
        let listen = |sort: os::Signal| Ok((sort, signal(SignalKind::from_raw(sort as i32))?));
        Self::SIGNALS.into_iter().map(listen).collect::<std::io::Result<_>>().map(Self)
    }

    /// The next one of them.
    pub(super) async fn next(&mut self) -> os::Signal {
        std::future::poll_fn(|cx| {
            for (sort, stream) in &mut self.0 {
                if stream.poll_recv(cx).is_ready() {
                    return std::task::Poll::Ready(*sort);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}
