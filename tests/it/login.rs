//! Promise: a person logs in with a browser, here or elsewhere; the refresh token goes straight into
//! its store, and a sidecar that runs uses it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use datapulse_sidecar::config::model::Level;
use datapulse_sidecar::emulator::{Client, Effect, Fault, Scope};
use reqwest::Url;
use serde_json::json;

use crate::support::tools::{client, free_address};
use crate::support::{
    Builder, CANARY, Login, Moto, OpenBao, Process, Rig, Stage, comes_true, person,
};

/// `alice`, with the refresh token at this reference.
fn alice(token: &str) -> String {
    alice_as("client_id: cli", token)
}

fn alice_as(client: &str, token: &str) -> String {
    format!(
        "credentials: [{{name: alice, level: read_write, refresh_token: {{{client}, \
         token: '{token}', scopes: ['analytics:read', 'pipelines:write']}}}}, \
         {{name: reader, level: read_only, api_key: 'file:${{DIR}}/reader'}}]\n"
    )
}

/// The emulator's own page asks.
async fn builder(config: &str) -> Builder {
    let builder = Rig::builder().await;
    let port = builder.upstream_port();
    let authorize = format!("auth: {{authorize_url: 'http://127.0.0.1:{port}/oauth/authorize'}}\n");
    builder.config(&authorize).config_in_dir(config)
}

async fn stage(config: &str) -> Stage {
    builder(config).await.stage()
}

async fn get(address: &Url) -> (u16, String) {
    let answer = client(Vec::new()).get(address.clone()).send().await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn token_in(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with("dp_rt_") && text.ends_with('\n'), "{text}");
    text
}

#[tokio::test]
async fn whoever_approves_is_logged_in_and_a_sidecar_that_runs_serves_calls_with_it() {
    let builder = builder(&alice("file:${DIR}/alice")).await.token_life(Duration::from_secs(2));
    let rig = builder.unready().start().await;
    let (file, config) = (rig.dir().join("alice"), rig.config_path());
    assert_eq!(rig.get("/v1/pipelines").await.status(), 503);
    let login = Login::start(&config, "alice").await;
    let (status, page) = get(&person(&login.url, "approve").await).await;
    assert!(status == 200 && page.contains("You are logged in"), "{status} {page}");
    let (code, said) = login.ended().await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("finds it at once"), "{said}");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    rig.eventually("/v1/pipelines", 200).await;
    // The same again, after the vendor has ended what was granted before.
    let first = token_in(&file);
    rig.emulator.revoke_grants("cli");
    let refused = rig.eventually("/v1/pipelines", 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "login_required");
    let login = Login::start(&config, "alice").await;
    get(&person(&login.url, "approve").await).await;
    assert_eq!(login.ended().await.0, Some(0));
    assert_ne!(token_in(&file), first);
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(rig.emulator.grants("cli"), 2);
    rig.finish().await;
}

