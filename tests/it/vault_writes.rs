//! Promise: what is renewed is written back to Vault once, by one process at a time, and leaves the
//! secret's other fields alone; the login lives as long as it is needed.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use datapulse_sidecar::config::model::{VaultAuth, VaultStore};
use datapulse_sidecar::secret::{SecretRef, SecretValue};
use datapulse_sidecar::store::{Claim, SecretStore, Vault, Version};
use datapulse_sidecar::telemetry::Metrics;
use serde_json::json;

use crate::support::{CANARY, Callers, OpenBao, Rig, comes_true};
use crate::vault::{by_token, is_checked, key, stocked, with_vault};

const WRITER: &str = r#"path "+/data/datapulse/*" { capabilities = ["read", "update"] }
path "v1/*" { capabilities = ["read", "update"] }"#;

/// A store of its own, as another process would have it.
async fn store(bao: &OpenBao, dir: &Path) -> Vault {
    let file = dir.join("token");
    std::fs::write(&file, bao.token("writer", "1h").await).unwrap();
    let spec = VaultStore {
        address: bao.url().parse().unwrap(),
        namespace: None,
        ca_file: None,
        auth: VaultAuth::Token { token: SecretRef::File { path: file, key: None } },
        auth_mount: "token".to_owned(),
        poll: Duration::from_secs(60),
    };
    Vault::new(&spec, &Metrics::new().unwrap()).unwrap()
}

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.into())
}

#[tokio::test]
async fn one_of_two_processes_claims_a_secret_in_vault_and_the_others_fields_stay() {
    let bao = OpenBao::dev().await;
    bao.policy("writer", WRITER).await;
    bao.put("datapulse/alice", &json!({"token": "one", "other": {"a": [1, null]}})).await;
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (store(&bao, dir.path()).await, store(&bao, dir.path()).await);
    let at: SecretRef = "vault:secret/datapulse/alice#token".parse().unwrap();
    let old = ours.read(&at).await.unwrap();
    assert_eq!(old.version, Some(Version::Number(1)));
    let kind = async |store: &Vault, old| store.claim(&at, old).await.map_err(|error| error.kind());
    // At the same moment: one of them wins.
    let (first, second) = tokio::join!(kind(&ours, &old), kind(&theirs, &old));
    let (winner, loser, claim) = match (first, second) {
        (Ok(claim), Err("conflict" | "claimed")) => (&ours, &theirs, claim),
        (Err("conflict" | "claimed"), Ok(claim)) => (&theirs, &ours, claim),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(loser, &old).await.unwrap_err(), "claimed");
    let written = winner.replace(&at, &claim, &value("two")).await.unwrap();
    assert_eq!(written.version, Some(Version::Number(3)));
    // The answer of a write may be lost: the same again is no conflict.
    let again = winner.replace(&at, &claim, &value("two")).await.unwrap();
    assert_eq!(again.version, written.version);
    let fields = bao.get("secret/data/datapulse/alice").await["data"].clone();
    assert_eq!(fields, json!({"token": "two", "other": {"a": [1, null]}}));
    assert_eq!(kind(loser, &old).await.unwrap_err(), "conflict", "what was claimed is spent");
    let stale = Claim::by_version(old.clone());
    let error = loser.replace(&at, &stale, &value("three")).await.unwrap_err();
    assert_eq!(error.kind(), "conflict");
    // The claim of a process that died lapses.
    let now = loser.read(&at).await.unwrap();
    drop(loser.claim(&at, &now).await.unwrap());
    assert_eq!(kind(winner, &now).await.unwrap_err(), "claimed");
    assert!(comes_true(async || winner.claim(&at, &now).await.is_ok()).await);
}

#[tokio::test]
async fn what_is_put_respects_a_claim_and_then_takes_the_place_of_its_successor() {
    let bao = OpenBao::dev().await;
    bao.policy("writer", WRITER).await;
    bao.put("datapulse/alice", &json!({"token": "one"})).await;
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (store(&bao, dir.path()).await, store(&bao, dir.path()).await);
    let at: SecretRef = "vault:secret/datapulse/alice#token".parse().unwrap();
    let claim = ours.claim(&at, &ours.read(&at).await.unwrap()).await.unwrap();
    let put = async || theirs.put(&at, &value("login")).await.map_err(|error| error.kind());
    assert_eq!(put().await, Err("claimed"));
    ours.replace(&at, &claim, &value("two")).await.unwrap();
    assert_eq!(put().await, Ok(()));
    let fields = bao.get("secret/data/datapulse/alice").await["data"].clone();
    assert_eq!(fields, json!({"token": "login"}));
    let late = ours.replace(&at, &claim, &value("three")).await.unwrap_err();
    assert_eq!(late.kind(), "conflict", "what a person logged in for stays");
    assert!(theirs.may_put(&at).await.is_ok());
    let new = "vault:secret/datapulse/bob#token".parse().unwrap();
    let error = theirs.may_put(&new).await.unwrap_err();
    assert_eq!(error.kind(), "denied", "the policy has no `create`");
}

