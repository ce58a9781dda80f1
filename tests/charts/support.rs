//! Runs the tools, and reads what they print.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The charts that are installed; the library is inside them.
pub(crate) const CHARTS: &[&str] = &["datapulse-sidecar", "datapulse-sidecar-injector", "examples"];

/// A Helm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Helm {
    Three,
    Four,
}

impl Helm {
    pub(crate) const BOTH: [Self; 2] = [Self::Three, Self::Four];

    const fn program(self) -> &'static str {
        match self {
            Self::Three => "helm3",
            Self::Four => "helm4",
        }
    }

    /// Runs a command of it in the folder of the charts.
    pub(crate) fn run(self, args: &[&str]) -> Output {
        run(self.command().args(args))
    }

    /// A command of it in the folder of the charts.
    pub(crate) fn command(self) -> Command {
        let mut command = Command::new(tool(self.program()));
        command.current_dir(root().join("charts"));
        command
    }

    /// `helm template`: what would be applied, or what was said against it.
    pub(crate) fn template(self, chart: &str, args: &[&str]) -> Result<String, String> {
        self.release("release", chart, args)
    }

    /// As [`Self::template`], for a release of this name.
    pub(crate) fn release(self, name: &str, chart: &str, args: &[&str]) -> Result<String, String> {
        let fixed = ["template", name, chart, "--namespace", "apps"];
        let output = self.run(&[&fixed[..], args].concat());
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }
}

/// A values file that stands for a common set-up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) chart: &'static str,
    pub(crate) values: PathBuf,
}

impl Setup {
    /// Every file of every chart.
    pub(crate) fn all() -> Vec<Self> {
        let found: Vec<_> = CHARTS.iter().flat_map(|chart| Self::of(chart)).collect();
        assert!(found.len() > 12, "the files are not found: {found:?}");
        found
    }

    pub(crate) fn of(chart: &'static str) -> Vec<Self> {
        let folder = root().join("charts").join(chart).join("ci");
        let entries = fs::read_dir(&folder).expect("each chart has ci/");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
        files.sort();
        files.into_iter().map(|values| Self { chart, values }).collect()
    }

    pub(crate) fn name(&self) -> String {
        let file = self.values.file_name().expect("a file").to_string_lossy();
        format!("{}/{}", self.chart, file.trim_end_matches("-values.yaml"))
    }

    /// As on a cluster of this version, with what it serves.
    pub(crate) fn render(&self, helm: Helm, kubernetes: &str) -> Result<String, String> {
        let mut args = vec!["--values", path(&self.values), "--kube-version", kubernetes];
        if kubernetes >= "1.36" {
            args.extend(["-a", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"]);
        }
        helm.template(self.chart, &args)
    }

    /// As [`Self::render`], on a cluster of today.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let rendered = self.render(Helm::Four, "1.36.0");
        objects(&rendered.unwrap_or_else(|error| panic!("{}: {error}", self.name())))
    }
}

/// The documents of a YAML stream, without the empty ones.
pub(crate) fn objects(yaml: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("YAML without repeated keys");
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// An object's kind and name.
pub(crate) fn title(object: &Value) -> String {
    let word = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or("?").to_owned();
    format!("{} {}", word("/kind"), word("/metadata/name"))
}

/// The pod that an object is, or makes: its metadata and spec.
pub(crate) fn pod(object: &Value) -> Option<&Value> {
    match object.pointer("/kind").and_then(Value::as_str)? {
        "Pod" => Some(object),
        "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => object.pointer("/spec/template"),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}

/// The items of a list, none where there is no list.
pub(crate) fn items<'v>(value: &'v Value, at: &str) -> &'v [Value] {
    value.pointer(at).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The text at a place, empty where there is none.
pub(crate) fn word<'v>(value: &'v Value, at: &str) -> &'v str {
    value.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// A program of `target/tools`.
pub(crate) fn tool(name: &str) -> PathBuf {
    let tools = root().join("target/tools");
    let places = [tools.join("bin").join(name), tools.join("venv/bin").join(name)];
    let found = places.into_iter().find(|place| place.exists());
    found.unwrap_or_else(|| panic!("{name} is not in target/tools: run tools/setup.sh test"))
}

pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

pub(crate) fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Fails with all that is wrong, one a line.
#[track_caller]
pub(crate) fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n  {}\n", wrong.join("\n  "));
}
