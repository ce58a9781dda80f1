//! What only the operating system knows: signals, and what ties a child process to this one.
//!
//! The one module that may hold `unsafe`, and only where no safe call exists.

mod child;

pub use child::{Signal, end_with_this_process, in_foreground, send};
