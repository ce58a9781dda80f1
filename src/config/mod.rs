//! What the operator wrote, turned into what is valid.
//!
//! No later part is named here, and nothing here reads a secret.

pub mod path_pattern;
pub mod model;

pub use model::Config;
