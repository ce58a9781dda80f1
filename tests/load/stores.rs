//! Promise: a Vault that is away for a minute costs no call under load, is told with its reason all the
//! while, and is used again within one step of the backoff; one that refused, within a minute.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, interval, timeout};

use crate::support::{Authority, Builder, CANARY, Callers, OpenBao, Rig};

const AWAY: Duration = Duration::from_secs(60);
/// The longest step of the backoff, and between two tries of what was refused.
const STEP: Duration = Duration::from_secs(60);
/// For the look itself, the new value's trial, and a slow machine.
const MARGIN: Duration = Duration::from_secs(30);

const UP: &str = r#"store_up{store="vault"}"#;
const POLICY: &str = r#"
path "secret/data/datapulse/*" { capabilities = ["read"] }
path "secret/metadata/datapulse/*" { capabilities = ["read"] }
"#;

fn reads(outcome: &str) -> String {
    format!("store_reads_total{{outcome=\"{outcome}\",store=\"vault\"}}")
}

async fn put(bao: &OpenBao, name: &str) {
    bao.put("datapulse/billing", &json!({"api_key": format!("dp_live_{CANARY}_{name}")})).await;
}

async fn stock(bao: &OpenBao) {
    put(bao, "reader").await;
    bao.policy("datapulse", POLICY).await;
}

fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn by_token(builder: &Builder, bao: &OpenBao) -> String {
    let file = write(builder.dir(), "vault-token", &bao.token("datapulse", "1h").await);
    format!("{{method: token, token: 'file:{file}'}}")
}

async fn rig(builder: Builder, bao: &OpenBao, auth: &str, more: &str) -> Rig {
    let config = format!(
        "credentials: [{{name: reader, level: read_only, \
         api_key: 'vault:secret/datapulse/billing#api_key'}}]\n\
         stores: {{vault: {{address: '{}', poll: 1s, auth: {auth}{more}}}}}\n\
         log: {{audit: none}}\n",
        bao.url()
    );
    builder.log_level("info").config(&config).start().await
}

/// Waits until it is so, for as long as `most`; how long that took.
async fn within(most: Duration, what: &str, wanted: impl AsyncFn() -> bool) -> Duration {
    let began = Instant::now();
    let waiting = async {
        let mut tick = interval(Duration::from_millis(50));
        while !wanted().await {
            tick.tick().await;
        }
    };
    assert!(timeout(most, waiting).await.is_ok(), "{what}: not within {most:?}");
    began.elapsed()
}

/// The store is told to be down for this reason from its next look on, until `AWAY` is over.
async fn is_told_all_the_while(rig: &Rig, reason: &str) {
    let told = async || {
        let status: serde_json::Value =
            serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
        let stores = status["stores"].as_array().unwrap();
        stores.iter().find(|store| store["name"] == "vault").unwrap()["reason"].clone()
    };
    // A look that was under way ends with a reason of its own.
    within(MARGIN, reason, async || told().await == reason).await;
    let began = Instant::now();
    let mut tick = interval(Duration::from_secs(1));
    while began.elapsed() < AWAY {
        tick.tick().await;
        assert_eq!(rig.series(UP).await, 0.0, "after {:?}", began.elapsed());
        assert_eq!(told().await, reason, "after {:?}", began.elapsed());
        assert_eq!(rig.health("/readyz").await.0, 200);
    }
}

/// A version that was written as soon as that was possible again is used before long.
async fn is_used_again(rig: &Rig, bao: &OpenBao, name: &str) {
    rig.emulator.add_key(name);
    put(bao, name).await;
    let took = within(STEP + MARGIN, name, async || rig.emulator.used(name) > 0).await;
    println!("used again after {took:.1?}");
    assert_eq!(rig.series(UP).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_sealed_and_killed_for_a_minute_costs_no_call_under_load() {
    let mut bao = OpenBao::sealable(&Authority::new()).await;
    stock(&bao).await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let more = format!(", ca_file: '{}'", bao.dir().join("ca.pem").display());
    let rig = rig(builder, &bao, &auth, &more).await;
    let (began, callers) = (Instant::now(), Callers::start(&rig, "/v1/datasets"));
    bao.seal().await;
    is_told_all_the_while(&rig, "sealed").await;
    bao.unseal().await;
    is_used_again(&rig, &bao, "second").await;
    bao.kill().await;
    is_told_all_the_while(&rig, "refused").await;
    bao.restart().await;
    is_used_again(&rig, &bao, "third").await;
    let took = began.elapsed();
    let (made, failed) = callers.stop().await;
    let rate = made as f64 / took.as_secs_f64();
    let (sealed, refused) =
        (rig.series(&reads("sealed")).await, rig.series(&reads("refused")).await);
    println!("{made} calls in {took:.0?} ({rate:.0}/s), {failed} failed");
    println!("looks that met it sealed {sealed}, killed {refused}");
    assert_eq!(failed, 0);
    assert_eq!((rig.emulator.anonymous(), rig.emulator.answered(401)), (0, 0));
    rig.finish().await;
}

/// A policy that is taken away and given back, and a role that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_vault_refused_is_used_again_within_a_minute_of_the_refusal() {
    tokio::join!(a_policy_comes_back(), a_role_comes_back());
}

async fn a_policy_comes_back() {
    let bao = OpenBao::dev().await;
    stock(&bao).await;
    let builder = Rig::builder().await;
    let auth = by_token(&builder, &bao).await;
    let rig = rig(builder, &bao, &auth, "").await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.delete("sys/policies/acl/datapulse").await;
    within(MARGIN, "denied", async || rig.series(&reads("denied")).await >= 1.0).await;
    bao.policy("datapulse", POLICY).await;
    is_used_again(&rig, &bao, "second").await;
    let (made, failed) = callers.stop().await;
    println!("a policy: {made} calls, {failed} failed");
    assert_eq!(failed, 0);
    assert_eq!(rig.series(&reads("denied")).await, 1.0);
    rig.finish().await;
}

async fn a_role_comes_back() {
    let bao = OpenBao::dev().await;
    stock(&bao).await;
    bao.post("sys/auth/approle", &json!({"type": "approle"})).await;
    let role = json!({"token_policies": ["datapulse"], "token_ttl": "2s", "token_max_ttl": "2s",
                      "role_id": "sidecar"});
    bao.post("auth/approle/role/sidecar", &role).await;
    let secret_id = json!({"secret_id": format!("{CANARY}-secret-id")});
    bao.post("auth/approle/role/sidecar/custom-secret-id", &secret_id).await;
    let builder = Rig::builder().await;
    let file = write(builder.dir(), "secret-id", secret_id["secret_id"].as_str().unwrap());
    let auth = format!("{{method: approle, role_id: sidecar, secret_id: 'file:{file}'}}");
    let rig = rig(builder, &bao, &auth, "").await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.delete("auth/approle/role/sidecar").await;
    let refused = reads("login_refused");
    within(MARGIN, "refused", async || rig.series(&refused).await >= 1.0).await;
    bao.post("auth/approle/role/sidecar", &role).await;
    bao.post("auth/approle/role/sidecar/custom-secret-id", &secret_id).await;
    // The next look may be a minute after the login that was refused, and that a moment before it.
    is_used_again(&rig, &bao, "second").await;
    let (made, failed) = callers.stop().await;
    println!("a role: {made} calls, {failed} failed");
    assert_eq!(failed, 0);
    rig.finish().await;
}
