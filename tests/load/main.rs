//! Slower than the other tests, and not among `make test`: minutes under load, with everything
//! changing, and with callers that hang up and an upstream that resets. `make test-load` runs it.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where its expectation fails"
)]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves two test programs")]
mod support;

mod abuse;
mod change;
mod machine;
mod outage;
mod quotas;
mod rotation;
mod waiters;
mod stores;
