//! Promise: tokens are renewed under the app, once for all callers, and nothing is ever sent without
//! one.

use std::time::Duration;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};
use futures_util::future::join_all;

use crate::support::{Load, Rig};

/// A second, at the least: the emulator's tokens count whole seconds.
const LIFE: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_tokens_live_two_seconds() {
    let rig = Rig::builder().await.token_life(LIFE).log_level("info").start().await;
    let files = rig.open_files();
    let load = Load::start(&rig, &["/v1/pipelines"], Duration::from_secs(30)).ended().await;
    let generations = rig.emulator.mints("etl");
    let (made, took) = (load.made, load.took);
    println!("{made} calls in {took:?}, {generations} tokens, {:.0} calls/s", load.rate());
    assert_eq!(load.failed, 0);
    assert!(generations >= 15, "{generations} tokens in {took:?}");
    assert_eq!(rig.emulator.anonymous(), 0);
    // Two ends for each worker's connection, and a few for pools.
    assert!(rig.open_files() < files + 3 * Load::WORKERS, "{files} -> {}", rig.open_files());
    rig.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_calls_at_once_on_a_revoked_token_cost_one_token_call() {
    let rig = Rig::builder().await.start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let before = rig.emulator.mints("etl");
    rig.emulator.revoke_all();
    let url = rig.url("/v1/pipelines");
    let calls = (0..500).map(|_| rig.client.get(&url).send());
    let statuses: Vec<u16> =
        join_all(calls).await.into_iter().map(|answer| answer.unwrap().status().as_u16()).collect();
    let good = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!((good, rig.emulator.mints("etl") - before), (500, 1));
    let forced = r#"credential_refreshes_total{credential="etl",outcome="ok",reason="rejected"}"#;
    assert_eq!(rig.series(forced).await, 1.0);
    assert!(rig.series(r#"retries_total{reason="token_rejected"}"#).await >= 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn without_the_authorization_server_calls_get_503_until_it_comes() {
    let rig = Rig::builder().await.without_authorization_server().start().await;
    let answer = rig.get("/v1/pipelines").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    let problem: serde_json::Value = answer.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("etl"), "{problem}");
    assert_eq!(rig.emulator.api_requests(), 0, "nothing is sent anonymously");
    let rejected = r#"rejected_total{code="credential_unavailable"}"#;
    rig.until_series(rejected, |count| count == 1.0).await;
    let refused =
        r#"credential_refreshes_total{credential="etl",outcome="refused",reason="initial"}"#;
    assert_eq!(rig.series(refused).await, 1.0);
    let (ready, why) = rig.health("/readyz/credentials").await;
    assert_eq!((ready, why.as_str()), (503, "not usable: etl\n"));
    // A credential that needs no authorization server is not held up by one that does.
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.emulator.heal();
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(rig.health("/readyz/credentials").await.0, 200);
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn an_expired_token_that_cannot_be_renewed_is_a_503_that_names_the_credential() {
    let rig = Rig::builder().await.token_life(LIFE).start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.emulator.fail_token_endpoint(503);
    let refused = rig.eventually("/v1/pipelines", 503).await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_expired");
    assert!(refused.headers().contains_key("retry-after"));
    rig.counted(r#"rejected_total{code="credential_expired"}"#).await;
    assert_eq!(rig.series(r#"credential_state{credential="etl",state="expired"}"#).await, 1.0);
    rig.emulator.heal();
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_token_endpoint_that_says_when_is_left_alone_until_then() {
    let rig = Rig::builder().await.token_life(LIFE).start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let before = rig.emulator.seen("/oauth/token");
    let effect = Effect::Status { code: 429, retry_after: Some("4".to_owned()) };
    rig.emulator.fault(Fault::times(Scope::Token, effect, 1));
    // The next token is not renewed while this is looked at.
    rig.emulator.set_token_life(Duration::from_secs(3600));
    rig.eventually("/v1/pipelines", 503).await;
    rig.eventually("/v1/pipelines", 200).await;
    assert_eq!(
        rig.emulator.seen("/oauth/token") - before,
        2,
        "the 429, and the one that it asked for"
    );
    let refused =
        r#"credential_refreshes_total{credential="etl",outcome="refused",reason="scheduled"}"#;
    assert_eq!(rig.series(refused).await, 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_call_that_the_upstream_always_rejects_gets_its_401_and_one_renewal() {
    let rig = Rig::builder().await.start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let before = rig.emulator.mints("etl");
    rig.emulator.answer_api(401, 1_000);
    for _ in 0..20 {
        assert_eq!(rig.get("/v1/pipelines").await.status(), 401);
    }
    assert_eq!(rig.emulator.mints("etl") - before, 1, "not again before ten seconds are over");
    let forced = r#"credential_refreshes_total{credential="etl",outcome="ok",reason="rejected"}"#;
    assert_eq!(rig.series(forced).await, 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_403_is_the_apps_and_renews_nothing() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.emulator.answer_api(403, 5);
    for _ in 0..5 {
        let answer = rig.get("/v1/pipelines").await;
        assert_eq!(answer.status(), 403);
        assert!(!answer.headers().contains_key("x-datapulse-sidecar-error"), "the upstream's own");
    }
    assert_eq!((rig.emulator.mints("etl"), rig.emulator.api_requests()), (1, 6));
    let forbidden =
        r#"requests_total{credential="etl",method="GET",status="403",tenant="default"}"#;
    assert_eq!(rig.series(forbidden).await, 5.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_replaced_api_key_is_used_as_soon_as_the_old_one_is_rejected() {
    let rig = Rig::builder().await.start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.replace_api_key();
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn what_a_token_endpoint_should_not_answer_is_survived() {
    for odd in ["html", "no_token", "crlf_token", "huge", "redirect", "not_bearer"] {
        let rig = Rig::builder().await.token_endpoint_answers(odd).start().await;
        let answer = rig.get("/v1/pipelines").await;
        assert_eq!(answer.status(), 503, "{odd}");
        assert_eq!(
            answer.headers()["x-datapulse-sidecar-error"],
            "credential_unavailable",
            "{odd}"
        );
        assert_eq!(rig.emulator.anonymous(), 0, "{odd}");
        rig.emulator.heal();
        rig.eventually("/v1/pipelines", 200).await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn whatever_expires_in_says_calls_go_through() {
    for expires_in in ["absent", "0", "-1", "\"3600\"", "1e12"] {
        let rig = Rig::builder().await.token_endpoint_expires_in(expires_in).start().await;
        for _ in 0..3 {
            assert_eq!(rig.get("/v1/pipelines").await.status(), 200, "{expires_in}");
        }
        if ["0", "-1", "1e12"].contains(&expires_in) {
            rig.log("outside 1 s to 30 days").await;
        }
        let expiry = rig.series(r#"credential_expiry_timestamp_seconds{credential="etl"}"#).await;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!(expiry > now - 30.0 && expiry < now + 31.0 * 86_400.0, "{expires_in}: {expiry}");
        rig.finish().await;
    }
}
