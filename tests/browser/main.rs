//! A person logs in with a real browser, Debian's Chromium: the emulator's page asks, the real binary
//! waits for the answer, and a sidecar serves calls with what comes of it.
//!
//! Not among `make test`, as a Chromium is 300 MB: `make test-browser` runs it. Pictures of the pages
//! are in `target/browser` afterwards.
#![expect(clippy::expect_used, clippy::panic, reason = "a test stops where its expectation fails")]

#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves several test programs")]
mod support;

use std::path::{Path, PathBuf};

use reqwest::Url;
use serde::Deserialize;
use tokio::process::Command;

use support::{Login, Rig, tool};

/// What a person saw.
#[derive(Debug, Deserialize)]
struct Page {
    name: String,
    status: u16,
    text: String,
    /// Whether the policy lets the style in.
    styled: bool,
    /// What the browser complained about.
    problems: Vec<String>,
}

#[expect(clippy::disallowed_methods, reason = "a machine may have another Chromium")]
fn chromium() -> PathBuf {
    let given = std::env::var_os("CHROMIUM").map(PathBuf::from);
    given.unwrap_or_else(|| "/usr/bin/chromium-headless-shell".into())
}

/// Opens the question and decides; what the pages said, by their names.
async fn person(question: &Url, decision: &str) -> Vec<Page> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/browser").join(decision);
    drop(std::fs::remove_dir_all(&folder));
    std::fs::create_dir_all(&folder).expect("a folder for pictures");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/person.cjs");
    let mut node = Command::new(tool("bin/node"));
    node.env("NODE_PATH", tool("npm/node_modules")).env("HOME", &folder);
    node.arg(script).arg(chromium()).arg(&folder).args([question.as_str(), decision]);
    let output = node.kill_on_drop(true).output().await.expect("node runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let pages: Vec<Page> = serde_json::from_slice(&output.stdout).expect("what pages said");
    for page in &pages {
        assert!(page.styled && page.problems.is_empty(), "{page:?}");
    }
    pages
}

fn page<'p>(pages: &'p [Page], name: &str) -> &'p Page {
    pages.iter().find(|page| page.name == name).expect("the page was seen")
}

/// A sidecar with nobody logged in, whose tokens live for two seconds.
async fn rig() -> Rig {
    let builder = Rig::builder().await.token_life(std::time::Duration::from_secs(2));
    let port = builder.upstream_port();
    let config = format!(
        "auth: {{authorize_url: 'http://127.0.0.1:{port}/oauth/authorize'}}\n\
         credentials: [{{name: alice, level: read_write, refresh_token: {{client_id: cli, \
         token: 'file:${{DIR}}/alice', scopes: ['analytics:read', 'pipelines:write']}}}}]\n"
    );
    builder.config_in_dir(&config).unready().start().await
}

#[tokio::test]
async fn whoever_approves_in_a_browser_is_logged_in_for_many_rotations_and_over_a_restart() {
    let mut rig = rig().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 503);
    let login = Login::start(&rig.config_path(), "alice").await;
    let pages = person(&login.url, "approve").await;
    let (question, answer) = (page(&pages, "question"), page(&pages, "approve"));
    for part in ["cli asks for access", "run pipelines", "http://127.0.0.1:"] {
        assert!(question.text.contains(part), "{part} is not in {question:?}");
    }
    assert!(answer.status == 200 && answer.text.contains("You are logged in"), "{answer:?}");
    let (code, said) = login.ended().await;
    assert_eq!(code, Some(0), "{said}");
    rig.eventually("/v1/pipelines", 200).await;
    rig.emulator.refreshed("cli", 4).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.restart().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.emulator.refreshed("cli", 6).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn whoever_denies_in_a_browser_reads_so_and_nothing_is_kept() {
    let rig = rig().await;
    let login = Login::start(&rig.config_path(), "alice").await;
    let pages = person(&login.url, "deny").await;
    let answer = page(&pages, "deny");
    assert!(answer.status == 200 && answer.text.contains("Access was denied"), "{answer:?}");
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("access was denied"), "{said}");
    assert_eq!(rig.get("/v1/pipelines").await.status(), 503);
    rig.finish().await;
}

#[tokio::test]
async fn a_browser_with_another_logins_answer_is_sent_away_and_the_right_one_is_waited_for() {
    let rig = rig().await;
    let login = Login::start(&rig.config_path(), "alice").await;
    let pages = person(&login.url, "stray").await;
    let stray = page(&pages, "stray");
    assert!(stray.status == 400 && stray.text.contains("not the answer"), "{stray:?}");
    assert!(page(&pages, "approve").text.contains("You are logged in"), "{pages:?}");
    assert_eq!(login.ended().await.0, Some(0));
    rig.eventually("/v1/pipelines", 200).await;
    rig.finish().await;
}
