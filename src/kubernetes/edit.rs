//! Adds to a list or a mapping inside a text: lines where it is a block, JSON where it stands in
//! braces or brackets, as all of a JSON file does. Every other byte stays as it is.

use std::ops::Range;

use serde_json::Value;

use super::error::ManifestError;
use super::manifest::{Entry, Item, Node};

const MERGED: &str = "it is an alias, or merged with `<<`; write it out";
const UNUSUAL: &str = "write its value below it, one key a line, or in braces";

/// Entries of a mapping, or items of a list, as lines of a YAML block.
pub(super) struct Part(pub(super) Vec<String>);

impl Part {
    /// The same as the value of a key.
    pub(super) fn under(&self, key: &str) -> Self {
        let indented = self.0.iter().map(|line| match line.as_str() {
            "" => String::new(),
            line => format!("  {line}"),
        });
        Self(std::iter::once(format!("{key}:")).chain(indented).collect())
    }

    /// The same in JSON, without the braces or brackets around.
    fn json(&self) -> Option<String> {
        let value: Value = serde_saphyr::from_str(&self.0.join("\n")).ok()?;
        let parts: Vec<String> = match value {
            Value::Array(items) => items.iter().map(Value::to_string).collect(),
            Value::Object(entries) => {
                let pair = |(key, value): (String, Value)| format!("{}: {value}", Value::from(key));
                entries.into_iter().map(pair).collect()
            }
            _ => return None,
        };
        Some(parts.join(", "))
    }
}

/// A text, and what is to be changed in it.
pub(super) struct Editor<'t> {
    text: &'t str,
    lines: Vec<Line<'t>>,
    edits: Vec<Edit>,
}

/// A line with its end, and the byte where it begins.
struct Line<'t> {
    at: usize,
    text: &'t str,
}

/// These bytes of the text give way to others.
struct Edit {
    from: usize,
    to: usize,
    added: String,
}

/// How the value of a key is written.
enum Style {
    /// Below the key.
    Block,
    /// Below the key, once there is something: not at all, or as `{}`, `[]`, `null`, `~` in these
    /// bytes, which make room.
    Empty(Range<usize>),
    /// In braces or brackets, which open at this byte.
    Flow(usize),
    /// Inside of braces, as `null` or `~` in these bytes.
    Null(Range<usize>),
}

