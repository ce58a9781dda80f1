//! Builds the parts, joins them, runs them, and stops them in the right order.
//!
//! Nothing else starts a task that outlives a call: `run.rs` owns the one `JoinSet`.

mod known;
mod ca_files;
mod own_calls;
mod clients;
mod stores;
mod advice;
mod online;
mod keep;
mod login;
mod build;
mod run;
mod drain;
mod carry_over;
mod named;
mod reload;

pub use build::{Ports, Sidecar, StartError};
pub use login::{Login, LoginError};
pub use online::{Finding, check_online};
pub use run::{Ended, LAST_WRITE_MAX, Shutdown};

#[cfg(test)]
mod tests;
