//! The image's recipe, and the bill of what is in it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{items, root, run, text, tool, word};

fn recipe() -> String {
    fs::read_to_string(root().join("Dockerfile")).expect("readable")
}

#[test]
fn hadolint_finds_nothing_in_the_recipe() {
    let output = run(Command::new(tool("hadolint")).arg(root().join("Dockerfile")));
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[test]
fn the_image_has_no_shell_and_runs_as_nobody_in_particular() {
    let recipe = recipe();
    let (_, last) = recipe.rsplit_once("\nFROM ").expect("stages");
    assert!(last.starts_with("scratch\n"), "{last}");
    assert!(last.contains("\nUSER 65532:65532\n") && !last.contains("\nRUN "), "{last}");
    let commands: Vec<_> = last.lines().filter(|line| line.starts_with("ENTRYPOINT")).collect();
    assert!(commands.len() == 1 && commands[0].contains("[\"/"), "a shell would start it");
}

#[test]
fn recipe_toolchain_and_package_have_one_version() {
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).expect("readable");
    let channel = toolchain.split('"').nth(1).expect("a channel");
    assert!(
        recipe().contains(&format!("/rust:{channel}-")),
        "the base image is not Rust {channel}"
    );
    let version = format!("ARG VERSION={}\n", env!("CARGO_PKG_VERSION"));
    assert!(recipe().contains(&version), "the label's default is another version");
}

/// The manifest names files that the first layer has to have.
#[test]
fn every_target_of_the_manifest_is_in_the_first_layer() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let recipe = recipe();
    for line in manifest.lines().filter(|line| line.starts_with("path = \"")) {
        let file = line.split('"').nth(1).expect("a path");
        assert!(
            file.starts_with("tests/") || recipe.contains(file),
            "{file} is not in the Dockerfile"
        );
    }
    for bench in manifest.split("[[bench]]").skip(1) {
        let name = bench.split('"').nth(1).expect("a name");
        assert!(
            recipe.contains(&format!("benches/{name}")),
            "benches/{name} is not in the Dockerfile"
        );
    }
}

#[test]
fn the_bill_of_materials_lists_what_is_linked_and_comes_out_the_same() {
    let bill = || {
        let mut command = Command::new(tool("python"));
        let output = run(command.arg("tools/sbom.py").current_dir(root()));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let first = bill();
    assert_eq!(first, bill());
    let bill: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(word(&bill, "/bomFormat"), "CycloneDX");
    let components = items(&bill, "/components");
    let names: BTreeSet<_> = components.iter().map(|c| word(c, "/name")).collect();
    assert!(names.contains("rustls") && names.contains("pingora"), "{names:?}");
    assert!(!names.contains("proptest") && !names.contains("rcgen"), "tests are not linked");
    let without =
        components.iter().filter(|c| c.get("hashes").is_none() || c.get("licenses").is_none());
    let without: Vec<_> = without.map(|c| word(c, "/purl")).collect();
    assert!(without.is_empty(), "{without:?}");
}
