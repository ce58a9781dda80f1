//! `check`: every mistake of the configuration, with its line.

use std::path::Path;

use super::{Failure, environment, say};
use crate::config::{self, LoadError};
use crate::telemetry;

pub(super) fn check(path: &Path) -> Result<(), Failure> {
    match config::load(path, &environment) {
        Ok((config, warnings)) => {
            for warning in &warnings {
                say(&format!("warning: {warning}"));
            }
            say(&format!(
                "{}: no mistakes; {} listeners, {} credentials, {} tenants",
                path.display(),
                config.listeners.len(),
                config.credentials.len(),
                config.tenants.len()
            ));
            Ok(())
        }
        Err(error @ LoadError::Unreadable { .. }) => {
            Err(Failure::unusable(telemetry::error_chain(&error)))
        }
        Err(LoadError::Invalid(errors)) => Err(Failure::failed(errors.to_string())),
    }
}
