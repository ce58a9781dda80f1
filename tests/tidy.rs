//! The rules that no lint knows, each with its reason and what to do about it.
//!
//! Scanners here read text, not syntax: they blank comments and literals first, and rather miss a
//! clever spelling than trip over a plain one.

#![expect(clippy::expect_used, reason = "a file that cannot be read fails the rule that reads it")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be, its tests at the end not counted.
const LINES_MAX: usize = 300;

/// Who may open a secret, and what for. A new line here is what a reviewer looks at first.
const EXPOSING: &[(&str, &str)] = &[
    ("src/secret/", "defines it"),
    ("src/store/", "takes one field out of a JSON document"),
    ("src/credential/kind/", "a stored secret becomes a token, or is sent to its issuer"),
    ("src/credential/oauth/", "the request to the token endpoint"),
    (
        "src/credential/key.rs",
        "keyed hashes: which credentials share a key, and audit fingerprints",
    ),
    ("src/credential/unanswered.rs", "a mark is put before a secret that may be used up"),
    ("src/credential/schedule.rs", "a JWT's own expiry"),
    (
        "src/credential/verify.rs",
        "a new token is tried at the API before it replaces one that works",
    ),
    ("src/credential/token.rs", "a token's own reading: shape and expiry"),
    ("src/webhook/signature.rs", "a webhook's secret becomes the key that verifies"),
    ("src/tls/own.rs", "a certificate of our own, with its key, is read from PEM"),
    ("src/proxy/answer.rs", "drops an answer's header that holds a live token"),
];

/// In a test, a line that must pass time (not wait for something) says so with this.
const SLEEP_MARK: &str = "tidy: passes time because";

#[test]
fn a_module_names_only_modules_above_it() {
    let lib = read("src/lib.rs");
    let order = modules_of(&lib);
    assert!(order.len() > 3, "src/lib.rs lists no modules, or the scanner is broken: {order:?}");
    let mut wrong = Vec::new();
    for file in rust_files("src").filter(|file| is_shipped(file)) {
        let Some(own) = order.iter().position(|module| *module == top_module(&file)) else {
            continue; // lib.rs and main.rs
        };
        for (line, named) in crate_names(before_tests(&blanked(&read(&file)))) {
            if order.iter().position(|module| *module == named).is_some_and(|at| at > own) {
                wrong.push(format!("{file}:{line}: names crate::{named}"));
            }
        }
    }
    none(
        &wrong,
        "The order of the modules in src/lib.rs is the order in which they may use each other. \
         Move what both need into the upper one, or hand it in as an argument.",
    );
}

#[test]
fn each_source_file_says_what_it_is_for() {
    let wrong: Vec<_> = rust_files("src")
        .chain(rust_files("tests"))
        .filter(|file| !is_tests(file) && !read(file).starts_with("//! "))
        .collect();
    none(&wrong, "Begin the file with `//!`: what it is for, and what it must never do.");
}

#[test]
fn files_stay_small() {
    let wrong: Vec<_> = rust_files("src")
        .filter(|file| is_shipped(file))
        .map(|file| (before_tests(&read(&file)).lines().count(), file))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, file)| format!("{file}: {lines} lines"))
        .collect();
    none(&wrong, "Over 300 lines before its tests: split the file by what its parts are for.");
}

#[test]
fn a_folder_has_its_face_inside() {
    let wrong: Vec<_> = rust_files("src")
        .filter(|file| root().join(file.trim_end_matches(".rs")).is_dir())
        .collect();
    none(&wrong, "`foo.rs` beside `foo/`: move it to `foo/mod.rs`, so that a part is one folder.");
}

#[test]
fn secrets_are_opened_in_few_places() {
    let mut wrong = Vec::new();
    for file in rust_files("src").filter(|file| is_shipped(file)) {
        if EXPOSING.iter().any(|(place, _)| file.starts_with(place)) {
            continue;
        }
        let code = blanked(&read(&file));
        wrong.extend(lines_with(before_tests(&code), &file, &[".expose()", ".expose_str()"]));
    }
    none(
        &wrong,
        "A secret leaves its box here. Pass the SecretValue on instead; if this file has to open \
         it, list it in EXPOSING (tests/tidy.rs) with the reason.",
    );
}

