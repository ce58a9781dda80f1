//! `datapulse-sidecar inject` adds what the charts add, also as a post-renderer of both Helms.

use std::fs;
use std::path::Path;

use datapulse_sidecar::config;
use datapulse_sidecar::kubernetes::{self, Sidecar};
use serde_json::Value;

use crate::support::{Helm, items, objects, path, pod, root, run, text, tool, word};

const IMAGE: &str = "registry.example/datapulse-sidecar:0.1.0";
const PLAIN: &str = "version: 1\nlisteners: [{listen: localhost:8080}]\ncredentials: [{name: reader, \
                     level: read_only, api_key: file:/var/run/datapulse-key/key}]\n";
/// Without Vault nothing may refer to it.
const CREDENTIALS: &str = "sidecar.config.credentials=[{\"name\": \"reader\", \"level\": \"read_only\", \
                           \"api_key\": \"file:/var/run/datapulse-key/key\"}]";
const VAULT: &str = "stores: {vault: {address: \"https://vault.example:8200\", auth: {method: \
                     kubernetes, role: datapulse, token_file: /var/run/secrets/vault/token}}}\n";
const APP: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: app\nspec:\n  containers:\n  - name: app\n";

#[test]
fn command_and_charts_have_one_container() {
    for (store, values) in [("", "''"), (VAULT, "https://vault.example:8200")] {
        // What the text says of stores is read, whatever of it this version can use.
        let (config, _) = config::parse(PLAIN, "config.yaml", &|_| None).expect("valid");
        let written = format!("{PLAIN}{store}");
        let sidecar = Sidecar::new(IMAGE, &written, &config, &[]).expect("fits into a pod");
        let injected = kubernetes::inject(APP, &sidecar, &[]).expect("injects");
        let injected = &objects(&injected)[0];

        let address = format!("sidecar.vault.address={values}").replace("''", "");
        let mut args = vec!["--set", &address];
        if store.is_empty() {
            args.extend(["--set-json", CREDENTIALS]);
        }
        let rendered = Helm::Four.template("examples", &args).expect("renders");
        let rendered = objects(&rendered);
        let embedded = rendered.iter().find_map(pod).expect("a pod");

        let container = |pod: &Value| items(pod, "/spec/initContainers")[0].clone();
        assert_eq!(container(injected), container(embedded));
        // The one difference: where the configuration comes from.
        let volumes = |pod: &Value| items(pod, "/spec/volumes")[1..].to_vec();
        assert_eq!(volumes(injected), volumes(embedded));
        let label = "/metadata/labels/sidecar.datapulse.ai~1inject";
        assert_eq!(word(injected, label), word(embedded, label));
    }
}

#[test]
fn it_is_a_post_renderer_of_both_helms() {
    let dir = tempfile::tempdir().expect("a folder");
    let chart = dir.path().join("app");
    let config = dir.path().join("config.yaml");
    fs::create_dir_all(chart.join("templates")).expect("made");
    fs::write(chart.join("Chart.yaml"), "apiVersion: v2\nname: app\nversion: 1.0.0\n")
        .expect("written");
    fs::write(chart.join("templates/pod.yaml"), APP).expect("written");
    fs::write(&config, PLAIN).expect("written");
    let plugins = dir.path().join("plugins/inject");
    fs::create_dir_all(&plugins).expect("made");
    fs::copy(root().join("charts/helm-plugin/plugin.yaml"), plugins.join("plugin.yaml"))
        .expect("copied");
    let config = format!("--config={}", path(&config));
    let image = format!("--image={IMAGE}");
    for helm in Helm::BOTH {
        let mut args = vec!["template", "app", path(&chart), "--post-renderer"];
        match helm {
            Helm::Three => args.extend(["datapulse-sidecar", "--post-renderer-args", "inject"]),
            Helm::Four => args.push("datapulse-sidecar-inject"),
        }
        for own in [&image, &config] {
            args.extend(["--post-renderer-args", own]);
        }
        let binary = Path::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
        let mut command = helm.command();
        command.args(args).env("PATH", binary.parent().expect("a folder"));
        command.env("HELM_PLUGINS", dir.path().join("plugins"));
        let output = run(&mut command);
        assert!(output.status.success(), "{helm:?}: {}", text(&output.stderr));
        let rendered = objects(&text(&output.stdout));
        let first = &items(&rendered[0], "/spec/initContainers")[0];
        assert_eq!(word(first, "/name"), "datapulse-sidecar", "{helm:?}");
        let annotation = word(&rendered[0], "/metadata/annotations/sidecar.datapulse.ai~1config");
        assert_eq!(annotation, PLAIN, "{helm:?}");
    }
}

#[test]
fn a_mistake_in_the_configuration_or_the_manifest_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("config.yaml");
    let inject = |config: &str, manifest: &str| {
        fs::write(&file, config).expect("written");
        let input = dir.path().join("in.yaml");
        fs::write(&input, manifest).expect("written");
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
        command.args(["inject", "--image", IMAGE, "--config", path(&file)]);
        let output = run(command.stdin(fs::File::open(&input).expect("opened")));
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, said) = inject("version: 1\nlistener: []\n", APP);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{said}");
    assert!(said.contains("listener") && said.contains("did you mean"), "{said}");
    let (code, out, said) = inject(PLAIN, &APP.replace("spec:\n", "spec:\n  hostPID: true\n"));
    assert_eq!((code, out.as_str()), (Some(1), ""), "{said}");
    let named = PLAIN.replace("localhost:8080", "localhost:${PORT}");
    assert_eq!(inject(&named, APP).0, Some(2), "no such variable is in the container");
}

/// What was not written whole may be valid YAML, with objects missing.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_failure_and_a_reader_that_left_is_none() {
    use std::process::{Command, Stdio};

    let dir = tempfile::tempdir().expect("a folder");
    let (config, input) = (dir.path().join("config.yaml"), dir.path().join("in.yaml"));
    fs::write(&config, PLAIN).expect("written");
    fs::write(&input, APP).expect("written");
    let inject = |stdout: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"));
        command.args(["inject", "--image", IMAGE, "--config", path(&config)]);
        command.stdin(fs::File::open(&input).expect("opened")).stdout(stdout);
        let output = command.stderr(Stdio::piped()).spawn().and_then(|c| c.wait_with_output());
        let output = output.expect("it ran");
        (output.status.code(), text(&output.stderr))
    };
    let full = fs::File::options().write(true).open("/dev/full").expect("Linux has it");
    let (code, said) = inject(full.into());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot write standard output"), "{said}");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(inject(writer.into()), (Some(0), String::new()));
}

/// The strict schema takes what comes out.
#[test]
fn what_it_writes_is_valid() {
    let golden = root().join("tests/golden/manifests");
    let mut validate = std::process::Command::new(tool("kubernetes-validate"));
    validate.args(["--strict", "--quiet", "-k", "1.33"]);
    for name in ["crlf", "list", "braces", "kubectl-create-job", "kubectl-create-cronjob"] {
        validate.arg(golden.join(format!("{name}.injected")));
    }
    let output = run(&mut validate);
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
