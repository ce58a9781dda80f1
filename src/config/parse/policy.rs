//! Which level a call needs: what the file says, between what always holds and the default.

use std::sync::Arc;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{Action, Auth, Level, Methods, Rule};
use crate::config::path_pattern::PathPattern;
use crate::config::raw;

/// Methods that the front door lets pass, and the word for all of them.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "ANY"];

/// Behind the file's rules (product.md 3): name, methods, path, level.
const DEFAULT: [(&str, &[&str], &str, Level); 4] = [
    ("default:users", &["ANY"], "/v1/users/**", Level::Admin),
    ("default:pipelines", &["ANY"], "/v1/pipelines/**", Level::ReadWrite),
    ("default:read", &["GET", "HEAD"], "/**", Level::ReadOnly),
    ("default:other", &["ANY"], "/**", Level::ReadWrite),
];

impl Checker<'_> {
    /// All rules: refreshing is refused before anything else, so that no rule of the file can hand
    /// a fresh token to an app.
    pub(super) fn policy(
        &mut self,
        list: Option<&[raw::Rule]>,
        auth: Option<&Auth>,
    ) -> Option<Vec<Rule>> {
        let mut written = Vec::new();
        for (at, rule) in self.places.items("policy").zip(list.unwrap_or_default()) {
            written.extend(self.rule(&at, rule));
        }
        // No rule may be lost on the way: without this one there is no configuration.
        let refresh = format!("{}/**", auth?.refresh_path.trim_end_matches('/')).parse().ok()?;
        let mut rules = vec![rule("default:refresh", Methods::Any, refresh, Action::Deny)];
        rules.append(&mut written);
        for (name, methods, path, level) in DEFAULT {
            rules.push(rule(name, meant(methods), path.parse().ok()?, Action::Require(level)));
        }
        Some(rules)
    }

    fn rule(&mut self, at: &str, written: &raw::Rule) -> Option<Rule> {
        let methods = self.methods(at, written);
        let pattern = self.required(at, "path", written.path.as_deref());
        let path = pattern.and_then(|text| {
            let parsed = text.parse::<PathPattern>();
            if has_escape(text) {
                let plain = "segments are compared decoded: write the character, not its `%` form";
                self.error(&join(at, "path"), plain);
            }
            parsed.map_err(|error| self.error(&join(at, "path"), error.to_string())).ok()
        });
        let is_hole = |key| self.places.is_hole(&join(at, key));
        let action = match (written.level, written.deny.unwrap_or(false)) {
            (Some(level), false) => Some(Action::Require(level)),
            (None, true) => Some(Action::Deny),
            (None, false) if is_hole("level") || is_hole("deny") => None,
            (None, false) => {
                self.error(at, "says nothing: give it a `level`, or `deny: true`");
                None
            }
            (Some(_), true) => {
                self.error(at, "has both `level` and `deny: true`: a rule says one of them");
                None
            }
        };
        let request_timeout = match written.request_timeout {
            Some(span) => Some(self.timeout(&join(at, "request_timeout"), Some(span), 0)?),
            None => None,
        };
        Some(Rule {
            request_timeout,
            replay: written.replay.is_none(),
            ..rule(at, methods?, path?, action?)
        })
    }

    fn methods(&mut self, at: &str, written: &raw::Rule) -> Option<Methods> {
        let path = join(at, "methods");
        let list = self.required(at, "methods", written.methods.as_deref())?;
        let list =
            self.filled(&path, Some(list), "matches no call; write [ANY] for every method")?;
        for (path, method) in self.places.items(&path).zip(list) {
            if !METHODS.contains(&method.as_str()) {
                self.unknown(&path, "method", method, METHODS);
            }
        }
        Some(meant(list))
    }
}

/// Whether a `%` is followed by two hexadecimal digits.
fn has_escape(text: &str) -> bool {
    text.split('%').skip(1).any(|rest| {
        matches!(rest.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
    })
}

fn meant<S: AsRef<str>>(methods: &[S]) -> Methods {
    if methods.iter().any(|method| method.as_ref() == "ANY") {
        return Methods::Any;
    }
    Methods::These(methods.iter().map(|method| method.as_ref().to_owned()).collect())
}

fn rule(name: &str, methods: Methods, path: PathPattern, action: Action) -> Rule {
    Rule { name: Arc::from(name), methods, path, action, request_timeout: None, replay: true }
}
