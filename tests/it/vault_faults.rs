//! Promise: whatever Vault, the way to it, or the way in refuses costs no call of who has a key, and is
//! counted under its own name.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    Authority, Builder, CANARY, Callers, Names, OpenBao, Relay, Rig, Signer, TlsServer, Way,
};
use crate::vault::{POLICY, by_approle, by_kubernetes, by_token, key, stocked, with_vault, write};

const UP: &str = r#"store_up{store="vault"}"#;

fn reads(outcome: &str) -> String {
    format!("store_reads_total{{outcome=\"{outcome}\",store=\"vault\"}}")
}

fn logins(outcome: &str) -> String {
    format!("store_logins_total{{outcome=\"{outcome}\",store=\"vault\"}}")
}

/// How often the secret was read with this outcome.
async fn count(rig: &Rig, outcome: &str) -> f64 {
    rig.series(&reads(outcome)).await
}

/// The secret is read with this outcome for the first time while calls go on, and the store is told
/// to be down or not.
async fn is_counted(rig: &Rig, outcome: &str, is_up: bool) {
    is_counted_since(0.0, rig, outcome, is_up).await;
}

/// As [`is_counted`], once more than it was counted ahead of the cause: a look that falls between the
/// cause and such a count could be the last one for a minute.
async fn is_counted_since(before: f64, rig: &Rig, outcome: &str, is_up: bool) {
    rig.series_above(&reads(outcome), before).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{outcome}");
    assert_eq!(rig.series(UP).await, f64::from(u8::from(is_up)), "{outcome}");
}

/// A new version is used: the store works again.
async fn is_used_again(rig: &Rig, bao: &OpenBao, name: &str) {
    rig.emulator.add_key(name);
    bao.put("datapulse/billing", &key(name)).await;
    rig.until(async || {
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
        rig.emulator.used(name) > 0
    })
    .await;
    assert_eq!(rig.series(UP).await, 1.0);
}

/// F4: renewals give less and less, and one that only renews dies at the greatest age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_nears_its_greatest_age_is_replaced_before_it_ends() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_approle(builder.dir(), &bao).await;
    let short = json!({"token_policies": ["datapulse"], "token_ttl": "4s", "token_max_ttl": "6s"});
    bao.post("auth/approle/role/sidecar", &short).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.series_above(&logins("renewed"), 0.0).await;
    rig.series_above(&logins("ok"), 2.0).await;
    is_used_again(&rig, &bao, "second").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(rig.series(&reads("denied")).await, 0.0, "no look met a dead token");
    assert_eq!(rig.series(&logins("login_refused")).await, 0.0);
    rig.finish().await;
}

/// Tokens of the role end after two seconds, so that the way in is needed again and again.
async fn short_lived(bao: &OpenBao) {
    let role = json!({
        "bound_service_account_names": ["sidecar"],
        "bound_service_account_namespaces": ["datapulse"],
        "audience": "vault",
        "token_policies": ["datapulse"],
        "token_ttl": "2s",
        "token_max_ttl": "2s",
    });
    bao.post("auth/kubernetes/role/sidecar", &role).await;
}

/// F5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_in_that_is_out_of_order_costs_no_call_and_is_not_hammered() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let (auth, reviews) = by_kubernetes(builder.dir(), &bao).await;
    short_lived(&bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    reviews.know(&[]);
    is_counted(&rig, "login_refused", false).await;
    rig.log("\"reason\":\"login_refused\"").await;
    // tidy: passes time because nothing must be asked meanwhile.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(rig.series(&logins("login_refused")).await, 1.0, "a minute between tries");
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

/// F5: the kubelet replaces a service account's token, and the one before it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_token_that_was_replaced_is_read_anew_at_the_next_login() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let (auth, reviews) = by_kubernetes(builder.dir(), &bao).await;
    short_lived(&bao).await;
    let dir = builder.dir().to_owned();
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    for _ in 0..2 {
        let old = std::fs::read_to_string(dir.join("service-account")).unwrap();
        let token = Signer::new().service_account();
        reviews.know(&[old.trim_end(), &token]);
        write(&dir, "service-account", &token);
        reviews.know(&[&token]);
        let before = rig.series(&logins("ok")).await;
        rig.series_above(&logins("ok"), before + 1.0).await;
    }
    is_used_again(&rig, &bao, "second").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(rig.series(&logins("login_refused")).await, 0.0);
    rig.finish().await;
}

