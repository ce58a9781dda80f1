//! Promise: the command line says what it did, what is wrong, and what to do about it.

use crate::support::Process;

async fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut process = Process::sidecar(args);
    let code = process.ended().await.code();
    (code, process.stdout.lines().join("\n"), process.stderr.lines().join("\n"))
}

#[tokio::test]
async fn check_tells_every_mistake_with_its_place_and_exits_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.yaml");
    std::fs::write(
        &path,
        "version: 1\nlisteners:\n  - listen: localhost:8080\n    tennant: billing\ncredentials:\n  \
         - name: a\n    level: read_only\n    quota: startr\n    api_key: dp_live_CANARY\nquotas:\n  \
         starter: {limit: 100/min}\nwebhooks:\n  listen: 0.0.0.0:8090\n",
    )
    .unwrap();
    let (code, _, said) = run(&["check", "--config", path.to_str().unwrap()]).await;
    assert_eq!(code, Some(1), "{said}");
    for part in [
        "bad.yaml:4:5: listeners[0].tennant",
        "did you mean \"tenant\"?",
        "bad.yaml:8:",
        "credentials[0].quota",
        "did you mean",
        "credentials[0].api_key",
        "not supported yet",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(!said.contains("CANARY"), "{said}");
}

#[tokio::test]
async fn the_shipped_configurations_have_no_mistakes() {
    for name in ["minimal", "emulator", "example"] {
        let path = format!("{}/config/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let (code, out, said) = run(&["check", "--config", &path]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(out.contains("no mistakes"), "{out}");
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_read_and_wrong_usage_exit_with_2() {
    for args in [
        &["check", "--config", "/no/such/file.yaml"][..],
        &["run", "--config", "/no/such/file.yaml"],
        &["no-such-command"],
        &["run", "--no-such-flag"],
    ] {
        let (code, _, said) = run(args).await;
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(!said.is_empty());
    }
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_keys() {
    let (code, out, _) = run(&["schema"]).await;
    assert_eq!(code, Some(0));
    let schema: serde_json::Value = serde_json::from_str(&out).unwrap();
    for key in ["listeners", "upstream", "credentials", "webhooks"] {
        assert!(schema["properties"].get(key).is_some(), "{key}");
    }
}

#[tokio::test]
async fn status_of_a_sidecar_that_is_not_there_says_what_to_look_at() {
    let (code, _, said) = run(&["status", "--admin", "http://127.0.0.1:9"]).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("is the sidecar running"), "{said}");
}

#[tokio::test]
async fn the_demo_makes_calls_without_a_credential_and_reports() {
    let mut demo = Process::sidecar(&["demo", "--exit", "--listen", "localhost:0"]);
    let status = demo.ended().await;
    let out = demo.stdout.lines().join("\n");
    assert_eq!(status.code(), Some(0), "{out}\n{}", demo.stderr.lines().join("\n"));
    for part in ["credentials sent by the app", "failed", "generations", "p50", "p99"] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
}