#[tokio::test]
async fn the_engines_first_version_cannot_be_written_to() {
    let bao = OpenBao::dev().await;
    bao.policy("writer", WRITER).await;
    bao.post("sys/mounts/v1", &json!({"type": "kv", "options": {"version": "1"}})).await;
    bao.post("v1/a", &json!({"k": "one"})).await;
    let dir = tempfile::tempdir().unwrap();
    let store = store(&bao, dir.path()).await;
    let at = "vault:v1/a#k".parse().unwrap();
    let old = store.read(&at).await.unwrap();
    assert_eq!(store.claim(&at, &old).await.unwrap_err().kind(), "read_only");
    assert_eq!(store.may_put(&at).await.unwrap_err().kind(), "read_only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_is_renewed_and_made_anew_before_its_greatest_age() {
    let bao = stocked().await;
    bao.post("sys/auth/approle", &json!({"type": "approle"})).await;
    let role = json!({"token_policies": ["datapulse"], "token_ttl": "4s", "token_max_ttl": "9s"});
    bao.post("auth/approle/role/sidecar", &role).await;
    let role_id = bao.get("auth/approle/role/sidecar/role-id").await["role_id"].clone();
    let secret_id = bao.post("auth/approle/role/sidecar/secret-id", &json!({})).await;
    let builder = Rig::builder().await.log_level("info");
    let file = builder.dir().join("secret-id");
    std::fs::write(&file, secret_id["data"]["secret_id"].as_str().unwrap()).unwrap();
    let auth =
        format!("{{method: approle, role_id: {role_id}, secret_id: 'file:{}'}}", file.display());
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    let logins =
        |outcome: &str| format!("store_logins_total{{outcome=\"{outcome}\",store=\"vault\"}}");
    rig.series_above(&logins("renewed"), 0.0).await;
    // A renewal that gives less than before is followed by a login.
    rig.series_above(&logins("ok"), 1.0).await;
    rig.emulator.add_key("second");
    bao.put("datapulse/billing", &key("second")).await;
    rig.emulator.uses("second").await;
    assert_eq!(callers.stop().await.1, 0);
    let denied = rig.series(r#"store_reads_total{outcome="denied",store="vault"}"#).await;
    assert_eq!(denied, 0.0, "no look was made with a token that had ended");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_online_tells_that_what_is_renewed_cannot_be_written_and_writes_nothing_itself() {
    let bao = stocked().await;
    let v1 = json!({"type": "kv", "options": {"version": "1"}});
    bao.post("sys/mounts/v1", &v1).await;
    // Good for longer than the test: it is not renewed yet.
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"exp": 9999999999}"#);
    let session = format!("e30.{claims}.{CANARY}");
    bao.put("datapulse/session", &json!({"token": session})).await;
    bao.post("v1/session", &json!({"token": session})).await;
    let read = r#"capabilities = ["read"]"#;
    let update = r#"capabilities = ["read", "update"]"#;
    let line =
        r#"path "secret/data/datapulse/session" { capabilities = ["read", "create", "update"] }"#;
    let is_good = "reader: its token is taken";
    let but = "what is renewed is used, and cannot be written back";
    for (kind, at, capabilities, code, told) in [
        ("refresh_token: {client_id: cli, ", "secret/datapulse/session", read, 1, [line, ""]),
        ("session_token: {", "secret/datapulse/session", read, 0, [line, is_good]),
        ("session_token: {", "secret/datapulse/session", update, 0, ["", is_good]),
        ("session_token: {", "v1/session", update, 0, [but, "keep it in KV version 2"]),
    ] {
        bao.policy("datapulse", &format!("path \"+/*\" {{ {capabilities} }}")).await;
        let builder = Rig::builder().await;
        builder.accept("person", &session);
        let auth = by_token(&builder, &bao).await;
        let config = format!(
            "credentials: [{{name: reader, level: read_only, {kind}token: 'vault:{at}#token'}}}}]"
        );
        let builder = with_vault(builder, &bao.url(), &auth, "").config(&config);
        is_checked(builder, code, &told).await;
        let versions = bao.get("secret/metadata/datapulse/session").await;
        assert_eq!(versions["current_version"], 1, "{kind} {at}");
    }
}
