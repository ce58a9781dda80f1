//! Health, metrics and status: what the kubelet, Prometheus and operators read, and what operators
//! may change.
//!
//! Two listeners: health is reachable from outside the pod and tells nothing but states and counts;
//! status and the changing verbs are for loopback. No endpoint gives a secret.

mod health;
mod history;
mod plot;
mod page;
mod status;
mod verbs;

pub use health::{Health, serve_health};
pub use status::{ConfigurationReport, ReloadState, Report, Status, serve_admin};
pub use verbs::Verbs;
