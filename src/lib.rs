//! The library behind the `datapulse-sidecar` binary.
//!
//! Read downwards: each part uses only those above it (`tests/tidy.rs` checks that), and a call
//! flows in the same direction. `ARCHITECTURE.md` has the map.

pub mod secret;
pub mod os;
pub mod clock;
pub mod backoff;
pub mod retry_after;
pub mod files;
pub mod serve;
pub mod config;
pub mod telemetry;
pub mod tls;
pub mod store;
pub mod identity;
pub mod credential;
pub mod access;
pub mod shaping;
pub mod proxy;
pub mod webhook;
pub mod admin;
pub mod app;
pub mod kubernetes;
pub mod emulator;
pub mod cli;