#[tokio::test]
async fn a_login_while_the_token_is_good_is_used_for_the_next_one_which_an_operator_may_ask_for() {
    let builder = builder(&alice("file:${DIR}/alice")).await;
    std::fs::write(builder.dir().join("operators"), format!("{CANARY}-operators\n")).unwrap();
    let builder = builder.config_in_dir("admin: {token: 'file:${DIR}/operators'}\n");
    let rig = builder.unready().start().await;
    let log_in = async || {
        let login = Login::start(&rig.config_path(), "alice").await;
        get(&person(&login.url, "approve").await).await;
        let (code, said) = login.ended().await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("`POST /credentials/alice/refresh`"), "{said}");
        token_in(&rig.dir().join("alice"))
    };
    log_in().await;
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(rig.emulator.refreshes("cli"), 1);
    let second = log_in().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert_eq!(
        (rig.emulator.refreshes("cli"), token_in(&rig.dir().join("alice"))),
        (1, second.clone())
    );
    let refresh = rig.client.post(rig.admin_url("/credentials/alice/refresh"));
    let answer = refresh.bearer_auth(format!("{CANARY}-operators")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    assert_eq!(rig.emulator.refreshes("cli"), 2);
    assert_ne!(token_in(&rig.dir().join("alice")), second, "it was spent");
    assert_eq!(rig.emulator.reuses("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn what_comes_of_a_login_rotates_and_a_restart_finds_it() {
    let builder = builder(&alice("file:${DIR}/alice")).await;
    let mut rig = builder.token_life(Duration::from_secs(2)).unready().start().await;
    let login = Login::start(&rig.config_path(), "alice").await;
    get(&person(&login.url, "approve").await).await;
    assert_eq!(login.ended().await.0, Some(0));
    rig.eventually("/v1/pipelines", 200).await;
    rig.emulator.refreshed("cli", 4).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.restart().await;
    rig.emulator.refreshed("cli", 6).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert_eq!(rig.emulator.families_revoked("cli"), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_wrong_path_or_state_does_not_end_the_wait_and_whoever_denies_changes_nothing() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    let login = Login::start(&stage.config, "alice").await;
    let denied = person(&login.url, "deny").await;
    let here = |path: &str| denied.join(path).unwrap();
    assert_eq!(get(&here("/")).await.0, 404);
    assert_eq!(get(&here("/favicon.ico?state=a")).await.0, 404);
    for query in ["", "?code=a", "?code=a&state=b", "?error=access_denied&state=b"] {
        let (status, page) = get(&here(&format!("/callback{query}"))).await;
        assert!(status == 400 && page.contains("not the answer"), "{query}: {status} {page}");
    }
    let client = client(Vec::new());
    // It may be cut off before it has been sent.
    let large = here(&format!("/callback?code={}", "a".repeat(1_000_000)));
    let refused = client.get(large).send().await;
    assert!(refused.map_or(true, |answer| matches!(answer.status().as_u16(), 414 | 431)));
    assert_eq!(client.head(denied.clone()).send().await.unwrap().status(), 404);
    assert_eq!(client.post(denied.clone()).send().await.unwrap().status(), 404);
    let (status, page) = get(&denied).await;
    assert!(status == 200 && page.contains("Access was denied"), "{status} {page}");
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("access was denied"), "{code:?} {said}");
    assert!(!stage.dir.path().join("alice").exists());
    assert_eq!(stage.emulator.grants("cli"), 0);
}

#[tokio::test]
async fn a_page_that_is_loaded_again_while_the_code_is_exchanged_is_answered_at_once() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    let login = Login::start(&stage.config, "alice").await;
    let answer = person(&login.url, "approve").await;
    // It was exchanged, and the login does not know it yet.
    stage.emulator.fault(Fault::times(Scope::Token, Effect::LateAnswerMs(60_000), 1));
    let again = async {
        stage.emulator.granted("cli", 1).await;
        let again = get(&answer).await;
        stage.emulator.heal();
        again
    };
    let (first, again) = tokio::join!(get(&answer), again);
    assert!(again.0 == 409 && again.1.contains("was answered"), "{again:?}");
    assert!(first.0 == 200 && first.1.contains("You are logged in"), "{first:?}");
    assert_eq!(login.ended().await.0, Some(0));
}

#[tokio::test]
async fn another_issuer_and_a_failed_exchange_are_told_on_the_page_and_in_the_terminal() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    let login = Login::start(&stage.config, "alice").await;
    let answer = person(&login.url, "approve").await;
    let pairs = answer.query_pairs().map(|(name, value)| {
        let other = if name == "iss" { "https://other.example".into() } else { value };
        (name, other)
    });
    let mut other = answer.clone();
    other.query_pairs_mut().clear().extend_pairs(pairs);
    let (status, page) = get(&other).await;
    assert!(status == 502 && page.contains("The login failed"), "{status} {page}");
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("`iss`"), "{code:?} {said}");

    let login = Login::start(&stage.config, "alice").await;
    let answer = person(&login.url, "approve").await;
    stage.emulator.fail_token_endpoint(503);
    let (status, page) = get(&answer).await;
    assert!(status == 502 && page.contains("The login failed"), "{status} {page}");
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("503"), "{code:?} {said}");
    assert!(said.contains("look at auth.token_url"), "{said}");
    assert!(!stage.dir.path().join("alice").exists());
}

