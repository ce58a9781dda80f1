//! Keeps secrets in memory from others of the same user: no core dump, no tracing.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "no safe call gives a child what was taken from the parent")
)]

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// What was done, to be kept for [`Self::spare`].
#[derive(Debug)]
pub struct Hardened {
    /// The core limit, in bytes, that was in force before.
    core_limit: Option<(rlim_t, rlim_t)>,
    problem: Option<io::Error>,
}

/// From now on this process leaves no core dump, and on Linux none but root can trace it or read
/// its memory. To be called before the first secret is read.
#[must_use]
pub fn harden() -> Hardened {
    let before = getrlimit(Resource::RLIMIT_CORE);
    let limited = before.and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    let problem = limited.and_then(|()| forbid_tracing()).err().map(io::Error::from);
    Hardened { core_limit: before.ok(), problem }
}

impl Hardened {
    /// Why not everything could be done: the process runs in a place that forbids it.
    #[must_use]
    pub const fn problem(&self) -> Option<&io::Error> {
        self.problem.as_ref()
    }

    /// A child has its own secrets, and its own will: it gets the core limit that was in force
    /// before. Whether it may be traced is decided anew by its program.
    #[cfg(target_os = "linux")]
    pub fn spare(&self, command: &mut tokio::process::Command) {
        let Some((soft, hard)) = self.core_limit else { return };
        let restore = move || Ok(setrlimit(Resource::RLIMIT_CORE, soft, hard)?);
        // SAFETY: between fork and exec only async-signal-safe things may happen; this is one system
        // call, and no error made here allocates.
        unsafe { command.pre_exec(restore) };
    }

    /// Children have no core dumps either.
    #[cfg(not(target_os = "linux"))]
    pub fn spare(&self, _command: &mut tokio::process::Command) {}
}

#[cfg(target_os = "linux")]
fn forbid_tracing() -> nix::Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

#[cfg(not(target_os = "linux"))]
fn forbid_tracing() -> nix::Result<()> {
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_process_leaves_no_dump_and_its_child_may() {
        let (soft, _) = getrlimit(Resource::RLIMIT_CORE).unwrap();
        let hardened = harden();
        assert!(hardened.problem().is_none(), "{hardened:?}");
        assert!(!nix::sys::prctl::get_dumpable().unwrap());
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap().0, 0);
        let mut child = tokio::process::Command::new("cat");
        hardened.spare(child.arg("/proc/self/limits"));
        let limits = String::from_utf8(child.output().await.unwrap().stdout).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let word = if soft == nix::sys::resource::RLIM_INFINITY {
            "unlimited".to_owned()
        } else {
            soft.to_string()
        };
        assert_eq!(line.split_whitespace().nth(4), Some(word.as_str()), "{line}");
    }
}
