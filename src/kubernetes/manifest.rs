//! YAML documents as trees that know on which line each key stands.
//!
//! Bounded: an alias that multiplies, deep nesting and endless documents end in an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned};

use super::error::ManifestError;

/// Levels of nesting: those of schemas inside custom resource definitions come near half of it.
const DEPTH_MAX: usize = 128;
/// Values in the whole input, those that aliases repeat included.
const NODES_MAX: usize = 5_000_000;
/// What the reader tells of them: where each begins, and where what is in it ends.
const EVENTS_MAX: usize = 2 * NODES_MAX;
/// Documents in the whole input.
const DOCUMENTS_MAX: usize = 100_000;
/// Bytes of all values together, those that aliases repeat included.
const SCALAR_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One value.
#[derive(Debug)]
pub(super) enum Node {
    /// Text, a number, or nothing at all.
    Leaf(String),
    List(Vec<Item>),
    Mapping(Vec<Entry>),
}

/// An item of a list, and where it begins (behind its dash): line and column, from 0.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) line: usize,
    pub(super) column: usize,
    /// Bytes of the input, from 0. `None` where an alias stands for it.
    pub(super) at: Option<usize>,
    pub(super) value: Node,
}

/// A key, where it stands (line and column, from 0), and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) column: usize,
    /// Where the value begins: bytes of the input, from 0. `None` where an alias stands for it.
    pub(super) value_at: Option<usize>,
    /// It stands in braces, or in brackets: its own value does, too.
    pub(super) in_flow: bool,
    pub(super) value: Node,
}

impl Node {
    /// The entry of a key, where this is a mapping that has it.
    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        let Self::Mapping(entries) = self else { return None };
        entries.iter().find(|entry| entry.key == key)
    }

    /// Nothing stands there yet.
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Leaf(text) => matches!(text.as_str(), "" | "null" | "~"),
            Self::List(items) => items.is_empty(),
            Self::Mapping(entries) => entries.is_empty(),
        }
    }

    /// The value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| Some(&node.entry(key)?.value))
    }

    /// The text at the end of a path, empty where there is none.
    pub(super) fn text(&self, path: &[&str]) -> &str {
        match self.at(path) {
            Some(Self::Leaf(text)) => text,
            _ => "",
        }
    }

    /// The items at the end of a path; none where there is no list.
    pub(super) fn items(&self, path: &[&str]) -> &[Item] {
        match self.at(path) {
            Some(Self::List(items)) => items,
            _ => &[],
        }
    }
}

/// Reads every document; the empty ones are left out.
///
/// # Errors
/// [`ManifestError::NotYaml`] and [`ManifestError::TooMuch`], with the line from which on it is so.
pub(super) fn read(text: &str) -> Result<Vec<Node>, ManifestError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_events: EVENTS_MAX,
            max_documents: DOCUMENTS_MAX,
            // What aliases repeat counts as values; how many an anchor has says nothing.
            enforce_alias_anchor_ratio: false,
            max_total_scalar_bytes: SCALAR_BYTES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::AsOrdinary,
        with_snippet: false,
    };
    let documents: Vec<Spanned<Node>> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| refusal(&error))?;
    let mut documents: Vec<_> =
        documents.into_iter().map(|root| (offset(&root.referenced), root.value)).collect();
    for (at, root) in &mut documents {
        mark(root, opens(text, *at), text);
    }
    Ok(documents.into_iter().map(|(_, root)| root).collect())
}

fn refusal(error: &serde_saphyr::Error) -> ManifestError {
    use serde_saphyr::Error;
    let line = error.location().map_or(1, |place| place.line().max(1));
    let mut cause = error;
    while let Error::AliasError { error, .. } = cause {
        cause = error;
    }
    match cause {
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => ManifestError::TooMuch(line),
        _ => ManifestError::NotYaml(line),
    }
}

/// Notes what stands in braces.
fn mark(node: &mut Node, in_flow: bool, text: &str) {
    match node {
        Node::Leaf(_) => {}
        Node::List(items) => {
            for item in items {
                mark(&mut item.value, in_flow || opens(text, item.at), text);
            }
        }
        Node::Mapping(entries) => {
            for entry in entries {
                entry.in_flow = in_flow;
                mark(&mut entry.value, in_flow || opens(text, entry.value_at), text);
            }
        }
    }
}

fn opens(text: &str, at: Option<usize>) -> bool {
    at.and_then(|at| text.get(at..)).is_some_and(|rest| rest.starts_with(['{', '[']))
}

fn offset(location: &Location) -> Option<usize> {
    location.span().byte_offset().and_then(|at| at.try_into().ok())
}

/// From 0; the reader counts from 1.
fn from_zero(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1)
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Leaf(value.to_owned()))
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Node, E> {
        Ok(Node::Leaf(String::new()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(String::new()))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Leaf(String::new()))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Node>>()? {
            list.push(Item {
                line: from_zero(item.referenced.line()),
                column: from_zero(item.referenced.column()),
                at: offset(&item.referenced).filter(|_| item.referenced == item.defined),
                value: item.value,
            });
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut mapping = Vec::new();
        while let Some((key, value)) = entries.next_entry::<Spanned<Key>, Spanned<Node>>()? {
            mapping.push(Entry {
                line: from_zero(key.referenced.line()),
                column: from_zero(key.referenced.column()),
                value_at: offset(&value.referenced).filter(|_| value.referenced == value.defined),
                in_flow: false,
                key: key.value.0,
                value: value.value,
            });
        }
        Ok(Node::Mapping(mapping))
    }
}

/// A key; one that is no text is none that is looked for.
struct Key(String);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Node::Leaf(text) = Node::deserialize(deserializer)? else {
            return Ok(Self(String::new()));
        };
        Ok(Self(text))
    }
}
