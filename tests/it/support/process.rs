//! A child process whose output is kept, line by line, and can be waited on.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;

/// Lines kept of one stream; a test that writes more is told so.
const LINES_MAX: usize = 200_000;

/// What a stream said so far.
#[derive(Debug, Clone)]
pub(crate) struct Output(watch::Receiver<Arc<Vec<String>>>);

impl Output {
    /// Every line so far.
    pub(crate) fn lines(&self) -> Arc<Vec<String>> {
        Arc::clone(&self.0.borrow())
    }

    /// The lines once they satisfy `wanted`.
    pub(crate) async fn until(&self, wanted: impl Fn(&[String]) -> bool) -> Arc<Vec<String>> {
        let mut lines = self.0.clone();
        match timeout(PATIENCE, lines.wait_for(|lines| wanted(lines))).await {
            Ok(Ok(lines)) => Arc::clone(&lines),
            _ => panic!("no such line came; there was:\n{}", self.lines().join("\n")),
        }
    }

    /// The first line that satisfies `wanted`, waiting for it.
    pub(crate) async fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let lines = self.until(|lines| lines.iter().any(|line| wanted(line))).await;
        lines.iter().find(|line| wanted(line)).expect("it was waited for").clone()
    }
}

/// A running child. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    readers: JoinSet<()>,
    /// Standard output.
    pub(crate) stdout: Output,
    /// Standard error.
    pub(crate) stderr: Output,
}

impl Process {
    /// Starts the sidecar's binary.
    pub(crate) fn sidecar(args: &[&str]) -> Self {
        Self::sidecar_in(args, &[])
    }

    /// As [`Self::sidecar`], with variables in its environment.
    pub(crate) fn sidecar_in(args: &[&str], env: &[(String, String)]) -> Self {
        Self::start(Self::command(args, env))
    }

    fn command(args: &[&str], env: &[(String, String)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
        command.args(args).env_remove("DATAPULSE_SIDECAR_CONFIG").env_remove("STATE_DIRECTORY");
        // Whoever runs the tests may have a login of their own.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// As [`Self::sidecar`], by a shell that does `script` first and then becomes the sidecar.
    pub(crate) fn sidecar_after(script: &str, args: &[&str]) -> Self {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_datapulse-sidecar")).args(args);
        Self::start(command)
    }

    /// As [`Self::sidecar_in`], with what its standard input is written by.
    pub(crate) fn sidecar_told(args: &[&str], env: &[(String, String)]) -> (Self, ChildStdin) {
        Self::told(Self::command(args, env))
    }

    /// Starts any command, with what its standard input is written by.
    pub(crate) fn told(command: Command) -> (Self, ChildStdin) {
        let mut started = Self::spawn(command, Stdio::piped());
        let input = started.child.stdin.take().expect("piped");
        (started, input)
    }

    /// Starts any command.
    pub(crate) fn start(command: Command) -> Self {
        Self::spawn(command, Stdio::null())
    }

    fn spawn(mut command: Command, input: Stdio) -> Self {
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("the program starts");
        let mut readers = JoinSet::new();
        let stdout = collect(&mut readers, child.stdout.take().expect("piped"));
        let stderr = collect(&mut readers, child.stderr.take().expect("piped"));
        Self { child, readers, stdout, stderr }
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal by name, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for the end, and for the last line.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let status = timeout(PATIENCE * 3, self.child.wait()).await;
        while let Some(reader) = self.readers.join_next().await {
            reader.expect("all output was read");
        }
        status.expect("it ends").expect("its status can be read")
    }
}

fn collect(readers: &mut JoinSet<()>, from: impl AsyncRead + Unpin + Send + 'static) -> Output {
    let (lines, receiver) = watch::channel(Arc::<Vec<String>>::default());
    readers.spawn(async move {
        let mut from = BufReader::new(from).lines();
        while let Ok(Some(line)) = from.next_line().await {
            let room = lines.borrow().len() < LINES_MAX;
            // A search for the canary must not end early without a word.
            let line = if room { line } else { panic!("more than {LINES_MAX} lines") };
            lines.send_modify(|lines: &mut Arc<Vec<String>>| Arc::make_mut(lines).push(line));
        }
    });
    Output(receiver)
}
