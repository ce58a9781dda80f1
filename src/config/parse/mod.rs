//! What is written → what is meant. One file a section; all mistakes are collected, none ends the
//! reading.
//!
//! A text here says what is wrong and never repeats the value: it may be a pasted secret.

mod callers;
mod credentials;
mod listeners;
mod oauth;
mod policy;
mod process;
mod stores;
mod shaping;
mod tenants;
mod upstream;
mod webhooks;

use std::path::PathBuf;
use std::time::Duration;

use super::collect::{Places, Problem, join, suggestion};
use super::model::Config;
use super::raw::{Raw, Span};

/// A longer time-out is a mistake, and would overflow a clock some day.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Characters of a name; names are metric labels.
const NAME_CHARS_MAX: usize = 63;

/// What checking found, beside the configuration.
#[derive(Debug)]
pub(super) struct Checked {
    /// There is one where there are no problems.
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// Turns the file as written into a configuration, or tells why not.
pub(super) fn check(raw: &Raw, places: &Places, env: &dyn Fn(&str) -> Option<String>) -> Checked {
    let mut checker = Checker {
        places,
        env,
        problems: Vec::new(),
        warnings: Vec::new(),
        ports: Vec::new(),
        aws_region: None,
    };
    let config = checker.config(raw);
    Checked { config, problems: checker.problems, warnings: checker.warnings }
}

/// Knows where things are, and notes what is wrong with them.
struct Checker<'a> {
    places: &'a Places,
    env: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    /// The ports that are asked for, and where.
    ports: Vec<(String, u16)>,
    /// `stores.aws.region`, where it is written.
    aws_region: Option<String>,
}

