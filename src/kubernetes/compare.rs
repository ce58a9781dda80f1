//! What was written, read again, is the input and what was added to its pods, and nothing else.
//!
//! An alias repeats what stands at its anchor: what is added there would come to both.

use std::ptr;

use super::error::ManifestError;
use super::manifest::{Entry, Item, Node};

/// What a pod gets.
pub(super) struct Addition<'n> {
    pub(super) pod: &'n Node,
    pub(super) added: Node,
}

/// Compares all documents, as they were and as they are now; the additions are in their order.
///
/// # Errors
/// The first place that is not what it was, or not what was to be added.
pub(super) fn only_added(
    before: &[Node],
    additions: &[Addition<'_>],
    after: &[Node],
) -> Result<(), ManifestError> {
    let top = Place { line: 0, key: "" };
    let mut walk = Walk { additions };
    if before.len() != after.len() {
        return Err(top.lost());
    }
    for (before, after) in before.iter().zip(after) {
        walk.value(before, None, after, top)?;
    }
    if walk.additions.is_empty() { Ok(()) } else { Err(top.lost()) }
}

/// Where in the input: a line, from 0, and the nearest key.
#[derive(Clone, Copy)]
struct Place<'n> {
    line: usize,
    key: &'n str,
}

impl<'n> Place<'n> {
    fn of(entry: &'n Entry) -> Self {
        Self { line: entry.line, key: &entry.key }
    }

    fn lost(self) -> ManifestError {
        ManifestError::Lost(format!("line {}", self.line + 1))
    }

    fn taken(self) -> ManifestError {
        ManifestError::Taken { line: self.line + 1, key: self.key.to_owned() }
    }

    /// Whatever has changed inside an alias was changed at its anchor.
    fn repeated(self) -> ManifestError {
        ManifestError::Repeated { line: self.line + 1, key: self.key.to_owned() }
    }
}

struct Walk<'a, 'n> {
    /// Those whose pods were not met yet.
    additions: &'a [Addition<'n>],
}

impl<'a> Walk<'a, '_> {
    /// `after` is `before`, with what is added to it, if anything is.
    fn value(
        &mut self,
        before: &Node,
        added: Option<&Node>,
        after: &Node,
        at: Place<'_>,
    ) -> Result<(), ManifestError> {
        match (before, self.of_pod(before).or(added), after) {
            (before, Some(added), after) if before.is_nothing() => as_meant(added, after, at),
            (Node::Leaf(before), None, Node::Leaf(after)) if before == after => Ok(()),
            (Node::List(before), None, Node::List(after)) => self.items(before, after, at),
            (Node::List(before), Some(Node::List(added)), Node::List(after)) => {
                let (new, rest) = after.split_at_checked(added.len()).ok_or_else(|| at.lost())?;
                for (added, new) in added.iter().zip(new) {
                    as_meant(&added.value, &new.value, at)?;
                }
                self.items(before, rest, at)
            }
            (Node::Mapping(before), None, Node::Mapping(after)) => {
                self.entries(before, &[], after, at)
            }
            (Node::Mapping(before), Some(Node::Mapping(added)), Node::Mapping(after)) => {
                self.entries(before, added, after, at)
            }
            _ => Err(at.lost()),
        }
    }

    /// What a pod gets, where this is the next one that gets something.
    fn of_pod(&mut self, node: &Node) -> Option<&'a Node> {
        let (next, rest) = self.additions.split_first()?;
        ptr::eq(next.pod, node).then(|| {
            self.additions = rest;
            &next.added
        })
    }

    fn items(
        &mut self,
        before: &[Item],
        after: &[Item],
        at: Place<'_>,
    ) -> Result<(), ManifestError> {
        if before.len() != after.len() {
            return Err(at.lost());
        }
        for (before, after) in before.iter().zip(after) {
            let at = Place { line: before.line, ..at };
            let compared = self.value(&before.value, None, &after.value, at);
            compared.map_err(|error| if before.at.is_none() { at.repeated() } else { error })?;
        }
        Ok(())
    }

    /// The same keys in the same order, and the new ones among them.
    fn entries(
        &mut self,
        before: &[Entry],
        added: &[Entry],
        after: &[Entry],
        at: Place<'_>,
    ) -> Result<(), ManifestError> {
        let there = |own: &Entry| before.iter().find(|entry| entry.key == own.key);
        let (mut inside, mut new): (Vec<_>, Vec<_>) =
            added.iter().partition(|own| there(own).is_some());
        let text = inside.iter().find(|own| matches!(own.value, Node::Leaf(_)));
        if let Some(taken) = text.and_then(|own| there(own)) {
            return Err(Place::of(taken).taken());
        }
        let mut before = before.iter();
        for after in after {
            if let Some(own) = take(&mut new, &after.key) {
                as_meant(&own.value, &after.value, at)?;
                continue;
            }
            let before = before.next().filter(|entry| entry.key == after.key);
            let before = before.ok_or_else(|| at.lost())?;
            let at = Place::of(before);
            let own = take(&mut inside, &before.key).map(|own| &own.value);
            let compared = self.value(&before.value, own, &after.value, at);
            compared
                .map_err(|error| if before.value_at.is_none() { at.repeated() } else { error })?;
        }
        if new.is_empty() && before.next().is_none() { Ok(()) } else { Err(at.lost()) }
    }
}

fn as_meant(added: &Node, after: &Node, at: Place<'_>) -> Result<(), ManifestError> {
    if is_same(added, after) { Ok(()) } else { Err(at.lost()) }
}

/// The same value; the keys of a mapping may be in another order.
fn is_same(one: &Node, other: &Node) -> bool {
    match (one, other) {
        (Node::Leaf(one), Node::Leaf(other)) => one == other,
        (Node::List(one), Node::List(other)) => {
            let mut both = one.iter().zip(other);
            one.len() == other.len() && both.all(|(one, other)| is_same(&one.value, &other.value))
        }
        (Node::Mapping(one), Node::Mapping(entries)) => {
            let has = |entry: &Entry| {
                other.entry(&entry.key).is_some_and(|other| is_same(&entry.value, &other.value))
            };
            one.len() == entries.len() && one.iter().all(has)
        }
        _ => false,
    }
}

/// The entry of a key, which is not found again.
fn take<'e>(entries: &mut Vec<&'e Entry>, key: &str) -> Option<&'e Entry> {
    let at = entries.iter().position(|entry| entry.key == key)?;
    Some(entries.swap_remove(at))
}