/// F5: what proves who we are is gone from its file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_token_that_is_gone_costs_no_call_and_heals() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let (auth, _reviews) = by_kubernetes(builder.dir(), &bao).await;
    short_lived(&bao).await;
    let dir = builder.dir().to_owned();
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let file = dir.join("service-account");
    let token = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    is_counted(&rig, "no_identity", false).await;
    assert!(rig.series(&logins("no_identity")).await >= 1.0);
    write(&dir, "service-account", &token);
    is_used_again(&rig, &bao, "second").await;
    rig.finish().await;
}

/// F8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_keeps_no_secrets_is_named_and_harms_nobody_else() {
    let bao = stocked().await;
    bao.post("sys/mounts/transit", &json!({"type": "transit"})).await;
    bao.post("transit/keys/billing", &json!({})).await;
    let more = "path \"transit/keys/*\" { capabilities = [\"read\"] }";
    bao.policy("datapulse", &format!("{POLICY}\n{more}")).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let both = "credentials: [\
                {name: reader, level: read_only, \
                 api_key: 'vault:secret/datapulse/billing#api_key'}, \
                {name: etl, level: read_write, required: false, \
                 api_key: 'vault:transit/keys/billing#keys'}]";
    let rig = with_vault(builder, &bao.url(), &auth, "").config(both).start().await;
    rig.series_above(&reads("wrong_engine"), 0.0).await;
    let answer = rig.get("/v1/pipelines").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "the other credential");
    assert_eq!(rig.series(UP).await, 1.0, "Vault itself is well");
    let status: Value = serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
    let etl = status["credentials"].as_array().unwrap().iter().find(|one| one["name"] == "etl");
    let error = etl.unwrap()["last_error"].as_str().unwrap();
    assert!(error.contains("the mount is of type \"transit\""), "{error}");
    assert_eq!(etl.unwrap()["state"], "pending");
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

/// F7: the engine is mounted anew as its other version.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_changes_its_version_costs_no_call_and_is_read_anew() {
    let bao = stocked().await;
    bao.policy("datapulse", "path \"secret/*\" { capabilities = [\"read\"] }").await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.delete("sys/mounts/secret").await;
    is_counted(&rig, "missing", true).await;
    let v1 = json!({"type": "kv", "options": {"version": "1"}});
    bao.post("sys/mounts/secret", &v1).await;
    rig.emulator.add_key("second");
    bao.post("secret/datapulse/billing", &key("second")).await;
    rig.emulator.uses("second").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

/// F2: by a real quota of OpenBao's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_quota_of_vault_costs_no_call_and_its_retry_after_is_obeyed() {
    let bao = stocked().await;
    bao.post("sys/quotas/config", &json!({"enable_rate_limit_response_headers": true})).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let quota = json!({"path": "secret/", "rate": 1, "interval": "30s"});
    bao.post("sys/quotas/rate-limit/q", &quota).await;
    is_counted(&rig, "throttled", false).await;
    // tidy: passes time because nothing must be asked meanwhile.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.series(&reads("throttled")).await, 1.0, "it said how long to wait");
    bao.delete("sys/quotas/rate-limit/q").await;
    rig.emulator.add_key("second");
    bao.put("datapulse/billing", &key("second")).await;
    rig.emulator.remove_key("reader");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "read at once after a 401");
    assert_eq!(rig.series(UP).await, 1.0);
    rig.finish().await;
}

