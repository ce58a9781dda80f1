//! Adds to a list or a mapping inside a text: lines where it is a block, JSON where it stands in
//! braces or brackets, as all of a JSON file does. Every other byte stays as it is.

use serde_json::Value;

use super::manifest::{Entry, Item, Node};
use super::place::ManifestError;

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
    /// Below the key, once there is something: not at all, or as `{}`, `[]`, `null`, `~`. So many
    /// bytes of the line are the key and its colon.
    Empty(usize),
    /// In braces or brackets, which open at this byte.
    Flow(usize),
    /// Inside of braces, as `null`, which begins at this byte.
    Null(usize),
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
        let Node::Mapping(entries) = &parent.value else { return Err(no_place(parent)) };
        let Some(entry) = parent.value.entry(key) else {
            let column = entries.first().map_or(0, |entry| entry.column);
            return self.add_new(parent, column, key, part);
        };
        let in_flow = matches!(self.style_of(parent)?, Style::Flow(_));
        match self.style(entry, in_flow)? {
            Style::Empty(keep) => self.add_lines(entry.line, Some(keep), entry.column + 2, part),
            Style::Block => {
                let column = self.first_column(entry)?;
                self.add_lines(entry.line, None, column, part);
            }
            Style::Flow(at) => {
                let json = part.json().ok_or_else(|| no_place(entry))?;
                self.add_in_flow(at, json, entry);
            }
            Style::Null(at) => {
                let json = part.json().ok_or_else(|| no_place(entry))?;
                let is_list = part.0.first().is_some_and(|line| line.starts_with('-'));
                let (open, close) = if is_list { ('[', ']') } else { ('{', '}') };
                let added = format!("{open}{json}{close}");
                self.edits.push(Edit { from: at, to: at + "null".len(), added });
            }
        }
        Ok(())
    }

    /// Adds a key that `parent` does not have; its other keys stand in this column.
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
        let part = part.under(key);
        match self.style_of(parent)? {
            Style::Block => self.add_lines(parent.line, None, column, &part),
            Style::Flow(at) => {
                let json = part.json().ok_or_else(|| no_place(parent))?;
                self.add_in_flow(at, json, parent);
            }
            Style::Empty(_) | Style::Null(_) => return Err(no_place(parent)),
        }
        Ok(())
    }

    /// How a mapping is written that keys are to be added to.
    fn style_of(&self, parent: &Entry) -> Result<Style, ManifestError> {
        match &parent.value {
            // What a merge key brings in would be lost behind a key of our own.
            Node::Mapping(entries) if !entries.iter().any(|entry| entry.key == "<<") => {
                self.style(parent, false)
            }
            _ => Err(no_place(parent)),
        }
    }

    /// Where the children of a block stand: the first key, or the first dash.
    fn first_column(&self, entry: &Entry) -> Result<usize, ManifestError> {
        match &entry.value {
            Node::Mapping(entries) => entries.first().map(|first| first.column),
            Node::List(items) => items.first().and_then(|first| self.dash(entry.line, first)),
            Node::Leaf(_) => None,
        }
        .ok_or_else(|| no_place(entry))
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

    /// How the value of a key is written, unless nothing can be added to it. `in_flow`: the key
    /// itself stands in braces.
    fn style(&self, entry: &Entry, in_flow: bool) -> Result<Style, ManifestError> {
        let is_nothing = match &entry.value {
            Node::Leaf(text) => matches!(text.as_str(), "" | "null" | "~"),
            Node::List(items) => items.is_empty(),
            Node::Mapping(entries) => entries.is_empty(),
        };
        let value = entry.value_at.and_then(|at| Some((at, self.text.get(at..)?)));
        if let Some((at, value)) = value {
            let opens = value.starts_with(['{', '[']);
            if opens && (in_flow || !is_nothing) {
                return Ok(Style::Flow(at));
            }
            if in_flow && is_nothing && value.starts_with("null") {
                return Ok(Style::Null(at));
            }
        }
        if in_flow {
            return Err(no_place(entry));
        }
        self.block_style(entry, is_nothing)
    }

    fn block_style(&self, entry: &Entry, is_nothing: bool) -> Result<Style, ManifestError> {
        let line = self.lines.get(entry.line).map(|line| line.text).unwrap_or_default();
        let rest = line.get(entry.column..).unwrap_or_default();
        let colon = rest.find(':').ok_or_else(|| no_place(entry))?;
        let keep = entry.column + colon + 1;
        let value = rest.get(colon + 1..).unwrap_or_default();
        let value = value.split(" #").next().unwrap_or_default().trim();
        match (is_nothing, value) {
            (true, "" | "{}" | "[]" | "null" | "~") => Ok(Style::Empty(keep)),
            (false, "") => Ok(Style::Block),
            // A comment, an anchor or a tag may stand behind the colon.
            (false, value) if value.starts_with(['#', '&', '!']) && !value.contains(['{', '[']) => {
                Ok(Style::Block)
            }
            _ => Err(no_place(entry)),
        }
    }

    /// Behind the brace or bracket that opens at this byte.
    fn add_in_flow(&mut self, at: usize, mut json: String, entry: &Entry) {
        let at = at + 1;
        let is_alone = match &entry.value {
            Node::Leaf(_) => true,
            Node::List(items) => items.is_empty(),
            Node::Mapping(entries) => entries.is_empty(),
        };
        // What is added later at one place comes before it.
        if !is_alone || self.edits.iter().any(|edit| edit.from == at) {
            json.push_str(", ");
        }
        self.edits.push(Edit { from: at, to: at, added: json });
    }

    /// Behind a line, of which only `keep` bytes stay where its value makes room.
    fn add_lines(&mut self, line: usize, keep: Option<usize>, column: usize, part: &Part) {
        let Some(line) = self.lines.get(line) else { return };
        let end = if self.text.contains("\r\n") { "\r\n" } else { "\n" };
        let to = line.at + line.text.len();
        let from = keep.map_or(to, |keep| line.at + keep);
        let mut added = String::new();
        if keep.is_some() || !line.text.ends_with('\n') {
            added.push_str(end);
        }
        for text in &part.0 {
            if !text.is_empty() {
                added.push_str(&" ".repeat(column));
                added.push_str(text);
            }
            added.push_str(end);
        }
        self.edits.push(Edit { from, to, added });
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

fn no_place(entry: &Entry) -> ManifestError {
    ManifestError::NoPlace { line: entry.line + 1, key: entry.key.clone() }
}
