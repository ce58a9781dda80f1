//! Log lines to standard error, audit lines to where the configuration says; neither ever blocks a
//! call.
//!
//! Lines go through bounded queues to threads that write them; when a reader is too slow, or a line
//! cannot be written, lines are dropped and counted. Of other crates only warnings are shown, and of
//! pingora, the AWS SDK and vaultrs nothing: their lines hold request heads and whole answers.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _, Write};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;
use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, Registry, reload};

use super::Metrics;
use crate::config::model::{AuditSink, Log, LogFormat, LogLevel};

/// Lines that wait to be written, for each stream.
const LINES_MAX: usize = 16_384;
/// The end of the process waits this long for the last lines; their reader may have stopped reading.
const GOODBYE: Duration = Duration::from_secs(2);

/// Keeps the writers alive; dropping it writes out what waits. It has one owner, so that the last
/// lines of a process are not lost with a task that nobody waits for.
#[derive(Debug)]
pub struct Logging {
    guards: Vec<WorkerGuard>,
    dropped: DroppedLines,
    level: LevelSwitch,
}

/// Changes which lines are written, while the process runs. Cloning shares it.
#[derive(Debug, Clone)]
pub struct LevelSwitch {
    filter: reload::Handle<Targets, Registry>,
    level: Arc<watch::Sender<LogLevel>>,
}

impl LevelSwitch {
    /// The least severe line that is written now.
    #[must_use]
    pub fn level(&self) -> LogLevel {
        *self.level.borrow()
    }

    /// From now on lines of `level` and above are written. Gives the level before.
    ///
    /// Of our own lines alone, as at the start: those of other crates could hold anything.
    pub fn set(&self, level: LogLevel) -> LogLevel {
        let mut before = level;
        self.level.send_modify(|now| {
            before = std::mem::replace(now, level);
            // Fails only without a subscriber, and ours lives as long as the process.
            drop(self.filter.reload(targets(level)));
        });
        before
    }
}

/// How many lines were dropped, by stream.
#[derive(Debug, Clone, Default)]
pub struct DroppedLines(Vec<Stream>);

#[derive(Debug, Clone)]
struct Stream {
    name: &'static str,
    /// Lines for which the queue had no room.
    queue: ErrorCounter,
    /// Lines that could not be written: a full disk, a reader that is gone.
    unwritten: Arc<AtomicU64>,
}

impl DroppedLines {
    /// Brings the counts up to date.
    pub fn observe(&self, metrics: &Metrics) {
        for Stream { name, queue, unwritten } in &self.0 {
            let family = metrics.lines_dropped.with_label_values(&[name]);
            let queued = u64::try_from(queue.dropped_lines()).unwrap_or(u64::MAX);
            let total = queued.saturating_add(unwritten.load(Ordering::Relaxed));
            family.inc_by(total.saturating_sub(family.get()));
        }
    }
}

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The file of `log.audit` cannot be appended to.
    #[error("cannot append to the audit file {path}")]
    AuditFile {
        /// As configured.
        path: String,
        /// What the system says.
        #[source]
        cause: io::Error,
    },
    /// Called twice in a process.
    #[error("logging is set up already")]
    Twice,
}

impl Drop for Logging {
    fn drop(&mut self) {
        let guards = std::mem::take(&mut self.guards);
        let (told, ended) = mpsc::channel();
        // A guard prints where it cannot deliver its last message, which waits for the reader, too.
        let ending = std::thread::Builder::new().spawn(move || {
            drop(guards);
            drop(told);
        });
        if ending.is_ok() {
            // Nothing is ever sent: this ends with the sender, or after the time.
            let _: Result<(), _> = ended.recv_timeout(GOODBYE);
        }
    }
}

