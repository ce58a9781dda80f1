//! How many files and sockets this process may have open at once.

#![cfg_attr(
    target_os = "linux",
    expect(unsafe_code, reason = "no safe call gives a child what was changed for the parent")
)]

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// The limit before it was raised, to be kept for [`Self::spare`].
#[derive(Debug)]
pub struct OpenFiles(Option<(rlim_t, rlim_t)>);

/// From now on this process may have as many files open as the system lets it: the soft limit is
/// often 1024, for programs that cannot take more.
#[must_use]
pub fn raise_open_files() -> OpenFiles {
    let before = getrlimit(Resource::RLIMIT_NOFILE).ok();
    if let Some((_, hard)) = before {
        // Where that is refused, the limit is what it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    OpenFiles(before)
}

/// How many files and sockets may be open now; `None`: the system does not say.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

impl OpenFiles {
    /// A child may be one of those programs: it gets the limit that was in force before.
    #[cfg(target_os = "linux")]
    pub fn spare(&self, command: &mut tokio::process::Command) {
        let Some((soft, hard)) = self.0 else { return };
        let restore = move || Ok(setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?);
        // SAFETY: between fork and exec only async-signal-safe things may happen; this is one system
        // call, and no error made here allocates.
        unsafe { command.pre_exec(restore) };
    }

    /// Children have the raised limit.
    #[cfg(not(target_os = "linux"))]
    pub fn spare(&self, _command: &mut tokio::process::Command) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_limit_is_raised_for_the_process_and_not_for_its_child() {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let before = raise_open_files();
        assert_eq!(open_files_max(), Some(hard));
        let mut child = tokio::process::Command::new("cat");
        before.spare(child.arg("/proc/self/limits"));
        let limits = String::from_utf8(child.output().await.unwrap().stdout).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        assert_eq!(line.split_whitespace().nth(3), Some(soft.to_string().as_str()), "{line}");
    }
}
