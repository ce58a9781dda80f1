//! What the operator wrote, turned into what is valid.
//!
//! Text → [`raw`] (as written) → [`model`] (as meant). Every mistake is told, all at once, with its
//! line. No later part is named here, and nothing here reads a secret.

pub mod path_pattern;
pub mod model;
pub mod raw;
mod error;
mod collect;
mod parse;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use collect::Problem;
pub use error::{ConfigError, ConfigErrors, ConfigWarning, LoadError};
pub use model::Config;

/// Reads a configuration. `file` is what errors call it; `env` gives the values for `${NAME}`.
///
/// # Errors
/// Every mistake in the text, in the order of its lines.
pub fn parse(
    text: &str,
    file: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    let collected = match collect::collect(text) {
        Ok(collected) => collected,
        Err(problem) => return Err(ConfigErrors(named(file, vec![problem]))),
    };
    let checked = parse::check(&collected.raw, &collected.places, env);
    let mut problems = collected.problems;
    problems.extend(checked.problems);
    match checked.config {
        Some(config) if problems.is_empty() => {
            let warnings = named(file, checked.warnings);
            Ok((config, warnings.into_iter().map(ConfigWarning).collect()))
        }
        _ => Err(ConfigErrors(named(file, problems))),
    }
}

/// Reads a configuration file.
///
/// # Errors
/// [`LoadError::Unreadable`] where there is none, else every mistake in it.
pub fn load(
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<ConfigWarning>), LoadError> {
    let text = std::fs::read_to_string(path)
        .map_err(|reason| LoadError::Unreadable { path: path.to_owned(), reason })?;
    Ok(parse(&text, &path.display().to_string(), env)?)
}

/// In the order of the file, each told once.
fn named(file: &str, mut problems: Vec<Problem>) -> Vec<ConfigError> {
    let file: Arc<str> = Arc::from(file);
    problems.sort();
    problems.dedup();
    let error = |problem: Problem| ConfigError {
        file: Arc::clone(&file),
        line: problem.place.line,
        column: problem.place.column,
        path: problem.path,
        text: problem.text,
    };
    problems.into_iter().map(error).collect()
}
