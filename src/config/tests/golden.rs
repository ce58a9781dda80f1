//! Each mistake that the format knows, and exactly what is said about it.
//!
//! `tests/golden/config/NAME.yaml` and `NAME.errors`; `UPDATE_GOLDEN=1` writes the second anew.

use super::{ENV, manifest_dir};
use crate::config::parse;

#[test]
fn every_mistake_is_told_as_its_golden_file_says() {
    let folder = manifest_dir().join("tests/golden/config");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    assert!(paths.len() >= 20, "only {} golden files", paths.len());
    let mut wrong = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Err(errors) = parse(&text, name, &ENV) else { panic!("{name} has no mistake") };
        let told = format!("{errors}\n");
        let golden = path.with_extension("errors");
        if update() {
            std::fs::write(&golden, &told).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != told {
            wrong.push(told);
        }
    }
    assert!(wrong.is_empty(), "not as the golden files say:\n{}", wrong.join("\n"));
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn update() -> bool {
    std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1")
}
