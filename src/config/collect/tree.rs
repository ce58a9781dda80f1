//! YAML text as a tree that knows where each key and value stands.
//!
//! Bounded: an alias that multiplies, deep nesting and endless documents end in an error.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Spanned};

use super::{Problem, join};

/// Levels of nesting; the format itself needs six.
const DEPTH_MAX: usize = 32;
/// Aliases in a file: no sensible one comes near.
const ALIASES_MAX: usize = 100;
/// Values in a file, those that aliases repeat included.
const NODES_MAX: usize = 50_000;
/// Bytes of all values together, those that aliases repeat included.
const SCALAR_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A line and a column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::config) struct Place {
    pub(in crate::config) line: u64,
    pub(in crate::config) column: u64,
}

impl Place {
    pub(in crate::config) const START: Self = Self { line: 1, column: 1 };

    fn of(location: Location) -> Self {
        Self { line: location.line().max(1), column: location.column().max(1) }
    }
}

/// One value, and where it stands. It does not print: a secret may have been pasted there.
pub(in crate::config) struct Node {
    pub(in crate::config) place: Place,
    pub(in crate::config) kind: Kind,
}

/// What a value is.
pub(in crate::config) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys are unique; each has its place.
    Mapping(Vec<(String, Place, Node)>),
}

impl Node {
    /// `null`, or an empty list or mapping: as good as not written.
    pub(in crate::config) fn is_nothing(&self) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::List(items) => items.is_empty(),
            Kind::Mapping(entries) => entries.is_empty(),
            _ => false,
        }
    }
}

/// Reads the one document in `text`; keys that are set twice are added to `out`.
pub(super) fn read(text: &str, out: &mut Vec<Problem>) -> Result<Node, Problem> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_aliases: ALIASES_MAX,
            max_anchors: ALIASES_MAX,
            max_nodes: NODES_MAX,
            max_total_scalar_bytes: SCALAR_BYTES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    let root: Spanned<Written> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| Problem {
            place: error.location().map_or(Place::START, Place::of),
            path: String::new(),
            text: syntax_text(&error).to_owned(),
        })?;
    Ok(unique(root, "", out))
}

/// Our own words: the parser's may quote the file.
fn syntax_text(error: &serde_saphyr::Error) -> &'static str {
    use serde_saphyr::Error as E;
    match error.without_snippet() {
        E::MultipleDocuments { .. } => "a second document begins here; write one",
        E::MergeKeyNotAllowed { .. } => "merge keys (`<<`) are not part of this format",
        E::UnknownAnchor { .. } => "this alias names no anchor above it; is a quote missing?",
        E::Budget { .. }
        | E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. } => {
            "too much for a configuration file: nested too deeply, or repeated too often by aliases"
        }
        E::InvalidScalar { .. } | E::NonFiniteFloat { .. } => {
            "this is no number that can be used; put it in quotes if it is text"
        }
        _ => "this is not YAML; look at the indentation, quotes and colons here and just before",
    }
}

/// A value as the YAML reader hands it over: repeated keys are still there.
enum Written {
    Leaf(Kind),
    List(Vec<Spanned<Self>>),
    Mapping(Vec<(Spanned<String>, Spanned<Self>)>),
}

/// Of a repeated key the first one counts, and the others are mistakes.
fn unique(written: Spanned<Written>, path: &str, out: &mut Vec<Problem>) -> Node {
    let place = Place::of(written.referenced);
    let kind = match written.value {
        Written::Leaf(kind) => kind,
        Written::List(items) => Kind::List(
            items
                .into_iter()
                .enumerate()
                .map(|(index, item)| unique(item, &format!("{path}[{index}]"), out))
                .collect(),
        ),
        Written::Mapping(pairs) => {
            let mut entries: Vec<(String, Place, Node)> = Vec::with_capacity(pairs.len());
            let mut first = std::collections::BTreeMap::new();
            for (key, value) in pairs {
                let (at, key) = (Place::of(key.referenced), key.value);
                let path = join(path, &key);
                if let Some(line) = first.get(&key) {
                    let text = format!("this key is set twice, first in line {line}");
                    out.push(Problem { place: at, path, text });
                    continue;
                }
                first.insert(key.clone(), at.line);
                entries.push((key, at, unique(value, &path, out)));
            }
            Kind::Mapping(entries)
        }
    };
    Node { place, kind }
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Integer(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Written, E> {
        // No key takes a number near this one; what it stands for is refused as too large.
        Ok(Written::Leaf(Kind::Integer(i64::try_from(value).unwrap_or(i64::MAX))))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Text(value.to_owned())))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Written, E> {
        Err(E::custom("binary"))
    }

    fn visit_unit<E>(self) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Null))
    }

    fn visit_none<E>(self) -> Result<Written, E> {
        Ok(Written::Leaf(Kind::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Written, D::Error> {
        Written::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Written, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Written::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Written, A::Error> {
        let mut mapping = Vec::new();
        while let Some(pair) = entries.next_entry()? {
            mapping.push(pair);
        }
        Ok(Written::Mapping(mapping))
    }
}
