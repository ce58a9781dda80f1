//! What only the operating system knows: signals, what ties a child process to this one, what keeps
//! others out of this one, and how long the machine has slept.
//!
//! The one module that may hold `unsafe`, and only where no safe call exists.

mod child;
mod harden;
mod sleep;
mod socket;

pub use child::{Signal, end_with_this_process, in_foreground, send};
pub use harden::{Hardened, harden};
pub use sleep::slept;
pub use socket::bind_unix_socket;
