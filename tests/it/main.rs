//! The whole sidecar on loopback: the real binary, real sockets, the emulator as DataPulse. A module
//! for each promise of the README.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where its expectation fails"
)]

mod support;

mod readme;
mod first_call;
mod front_door;
mod bodies;
mod tokens;
mod rotation;
mod time;
mod refresh_tokens;
mod lost_answers;
mod reloads_in_a_refresh;
mod ends_in_a_refresh;
mod reload;
mod operating;
mod page;
mod quotas;
mod rate_headers;
mod hostile_upstream;
mod secrets;
mod aws;
mod retries;
mod tls;
mod client_cert;
mod listener_tls;
mod life_cycle;
mod commands;
mod callers;
mod exec;
mod webhooks;
mod service_accounts;
mod login;
mod authorization_server;
mod hardening;
mod servers;
mod shadow;
mod pod;
mod gateway;
mod machine;
mod vault;
mod vault_faults;
mod vault_outages;
mod vault_writes;