#[test]
fn what_a_store_answers_cannot_be_printed() {
    let mut wrong = Vec::new();
    for file in rust_files("src").filter(|file| is_shipped(file) && file.starts_with("src/store/"))
    {
        let code = blanked(&read(&file));
        let derives = |line: &str, name: &str| {
            let inside = line.trim_start().strip_prefix("#[derive(");
            inside.is_some_and(|rest| rest.split([',', ')']).any(|one| one.trim() == name))
        };
        for (at, line) in before_tests(&code).lines().enumerate() {
            // What is serialised as well is a report of ours, and no answer.
            let is_answer = derives(line, "Deserialize") && !derives(line, "Serialize");
            if is_answer && derives(line, "Debug") {
                wrong.push(format!("{file}:{}", at + 1));
            }
        }
    }
    none(&wrong, "A type that is read from a store's answer can hold a secret: take `Debug` away.");
}

#[test]
fn no_test_is_switched_off() {
    let wrong =
        all_code_with(&["src", "tests", "benches"], &["#[ignore", "todo!(", "unimplemented!("]);
    none(&wrong, "Nothing is skipped or left for later: make it work, or take it out.");
}

#[test]
fn tests_wait_for_events_and_not_for_time() {
    let mut wrong = Vec::new();
    for file in rust_files("tests").filter(|file| file != "tests/tidy.rs") {
        let text = read(&file);
        let lines: Vec<_> = text.lines().collect();
        for (at, code) in blanked(&text).lines().enumerate() {
            let marked = lines.iter().skip(at.saturating_sub(1)).take(2);
            if code.contains("sleep(") && !marked.into_iter().any(|line| line.contains(SLEEP_MARK))
            {
                wrong.push(format!("{file}:{}", at + 1));
            }
        }
    }
    none(
        &wrong,
        "A sleep that waits for something is too short on a slow machine: wait on a channel, a \
         watch or /status. Where time itself is under test, say so on the line above: \
         `// tidy: passes time because …`.",
    );
}

#[test]
fn no_file_knows_a_developers_machine() {
    let places = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];
    let mut wrong = Vec::new();
    for file in files_under("") {
        if let Ok(text) = fs::read_to_string(root().join(&file)) {
            wrong.extend(lines_with(&text, &file, &places));
        }
    }
    none(&wrong, "This path exists on one machine only: make it relative, or an argument.");
}

#[test]
fn the_map_is_complete() {
    let map = read("ARCHITECTURE.md");
    let modules = modules_of(&read("src/lib.rs")).into_iter().map(|module| format!("src/{module}"));
    let folders = rust_files("src")
        .filter_map(|file| file.rsplit_once('/').map(|(folder, _)| folder.to_owned()))
        .filter(|folder| folder != "src");
    let missing: BTreeSet<_> =
        modules.chain(folders).filter(|place| !mentions_path(&map, place)).collect();
    none(
        &missing.into_iter().collect::<Vec<_>>(),
        "ARCHITECTURE.md's map does not name it: add a line that says what it is for.",
    );
}

#[test]
fn the_changelog_has_a_place_for_what_is_new() {
    assert!(
        read("CHANGELOG.md").contains("\n## [Unreleased]"),
        "CHANGELOG.md has no `## [Unreleased]`: what a user can notice is written there first."
    );
}

#[test]
fn each_fault_names_a_test_that_exists() {
    let code: Vec<_> =
        ["src", "tests"].into_iter().flat_map(rust_files).map(|f| read(&f)).collect();
    let mut wrong = Vec::new();
    for (at, row) in read("docs/faults.md").lines().enumerate().skip(7) {
        let Some(tests) = row.trim_end_matches([' ', '|']).rsplit('|').next() else { continue };
        let names: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        let is_row = row.starts_with('|');
        let missing = |name: &&str| !code.iter().any(|text| text.contains(&format!("fn {name}(")));
        if is_row && (names.is_empty() || names.iter().any(missing)) {
            wrong.push(format!("docs/faults.md:{}: {names:?}", at + 1));
        }
    }
    none(&wrong, "A row without a test is a hope: name one that exists, or take the row out.");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in files_under("").filter(|file| file.ends_with(".md")) {
        let base = root().join(&file);
        let base = base.parent().expect("a file is in a folder");
        for (line, target) in links(&read(&file)) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if !elsewhere && !path.is_empty() && !base.join(path).exists() {
                wrong.push(format!("{file}:{line}: {target}"));
            }
        }
    }
    none(&wrong, "The link leads nowhere: the file was moved, or is not written yet.");
}

