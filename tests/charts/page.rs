//! What docs/kubernetes.md says to type works as it stands there.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::support::{Helm, objects, path, root, text, title};

/// The text that the page has people write into a file, under this heading.
fn file_under(heading: &str) -> String {
    let page = fs::read_to_string(root().join("docs/kubernetes.md")).expect("readable");
    let (_, section) = page.split_once(&format!("\n### {heading}\n")).expect("the heading");
    let (_, section) = section.split_once("<<'YAML'\n").expect("a file to write");
    section.split_once("YAML\n").expect("its end").0.to_owned()
}

#[test]
fn the_values_of_the_page_render_in_both_helms() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("values.yaml");
    for (heading, chart, makes) in [
        ("Injected by label", "datapulse-sidecar-injector", "MutatingAdmissionPolicy "),
        ("A gateway", "datapulse-sidecar", "Service datapulse-datapulse-sidecar"),
    ] {
        fs::write(&file, file_under(heading)).expect("written");
        let served = "--api-versions=admissionregistration.k8s.io/v1/MutatingAdmissionPolicy";
        for helm in Helm::BOTH {
            let made = helm.release("datapulse", chart, &["--values", path(&file), served]);
            let made = made.unwrap_or_else(|said| panic!("{heading}: {said}"));
            let titles: Vec<_> = objects(&made).iter().map(title).collect();
            assert!(titles.iter().any(|title| title.starts_with(makes)), "{heading}: {titles:?}");
        }
    }
}

#[test]
fn the_configuration_of_the_page_is_for_an_app_of_two_replicas() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.yaml");
    fs::write(&file, file_under("Added to manifests")).expect("written");
    let app = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: app}\nspec:\n  replicas: 2\n  \
               template:\n    spec:\n      containers:\n      - name: app\n";
    let mut inject = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
    inject.args(["inject", "--image", "registry.example/datapulse-sidecar:0.1.0", "--config"]);
    inject.args([path(&file), "--secret", "datapulse-key=/var/run/datapulse-key"]);
    inject.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = inject.spawn().expect("starts");
    child.stdin.take().expect("piped").write_all(app.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("secretName: datapulse-key"), "{}", text(&output.stdout));
}
