//! What serde finds wrong with a value, in words for somebody who writes YAML.
//!
//! Serde hands over the value as well; it is never kept nor shown.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

use super::nearest;
use super::tree::Place;

/// What does not fit, and where.
#[derive(Debug)]
pub(super) struct Fault {
    /// Set where it arises, by the access that led there.
    pub(super) place: Option<Place>,
    pub(super) path: String,
    pub(super) text: String,
    /// The name that was meant, most likely.
    pub(super) meant: Option<&'static str>,
    /// The key itself is the mistake, not its value.
    pub(super) is_key: bool,
}

impl Fault {
    fn new(text: String) -> Self {
        Self { place: None, path: String::new(), text, meant: None, is_key: false }
    }

    pub(super) fn at(self, place: Place, path: &str) -> Self {
        match self.place {
            Some(_) => self,
            None => Self { place: Some(place), path: path.to_owned(), ..self },
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl Error for Fault {
    /// For our own newtypes, whose texts hold no value.
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::new(text.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (found, hint) = match found {
            Unexpected::Bool(_) => ("true or false", "; put it in quotes if it is text"),
            Unexpected::Unsigned(_) | Unexpected::Signed(_) => {
                ("a number", "; put it in quotes if it is text")
            }
            Unexpected::Float(_) => ("a decimal number", "; put it in quotes if it is text"),
            Unexpected::Str(_) | Unexpected::Char(_) => ("text", ""),
            Unexpected::Unit | Unexpected::Option => ("nothing", ""),
            Unexpected::Seq => ("a list", ""),
            Unexpected::Map => ("a mapping", ""),
            _ => ("this", ""),
        };
        let want = plain(&expected.to_string());
        let hint = if want == "text" { hint } else { "" };
        Self::new(format!("expected {want}, not {found}{hint}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}", plain(&expected.to_string())))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let text = format!("expected {}", one_of(expected));
        Self { meant: nearest(variant, expected.iter().copied()), ..Self::new(text) }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let meant = nearest(field, expected.iter().copied());
        Self { meant, is_key: true, ..Self::new("unknown key".to_owned()) }
    }
}

/// Serde's words for what it expected, in those of somebody who writes YAML.
fn plain(expected: &str) -> String {
    match expected {
        "a string" => "text",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        it if it.starts_with("struct ") => "a mapping",
        it if it.starts_with("enum ") || it == "variant identifier" => "text",
        it => it,
    }
    .to_owned()
}

/// `one of a, b, c`.
pub(super) fn one_of(names: &[&str]) -> String {
    match names {
        [name] => format!("`{name}`"),
        names => format!("one of {}", names.join(", ")),
    }
}
