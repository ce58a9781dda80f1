//! A unix socket that nobody can open before its mode is set.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::{Mode, umask};

/// Binds `path`, which must not exist; non-blocking. `mode`: permission bits.
///
/// # Errors
/// The system's.
pub fn bind_unix_socket(path: &Path, mode: u32) -> io::Result<UnixListener> {
    // The process' own, so only for the two system calls of the bind.
    let before = umask(Mode::from_bits_truncate(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let socket = bound?;
    std::fs::set_permissions(path, Permissions::from_mode(mode))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