#[tokio::test]
async fn an_address_can_be_pasted_and_each_kind_of_client_exchanges_in_each_encoding() {
    for encoding in ["json", "form"] {
        for client in [
            "client_id: cli",
            "client_id: etl, client_secret: 'file:${DIR}/etl'",
            "client_id: robot, private_key_jwt: {key: 'file:${DIR}/robot.pem'}",
        ] {
            let builder = builder(&alice_as(client, "file:${DIR}/alice.json#token")).await;
            let key = builder.add_service_account("robot", Level::ReadWrite);
            let key: serde_json::Value = serde_json::from_str(&key).unwrap();
            let pem = key["private_key"].as_str().unwrap();
            std::fs::write(builder.dir().join("robot.pem"), pem).unwrap();
            std::fs::write(builder.dir().join("alice.json"), r#"{"other": 1}"#).unwrap();
            let stage = builder.config(&format!("auth: {{token_request: {encoding}}}\n")).stage();
            let mut login = Login::start(&stage.config, "alice").await;
            let answer = person(&login.url, "approve").await;
            login.paste("").await;
            login.paste("127.0.0.1").await;
            login.says("not a whole address").await;
            login.paste(login.url.clone().as_str()).await;
            login.says("not the answer to this login").await;
            login.paste(&format!("  {answer} ")).await;
            let (code, said) = login.ended().await;
            assert_eq!(code, Some(0), "{encoding} {client}: {said}");
            let file = std::fs::read(stage.dir.path().join("alice.json")).unwrap();
            let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
            assert!(file["token"].as_str().unwrap().starts_with("dp_rt_"), "{file}");
            assert_eq!(file["other"], 1);
        }
    }
}

#[tokio::test]
async fn with_a_fixed_address_the_one_that_the_browser_ends_up_at_is_pasted() {
    let back = "https://app.example/back";
    let config = alice_as("client_id: web", "file:${DIR}/alice");
    let stage = stage(&format!("auth: {{redirect_uri: '{back}'}}\n{config}")).await;
    let redirect_uris = vec![back.to_owned()];
    let web = Client { id: "web".into(), secret: None, level: Level::ReadWrite, redirect_uris };
    stage.emulator.add_client(web);
    let mut login = Login::start(&stage.config, "alice").await;
    let answer = person(&login.url, "approve").await;
    assert!(answer.as_str().starts_with(back), "{answer}");
    login.paste(answer.as_str()).await;
    let (code, said) = login.ended().await;
    assert_eq!(code, Some(0), "{said}");
    token_in(&stage.dir.path().join("alice"));

    let mut login = Login::start(&stage.config, "alice").await;
    login.end_of_input();
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("standard input ended"), "{code:?} {said}");
}

#[tokio::test]
async fn a_fixed_address_on_this_machine_is_listened_at() {
    let back = format!("http://{}/a/{{b}}?c=1", free_address());
    let config = alice_as("client_id: web", "file:${DIR}/alice");
    let stage = stage(&format!("auth: {{redirect_uri: '{back}'}}\n{config}")).await;
    let redirect_uris = vec![Url::parse(&back).unwrap().to_string()];
    let web = Client { id: "web".into(), secret: None, level: Level::ReadWrite, redirect_uris };
    stage.emulator.add_client(web);
    let login = Login::start(&stage.config, "alice").await;
    let (status, page) = get(&person(&login.url, "approve").await).await;
    assert!(status == 200 && page.contains("You are logged in"), "{status} {page}");
    assert_eq!(login.ended().await.0, Some(0));
    token_in(&stage.dir.path().join("alice"));
}

#[tokio::test]
async fn at_a_terminal_an_address_can_be_pasted_while_the_browser_is_waited_for() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    for way in ["pasted", "browser", "ctrl-c"] {
        let mut login = Login::at_a_terminal(&stage.config, "alice").await;
        let answer = person(&login.url, "approve").await;
        match way {
            "pasted" => login.paste(answer.as_str()).await,
            "browser" => drop(get(&answer).await),
            _ => login.paste("\x03").await,
        }
        let (code, said) = login.ended().await;
        assert_eq!(code, Some(i32::from(way == "ctrl-c")), "{way}: {said}");
    }
}

