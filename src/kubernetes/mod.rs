//! Manifests in, the same with the sidecar in their pods out.
//!
//! Text is added and none is lost: comments, order and quoting stay, in YAML and in JSON. The container is that of
//! `charts/datapulse-sidecar-lib` (`tests/charts` compares them). Nothing here talks to a cluster.

mod error;
mod manifest;
mod edit;
mod compare;
mod quotas;
mod place;
mod pod;

#[cfg(test)]
mod tests;

pub use error::ManifestError;
pub use place::inject;
pub use pod::{Sidecar, SidecarError};