/// The sidecar with Vault behind a name whose addresses change, and behind a relay.
async fn named(builder: Builder, relay: &Relay, bao: &OpenBao, more: &str) -> (Rig, Names) {
    let auth = by_token(&builder, bao).await;
    let names = Names::new(builder.dir(), &["127.0.0.1"]);
    let builder = names.env().fold(builder, |builder, (name, value)| builder.env(name, value));
    let scheme = if more.is_empty() { "http" } else { "https" };
    let address = format!("{scheme}://{}:{}", Names::NAME, relay.address.port());
    (with_vault(builder, &address, &auth, more).start().await, names)
}

/// F10: every connection is lost, too, so that the name is looked up again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_of_vaults_that_is_gone_flaps_or_moves_costs_no_call() {
    let bao = stocked().await;
    let relay = Relay::new(bao.address).await;
    let builder = Rig::builder().await.log_level("info");
    let (rig, names) = named(builder, &relay, &bao, "").await;
    let callers = Callers::start(&rig, "/v1/datasets");
    for name in ["second", "third"] {
        let before = count(&rig, "dns").await;
        names.set(&[]);
        relay.set(Way::Open).await;
        is_counted_since(before, &rig, "dns", false).await;
        names.set(&["127.0.0.1"]);
        is_used_again(&rig, &bao, name).await;
    }
    // The address of a server that is gone, then beside it the one of its successor.
    names.set(&["127.0.0.2"]);
    relay.set(Way::Open).await;
    is_counted(&rig, "refused", false).await;
    names.set(&["127.0.0.2", "127.0.0.1"]);
    is_used_again(&rig, &bao, "fourth").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

/// F11.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_of_vaults_that_is_not_good_costs_no_call_and_gets_no_token() {
    let authority = Authority::new();
    let bao = OpenBao::sealable(&authority).await;
    bao.put("datapulse/billing", &key("reader")).await;
    bao.policy("datapulse", POLICY).await;
    let relay = Relay::new(bao.address).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let ca_file = authority.write(builder.dir()).display().to_string();
    let address = format!("https://localhost:{}", relay.address.port());
    let more = format!(", ca_file: '{ca_file}'");
    let rig = with_vault(builder, &address, &auth, &more).start().await;
    let router = axum::Router::new;
    let expired = authority.issue(&["localhost"], true);
    let foreign = Authority::new().issue(&["localhost"], false);
    let misnamed = authority.issue(&["vault.example"], false);
    for leaf in [expired, foreign, misnamed] {
        let server = TlsServer::start(router(), &leaf, &["http/1.1"]).await;
        let before = count(&rig, "tls").await;
        relay.lead_to(server.address);
        relay.set(Way::Open).await;
        is_counted_since(before, &rig, "tls", false).await;
        assert_eq!(server.handshakes(), 0, "nothing was said to it");
    }
    relay.lead_to(bao.address);
    is_used_again(&rig, &bao, "second").await;
    rig.finish().await;
}

/// F11: the authority of Vault's certificate is another one, and then the first one again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_file_that_was_replaced_is_read_again_at_a_reload() {
    let authority = Authority::new();
    let bao = OpenBao::sealable(&authority).await;
    bao.put("datapulse/billing", &key("reader")).await;
    bao.policy("datapulse", POLICY).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let ca_file = authority.write(builder.dir());
    let more = format!(", ca_file: '{}'", ca_file.display());
    let rig = with_vault(builder, &bao.url(), &auth, &more).start().await;
    let applied = r#"config_reloads_total{outcome="applied"}"#;
    Authority::new().write(ca_file.parent().unwrap());
    rig.sidecar.signal("HUP").await;
    is_counted(&rig, "tls", false).await;
    authority.write(ca_file.parent().unwrap());
    rig.sidecar.signal("HUP").await;
    rig.until_series(applied, |applied| applied == 2.0).await;
    is_used_again(&rig, &bao, "second").await;
    // What cannot be trusted is not, and what was goes on.
    std::fs::write(&ca_file, "no certificate").unwrap();
    rig.sidecar.signal("HUP").await;
    rig.log("the new configuration cannot be used; the old one stays").await;
    is_used_again(&rig, &bao, "third").await;
    rig.finish().await;
}

