//! Scalars with a meaning: durations, sizes, rates, shares. Their errors never quote the text.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::config::model::Rate;

/// The spellings that humantime reads, as a pattern.
const SPAN: &str = r"^\s*(\d[\d\s]*(\.[\d\s]*)?(nanos|nsec|ns|usec|us|µs|millis|msec|ms|seconds?|secs?|s|minutes?|mins?|m|hours?|hrs?|h|days?|d|weeks?|wks?|w|months?|M|years?|yrs?|y)\s*)+$";

/// What a reference to a secret begins with, as a pattern: `crate::secret::SecretRef` reads the rest.
pub(super) const REFERENCE: &str = "^(vault|aws|file|env):";

/// A duration with a unit: `250ms`, `30s`, `5m`, `24h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub struct Span(#[schemars(with = "String", regex(pattern = SPAN))] pub Duration);

/// A number of bytes with a unit: `64KiB`, `1MiB`, `1MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub struct Size(
    #[schemars(with = "String", regex(pattern = r"^[\d.]+\s*([kKmMgGtTpPeE][iI]?)?[bB]$"))]
    pub  usize,
);

/// So many calls in so much time: `2/s`, `100/min`, `1000/h`; or `unlimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub struct Limit(
    #[schemars(with = "String", regex(pattern = r"^(\d+/(s|min|h)|unlimited)$"))] pub Option<Rate>,
);

/// A part of a whole: `1/3`, or a number above 0 and at most 1.
#[derive(Debug, Clone, Copy, PartialEq, JsonSchema)]
pub struct Share(#[schemars(with = "ShareText")] pub f64);

/// `auto`, or a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
pub struct AutoOrNumber(#[schemars(with = "AutoOrNumberText")] pub Option<u64>);

/// How a [`Share`] may be written.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum ShareText {
    /// One part of several.
    Fraction(#[schemars(regex(pattern = r"^0*[1-9]\d*/0*[1-9]\d*$"))] String),
    /// A number.
    Number(#[schemars(range(min = 0, max = 1))] f64),
}

/// How an [`AutoOrNumber`] may be written.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum AutoOrNumberText {
    /// `auto`.
    Auto(#[schemars(regex(pattern = "^auto$"))] String),
    /// A number.
    Number(u64),
}

/// Reads text by a function; what it cannot read is told by what was expected.
struct Text<T> {
    expected: &'static str,
    read: fn(&str) -> Option<T>,
    /// For numbers that need no quotes.
    number: Option<fn(f64) -> Option<T>>,
}

impl<'de, T> Visitor<'de> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.read)(text).ok_or_else(|| E::invalid_value(Unexpected::Other("text"), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        #[expect(clippy::cast_precision_loss, reason = "only small numbers are of use")]
        self.number(number as f64, Unexpected::Signed(0))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        self.number(number, Unexpected::Float(0.0))
    }
}

impl<T> Text<T> {
    fn number<E: Error>(&self, number: f64, found: Unexpected<'_>) -> Result<T, E> {
        match self.number {
            Some(read) => read(number).ok_or_else(|| E::invalid_value(found, self)),
            None => Err(E::invalid_type(found, self)),
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "a duration with a unit, such as `30s`",
            read: |text| humantime::parse_duration(text).ok().map(Self),
            number: None,
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "a size with a unit, such as `1MiB`",
            read: |text| {
                if !text.ends_with(['B', 'b']) {
                    return None;
                }
                let bytes: bytesize::ByteSize = text.parse().ok()?;
                usize::try_from(bytes.as_u64()).ok().map(Self)
            },
            number: None,
        })
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "a rate, a whole number above 0 each `s`, `min` or `h` such as `100/min`, or \
                       `unlimited`",
            read: rate,
            number: None,
        })
    }
}

fn rate(text: &str) -> Option<Limit> {
    if text == "unlimited" {
        return Some(Limit(None));
    }
    let (calls, unit) = text.split_once('/')?;
    let per = Duration::from_secs(match unit {
        "s" => 1,
        "min" => 60,
        "h" => 3600,
        _ => return None,
    });
    Some(Limit(Some(Rate { calls: whole(calls)?, per })))
}

/// Digits alone (`u32::from_str` takes `+5`), at least 1.
fn whole(digits: &str) -> Option<u32> {
    let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())??;
    (number >= 1).then_some(number)
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "a share such as `1/3`, or a number above 0 and at most 1",
            read: |text| {
                let (part, all) = text.split_once('/')?;
                part_of_one(f64::from(whole(part)?) / f64::from(whole(all)?))
            },
            number: Some(part_of_one),
        })
    }
}

fn part_of_one(number: f64) -> Option<Share> {
    (number > 0.0 && number <= 1.0).then_some(Share(number))
}

impl<'de> Deserialize<'de> for AutoOrNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Text {
            expected: "`auto` or a whole number",
            read: |text| (text == "auto").then_some(Self(None)),
            number: Some(|number| {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole, and between 0 and 2^32"
                )]
                (number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number))
                    .then_some(Self(Some(number as u64)))
            }),
        })
    }
}
