//! The configuration's tests: the files that are shipped, every mistake by its golden file, and
//! what must hold for any text.

mod shipped;

use super::{Config, ConfigErrors, ConfigWarning, parse};

/// Parses with an environment that has `PORT=8080`, `DIR=/run` and nothing else.
fn read(text: &str) -> Result<(Config, Vec<ConfigWarning>), ConfigErrors> {
    parse(text, "test.yaml", &|name| match name {
        "PORT" => Some("8080".to_owned()),
        "DIR" => Some("/run".to_owned()),
        "NESTED" => Some("${DIR}".to_owned()),
        _ => None,
    })
}

fn manifest_dir() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
}
