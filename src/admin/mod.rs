//! Health, metrics and status: what the kubelet, Prometheus and operators read.
//!
//! Two listeners: health is reachable from outside the pod and tells nothing but states and counts;
//! status is for loopback. No endpoint gives a secret.

mod health;
mod status;

pub use health::{Health, serve_health};
pub use status::{ConfigurationReport, ReloadState, Report, Status, serve_status};
