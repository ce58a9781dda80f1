//! What an answer says of the limit by itself: `RateLimit` and `RateLimit-Policy` in the forms of the
//! drafts (draft-ietf-httpapi-ratelimit-headers), and `X-RateLimit-*`. Pure.
//!
//! Strict: what cannot be read whole says nothing, and neither does what may be about another limit.
//! It is only ever used to be more careful.

use std::time::Duration;

use http::HeaderMap;

/// Bytes of a header that are read.
const BYTES_MAX: usize = 512;
/// Policies of a list.
const ITEMS_MAX: usize = 8;
/// Digits of a number.
const DIGITS_MAX: usize = 9;

/// What is left of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Requests in each window.
    pub limit: u64,
    /// What is left of them.
    pub remaining: u64,
    /// `None`: it is not said.
    pub window: Option<Duration>,
}

/// One member of a list: a value, and parameters behind it.
struct Item<'a> {
    value: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

/// Whether an answer may say something.
#[must_use]
pub fn is_there(headers: &HeaderMap) -> bool {
    ["ratelimit", "ratelimit-remaining", "x-ratelimit-remaining"]
        .into_iter()
        .any(|name| headers.contains_key(name))
}

/// What the answer says of the limit with this window; else of the only one that it speaks of,
/// without a window.
#[must_use]
pub fn parse(headers: &HeaderMap, window: Duration) -> Option<Told> {
    named(headers, window).or_else(|| counted(headers, window))
}

/// `RateLimit-Policy: "x";q=100;w=60` and `RateLimit: "x";r=50;t=30`.
fn named(headers: &HeaderMap, window: Duration) -> Option<Told> {
    let policies = items(text(headers, "ratelimit-policy")?)?;
    let policy = policies.iter().find(|policy| policy.seconds("w") == Some(window))?;
    let limits = items(text(headers, "ratelimit")?)?;
    let limit = limits.iter().find(|limit| limit.value == policy.value)?;
    let (limit, remaining) = (policy.number("q")?, limit.number("r")?);
    Some(Told { limit, remaining, window: Some(window) })
}

/// `RateLimit: limit=100, remaining=50`, or a header for each, or the same with `X-`.
fn counted(headers: &HeaderMap, window: Duration) -> Option<Told> {
    let (limit, remaining) = match text(headers, "ratelimit") {
        Some(text) => {
            let members = items(text)?;
            let member = |name: &str| {
                let has =
                    |item: &&Item<'_>| item.value.split_once('=').is_some_and(|(n, _)| n == name);
                members.iter().find(has)?.value.split_once('=').and_then(|(_, value)| number(value))
            };
            (member("limit")?, member("remaining")?)
        }
        None => {
            let both = |limit, remaining| {
                Some((text(headers, limit)?, number(text(headers, remaining)?)?))
            };
            let (limits, remaining) = both("ratelimit-limit", "ratelimit-remaining")
                .or_else(|| both("x-ratelimit-limit", "x-ratelimit-remaining"))?;
            let limits = items(limits)?;
            // Envoy says the limit in force first, and then each policy with its window.
            let limit = number(limits.first()?.value)?;
            let policy = limits.iter().skip(1).find(|one| number(one.value) == Some(limit));
            let told = policy.and_then(|one| one.seconds("w").or_else(|| one.seconds("window")));
            if let Some(told) = told {
                let window = Some(told).filter(|told| *told == window)?;
                return Some(Told { limit, remaining, window: Some(window) });
            }
            (limit, remaining)
        }
    };
    Some(Told { limit, remaining, window: None })
}

impl Item<'_> {
    fn number(&self, name: &str) -> Option<u64> {
        self.parameters.iter().find(|(own, _)| *own == name).and_then(|(_, value)| number(value))
    }

    fn seconds(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_secs)
    }
}

/// The one header of this name.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let text = values.next()?.to_str().ok()?;
    (values.next().is_none() && text.len() <= BYTES_MAX).then_some(text)
}

fn items(text: &str) -> Option<Vec<Item<'_>>> {
    let items: Option<Vec<_>> = text.split(',').take(ITEMS_MAX + 1).map(item).collect();
    items.filter(|items| items.len() <= ITEMS_MAX)
}

fn item(text: &str) -> Option<Item<'_>> {
    let mut parts = text.split(';').map(str::trim);
    let value = parts.next().filter(|value| !value.is_empty() && !value.contains('\\'))?;
    // A separator inside quotes leaves half of them.
    let parameters: Option<Vec<_>> = parts.map(|part| part.split_once('=')).collect();
    (value.matches('"').count() != 1).then_some(Item { value, parameters: parameters? })
}

fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let fits = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let one = |(name, value): &(&str, &str)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        };
        list.iter().map(one).collect()
    }

    /// Of a limit with a window of a minute: limit, remaining, and whether the window is told.
    #[track_caller]
    fn check(list: &[(&str, &str)], want: Option<(u64, u64, bool)>) {
        let told = parse(&headers(list), Duration::from_secs(60));
        let got = told.map(|told| (told.limit, told.remaining, told.window.is_some()));
        assert_eq!(got, want, "{list:?}");
    }

    #[test]
    fn each_form_is_read_and_only_of_this_limit() {
        let policy = ("RateLimit-Policy", "\"second\";q=5;w=1, \"plan\";q=100;w=60");
        check(
            &[policy, ("RateLimit", "\"second\";r=0;t=1, \"plan\";r=42;t=30")],
            Some((100, 42, true)),
        );
        check(&[policy, ("RateLimit", "\"second\";r=0;t=1")], None);
        check(&[("RateLimit", "\"plan\";r=42;t=30")], None);
        check(&[("RateLimit", "limit=100, remaining=42, reset=30")], Some((100, 42, false)));
        check(&[("RateLimit-Limit", "100"), ("RateLimit-Remaining", "42")], Some((100, 42, false)));
        check(
            &[("RateLimit-Limit", "100, 100;w=60, 5;w=1"), ("RateLimit-Remaining", "42")],
            Some((100, 42, true)),
        );
        check(&[("RateLimit-Limit", "5, 100;w=60, 5;w=1"), ("RateLimit-Remaining", "3")], None);
        check(
            &[("X-RateLimit-Limit", "100"), ("X-RateLimit-Remaining", " 42 ")],
            Some((100, 42, false)),
        );
        check(&[("X-RateLimit-Remaining", "42")], None);
    }

    #[test]
    fn what_cannot_be_read_says_nothing() {
        for text in ["", "-1", "4.2", "1e3", "0x10", "12345678901", "many", "42;", "4 2"] {
            check(&[("X-RateLimit-Limit", "100"), ("X-RateLimit-Remaining", text)], None);
        }
        let twice = [("X-RateLimit-Limit", "100"), ("X-RateLimit-Remaining", "42")];
        check(&[twice[0], twice[1], twice[1]], None);
        let long = format!("100{}", ", 5;w=1".repeat(20));
        check(&[("RateLimit-Limit", &long), ("RateLimit-Remaining", "42")], None);
        let policy = ("RateLimit-Policy", "\"a,b\";q=100;w=60");
        check(&[policy, ("RateLimit", "\"a,b\";r=42")], None);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(texts in prop::collection::vec("[ -~]{0,80}", 4)) {
            let names = ["RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining"];
            let list: Vec<_> = names.into_iter().zip(texts.iter().map(String::as_str)).collect();
            let _any = parse(&headers(&list), Duration::from_secs(60));
        }
    }
}