#[test]
fn there_is_one_tls_stack() {
    let lock = read("Cargo.lock");
    let versions = |name: &str| lock.matches(&format!("name = \"{name}\"\n")).count();
    let others =
        ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "boring", "s2n-tls"];
    let wrong: Vec<_> =
        others.into_iter().filter(|name| versions(name) > 0).map(str::to_owned).collect();
    none(
        &wrong,
        "Everything speaks TLS by rustls on ring: turn off the feature that brings this in.",
    );
    for name in ["rustls", "ring", "hyper", "rustls-webpki"] {
        assert_eq!(versions(name), 1, "{name}: two of them are two TLS stacks");
    }
}

#[test]
fn documents_name_only_metrics_that_exist() {
    let defined = read("src/telemetry/metrics.rs");
    let mut wrong = Vec::new();
    for file in files_under("").filter(|file| file.ends_with(".md")) {
        for (at, line) in read(&file).lines().enumerate() {
            for named in words_after(line, "datapulse_sidecar_") {
                let family = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|suffix| named.strip_suffix(suffix))
                    .unwrap_or(&named);
                let known = [family, &named].iter().any(|n| defined.contains(&format!("\"{n}\"")));
                if !named.is_empty() && !known {
                    wrong.push(format!("{file}:{}: datapulse_sidecar_{named}", at + 1));
                }
            }
        }
    }
    none(&wrong, "src/telemetry/metrics.rs has no such family: correct the name, or add it there.");
}

// === the scanners ===

/// Fails with the rule's advice and every place, one a line.
#[track_caller]
fn none(places: &[String], advice: &str) {
    assert!(places.is_empty(), "{advice}\n  {}\n", places.join("\n  "));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).expect(file)
}

/// Every file below a folder, by its path from the root; what is built or hidden is left out.
fn files_under(folder: &str) -> impl Iterator<Item = String> + use<> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            let skipped = matches!(&*name, ".git" | "target" | "node_modules");
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && !skipped => folders.push(path),
                Ok(kind) if kind.is_file() && !skipped => files.push(relative(&path)),
                _ => {}
            }
        }
    }
    files.sort();
    files.into_iter()
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).expect("found below the root").to_string_lossy().replace('\\', "/")
}

fn rust_files(folder: &str) -> impl Iterator<Item = String> + use<> {
    files_under(folder).filter(|file| file.ends_with(".rs"))
}

/// A sibling file or folder of tests: `tests.rs`, `tests/…` inside `src`.
fn is_tests(file: &str) -> bool {
    file.starts_with("src/") && (file.ends_with("/tests.rs") || file.contains("/tests/"))
}

fn is_shipped(file: &str) -> bool {
    !is_tests(file)
}

/// `src/config/model.rs` → `config`.
fn top_module(file: &str) -> String {
    let inside = file.trim_start_matches("src/");
    inside.split(['/', '.']).next().unwrap_or_default().to_owned()
}

/// The names of `mod x;` lines, in their order.
fn modules_of(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.trim().strip_suffix(';'))
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod "))
        .map(str::to_owned)
        .collect()
}

/// What is before the tests at the end of a file.
fn before_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod ").map_or(text, |at| text.get(..at).unwrap_or(text))
}

/// The first segments after `crate::`, with their lines; `crate::{a::b, c}` gives both.
fn crate_names(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let line = code.get(..at).unwrap_or_default().matches('\n').count() + 1;
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line, word(rest)));
            continue;
        };
        let mut depth = 0_usize;
        let mut start = true;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && !c.is_whitespace() => {
                    start = false;
                    found.push((line, word(group.get(at..).unwrap_or_default())));
                }
                _ => {}
            }
        }
    }
    found
}

/// The identifier at the start of a text.
fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn words_after(line: &str, prefix: &str) -> Vec<String> {
    line.match_indices(prefix)
        .map(|(at, _)| word(line.get(at + prefix.len()..).unwrap_or_default()))
        .collect()
}

