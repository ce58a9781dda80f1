//! A child process: signals to it, and its end when this process ends.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "no safe call ties a child to its parent")
)]

use std::io::{self, IsTerminal as _};

pub use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpgrp, tcgetpgrp};

/// Sends a signal to a process.
///
/// # Errors
/// There is no such process, or it is somebody else's.
pub fn send(process: u32, signal: Signal) -> io::Result<()> {
    let id = i32::try_from(process).map_err(|_large| io::ErrorKind::InvalidInput)?;
    Ok(nix::sys::signal::kill(Pid::from_raw(id), signal)?)
}

/// Whether the keys of a terminal (Ctrl-C, Ctrl-\) reach this process, and so its children too: the
/// terminal sends them to the whole process group in its foreground.
#[must_use]
pub fn in_foreground() -> bool {
    let stdin = io::stdin();
    stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp())
}

/// The child gets SIGTERM when this process ends, however it ends (SIGKILL included).
///
/// The system watches the *thread* that starts the child: start it from one that lives as long as
/// the process. Linux only; elsewhere a child outlives a parent that was killed.
#[cfg(target_os = "linux")]
pub fn end_with_this_process(command: &mut tokio::process::Command) {
    let parent = nix::unistd::getpid();
    let tie = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        // It may have ended before the line above.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe things may happen; these are two system
    // calls, and no error made here allocates.
    unsafe { command.pre_exec(tie) };
}

/// As on Linux, but for a parent that is killed.
#[cfg(not(target_os = "linux"))]
pub fn end_with_this_process(_command: &mut tokio::process::Command) {}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[tokio::test]
    async fn a_signal_reaches_the_child() {
        let mut child = tokio::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        send(child.id().unwrap(), Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().await.unwrap().signal(), Some(15));
    }
}