impl Checker<'_> {
    fn config(&mut self, raw: &Raw) -> Option<Config> {
        match self.required("", "version", raw.version) {
            Some(1) | None => {}
            Some(_) => self.error("version", "this program reads version 1"),
        }
        // Before the references that lead there.
        let stores = self.stores(raw);
        let aws = stores.as_ref().and_then(|stores| stores.aws.as_ref());
        self.aws_region = aws.and_then(|aws| aws.region.clone());
        let quotas = self.quotas(raw.quotas.as_ref());
        let shaping = self.shaping(raw.shaping.as_ref());
        let credentials = self.credentials(raw.credentials.as_deref(), raw.quotas.as_ref());
        let tenants = self.tenants(raw);
        let listeners = self.listeners(raw, tenants.as_ref());
        let front_door = self.front_door(raw.front_door.as_ref());
        let upstream = self.upstream(raw.upstream.as_ref());
        let auth = self.auth(raw);
        let policy = self.policy(raw.policy.as_deref(), auth.as_ref());
        let own_listeners = self.own_listeners(raw);
        let admin_token = self.admin_token(raw);
        let webhooks = self.webhooks(raw.webhooks.as_ref());
        self.same_ports();
        self.same_sockets(listeners.as_deref());
        let log = self.log(raw.log.as_ref());
        self.same_files(log.as_ref(), shaping.as_ref());
        let startup_timeout = self.span("startup_timeout", raw.startup_timeout, 30);
        let drain = self.drain(raw.drain.as_ref());
        let (health_listen, admin_listen) = own_listeners?;
        Some(Config {
            listeners: listeners?,
            front_door: front_door?,
            upstream: upstream?,
            auth: auth?,
            stores: stores?,
            credentials: credentials?,
            quotas: quotas?,
            shaping: shaping?,
            tenants: tenants?.list,
            policy: policy?,
            webhooks,
            health_listen,
            admin_listen,
            admin_token,
            log: log?,
            startup_timeout: startup_timeout?,
            drain: drain?,
        })
    }

    fn error(&mut self, path: &str, text: impl Into<String>) {
        let place = self.places.value(path);
        self.problems.push(Problem { place, path: path.to_owned(), text: text.into() });
    }

    fn warn(&mut self, path: &str, text: &str) {
        let place = self.places.value(path);
        self.warnings.push(Problem { place, path: path.to_owned(), text: text.to_owned() });
    }

    /// Takes a value, or notes that it is missing, unless it is there and was a mistake.
    fn required<T>(&mut self, at: &str, key: &str, value: Option<T>) -> Option<T> {
        let path = join(at, key);
        if value.is_none() && !self.places.is_hole(&path) {
            self.error(&path, format!("missing key `{key}`"));
        }
        value
    }

    /// As [`Self::required`], for a list that has to hold something.
    fn filled<'r, T>(&mut self, path: &str, list: Option<&'r [T]>, empty: &str) -> Option<&'r [T]> {
        let list = list?;
        // A list that only held mistakes is not empty.
        if list.is_empty() && !self.places.is_written(&format!("{path}[0]")) {
            self.error(path, empty);
            return None;
        }
        Some(list)
    }

    /// A time-out: some time, and at most a day.
    fn timeout(&mut self, path: &str, span: Option<Span>, default_s: u64) -> Option<Duration> {
        let span = self.span(path, span, default_s)?;
        if span.is_zero() {
            self.error(path, "zero would end everything at once; give it some time");
            return None;
        }
        Some(span)
    }

    /// A span of time, none at all included, at most a day.
    fn span(&mut self, path: &str, span: Option<Span>, default_s: u64) -> Option<Duration> {
        let span = span.map_or_else(|| Duration::from_secs(default_s), |Span(span)| span);
        if span > SPAN_MAX {
            self.error(path, "more than a day; give 24h or less");
            return None;
        }
        Some(span)
    }

    /// Whether a text can be a name: it becomes a metric label and a part of URLs.
    fn is_name(&mut self, path: &str, name: &str) -> bool {
        let fits = !name.is_empty()
            && name.len() <= NAME_CHARS_MAX
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !fits {
            self.error(path, "a name is 1 to 63 letters, digits, `-` and `_`");
        }
        fits
    }

    /// Notes each name that is there already, by the paths of the names.
    fn unique(&mut self, names: &[(String, &str)]) {
        for (index, (path, name)) in names.iter().enumerate() {
            let before = names.iter().take(index).find(|(_, other)| other == name);
            if let Some((first, _)) = before {
                let line = self.places.value(first).line;
                self.error(path, format!("this name is taken already, in line {line}"));
            }
        }
    }

    /// Notes that a name refers to nothing, with the nearest one that would.
    fn unknown<'n>(
        &mut self,
        path: &str,
        noun: &str,
        given: &str,
        names: impl IntoIterator<Item = &'n str>,
    ) {
        let meant = suggestion(given, names);
        self.error(path, format!("there is no {noun} of this name{meant}"));
    }

    /// Whether a list's items lost a name to a mistake, so that references to it cannot be judged.
    fn names_are_known(&self, list: &str, key: &str) -> bool {
        !self.places.is_hole(list) && {
            let places = self.places;
            (0_usize..)
                .map(|index| format!("{list}[{index}]"))
                .take_while(|item| places.is_written(item))
                .all(|item| !places.is_hole(&item) && !places.is_hole(&join(&item, key)))
        }
    }

    /// Replaces each `${NAME}` by an environment variable. The result is not read again.
    fn expand(&mut self, path: &str, text: &str) -> Option<String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else {
                self.error(path, "`${` without a `}`");
                return None;
            };
            let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if name.is_empty() || !word {
                self.error(path, "between `${` and `}` stands the name of an environment variable");
                return None;
            }
            let Some(value) = (self.env)(name) else {
                self.error(path, format!("the environment variable {name} is not set"));
                return None;
            };
            out.push_str(before);
            out.push_str(&value);
            rest = behind;
        }
        out.push_str(rest);
        Some(out)
    }

    /// A file's path, where there is one. Nothing is replaced in it.
    fn file(&mut self, path: &str, text: Option<&str>) -> Option<PathBuf> {
        let text = text.filter(|text| !text.is_empty())?;
        if text.contains("${") {
            self.error(
                path,
                "`${NAME}` is replaced in addresses and in references to secrets, not here",
            );
        }
        self.is_path(path, text).then(|| PathBuf::from(text))
    }

    /// A file's path that cannot be left empty.
    fn required_file(&mut self, path: &str, text: &str) -> Option<PathBuf> {
        if text.is_empty() {
            self.error(path, "names no file");
        }
        self.file(path, Some(text))
    }

    /// A YAML block (`|`) ends in a line break, which no file's name has.
    fn is_path(&mut self, path: &str, text: &str) -> bool {
        let fits = !text.is_empty() && !text.contains(char::is_control);
        if !fits {
            self.error(path, "a file's path is not empty, and has no line break in it");
        }
        fits
    }
}