#[tokio::test]
async fn a_wait_ends_by_time_or_by_ctrl_c_and_says_so() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    let login = Login::start_with(&stage.config, &["alice", "--timeout", "1s"], &[]).await;
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("nobody answered within 1s"), "{code:?} {said}");
    let login = Login::start(&stage.config, "alice").await;
    login.signal("INT").await;
    let (code, said) = login.ended().await;
    assert!(code == Some(1) && said.contains("given up"), "{code:?} {said}");
    assert!(!stage.dir.path().join("alice").exists());
}

/// What `login` says that does not get as far as to ask.
async fn refused(stage: &Stage, name: &str) -> (Option<i32>, String) {
    let mut process = Process::sidecar(&["login", name, "--config", &stage.config, "--no-browser"]);
    let code = process.ended().await.code();
    assert!(process.stdout.lines().is_empty(), "nobody is asked: {:?}", process.stdout.lines());
    (code, process.stderr.lines().join("\n"))
}

#[tokio::test]
async fn what_cannot_come_to_anything_is_refused_before_anybody_is_asked() {
    let good = stage(&alice("file:${DIR}/alice")).await;
    for (name, want) in [("reader", "needs no login"), ("bob", "there is no credential `bob`")] {
        let (code, said) = refused(&good, name).await;
        assert!(code == Some(2) && said.contains(want), "{name}: {code:?} {said}");
        assert!(said.contains("people log in for: alice"), "{said}");
    }
    std::fs::write(good.dir.path().join("text"), "no json").unwrap();
    let secret = "client_id: etl, client_secret: 'file:${DIR}/absent'";
    for (config, want) in [
        (alice("file:/nowhere/at/all"), "its folder has to be there"),
        (alice("file:${DIR}/etl#token"), "not a JSON object"),
        (alice_as(secret, "file:${DIR}/alice"), "the client's own secret cannot be read"),
    ] {
        let stage = stage(&config).await;
        let (code, said) = refused(&stage, "alice").await;
        assert!(code == Some(1) && said.contains(want), "{want}: {code:?} {said}");
    }
}

#[tokio::test]
async fn a_browser_is_opened_where_there_is_one() {
    let stage = stage(&alice("file:${DIR}/alice")).await;
    let fake = stage.dir.path().join("xdg-open");
    std::fs::write(&fake, "#!/bin/sh\nprintf '%s' \"$1\" > \"$0.told\"\n").unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", stage.dir.path().display());
    let env = [("PATH".to_owned(), path)];
    let process = Process::sidecar_in(&["login", "alice", "--config", &stage.config], &env);
    let url = process.stdout.line(|line| line.contains("http")).await;
    let told = stage.dir.path().join("xdg-open.told");
    let opened = async || std::fs::read_to_string(&told).is_ok_and(|told| told == url.trim());
    assert!(comes_true(opened).await, "{:?}", process.stderr.lines());
}

/// As the documentation gives it.
fn writer() -> String {
    let page = include_str!("../../docs/vault.md");
    let line = page.lines().find(|line| line.starts_with("path \"secret/data/datapulse/alice\""));
    line.expect("what a secret that is written needs").replace("datapulse/alice", "alice")
}

const READER: &str = r#"path "secret/data/alice" { capabilities = ["read"] }"#;

async fn vault(bao: &OpenBao, policy: &str) -> Stage {
    let rules = if policy == "writer" { writer() } else { READER.to_owned() };
    bao.policy(policy, &rules).await;
    let builder = builder(&alice("vault:secret/alice#refresh_token")).await;
    std::fs::write(builder.dir().join("vault"), bao.token(policy, "1h").await).unwrap();
    let stores = format!(
        "stores: {{vault: {{address: '{}', auth: {{method: token, token: 'file:${{DIR}}/vault'}}}}}}\n",
        bao.url()
    );
    builder.config_in_dir(&stores).stage()
}

