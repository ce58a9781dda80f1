//! Promise: the first steps of the README work as they are typed.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::Process;

/// The fenced block of this language after `heading`, or the first of the file.
fn block<'t>(text: &'t str, heading: &str, language: &str) -> &'t str {
    let (_, after) = text.split_once(heading).expect("the heading");
    let (_, after) = after.split_once(&format!("```{language}\n")).expect("a block");
    after.split_once("```").expect("its end").0
}

/// Building is left to whoever runs the tests; everything else happens, in a folder that has nothing
/// but what building leaves behind.
#[tokio::test]
async fn the_first_steps_are_typed_as_they_stand() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (checkout, home) = (dir.path().join("checkout"), dir.path().join("home"));
    let (release, tools) = (checkout.join("target/release"), dir.path().join("tools"));
    for folder in [&release, &home, &tools] {
        std::fs::create_dir_all(folder).unwrap();
    }
    symlink(env!("CARGO_BIN_EXE_datapulse-sidecar"), release.join("datapulse-sidecar")).unwrap();
    for tool in ["make", "cargo"] {
        let tool = tools.join(tool);
        std::fs::write(&tool, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let config = block(&readme, "# datapulse-sidecar", "yaml");
    std::fs::write(checkout.join("config.yaml"), config).unwrap();

    let steps = block(&readme, "## Five minutes to the first call", "sh");
    let mut shell = Command::new("sh");
    shell.args(["-euc", steps]).current_dir(&checkout).env_clear().env("HOME", &home);
    shell.env("PATH", format!("{}:/usr/bin:/bin", tools.display()));
    let (mut shell, mut typed) = Process::told(shell);
    typed.write_all(b"dp_live_typed\n").await.unwrap();
    drop(typed);
    let code = shell.ended().await.code();
    assert_eq!(code, Some(0), "{}", shell.stderr.lines().join("\n"));
    let said = shell.stdout.lines().join("\n");
    assert!(said.contains("config.yaml"), "{said}");
    let kept = std::fs::read_dir(&home).unwrap().next().unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(kept.path()).unwrap(), "dp_live_typed\n");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o077, 0);
    assert!(config.contains(&*kept.file_name().to_string_lossy()), "{config}");
}
