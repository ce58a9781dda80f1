//! Promise: in shadow nothing is held back and nothing is refused; what would have become of calls is
//! told, and what was sent counts when the quota is kept.

use std::time::Duration;

use datapulse_sidecar::emulator::{Kind, Limit, Rate};
use reqwest::StatusCode;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Process, Rig};

const FLOOD: usize = 100;
/// No call is held for longer than this, and the last of so many would be.
const HELD_MIN: Duration = Duration::from_secs(30);

async fn rig() -> Rig {
    // With a schedule that is known to be unused, so that there may be a burst.
    let yaml = "quotas: {starter: {limit: 60/min}}\n\
                shaping: {shadow: true, state_file: \"${DIR}/schedule\"}\ncredentials:\n  \
                - {name: reader, level: read_only, quota: starter, api_key: \"file:${DIR}/reader\"}\n";
    Rig::builder().await.config_in_dir(yaml).start().await
}

async fn quota(rig: &Rig) -> Value {
    let status: Value = serde_json::from_str(&rig.status(&["--json"]).await).expect("JSON");
    status["quotas"][0].clone()
}

async fn flood(rig: &Rig) -> Duration {
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..FLOOD {
        calls.spawn(rig.client.get(rig.url("/v1/datasets")).send());
    }
    for answer in calls.join_all().await {
        assert_eq!(answer.expect("an answer").status(), StatusCode::OK);
    }
    began.elapsed()
}

/// Applies a change of the configuration.
async fn reconfigured(rig: &mut Rig, yaml: &str) {
    let applied = "config_reloads_total{outcome=\"applied\"}";
    let before = rig.series(applied).await;
    rig.reconfigure(yaml);
    rig.series_above(applied, before).await;
}

#[tokio::test]
async fn in_shadow_nothing_is_held_and_what_would_have_been_is_told_and_counts_afterwards() {
    let mut rig = rig().await;
    // A hundred at once, of sixty a minute: kept to, they would take minutes.
    let took = flood(&rig).await;
    assert!(took < HELD_MIN, "somebody was held: {took:?}");
    assert_eq!(rig.emulator.api_requests(), FLOOD as u64);
    assert_eq!(rig.series("queue_depth{quota=\"starter\"}").await, 0.0);
    assert_eq!(rig.series("queue_wait_seconds_count{quota=\"starter\"}").await, FLOOD as f64);
    assert_eq!(rig.series("quota_sent_total{quota=\"starter\"}").await, FLOOD as f64);

    let told = quota(&rig).await;
    assert_eq!(told["used"], FLOOD, "{told}");
    assert!(told["used_ratio"].as_f64() > Some(1.5), "{told}");
    let shadow = &told["shadow"];
    let count = |name: &str| shadow[name].as_u64().expect("a count");
    assert_eq!(
        ["at_once", "would_wait", "would_refuse", "waiting"].map(count).iter().sum::<u64>(),
        100
    );
    // A fifth of the limit at once, one a second while calls can wait, and the rest is too much.
    assert!((12..30).contains(&count("at_once")), "{shadow}");
    assert!((10..30).contains(&(count("would_wait") + count("waiting"))), "{shadow}");
    assert!(count("would_refuse") >= 40, "{shadow}");
    let counted = rig.series(r#"shadow_calls_total{outcome="would_refuse",quota="starter"}"#).await;
    assert_eq!(counted, count("would_refuse") as f64);
    // Those who would wait leave one by one, though nothing calls any more.
    rig.series_above(r#"shadow_calls_total{outcome="would_wait",quota="starter"}"#, 2.0).await;
    assert!(rig.series("shadow_wait_seconds_sum{quota=\"starter\"}").await > 1.0);
    for told in [rig.status(&[]).await, page(&rig).await] {
        assert!(told.contains("shadow, nothing is held back"), "{told}");
    }
    let mut explain =
        Process::sidecar(&["explain", "GET", "/v1/datasets", "--config", &rig.config_path()]);
    assert_eq!(explain.ended().await.code(), Some(0));
    explain.stdout.line(|line| line.contains("60/min") && line.contains("shadow")).await;

    // Kept from now on: what was sent counts.
    reconfigured(&mut rig, "shaping: {shadow: false}\n").await;
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 503);
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((40..=110).contains(&wait), "a hundred seconds, less what has gone by: {wait}");
    assert_eq!(rig.emulator.api_requests(), FLOOD as u64, "and nothing leaves");
    let told = quota(&rig).await;
    assert!(told["shadow"].is_null() && told["used"].as_u64() >= Some(60), "{told}");

    // And back again.
    reconfigured(&mut rig, "shaping: {shadow: true}\n").await;
    assert!(flood(&rig).await < HELD_MIN);
    rig.finish().await;
}

async fn page(rig: &Rig) -> String {
    let answer = rig.client.get(rig.admin_url("/")).send().await.expect("an answer");
    answer.text().await.expect("text")
}

#[tokio::test]
async fn a_429_in_shadow_is_the_callers_and_the_pause_is_only_told() {
    let rig = rig().await;
    let rate = Rate { limit: 60, window: Duration::from_secs(60) };
    rig.emulator.set_limit(Limit { kind: Kind::FixedWindow, rate });
    let mut throttled = 0;
    for _ in 0..65 {
        let answer = rig.get("/v1/datasets").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            throttled += 1;
            assert!(answer.headers().contains_key("retry-after"));
            assert!(
                answer.headers().get("x-datapulse-sidecar-error").is_none(),
                "it is DataPulse's"
            );
        }
    }
    assert_eq!(throttled, 5, "those that DataPulse refuses, and no call is sent twice");
    assert_eq!(rig.emulator.api_requests(), 65);
    let told = quota(&rig).await;
    assert!(told["paused_for_seconds"].as_u64() > Some(0), "{told}");
    assert_eq!(told["throttled_by_cause"], serde_json::json!({"ours": 5}), "{told}");
    assert_eq!(told["learnt"], serde_json::json!([]), "it was the calls that were not held back");
    assert!(rig.status(&[]).await.contains("5 (5 ours)"));
    assert!(rig.series("quota_paused_seconds{quota=\"starter\"}").await > 0.0);
    rig.finish().await;
}
