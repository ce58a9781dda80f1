//! Finds the pods in manifests, and says what each gets; all other bytes stay as they are.

use super::compare::{self, Addition};
use super::edit::{Editor, Part};
use super::error::ManifestError;
use super::manifest::{self, Entry, Item, Node};
use super::pod::{NAME, Sidecar, Workload};

/// The label that says who injects: `embedded` is the command or a chart, all else a policy.
const LABEL: &str = "sidecar.datapulse.ai/inject";

/// So many workloads are named where one is not found.
const NAMES_MAX: usize = 20;

/// Adds the sidecar to each pod that does not have it: in workloads, in pods, and in lists of both.
///
/// `only` names workloads (`deployment/app`); without one, each gets it. A pod with the label
/// `sidecar.datapulse.ai/inject` of another value than `embedded` is left to the policy.
///
/// # Errors
/// A workload that is named and not there, or the first manifest that cannot be changed; there is no half of a result.
pub fn inject(text: &str, sidecar: &Sidecar, only: &[String]) -> Result<String, ManifestError> {
    let documents = manifest::read(text)?;
    let workloads: Vec<_> = documents.iter().flat_map(objects).filter_map(workload).collect();
    are_there(only, &workloads)?;
    let mut editor = Editor::new(text);
    let mut additions = Vec::new();
    for workload in workloads.into_iter().filter(|workload| is_wanted(workload, only)) {
        if let Some(why) = workload.unfit(sidecar) {
            return Err(ManifestError::Unfit { workload: workload.title, why });
        }
        let parts = Parts::of(&workload, sidecar);
        add_sidecar(&mut editor, &workload, &parts)?;
        let lost = |_| ManifestError::Lost(workload.title);
        let added = manifest::read(&parts.all()).map_err(lost)?;
        additions
            .extend(added.into_iter().map(|added| Addition { pod: workload.pod, added }).take(1));
    }
    let out = editor.write();
    // What was written is read again: it is as it was meant, and nothing else has changed.
    let again = manifest::read(&out).map_err(|error| ManifestError::Lost(error.to_string()))?;
    compare::only_added(&documents, &additions, &again)?;
    Ok(out)
}

/// What a pod gets, each part to be added to another key.
struct Parts {
    /// None where the label is there.
    labels: Option<Part>,
    annotations: Part,
    volumes: Part,
    containers: Part,
}

impl Parts {
    fn of(workload: &Workload<'_>, sidecar: &Sidecar) -> Self {
        let has_label = !workload.pod.text(&["metadata", "labels", LABEL]).is_empty();
        let label = || Part(vec![format!("{LABEL}: embedded")]);
        Self {
            labels: (!has_label).then(label),
            annotations: Part(sidecar.annotations(&workload.container_names())),
            volumes: Part(sidecar.volumes()),
            containers: Part(sidecar.container()),
        }
    }

    fn metadata(&self) -> Part {
        let labels = self.labels.iter().flat_map(|labels| labels.under("labels").0);
        Part(labels.chain(self.annotations.under("annotations").0).collect())
    }

    /// All of it, as one document.
    fn all(&self) -> String {
        let lists = [self.volumes.under("volumes").0, self.containers.under("initContainers").0];
        let spec = Part(lists.concat());
        [self.metadata().under("metadata").0, spec.under("spec").0].concat().join("\n")
    }
}

/// The objects of a document: itself, or the items of a list.
fn objects(document: &Node) -> Vec<&Node> {
    if document.text(&["kind"]).ends_with("List") {
        return document.items(&["items"]).iter().map(|item| &item.value).collect();
    }
    vec![document]
}

/// The workload that an object is.
fn workload(object: &Node) -> Option<Workload<'_>> {
    let kind = object.text(&["kind"]);
    let template: &[&str] = match (object.text(&["apiVersion"]), kind) {
        ("v1", "Pod") => &[],
        ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job") => &["spec", "template"],
        ("batch/v1", "CronJob") => &["spec", "jobTemplate", "spec", "template"],
        _ => return None,
    };
    let name = match object.text(&["metadata", "name"]) {
        "" => object.text(&["metadata", "generateName"]),
        name => name,
    };
    let (parent, pod) = match template.split_last() {
        None => (None, object),
        Some((last, before)) => {
            let parent = object.at(before)?.entry(last)?;
            (Some(parent), &parent.value)
        }
    };
    Some(Workload { title: format!("{kind} {name}"), object, parent, pod })
}

/// Each name is that of a workload, whether it has the sidecar or not.
fn are_there(only: &[String], workloads: &[Workload<'_>]) -> Result<(), ManifestError> {
    let is_missing =
        |named: &&String| !workloads.iter().any(|workload| is_named(workload, named.as_str()));
    let Some(missing) = only.iter().find(is_missing) else { return Ok(()) };
    let there: Vec<_> = workloads.iter().map(short_name).take(NAMES_MAX).collect();
    let there = match there.as_slice() {
        [] => "no workload at all".to_owned(),
        names => names.join(", "),
    };
    Err(ManifestError::NotThere { named: missing.clone(), there })
}

/// As `--only` names it: kind and name.
fn short_name(workload: &Workload<'_>) -> String {
    workload.title.replacen(' ', "/", 1).to_ascii_lowercase()
}

fn is_named(workload: &Workload<'_>, named: &str) -> bool {
    named.eq_ignore_ascii_case(&short_name(workload))
}

/// It is named, or nothing is; and its pod asks for us and does not have us.
fn is_wanted(workload: &Workload<'_>, only: &[String]) -> bool {
    let label = workload.pod.text(&["metadata", "labels", LABEL]);
    let is_ours = matches!(label, "" | "embedded");
    let has_it = workload.pod.items(&["spec", "initContainers"]).iter().any(is_sidecar);
    let is_named = only.is_empty() || only.iter().any(|named| is_named(workload, named));
    is_named && is_ours && !has_it
}

fn is_sidecar(container: &Item) -> bool {
    container.value.text(&["name"]) == NAME
}

fn add_sidecar(
    editor: &mut Editor<'_>,
    of: &Workload<'_>,
    parts: &Parts,
) -> Result<(), ManifestError> {
    let Some(spec) = of.pod.entry("spec") else {
        let why = "it has no `spec`, so there is no pod to add to";
        return Err(ManifestError::Unfit { workload: of.title.clone(), why });
    };
    add_metadata(editor, of, spec, parts)?;
    editor.add_to(spec, "volumes", &parts.volumes)?;
    editor.add_to(spec, "initContainers", &parts.containers)
}

fn add_metadata(
    editor: &mut Editor<'_>,
    of: &Workload<'_>,
    spec: &Entry,
    parts: &Parts,
) -> Result<(), ManifestError> {
    if let Some(metadata) = of.pod.entry("metadata") {
        editor.add_to(metadata, "annotations", &parts.annotations)?;
        return match &parts.labels {
            Some(labels) => editor.add_to(metadata, "labels", labels),
            None => Ok(()),
        };
    }
    // Only a template may be without; a pod without a name is told to the API server.
    let Some(parent) = of.parent else {
        let why = "it has no `metadata`: give it a name";
        return Err(ManifestError::Unfit { workload: of.title.clone(), why });
    };
    editor.add_new(parent, spec.column, "metadata", &parts.metadata())
}