fn lines_with(text: &str, file: &str, needles: &[&str]) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| needles.iter().any(|needle| line.contains(needle)))
        .map(|(at, _)| format!("{file}:{}", at + 1))
        .collect()
}

fn all_code_with(folders: &[&str], needles: &[&str]) -> Vec<String> {
    folders
        .iter()
        .flat_map(|folder| rust_files(folder))
        .flat_map(|file| lines_with(&blanked(&read(&file)), &file, needles))
        .collect()
}

/// Whether a path is named, and not only as the beginning of a longer name.
fn mentions_path(text: &str, path: &str) -> bool {
    text.match_indices(path).any(|(at, _)| {
        let next = text.get(at + path.len()..).and_then(|rest| rest.chars().next());
        !next.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-')
    })
}

/// The targets of `[text](target)` outside code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (at, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        // Odd pieces are between back-quotes.
        let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        for (start, _) in prose.match_indices("](").filter(|_| !fenced) {
            let rest = prose.get(start + 2..).unwrap_or_default();
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            found.push((at + 1, target.to_owned()));
        }
    }
    found
}

/// The source with comments and literals as spaces; lines stay where they are.
fn blanked(source: &str) -> String {
    let mut rest = source;
    let mut out = String::with_capacity(source.len());
    while let Some(first) = rest.chars().next() {
        let length = literal_length(rest, out.chars().next_back());
        let (piece, after) = rest.split_at(length.unwrap_or_else(|| first.len_utf8()));
        if length.is_some() {
            out.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push(first);
        }
        rest = after;
    }
    out
}

/// How long the comment or literal at the start of a text is, where there is one.
fn literal_length(text: &str, before: Option<char>) -> Option<usize> {
    let to_end = |at: Option<usize>| Some(at.unwrap_or(text.len()));
    if text.starts_with("//") {
        return to_end(text.find('\n'));
    }
    if text.starts_with("/*") {
        return to_end(text.find("*/").map(|at| at + 2));
    }
    let inside_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    // `r"`, `r#"`, and after the b of `br"` as well.
    if let Some(raw) = text.strip_prefix('r').filter(|_| !inside_word || before == Some('b')) {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw.get(hashes..).is_some_and(|quoted| quoted.starts_with('"')) {
            let open = 1 + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            let body = text.get(open..).unwrap_or_default();
            return to_end(body.find(&close).map(|at| open + at + close.len()));
        }
    }
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let is_lifetime = quote == '\'' && {
        let mut next = text.chars().skip(1);
        next.next() != Some('\\') && next.next() != Some('\'')
    };
    if is_lifetime {
        return None;
    }
    let mut escaped = true; // the opening quote ends nothing
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + c.len_utf8()),
            _ => {}
        }
    }
    to_end(None)
}

// === the scanners' own tests: a rule whose scanner sees nothing would pass for ever ===

#[test]
fn the_scanner_sees_code_and_not_what_only_looks_like_it() {
    let check = |source: &str, expected: &[&str]| {
        let named: Vec<_> = crate_names(&blanked(source)).into_iter().map(|(_, n)| n).collect();
        assert_eq!(named, expected, "in {source}");
    };
    check("use crate::proxy::Call;", &["proxy"]);
    check("use crate::{app, proxy::{self, x}, store};", &["app", "proxy", "store"]);
    check("// crate::app\n/* crate::app */ let s = \"crate::app\";", &[]);
    check("let s = r#\"a \" crate::app\"#; crate::store::x()", &["store"]);
    check("let c = '\"'; let d = b'\\''; crate::store::x('a')", &["store"]);
    check("fn f<'a>(x: &'a str) { crate::store::x() }", &["store"]);
    check("let s = \"\\\"\"; crate::store::x()", &["store"]);
}

#[test]
fn the_scanner_of_links_skips_code() {
    let text = "[a](b.md) and `[c](d.md)`\n```\n[e](f.md)\n```\n[g](h.md#i)\n";
    assert_eq!(links(text), [(1, "b.md".to_owned()), (5, "h.md#i".to_owned())]);
}

#[test]
fn a_path_is_not_named_by_a_longer_one() {
    assert!(mentions_path("`src/proxy/`: a call", "src/proxy"));
    assert!(!mentions_path("`src/proxying.rs`", "src/proxy"));
}
