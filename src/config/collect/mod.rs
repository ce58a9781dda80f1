//! Text → the file as written, and every structural mistake in it at once.
//!
//! 1. The text becomes a tree of [`Node`]s that knows the place of each key and value. A syntax error ends
//!    here; a key that is set twice is noted, and the first one counts.
//! 2. What is not built yet is refused by name, and left out.
//! 3. The tree is read into [`Raw`]. At a mistake it is noted, that entry is left out, and the tree
//!    is read again. Every key of [`Raw`] is optional, so that a hole never makes a new mistake.
//!
//! Never repeats a value: it may be a secret in the wrong place.

mod fault;
mod tree;
mod typed;

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize as _;

use super::raw::{NOT_YET, Raw};
use fault::Fault;
pub(super) use tree::{Kind, Node, Place};
use typed::At;

/// A larger file is no configuration, in bytes.
pub(super) const FILE_BYTES_MAX: usize = 1024 * 1024;
/// After so many mistakes the rest is not looked for.
const PROBLEMS_MAX: usize = 100;

/// A mistake without the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) place: Place,
    pub(super) path: String,
    pub(super) text: String,
}

impl Problem {
    /// A mistake of the file as a whole.
    pub(super) fn of_file(text: &str) -> Self {
        Self { place: Place::START, path: String::new(), text: text.to_owned() }
    }
}

/// Where things are in the file, and which of them had to be left out.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By path: the place of the value.
    written: BTreeMap<String, Place>,
    holes: BTreeSet<String>,
}

impl Places {
    /// The place of a value, or of the nearest thing around it that is written.
    pub(super) fn value(&self, path: &str) -> Place {
        let mut at = path;
        loop {
            if let Some(place) = self.written.get(at) {
                return *place;
            }
            match at.rfind(['.', '[']) {
                Some(end) => at = at.get(..end).unwrap_or_default(),
                None => return Place::START,
            }
        }
    }

    /// Whether the file has something there, usable or not.
    pub(super) fn is_written(&self, path: &str) -> bool {
        self.written.contains_key(path)
    }

    /// Whether something there was left out as a mistake: what refers to it cannot be judged.
    pub(super) fn is_hole(&self, path: &str) -> bool {
        self.holes.contains(path)
    }

    /// Whether something in there, or all of it, was left out as a mistake.
    pub(super) fn has_hole(&self, path: &str) -> bool {
        let within = |hole: &String| {
            hole.strip_prefix(path)
                .is_some_and(|rest| matches!(rest.as_bytes(), [] | [b'.' | b'[', ..]))
        };
        self.holes.iter().any(within)
    }

    /// The paths of the items of a list that were read, in order.
    pub(super) fn items(&self, list: &str) -> impl Iterator<Item = String> {
        (0_usize..).map(move |index| format!("{list}[{index}]")).filter(|path| !self.is_hole(path))
    }

    /// The keys of a mapping, read or not.
    pub(super) fn keys(&self, mapping: &str) -> impl Iterator<Item = &str> {
        let start = format!("{mapping}.");
        self.written
            .range(start.clone()..)
            .map_while(move |(path, _)| path.strip_prefix(&start))
            .filter(|key| !key.contains(['.', '[']))
    }

    fn note(&mut self, node: &Node, path: &str) {
        match &node.kind {
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    self.written.insert(path.clone(), item.place);
                    self.note(item, &path);
                }
            }
            Kind::Mapping(entries) => {
                for (key, at, value) in entries {
                    let path = join(path, key);
                    // What begins in a later line is best found by its key.
                    let place = if value.place.line == at.line { value.place } else { *at };
                    self.written.insert(path.clone(), place);
                    self.note(value, &path);
                }
            }
            _ => {}
        }
    }
}

/// What the text says, with what is usable of it.
pub(super) struct Collected {
    pub(super) raw: Raw,
    pub(super) places: Places,
    pub(super) problems: Vec<Problem>,
}

