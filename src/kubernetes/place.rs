//! Finds the pods in manifests, and adds lines to each; all other bytes stay as they are.

use thiserror::Error;

use super::manifest::{self, Entry, Item, Node};
use super::pod::{NAME, Sidecar, Workload};

/// The label that says who injects: `embedded` is the command or a chart, all else a policy.
const LABEL: &str = "sidecar.datapulse.ai/inject";

/// Why manifests were not changed. Nothing was written then.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The input is not YAML from here on: correct it.
    #[error("line {0}: this is not YAML; look at the indentation, quotes and colons")]
    NotYaml(u64),
    /// There is no way to add lines to it: write it as a block, one key a line.
    #[error(
        "line {line}: `{key}` is written as JSON or with an alias; write it as a block, one key a \
         line (`kubectl get -o yaml` does)"
    )]
    NoBlock {
        /// From 1.
        line: usize,
        /// The key whose value it is.
        key: String,
    },
    /// The pod would open the sidecar to others, or could not run it.
    #[error("{workload}: {why}")]
    Unfit {
        /// Kind and name.
        workload: String,
        /// What to change.
        why: &'static str,
    },
    /// What was written does not read as it was meant: a mistake of ours.
    #[error("{0}: the result would not be what was meant; please report it with the manifest")]
    Lost(String),
}

/// Adds the sidecar to each pod that does not have it: in workloads, in pods, and in lists of both.
///
/// `only` names workloads (`deployment/app`); without one, each gets it. A pod with the label
/// `sidecar.datapulse.ai/inject` of another value than `embedded` is left to the policy.
///
/// # Errors
/// The first manifest that cannot be changed; there is no half of a result.
pub fn inject(text: &str, sidecar: &Sidecar, only: &[String]) -> Result<String, ManifestError> {
    let documents = manifest::read(text).map_err(ManifestError::NotYaml)?;
    let mut editor = Editor { lines: text.split_inclusive('\n').collect(), edits: Vec::new() };
    let mut injected = Vec::new();
    for object in documents.iter().flat_map(objects) {
        let Some(workload) = wanted(object, only) else { continue };
        if let Some(why) = workload.unfit(sidecar) {
            return Err(ManifestError::Unfit { workload: workload.title, why });
        }
        editor.add_sidecar(&workload, sidecar)?;
        injected.push(workload.title);
    }
    let out = editor.write(text.contains("\r\n"));
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

/// Lines, and what is to be added behind which of them.
struct Editor<'t> {
    lines: Vec<&'t str>,
    edits: Vec<Edit>,
}

struct Edit {
    /// From 0; the lines come behind it.
    line: usize,
    /// Bytes of that line that stay, where its value (`{}`) makes room for the lines.
    keep: Option<usize>,
    added: Vec<String>,
}

/// How the value of a key is written.
enum Style {
    /// Below the key.
    Block,
    /// Not at all, or as `{}`, `[]`, `null`, `~`: so many bytes of the line are the key and its colon.
    Empty(usize),
}

