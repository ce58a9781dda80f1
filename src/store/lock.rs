//! An exclusive lock on a file (`flock`), so that two processes never replace it at the same time. It
//! leaves nothing behind: the system frees it when its holder ends.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held until it is dropped.
pub(super) struct FileLock(#[expect(dead_code, reason = "held, never read")] Flock<File>);

impl FileLock {
    /// The lock, or `None` while another process has it or is replacing the file. Never waits.
    pub(super) fn try_new(path: &Path) -> io::Result<Option<Self>> {
        // Some file systems lock exclusively only what is open for writing.
        let file = File::options().read(true).write(true).open(path)?;
        let ours = file.metadata()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // Another file may be in its place by now: a lock on the old one says nothing.
            Ok(lock) => {
                let there = std::fs::metadata(path)?;
                let is_there = (there.dev(), there.ino()) == (ours.dev(), ours.ino());
                Ok(is_there.then_some(Self(lock)))
            }
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

impl fmt::Debug for FileLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileLock")
    }
}