/// Reads a configuration file's text.
///
/// # Errors
/// Where it is no YAML, too large, or too full of mistakes to look for those of meaning. Other
/// mistakes are in [`Collected::problems`].
pub(super) fn collect(text: &str) -> Result<Collected, Vec<Problem>> {
    if text.len() > FILE_BYTES_MAX {
        return Err(vec![Problem::of_file("the file is larger than 1 MiB")]);
    }
    let mut problems = Vec::new();
    let root = tree::read(text, &mut problems).map_err(|problem| vec![problem])?;
    let mut places = Places::default();
    places.note(&root, "");
    refuse_not_yet(&root, "", "", &mut places.holes, &mut problems);
    match read_typed(&root, &mut places, &mut problems) {
        Some(raw) => Ok(Collected { raw, places, problems }),
        None => Err(problems),
    }
}

/// Reads the tree again and again, each time without what was wrong with it.
fn read_typed(root: &Node, places: &mut Places, problems: &mut Vec<Problem>) -> Option<Raw> {
    while problems.len() < PROBLEMS_MAX {
        let fault = match Raw::deserialize(At { node: root, path: "", holes: &places.holes }) {
            Ok(raw) => return Some(raw),
            Err(fault) => fault,
        };
        // The key that was meant is not missing as well.
        if let Some(key) = fault.meant.filter(|_| fault.is_key) {
            let around = fault.path.rsplit_once('.').map_or("", |(around, _)| around);
            let meant = join(around, key);
            if !places.is_written(&meant) {
                places.holes.insert(meant);
            }
        }
        // An empty path is the file as a whole, or a key that is empty.
        let part = fault.is_key || !fault.path.is_empty();
        let progress = part && places.holes.insert(fault.path.clone());
        problems.push(describe(fault));
        if !progress {
            return None;
        }
    }
    problems.push(Problem::of_file("more mistakes than are told at once"));
    None
}

/// `credentials` and `name` → `credentials.name`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Notes each key of [`NOT_YET`] that says something, and leaves it out.
fn refuse_not_yet(
    node: &Node,
    path: &str,
    shape: &str,
    holes: &mut BTreeSet<String>,
    out: &mut Vec<Problem>,
) {
    match &node.kind {
        Kind::List(items) => {
            let shape = format!("{shape}[]");
            for (index, item) in items.iter().enumerate() {
                refuse_not_yet(item, &format!("{path}[{index}]"), &shape, holes, out);
            }
        }
        Kind::Mapping(entries) => {
            for (key, at, value) in entries {
                let path = join(path, key);
                let shape = join(shape, key);
                if !NOT_YET.contains(&shape.as_str()) {
                    refuse_not_yet(value, &path, &shape, holes, out);
                } else if !value.is_nothing() {
                    let text = format!("`{key}` is not supported yet");
                    out.push(Problem { place: *at, path: path.clone(), text });
                    holes.insert(path);
                }
            }
        }
        _ => {}
    }
}

fn describe(fault: Fault) -> Problem {
    let text = format!("{}{}", fault.text, did_you_mean(fault.meant));
    Problem { place: fault.place.unwrap_or(Place::START), path: fault.path, text }
}

/// `; did you mean "tenant"?`, or nothing.
pub(super) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean \"{name}\"?"))
}

/// The end of a sentence that says that there is no such name: the one that was meant, if it can be
/// known. What was given is not repeated.
#[must_use]
pub fn suggestion<'n>(given: &str, valid: impl IntoIterator<Item = &'n str>) -> String {
    did_you_mean(nearest(given, valid))
}

/// The valid name that is near enough for what was given to be a slip of the keyboard.
pub(super) fn nearest<'n>(
    given: &str,
    valid: impl IntoIterator<Item = &'n str>,
) -> Option<&'n str> {
    // Names are short; comparing a pasted page with them is a waste.
    if given.len() > 64 {
        return None;
    }
    let given = given.to_lowercase();
    valid
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&given, &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= 1 + name.len() / 4)
        .min()
        .map(|(_, name)| name)
}
