//! Promise: a Vault that is sealed, killed, cut off or refuses harms nobody who has a key already, is
//! told with its reason, and is used again once it can be.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Authority, Callers, OpenBao, Relay, Rig, Way};
use crate::vault::{POLICY, by_approle, by_token, key, stocked, with_vault};

/// The gauge of the secret that the tests spoil.
const MISSING: &str = r##"secret_missing{secret="vault:secret/datapulse/billing#api_key"}"##;
const UP: &str = r#"store_up{store="vault"}"#;

fn reads(outcome: &str) -> String {
    format!("store_reads_total{{outcome=\"{outcome}\",store=\"vault\"}}")
}

/// The store is told to be down for this reason, and calls go on.
async fn goes_on_without(rig: &Rig, reason: &str) {
    rig.log(&format!("\"reason\":\"{reason}\"")).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{reason}");
    assert!(rig.series(&reads(reason)).await >= 1.0, "{reason}");
    assert_eq!(rig.series(UP).await, 0.0, "{reason}");
}

/// A new version is used: the store works again.
async fn is_used_again(rig: &Rig, bao: &OpenBao, name: &str) {
    rig.emulator.add_key(name);
    bao.put("datapulse/billing", &key(name)).await;
    rig.emulator.uses(name).await;
    assert_eq!(rig.series(UP).await, 1.0);
}

/// However long the next look is away by then, a rejected key is reason enough to look at once.
async fn is_read_after_a_401(rig: &Rig, bao: &OpenBao) {
    rig.emulator.add_key("second");
    bao.put("datapulse/billing", &key("second")).await;
    rig.emulator.remove_key("reader");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.series(UP).await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_taken_away_costs_no_call_and_one_login() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.delete("sys/policies/acl/datapulse").await;
    goes_on_without(&rig, "denied").await;
    assert_eq!(callers.stop().await.1, 0);
    let logins = rig.series(r#"store_logins_total{outcome="ok",store="vault"}"#).await;
    assert!(logins <= 2.0, "{logins} logins");
    bao.policy("datapulse", POLICY).await;
    is_read_after_a_401(&rig, &bao).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_costs_one_login_and_no_call() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_approle(builder.dir(), &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.post("sys/leases/revoke-prefix/auth/approle/login", &Value::Null).await;
    rig.metric("datapulse_sidecar_store_logins_total{outcome=\"ok\",store=\"vault\"} 2").await;
    is_used_again(&rig, &bao, "second").await;
    assert_eq!(callers.stop().await.1, 0);
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vault_that_is_sealed_or_killed_costs_no_call_and_is_used_again() {
    let mut bao = OpenBao::sealable(&Authority::new()).await;
    bao.put("datapulse/billing", &key("reader")).await;
    bao.policy("datapulse", POLICY).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let more = format!(", ca_file: '{}'", bao.dir().join("ca.pem").display());
    let rig = with_vault(builder, &bao.url(), &auth, &more).start().await;
    let callers = Callers::start(&rig, "/v1/datasets");
    bao.seal().await;
    goes_on_without(&rig, "sealed").await;
    bao.unseal().await;
    is_used_again(&rig, &bao, "second").await;
    bao.kill().await;
    goes_on_without(&rig, "refused").await;
    bao.restart().await;
    is_used_again(&rig, &bao, "third").await;
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_resets_drips_or_swallows_costs_no_call() {
    let bao = stocked().await;
    let relay = Relay::new(bao.address).await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let address = format!("http://{}", relay.address);
    let rig = with_vault(builder, &address, &auth, "").start().await;
    for (way, reason) in [
        (Way::Reset, "interrupted"),
        (Way::Drip(Duration::from_millis(100)), "timeout"),
        (Way::BlackHole, "timeout"),
        (Way::Refuse, "refused"),
    ] {
        relay.set(way).await;
        let outcome = reads(reason);
        let before = rig.series(&outcome).await;
        rig.series_above(&outcome, before).await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{way:?}");
        assert_eq!(rig.series(UP).await, 0.0, "{way:?}");
    }
    relay.set(Way::Open).await;
    is_read_after_a_401(&rig, &bao).await;
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_is_deleted_or_spoilt_in_vault_stays_in_use_as_it_was() {
    let bao = stocked().await;
    let builder = Rig::builder().await.log_level("info");
    let auth = by_token(&builder, &bao).await;
    let rig = with_vault(builder, &bao.url(), &auth, "").start().await;
    let path = "datapulse/billing";
    for (outcome, fields) in [
        ("deleted", None),
        ("no_such_key", Some(json!({"other": "x"}))),
        ("not_a_string", Some(json!({"api_key": 7}))),
        ("unusable", Some(json!({"api_key": ""}))),
    ] {
        let before = rig.series(&reads(outcome)).await;
        match &fields {
            Some(fields) => drop(bao.put(path, fields).await),
            None => bao.delete(&format!("secret/data/{path}")).await,
        }
        rig.series_above(&reads(outcome), before).await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{outcome}");
        assert_eq!(rig.series(UP).await, 1.0, "{outcome}: Vault itself is well");
        assert_eq!(rig.series(MISSING).await, 1.0, "{outcome}");
    }
    let (status, _) =
        bao.call(Method::DELETE, &format!("secret/metadata/{path}"), &Value::Null).await;
    assert_eq!(status, 204);
    let missing = reads("missing");
    rig.series_above(&missing, rig.series(&missing).await).await;
    // One that is made anew counts from 1 again, as the first did.
    is_read_after_a_401(&rig, &bao).await;
    rig.finish().await;
}
