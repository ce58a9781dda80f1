//! Promise: the command line says what it did, what is wrong, and what to do about it.

use crate::support::{OpenBao, Process};

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
        "missing key `endpoints`",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(!said.contains("CANARY"), "{said}");
}

#[tokio::test]
async fn check_tells_of_a_state_file_that_is_somebody_elses_and_leaves_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.yaml");
    let path = path.to_str().unwrap();
    let text = format!(
        "version: 1\nlisteners: [{{listen: localhost:8080}}]\nshaping: {{state_file: {path}}}\n\
         credentials: [{{name: a, level: read_only, api_key: \"file:/k\"}}]\n"
    );
    std::fs::write(path, &text).unwrap();
    let (code, _, said) = run(&["check", "--config", path]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("shaping.state_file") && said.contains("somebody else's"), "{said}");
    assert_eq!(std::fs::read_to_string(path).unwrap(), text);
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
async fn a_token_life_that_the_emulator_would_not_keep_is_refused() {
    for life in ["0s", "48h", "never"] {
        let (code, _, said) = run(&["emulator", "--token-life", life]).await;
        assert_eq!(code, Some(2), "{life}: {said}");
        assert!(life == "never" || said.contains("give 1s to 24h"), "{said}");
    }
}

#[tokio::test]
async fn an_address_without_its_scheme_is_told_how_it_begins() {
    for args in [
        &["status", "--admin", "127.0.0.1:9465"][..],
        &["explain", "GET", "/v1/datasets", "--admin", "localhost:9465"],
        &["emulator", "send-webhook", "--secret", "env:HOOK", "127.0.0.1:8090/hook"],
    ] {
        let (code, _, said) = run(args).await;
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(said.contains("begins with http://"), "{said}");
    }
}

#[tokio::test]
async fn the_demo_makes_calls_without_a_credential_and_reports() {
    let mut demo =
        Process::sidecar(&["demo", "--exit", "--listen", "localhost:0", "--quota-for", "6s"]);
    let status = demo.ended().await;
    let out = demo.stdout.lines().join("\n");
    assert_eq!(status.code(), Some(0), "{out}\n{}", demo.stderr.lines().join("\n"));
    for part in [
        "credentials sent by the app",
        "failed",
        "generations",
        "p50",
        "p99",
        "429 by DataPulse",
        "signed: 204, the app has it; a forged one: 401; one that was changed on its way: 401; of \
         these the app got 0",
        "204, the app has it, byte for byte",
    ] {
        assert!(out.contains(part), "{part:?} is not in\n{out}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_keeps_its_secrets_in_vault_and_replaces_one_under_calls() {
    let bao = OpenBao::dev().await;
    let path = "secret/data/datapulse/demo";
    bao.policy(
        "demo",
        &format!("path \"{path}\" {{ capabilities = [\"create\", \"read\", \"update\"] }}"),
    )
    .await;
    let token = bao.dir().join("token");
    std::fs::write(&token, bao.token("demo", "1h").await).unwrap();
    let address = bao.url();
    let with = ["--vault", &address, "--vault-token", token.to_str().unwrap()];
    let args = ["demo", "--exit", "--listen", "localhost:0", "--quota-for", "0s"];
    let mut demo = Process::sidecar(&[&args[..], &with[..]].concat());
    let status = demo.ended().await;
    let out = demo.stdout.lines().join("\n");
    assert_eq!(status.code(), Some(0), "{out}\n{}", demo.stderr.lines().join("\n"));
    assert!(out.contains("a new API key in Vault was in use after"), "{out}");
    assert_eq!(bao.get(path).await["metadata"]["version"], 2);
    let token = token.to_str().unwrap();
    for (args, told) in [
        (&["--vault", &address][..], "--vault-token"),
        (&["--vault", "https://vault.example", "--vault-token", token], "of this machine"),
        (&["--vault", "http://127.0.0.1:9", "--vault-token", token], "no answer (refused)"),
    ] {
        let (code, _, said) = run(&[&["demo"], args].concat()).await;
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(told), "{told:?} is not in {said}");
    }
}

#[tokio::test]
async fn explain_tells_what_would_become_of_a_call_and_exits_with_1_when_it_would_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config.yaml");
    // No secret is there: it is not looked at.
    std::fs::write(
        &path,
        "version: 1\nlisteners: [{listen: localhost:8080, tenant: ro}]\n\
         credentials:\n  - {name: reader, level: read_only, quota: starter, api_key: file:/CANARY}\n  \
         - {name: etl, level: read_write, api_key: file:/CANARY}\n\
         quotas: {starter: {limit: 100/min}}\n\
         tenants: [{name: ro, credentials: [reader]}, {name: all, credentials: [reader, etl]}]\n",
    )
    .unwrap();
    for (words, code, parts) in [
        (
            "GET /v1/datasets?q=1 --tenant ro",
            0,
            &["read_only", "reader (", "starter", "default:read"][..],
        ),
        (
            "POST /v1/%70ipelines --tenant all",
            0,
            &["read_write", "etl (", "not spaced", "/v1/pipelines"],
        ),
        ("POST /v1/pipelines --tenant ro", 1, &["403 level_not_granted", "credential  none"]),
        ("GET /v1/users --tenant all", 1, &["403 level_not_granted", "admin", "default:users"]),
        ("POST /auth/refresh --tenant all", 1, &["403 denied_by_policy", "default:refresh"]),
        ("GET /v1/../users --tenant all", 1, &["400 bad_request", "dot segment"]),
        ("BREW /v1/datasets --tenant all", 1, &["405 method_not_allowed"]),
        ("GET /v1/datasets", 2, &["--tenant", "ro, all"]),
        ("GET /v1/datasets --tenant other", 2, &["no such tenant", "ro, all"]),
    ] {
        let file = path.to_str().unwrap();
        let args: Vec<_> =
            ["--config", file, "explain"].into_iter().chain(words.split(' ')).collect();
        let (got, out, said) = run(&args).await;
        let told = format!("{out}\n{said}");
        assert_eq!(got, Some(code), "{words}: {told}");
        for part in parts {
            assert!(told.contains(part), "{words}: {part:?} is not in\n{told}");
        }
        assert!(!told.contains("CANARY"), "{told}");
    }
}

#[tokio::test]
async fn completions_name_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, out, said) = run(&["completions", shell]).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(out.contains("explain") && out.contains("emulator"), "{shell}: {out}");
    }
    assert_eq!(run(&["completions", "no-such-shell"]).await.0, Some(2));
}
