//! An exclusive lock on a folder (`flock`), so that two processes never replace one of its files at
//! the same time. It leaves nothing behind: the system frees it when its holder ends.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Held until it is dropped.
pub(super) struct FolderLock(#[expect(dead_code, reason = "held, never read")] Flock<File>);

impl FolderLock {
    /// The lock, or `None` while another process has it. Never waits.
    pub(super) fn try_new(folder: &Path) -> io::Result<Option<Self>> {
        let folder = File::open(folder)?;
        match Flock::lock(folder, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

impl fmt::Debug for FolderLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FolderLock")
    }
}
