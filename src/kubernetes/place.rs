//! Finds the pods in manifests, and says what each gets; all other bytes stay as they are.

use super::edit::{Editor, Part};
use super::manifest::{self, Entry, Item, ManifestError, Node};
use super::pod::{NAME, Sidecar, Workload};

/// The label that says who injects: `embedded` is the command or a chart, all else a policy.
const LABEL: &str = "sidecar.datapulse.ai/inject";

/// Adds the sidecar to each pod that does not have it: in workloads, in pods, and in lists of both.
///
/// `only` names workloads (`deployment/app`); without one, each gets it. A pod with the label
/// `sidecar.datapulse.ai/inject` of another value than `embedded` is left to the policy.
///
/// # Errors
/// The first manifest that cannot be changed; there is no half of a result.
pub fn inject(text: &str, sidecar: &Sidecar, only: &[String]) -> Result<String, ManifestError> {
    let documents = manifest::read(text).map_err(ManifestError::NotYaml)?;
    let mut editor = Editor::new(text);
    let mut injected = Vec::new();
    for object in documents.iter().flat_map(objects) {
        let Some(workload) = wanted(object, only) else { continue };
        if let Some(why) = workload.unfit(sidecar) {
            return Err(ManifestError::Unfit { workload: workload.title, why });
        }
        add_sidecar(&mut editor, &workload, sidecar)?;
        injected.push(workload.title);
    }
    let out = editor.write();
    // What was written is read again: each of them has it now.
    let again = manifest::read(&out).map_err(|_line| lost(&injected))?;
    let missing = again.iter().flat_map(objects).find_map(|object| wanted(object, only));
    match missing {
        Some(workload) => Err(ManifestError::Lost(workload.title)),
        None => Ok(out),
    }
}

fn lost(injected: &[String]) -> ManifestError {
    ManifestError::Lost(injected.first().cloned().unwrap_or_default())
}

/// The objects of a document: itself, or the items of a list.
fn objects(document: &Node) -> Vec<&Node> {
    if document.text(&["kind"]).ends_with("List") {
        return document.items(&["items"]).iter().map(|item| &item.value).collect();
    }
    vec![document]
}

/// The workload that an object is, where it has a pod that asks for us and does not have us.
fn wanted<'n>(object: &'n Node, only: &[String]) -> Option<Workload<'n>> {
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
    let short = format!("{}/{name}", kind.to_ascii_lowercase());
    if !only.is_empty() && !only.iter().any(|named| named.eq_ignore_ascii_case(&short)) {
        return None;
    }
    let (parent, pod) = match template.split_last() {
        None => (None, object),
        Some((last, before)) => {
            let parent = object.at(before)?.entry(last)?;
            (Some(parent), &parent.value)
        }
    };
    let label = pod.text(&["metadata", "labels", LABEL]);
    let is_ours = matches!(label, "" | "embedded");
    let has_it = pod.items(&["spec", "initContainers"]).iter().any(is_sidecar);
    (is_ours && !has_it).then(|| Workload { title: format!("{kind} {name}"), object, parent, pod })
}

fn is_sidecar(container: &Item) -> bool {
    container.value.text(&["name"]) == NAME
}

fn add_sidecar(
    editor: &mut Editor<'_>,
    of: &Workload<'_>,
    sidecar: &Sidecar,
) -> Result<(), ManifestError> {
    let Some(spec) = of.pod.entry("spec") else {
        let why = "it has no `spec`, so there is no pod to add to";
        return Err(ManifestError::Unfit { workload: of.title.clone(), why });
    };
    add_metadata(editor, of, spec, sidecar)?;
    editor.add_to(spec, "volumes", &Part(sidecar.volumes()))?;
    editor.add_to(spec, "initContainers", &Part(sidecar.container()))
}

fn add_metadata(
    editor: &mut Editor<'_>,
    of: &Workload<'_>,
    spec: &Entry,
    sidecar: &Sidecar,
) -> Result<(), ManifestError> {
    let labels = Part(vec![format!("{LABEL}: embedded")]);
    let has_label = !of.pod.text(&["metadata", "labels", LABEL]).is_empty();
    let annotations = Part(sidecar.annotations(&of.container_names()));
    if let Some(metadata) = of.pod.entry("metadata") {
        editor.add_to(metadata, "annotations", &annotations)?;
        if !has_label {
            editor.add_to(metadata, "labels", &labels)?;
        }
        return Ok(());
    }
    // Only a template may be without; a pod without a name is told to the API server.
    let Some(parent) = of.parent else {
        let why = "it has no `metadata`: give it a name";
        return Err(ManifestError::Unfit { workload: of.title.clone(), why });
    };
    let both = Part([labels.under("labels").0, annotations.under("annotations").0].concat());
    editor.add_new(parent, spec.column, "metadata", &both)
}
