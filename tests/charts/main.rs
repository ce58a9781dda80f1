//! The charts, by the tools that their users have: both Helms, Kubernetes' schemas, promtool.
//!
//! Nothing here needs a cluster; `tests/kubernetes` has one.
#![expect(clippy::expect_used, clippy::panic, reason = "a test stops where its expectation fails")]

mod support;

mod rendered;
mod refusals;
mod schema;
mod pods;
mod policies;
mod command;
mod page;
mod image;
mod monitoring;
