//! The charts and the command on a real kube-apiserver, with etcd and the controller manager: what
//! it stores, what it refuses, and whose tokens it issues. There is no kubelet, so no pod runs.
//!
//! Not among `make test`, as building the API server takes minutes: `make test-kubernetes` runs it.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where its expectation fails"
)]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves several test programs")]
mod support;

mod cluster;
mod injection;
mod delivery;
mod login;
