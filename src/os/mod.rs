//! What only the operating system knows: signals, what ties a child process to this one, what keeps
//! others out of this one, how many files it may open, which boot of the machine this is, and how
//! long it has slept.
//!
//! The one module that may hold `unsafe`, and only where no safe call exists.

mod boot;
mod child;
mod harden;
mod open_files;
mod sleep;
mod socket;

pub use boot::Boot;
pub use child::{Signal, end_with_this_process, in_foreground, send};
pub use harden::{Hardened, harden};
pub use open_files::{OpenFiles, open_files_max, raise_open_files};
pub use sleep::slept;
pub use socket::bind_unix_socket;