/// F6, for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_destroyed_stays_in_use_as_it_was() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let path = "secret/destroy/datapulse/billing";
    let (status, answer) = bao.call(Method::PUT, path, &json!({"versions": [1]})).await;
    assert_eq!(status, 204, "{answer}");
    is_counted(&rig, "deleted", true).await;
    let missing = r##"secret_missing{secret="vault:secret/datapulse/billing#api_key"}"##;
    assert_eq!(rig.series(missing).await, 1.0);
    is_used_again(&rig, &bao, "second").await;
    assert_eq!(rig.series(missing).await, 0.0);
    rig.finish().await;
}

/// F6, by the clock: `delete_version_after` gives each version a time at which it is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_with_a_time_to_end_is_like_any_other_until_then() {
    let bao = stocked().await;
    let ends_after = async |time: &str| {
        let settings = json!({"delete_version_after": time});
        bao.post("secret/metadata/datapulse/billing", &settings).await;
    };
    ends_after("1h").await;
    bao.put("datapulse/billing", &key("reader")).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let ok = rig.series(&reads("ok")).await;
    rig.series_above(&reads("ok"), ok + 2.0).await;
    assert_eq!(rig.series(&reads("deleted")).await, 0.0);
    let missing = r##"secret_missing{secret="vault:secret/datapulse/billing#api_key"}"##;
    assert_eq!(rig.series(missing).await, 0.0);
    // Long enough to be read before.
    ends_after("6s").await;
    is_used_again(&rig, &bao, "second").await;
    is_counted(&rig, "deleted", true).await;
    assert_eq!(rig.series(missing).await, 1.0);
    rig.finish().await;
}

/// At the level at which the sidecar says most: with a canary in the key, the token of the store and
/// what it is logged in with, and a store that does all it can to be talked about.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_of_an_outage_tells_a_secret_at_trace() {
    let bao = stocked().await;
    let relay = Relay::new(bao.address).await;
    let builder = Rig::builder().await.log_level("trace");
    by_approle(builder.dir(), &bao).await;
    let secret_id = format!("{CANARY}-secret-id");
    let path = "auth/approle/role/sidecar/custom-secret-id";
    bao.post(path, &json!({"secret_id": secret_id})).await;
    let role_id = bao.get("auth/approle/role/sidecar/role-id").await["role_id"].clone();
    let file = write(builder.dir(), "secret-id", &secret_id);
    let auth = format!("{{method: approle, role_id: {role_id}, secret_id: 'file:{file}'}}");
    let address = format!("http://{}", relay.address);
    let rig = with_vault(builder, &address, &auth, "").start().await;
    for (way, outcome) in [
        (Way::Reset, "interrupted"),
        (Way::Drip(Duration::from_millis(100)), "timeout"),
        (Way::Refuse, "refused"),
    ] {
        relay.set(way).await;
        is_counted(&rig, outcome, false).await;
        relay.set(Way::Open).await;
        rig.until_series(UP, |up| up == 1.0).await;
    }
    let broken = format!("{CANARY}\nin two lines");
    bao.put("datapulse/billing", &json!({"api_key": broken})).await;
    is_counted(&rig, "unusable", true).await;
    is_used_again(&rig, &bao, "second").await;
    bao.post("sys/leases/revoke-prefix/auth/approle/login", &Value::Null).await;
    rig.series_above(&logins("ok"), 1.0).await;
    bao.delete("sys/policies/acl/datapulse").await;
    is_counted(&rig, "denied", false).await;
    let metrics = rig.health("/metrics").await.1;
    let status = rig.status(&["--json"]).await;
    let lines = rig.sidecar.stderr.lines().join("\n");
    assert!(lines.contains("\"level\":\"DEBUG\""), "no more than usual was said");
    // OpenBao's tokens; the one in use has no canary.
    let is_token = |word: &str| {
        word.strip_prefix("s.").is_some_and(|rest| {
            rest.len() >= 20 && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.')
        })
    };
    for text in [&metrics, &status, &lines] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        let told: Vec<_> = words.filter(|word| is_token(word)).collect();
        assert!(told.is_empty(), "a token of the store's: {told:?}");
    }
    rig.finish().await;
}