#[tokio::test]
async fn a_secret_in_vault_is_made_or_changed_and_a_policy_that_is_too_narrow_is_named_before() {
    let bao = OpenBao::dev().await;
    let stage = vault(&bao, "writer").await;
    let log_in = async || {
        let login = Login::start(&stage.config, "alice").await;
        get(&person(&login.url, "approve").await).await;
        let (code, said) = login.ended().await;
        assert!(code == Some(0) && said.contains("within 1m"), "{code:?} {said}");
        bao.get("secret/data/alice").await["data"].clone()
    };
    let made = log_in().await;
    assert!(made["refresh_token"].as_str().unwrap().starts_with("dp_rt_"), "{made}");
    assert_eq!(made.as_object().unwrap().len(), 1);
    bao.put("alice", &json!({"refresh_token": CANARY, "other": {"a": [1, null]}})).await;
    let changed = log_in().await;
    assert_eq!(changed["other"], json!({"a": [1, null]}));
    assert_ne!(changed["refresh_token"], CANARY);
    bao.delete("secret/data/alice").await;
    assert_eq!(log_in().await.as_object().unwrap().len(), 1, "what was deleted is gone");
    let (code, said) = refused(&vault(&bao, "reader").await, "alice").await;
    assert_eq!(code, Some(1), "{said}");
    for part in ["permission denied", "secret/data/alice", "\"create\", \"update\""] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
}

#[tokio::test]
async fn a_secret_in_aws_gets_a_version_and_its_other_keys_stay() {
    let moto = Moto::start().await;
    let builder = builder(&alice("aws:alice#refresh_token")).await;
    let mut builder = builder
        .config(&format!("stores: {{aws: {{region: eu-west-1, endpoint: '{}'}}}}\n", moto.url()))
        .nobody_in_aws()
        .aws_keys();
    let env = builder.take_env();
    let stage = builder.stage();
    let args = ["--config", &stage.config, "login", "alice", "--no-browser"];
    let mut process = Process::sidecar_in(&args, &env);
    assert_eq!(process.ended().await.code(), Some(1));
    let said = process.stderr.lines().join("\n");
    assert!(said.contains("create it first: aws secretsmanager create-secret"), "{said}");
    for text in [None, Some(json!({"other": "o", "refresh_token": CANARY}).to_string())] {
        let mut secret = json!({"Name": "alice"});
        match &text {
            // The name alone: there is no value yet.
            None => drop(moto.call("CreateSecret", &secret).await),
            Some(text) => {
                secret = json!({"SecretId": "alice", "SecretString": text});
                moto.call("PutSecretValue", &secret).await;
            }
        }
        let login = Login::start_with(&stage.config, &["alice"], &env).await;
        get(&person(&login.url, "approve").await).await;
        let (code, said) = login.ended().await;
        assert_eq!(code, Some(0), "{said}");
        let asked = json!({"SecretId": "alice", "VersionStage": "AWSCURRENT"});
        let found = moto.call("GetSecretValue", &asked).await;
        let found: serde_json::Value =
            serde_json::from_str(found["SecretString"].as_str().unwrap()).unwrap();
        assert!(found["refresh_token"].as_str().unwrap().starts_with("dp_rt_"), "{found}");
        assert_eq!(found.get("other").is_some(), text.is_some());
    }
}

#[tokio::test]
async fn a_login_that_is_told_to_end_while_its_token_is_on_its_way_keeps_it_first() {
    for signal in ["INT", "TERM"] {
        let late = Fault::times(Scope::Token, Effect::LateAnswerMs(60_000), 1);
        let stage = builder(&alice("file:${DIR}/alice")).await.fault(late).stage();
        let file = Path::new(&stage.config).with_file_name("alice");
        let login = Login::start(&stage.config, "alice").await;
        let back = person(&login.url, "approve").await;
        let told = async {
            assert!(comes_true(async || stage.emulator.mints("cli") == 1).await);
            login.signal(signal).await;
            stage.emulator.heal();
        };
        let ((_, page), ()) = tokio::join!(get(&back), told);
        assert!(page.contains("You are logged in"), "{page}");
        let (code, said) = login.ended().await;
        assert_eq!(code, Some(0), "{signal}: {said}");
        token_in(&file);
    }
}
