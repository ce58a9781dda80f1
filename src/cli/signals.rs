//! SIGTERM and SIGINT, turned into the two steps of a shutdown; SIGHUP into a reload; and what else a
//! process may be sent.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::app::Shutdown;
use crate::os;

/// The signals that end a command, listened to from now on.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Where there are none, each of them does what it does to any process: end it.
    more: Option<MoreSignals>,
}

/// What else a server is told by.
#[derive(Debug)]
struct MoreSignals {
    hangup: Signal,
    quit: Signal,
    user1: Signal,
    user2: Signal,
}

/// What a signal says.
enum Told {
    Reload,
    Stop,
    StopNow,
    /// Nothing that concerns us.
    Else(&'static str),
}

impl Signals {
    /// # Errors
    /// The system refuses another signal handler.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            more: None,
        })
    }

    /// SIGHUP asks for a reload, SIGQUIT for the end; a tool that sends SIGUSR1 or SIGUSR2 to all
    /// servers alike does no harm.
    ///
    /// # Errors
    /// As [`Self::listen`].
    pub(super) fn of_a_server(self) -> std::io::Result<Self> {
        let more = MoreSignals {
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        };
        Ok(Self { more: Some(more), ..self })
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
            loop {
                match self.told().await {
                    Told::Reload => reload.notify_one(),
                    Told::Else(signal) => tracing::info!(signal, "ignored: it asks for nothing"),
                    Told::Stop => break,
                    Told::StopNow => {
                        step.send_replace(Shutdown::Now);
                        return;
                    }
                }
            }
            step.send_replace(next);
        }
    }

    async fn told(&mut self) -> Told {
        let Some(more) = &mut self.more else {
            self.next().await;
            return Told::Stop;
        };
        tokio::select! {
            _ = more.hangup.recv() => Told::Reload,
            _ = more.quit.recv() => Told::StopNow,
            _ = more.user1.recv() => Told::Else("SIGUSR1"),
            _ = more.user2.recv() => Told::Else("SIGUSR2"),
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