impl Logging {
    /// Sets up logging for the whole process, and a panic hook that counts.
    ///
    /// # Errors
    /// See [`LoggingError`].
    pub fn start(log: &Log, metrics: &Metrics) -> Result<Self, LoggingError> {
        let (targets, filter) = reload::Layer::new(targets(log.level));
        let level = LevelSwitch { filter, level: Arc::new(watch::Sender::new(log.level)) };
        let mut logging = Self { guards: Vec::new(), dropped: DroppedLines::default(), level };
        let stderr = logging.queue("log", io::stderr());
        let text = log.format.map_or_else(|| io::stderr().is_terminal(), |f| f == LogFormat::Text);
        let format = tracing_subscriber::fmt::layer().with_writer(stderr.clone());
        let lines: Box<dyn Layer<Registry> + Send + Sync> = if text {
            Box::new(
                format
                    .with_ansi(io::stderr().is_terminal())
                    .with_target(false)
                    .with_filter(targets),
            )
        } else {
            Box::new(format.json().flatten_event(true).with_filter(targets))
        };
        let audit = match &log.audit {
            AuditSink::None => None,
            AuditSink::Stderr => Some(stderr),
            AuditSink::Stdout => Some(logging.queue("audit", io::stdout())),
            AuditSink::File(path) => {
                let file = OpenOptions::new().create(true).append(true).open(path);
                let file = file.map_err(|cause| LoggingError::AuditFile {
                    path: path.display().to_string(),
                    cause,
                })?;
                Some(logging.queue("audit", file))
            }
        };
        let audit = audit.map(|writer| {
            let only = Targets::new().with_target("audit", LevelFilter::INFO);
            let format = tracing_subscriber::fmt::layer().with_writer(writer).with_level(false);
            format.json().flatten_event(true).with_filter(only)
        });
        tracing_subscriber::registry()
            .with(lines)
            .with(audit)
            .try_init()
            .map_err(|_already| LoggingError::Twice)?;
        count_panics(metrics.clone());
        Ok(logging)
    }

    /// A reader of the counts of dropped lines.
    #[must_use]
    pub fn dropped_lines(&self) -> DroppedLines {
        self.dropped.clone()
    }

    /// What changes the level while the process runs.
    #[must_use]
    pub fn level_switch(&self) -> LevelSwitch {
        self.level.clone()
    }

    fn queue(&mut self, name: &'static str, to: impl Write + Send + 'static) -> NonBlocking {
        let unwritten = Arc::new(AtomicU64::new(0));
        let to = Counting { to, unwritten: Arc::clone(&unwritten) };
        let (writer, guard) =
            NonBlockingBuilder::default().buffered_lines_limit(LINES_MAX).lossy(true).finish(to);
        self.dropped.0.push(Stream { name, queue: writer.error_counter(), unwritten });
        self.guards.push(guard);
        writer
    }
}

/// Which log lines are written.
fn targets(own: LogLevel) -> Targets {
    Targets::new()
        .with_default(LevelFilter::WARN)
        .with_targets(
            ["pingora", "pingora_core", "pingora_proxy", "pingora_pool"]
                .map(|t| (t, LevelFilter::OFF)),
        )
        // Every crate of the AWS SDK: errors are told with the whole answer, at any level.
        .with_target("aws_", LevelFilter::OFF)
        // They repeat what Vault says, and their spans hold paths.
        .with_targets(["vaultrs", "rustify"].map(|t| (t, LevelFilter::OFF)))
        .with_target("datapulse_sidecar", level(own))
        .with_target("audit", LevelFilter::OFF)
}

/// Counts the lines that cannot be written, and goes on.
struct Counting<W> {
    to: W,
    unwritten: Arc<AtomicU64>,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The queue hands over a whole line at a time.
        if self.to.write_all(line).and_then(|()| self.to.flush()).is_err() {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

const fn level(level: LogLevel) -> LevelFilter {
    LevelFilter::from_level(match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    })
}

/// A panic's message may hold anything; only its place is written, and the count goes up.
pub(crate) fn count_panics(metrics: Metrics) {
    panic::set_hook(Box::new(move |info| {
        metrics.panics.inc();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(place, "panic: this is a bug in the sidecar, please report it");
    }));
}
