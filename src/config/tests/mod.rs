//! The configuration's tests: the files that are shipped, every mistake by its golden file, and
//! what must hold for any text.

mod any_text;
mod golden;
mod meaning;
mod shipped;

use super::{Config, ConfigErrors, ConfigWarning, parse};

/// An environment that has `PORT=8080`, `DIR=/run`, `NESTED=${DIR}` and nothing else.
const ENV: fn(&str) -> Option<String> = |name| match name {
    "PORT" => Some("8080".to_owned()),
    "DIR" => Some("/run".to_owned()),
    "NESTED" => Some("${DIR}".to_owned()),
    _ => None,
};

fn read(text: &str) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    parse(text, "test.yaml", &ENV)
}

fn manifest_dir() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}
