//! What the operator wrote, turned into what is valid.
//!
//! Text → [`raw`] (as written) → [`model`] (as meant). Every mistake is told, all at once, with its
//! line. No later part is named here, and nothing here reads a secret.

pub mod path_pattern;
pub mod header_names;
pub mod model;
pub mod raw;
pub mod watch;
mod error;
mod collect;
mod parse;
mod schema;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use collect::Problem;
pub use collect::suggestion;
pub use error::{ConfigError, ConfigErrors, ConfigWarning, LoadError};
pub use model::Config;
pub use schema::schema;

/// Characters of a path that are shown.
const PATH_CHARS_MAX: usize = 120;

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
        Err(problems) => return Err(ConfigErrors(named(file, problems))),
    };
    let checked = parse::check(&collected.raw, &collected.places, env);
    let mut problems = collected.problems;
    problems.extend(checked.problems);
    match checked.config {
        Some(config) if problems.is_empty() => {
            let warnings = named(file, checked.warnings);
            Ok((config, warnings.into_iter().map(ConfigWarning).collect()))
        }
        None if problems.is_empty() => {
            let text = "this cannot be used, and the reason is not known: please report it";
            Err(ConfigErrors(named(file, vec![Problem::of_file(text)])))
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
    Ok(parse_bytes(path, &read_file(path)?, env)?)
}

/// What is in the file, and of one that is too large as much as it takes to see that.
fn read_file(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    // One byte more than is taken, so that `collect` sees that there is more.
    let limit = u64::try_from(collect::FILE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

fn parse_bytes(
    path: &Path,
    bytes: &[u8],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    let name = path.display().to_string();
    // A character that is cut in two by the limit is no mistake of the file's.
    let cut = bytes.len() > collect::FILE_BYTES_MAX;
    let text = String::from_utf8_lossy(bytes);
    if !cut && matches!(text, Cow::Owned(_)) {
        let problem = Problem::of_file("the file is not UTF-8");
        return Err(ConfigErrors(named(&name, vec![problem])));
    }
    parse(&text, &name, env)
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
        path: printable(&problem.path),
        text: problem.text,
    };
    problems.into_iter().map(error).collect()
}

/// A path as it may be shown: keys are the file's own text, and could be anything.
fn printable(path: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '[' | ']');
    path.chars().take(PATH_CHARS_MAX).map(|c| if plain(c) { c } else { '?' }).collect()
}