impl<'t> Editor<'t> {
    /// Nothing is changed yet.
    pub(super) fn new(text: &'t str) -> Self {
        let mut at = 0;
        let line = |text: &'t str| {
            let line = Line { at, text };
            at += text.len();
            line
        };
        let lines = text.split_inclusive('\n').map(line).collect();
        Self { text, lines, edits: Vec::new() }
    }

    /// Adds to the list or mapping `key` inside `parent`, at its beginning.
    ///
    /// # Errors
    /// The parent, or the list, is an alias or the like.
    pub(super) fn add_to(
        &mut self,
        parent: &Entry,
        key: &str,
        part: &Part,
    ) -> Result<(), ManifestError> {
        let column = match &parent.value {
            Node::Mapping(entries) if entries.iter().any(|entry| entry.key == "<<") => {
                // What a merge key brings in would be lost behind a key of our own.
                return Err(no_place(parent, MERGED));
            }
            Node::Mapping(entries) => entries.first().map(|entry| entry.column),
            Node::Leaf(_) | Node::List(_) => None,
        };
        let Some(entry) = parent.value.entry(key) else {
            return self.add_in(parent, column, &part.under(key));
        };
        // The parent is not an alias, either.
        self.style(parent)?;
        self.add_under(entry, part)
    }

    /// Adds a key that the mapping `parent` does not have; its other keys stand in this column.
    ///
    /// # Errors
    /// As [`Self::add_to`].
    pub(super) fn add_new(
        &mut self,
        parent: &Entry,
        column: usize,
        key: &str,
        part: &Part,
    ) -> Result<(), ManifestError> {
        self.add_in(parent, Some(column), &part.under(key))
    }

    /// Adds to the list or mapping that is the value of `entry`, at its beginning.
    ///
    /// # Errors
    /// It is an alias or the like.
    pub(super) fn add_under(&mut self, entry: &Entry, part: &Part) -> Result<(), ManifestError> {
        self.add_in(entry, self.first_column(entry), part)
    }

    /// Adds to the value of `entry`; what is in it, if it is a block, stands in this column.
    fn add_in(
        &mut self,
        entry: &Entry,
        column: Option<usize>,
        part: &Part,
    ) -> Result<(), ManifestError> {
        let json = || part.json().ok_or_else(|| no_place(entry, UNUSUAL));
        match self.style(entry)? {
            Style::Block => {
                let column = column.ok_or_else(|| no_place(entry, UNUSUAL))?;
                self.add_lines(entry.line, column, part);
            }
            Style::Empty(room) => {
                if !room.is_empty() && !self.edits.iter().any(|edit| edit.from == room.start) {
                    self.edits.push(Edit { from: room.start, to: room.end, added: String::new() });
                }
                self.add_lines(entry.line, entry.column + 2, part);
            }
            Style::Flow(at) => {
                let is_alone = entry.value.is_nothing();
                let mut json = json()?;
                // What is added later at one place comes before it.
                if !is_alone || self.edits.iter().any(|edit| edit.from == at + 1) {
                    json.push_str(", ");
                }
                self.edits.push(Edit { from: at + 1, to: at + 1, added: json });
            }
            Style::Null(room) => {
                let json = json()?;
                let before = self.edits.iter_mut().find(|edit| edit.from == room.start);
                if let Some(edit) = before {
                    edit.added.insert_str(1, &format!("{json}, "));
                } else {
                    let is_list = part.0.first().is_some_and(|line| line.starts_with('-'));
                    let (open, close) = if is_list { ('[', ']') } else { ('{', '}') };
                    let added = format!("{open}{json}{close}");
                    self.edits.push(Edit { from: room.start, to: room.end, added });
                }
            }
        }
        Ok(())
    }

    /// Where the children of a block stand: the first key, or the first dash.
    fn first_column(&self, entry: &Entry) -> Option<usize> {
        match &entry.value {
            Node::Mapping(entries) => entries.first().map(|first| first.column),
            Node::List(items) => items.first().and_then(|first| self.dash(entry.line, first)),
            Node::Leaf(_) => None,
        }
    }

    /// The column of the dash in front of an item: on its line, or alone on one before it.
    fn dash(&self, key_line: usize, item: &Item) -> Option<usize> {
        let before = self.lines.get(item.line)?.text.get(..item.column)?;
        if before.trim() == "-" {
            return before.find('-');
        }
        let between = self.lines.get(key_line + 1..item.line)?;
        let alone = between.iter().rev().find(|line| line.text.trim() == "-")?;
        alone.text.find('-')
    }

    /// How the value of a key is written, unless nothing can be added to it.
    fn style(&self, entry: &Entry) -> Result<Style, ManifestError> {
        let at = entry.value_at.ok_or_else(|| no_place(entry, MERGED))?;
        let value = self.text.get(at..).unwrap_or_default();
        let is_nothing = entry.value.is_nothing();
        if value.starts_with(['{', '[']) && (entry.in_flow || !is_nothing) {
            return Ok(Style::Flow(at));
        }
        if !entry.in_flow {
            return self.block_style(entry, is_nothing);
        }
        let null = ["null", "~"].into_iter().find(|null| value.starts_with(null));
        match null {
            Some(null) if is_nothing => Ok(Style::Null(at..at + null.len())),
            _ => Err(no_place(entry, UNUSUAL)),
        }
    }

    fn block_style(&self, entry: &Entry, is_nothing: bool) -> Result<Style, ManifestError> {
        let unusual = || no_place(entry, UNUSUAL);
        let line = self.lines.get(entry.line).ok_or_else(unusual)?;
        let rest = line.text.get(entry.column..).unwrap_or_default();
        let (key, behind) = rest.split_once(':').ok_or_else(unusual)?;
        let from = line.at + entry.column + key.len() + 1;
        let space = behind.len() - behind.trim_start().len();
        let value = behind.split(" #").next().unwrap_or_default().trim();
        match (is_nothing, value) {
            (true, "") => Ok(Style::Empty(from..from)),
            // A comment behind it stays.
            (true, "{}" | "[]" | "null" | "~") => {
                Ok(Style::Empty(from..from + space + value.len()))
            }
            (false, "") => Ok(Style::Block),
            // A comment, an anchor or a tag may stand behind the colon.
            (false, value) if value.starts_with(['#', '&', '!']) && !value.contains(['{', '[']) => {
                Ok(Style::Block)
            }
            _ => Err(unusual()),
        }
    }

    /// Behind a line.
    fn add_lines(&mut self, line: usize, column: usize, part: &Part) {
        let Some(line) = self.lines.get(line) else { return };
        let end = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let at = line.at + line.text.len();
        let mut added = String::new();
        if !line.text.ends_with('\n') {
            added.push_str(end);
        }
        for text in &part.0 {
            if !text.is_empty() {
                added.push_str(&" ".repeat(column));
                added.push_str(text);
            }
            added.push_str(end);
        }
        self.edits.push(Edit { from: at, to: at, added });
    }

    /// The text with everything that was added.
    pub(super) fn write(mut self) -> String {
        // What was added later stands higher: initContainers before volumes.
        self.edits.reverse();
        self.edits.sort_by_key(|edit| edit.from);
        let (mut out, mut at) = (String::with_capacity(self.text.len() * 2), 0);
        for edit in &self.edits {
            out.push_str(self.text.get(at..edit.from).unwrap_or_default());
            out.push_str(&edit.added);
            at = at.max(edit.to);
        }
        out.push_str(self.text.get(at..).unwrap_or_default());
        out
    }
}

fn no_place(entry: &Entry, why: &'static str) -> ManifestError {
    ManifestError::NoPlace { line: entry.line + 1, key: entry.key.clone(), why }
}