impl Editor<'_> {
    fn add_sidecar(&mut self, of: &Workload<'_>, sidecar: &Sidecar) -> Result<(), ManifestError> {
        let Some(spec) = of.pod.entry("spec") else {
            let why = "it has no `spec`, so there is no pod to add to";
            return Err(ManifestError::Unfit { workload: of.title.clone(), why });
        };
        self.add_metadata(of, spec, sidecar)?;
        let mut volumes = sidecar.volumes();
        self.add_to(spec, "volumes", &mut volumes)?;
        let mut container = sidecar.container();
        self.add_to(spec, "initContainers", &mut container)
    }

    fn add_metadata(
        &mut self,
        of: &Workload<'_>,
        spec: &Entry,
        sidecar: &Sidecar,
    ) -> Result<(), ManifestError> {
        let mut labels = vec![format!("{LABEL}: embedded")];
        let has_label = !of.pod.text(&["metadata", "labels", LABEL]).is_empty();
        let mut annotations = sidecar.annotations(&of.container_names());
        if let Some(metadata) = of.pod.entry("metadata") {
            self.add_to(metadata, "annotations", &mut annotations)?;
            if !has_label {
                self.add_to(metadata, "labels", &mut labels)?;
            }
            return Ok(());
        }
        // Only a template may be without; a pod without a name is told to the API server.
        let Some(parent) = of.parent else {
            let why = "it has no `metadata`: give it a name";
            return Err(ManifestError::Unfit { workload: of.title.clone(), why });
        };
        let mut block = vec!["metadata:".to_owned(), "  labels:".to_owned()];
        block.extend(labels.iter().map(|line| format!("    {line}")));
        block.push("  annotations:".to_owned());
        block.extend(annotations.iter().map(|line| format!("    {line}")));
        self.style(parent)?;
        self.add(parent.line, None, spec.column, &block);
        Ok(())
    }

    /// Adds lines to the list or mapping `key` inside `parent`, at its beginning.
    fn add_to(
        &mut self,
        parent: &Entry,
        key: &str,
        block: &mut Vec<String>,
    ) -> Result<(), ManifestError> {
        let entries = match (self.style(parent)?, &parent.value) {
            // What a merge key brings in would be lost behind a key of our own.
            (Style::Block, Node::Mapping(entries)) if !entries.iter().any(|e| e.key == "<<") => {
                entries
            }
            _ => return Err(no_block(parent)),
        };
        let column = entries.first().map_or(0, |entry| entry.column);
        let Some(entry) = parent.value.entry(key) else {
            block.iter_mut().for_each(|line| line.insert_str(0, "  "));
            block.insert(0, format!("{key}:"));
            self.add(parent.line, None, column, block);
            return Ok(());
        };
        match self.style(entry)? {
            Style::Empty(keep) => self.add(entry.line, Some(keep), entry.column + 2, block),
            Style::Block => {
                let column = self.first_column(entry)?;
                self.add(entry.line, None, column, block);
            }
        }
        Ok(())
    }

    /// Where the children of a block stand: the first key, or the first dash.
    fn first_column(&self, entry: &Entry) -> Result<usize, ManifestError> {
        match &entry.value {
            Node::Mapping(entries) => entries.first().map(|first| first.column),
            Node::List(items) => items.first().and_then(|first| self.dash(entry.line, first)),
            Node::Leaf(_) => None,
        }
        .ok_or_else(|| no_block(entry))
    }

    /// The column of the dash in front of an item: on its line, or alone on one before it.
    fn dash(&self, key_line: usize, item: &Item) -> Option<usize> {
        let before = self.lines.get(item.line)?.get(..item.column)?;
        if before.trim() == "-" {
            return before.find('-');
        }
        let between = self.lines.get(key_line + 1..item.line)?;
        let alone = between.iter().rev().find(|line| line.trim() == "-")?;
        alone.find('-')
    }

    /// How the value of a key is written, unless lines cannot be added to it.
    fn style(&self, entry: &Entry) -> Result<Style, ManifestError> {
        let line = self.lines.get(entry.line).copied().unwrap_or_default();
        let rest = line.get(entry.column..).unwrap_or_default();
        let colon = rest.find(':').ok_or_else(|| no_block(entry))?;
        let keep = entry.column + colon + 1;
        let value = rest.get(colon + 1..).unwrap_or_default();
        let value = value.split(" #").next().unwrap_or_default().trim();
        let is_nothing = match &entry.value {
            Node::Leaf(text) => matches!(text.as_str(), "" | "null" | "~"),
            Node::List(items) => items.is_empty(),
            Node::Mapping(entries) => entries.is_empty(),
        };
        match (is_nothing, value) {
            (true, "" | "{}" | "[]" | "null" | "~") => Ok(Style::Empty(keep)),
            (false, "") => Ok(Style::Block),
            // A comment, an anchor or a tag may stand behind the colon.
            (false, value) if value.starts_with(['#', '&', '!']) && !value.contains(['{', '[']) => {
                Ok(Style::Block)
            }
            _ => Err(no_block(entry)),
        }
    }

    fn add(&mut self, line: usize, keep: Option<usize>, column: usize, block: &[String]) {
        let indented = |line: &String| match line.as_str() {
            "" => String::new(),
            line => format!("{:column$}{line}", ""),
        };
        self.edits.push(Edit { line, keep, added: block.iter().map(indented).collect() });
    }

    fn write(mut self, carriage_returns: bool) -> String {
        let end = if carriage_returns { "\r\n" } else { "\n" };
        // Lines that were added later stand higher: initContainers before volumes.
        self.edits.reverse();
        self.edits.sort_by_key(|edit| edit.line);
        let mut edits = self.edits.into_iter().peekable();
        let mut out = String::new();
        for (number, line) in self.lines.iter().enumerate() {
            let mut here = Vec::new();
            while let Some(edit) = edits.next_if(|edit| edit.line == number) {
                here.push(edit);
            }
            match here.iter().find_map(|edit| edit.keep) {
                Some(keep) => {
                    out.push_str(line.get(..keep).unwrap_or(line));
                    out.push_str(end);
                }
                None => out.push_str(line),
            }
            if !here.is_empty() && !out.ends_with('\n') {
                out.push_str(end);
            }
            for added in here.iter().flat_map(|edit| &edit.added) {
                out.push_str(added);
                out.push_str(end);
            }
        }
        out
    }
}

fn no_block(entry: &Entry) -> ManifestError {
    ManifestError::NoBlock { line: entry.line + 1, key: entry.key.clone() }
}
