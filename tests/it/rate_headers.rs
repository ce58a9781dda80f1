//! Promise: what DataPulse tells of the limit by itself is heard: calls of others on the same key are
//! told of, and what they used is not used again.

use std::time::Duration;

use datapulse_sidecar::emulator::{Kind, Limit, Rate, RateHeaders};
use serde_json::Value;

use crate::support::{Rig, key_of};

const FOREIGN: u64 = 60;

async fn quota(rig: &Rig) -> Value {
    let status: Value = serde_json::from_str(&rig.status(&["--json"]).await).expect("JSON");
    status["quotas"][0].clone()
}

/// Somebody else uses the same key, past the sidecar.
async fn used_by_others(rig: &Rig, count: u64) {
    for _ in 0..count {
        let call = rig.client.get(format!("{}/v1/datasets", rig.emulator.url()));
        let answer = call.bearer_auth(key_of("reader")).send().await.expect("an answer");
        assert_eq!(answer.status(), 200);
    }
}

async fn check(style: RateHeaders, named: &str) {
    let yaml = "quotas: {starter: {limit: 100/min}}\n\
                shaping: {state_file: \"${DIR}/schedule\"}\ncredentials:\n  \
                - {name: reader, level: read_only, quota: starter, api_key: \"file:${DIR}/reader\"}\n";
    let rig = Rig::builder().await.config_in_dir(yaml).start().await;
    let rate = Rate { limit: 100, window: Duration::from_secs(60) };
    rig.emulator.set_limit(Limit { kind: Kind::SlidingLog, rate });
    rig.emulator.set_rate_headers(style);
    // What our own calls used is nobody else's.
    for _ in 0..5 {
        let answer = rig.get("/v1/datasets").await;
        assert!(answer.headers().contains_key(named), "{style:?}: {:?}", answer.headers());
    }
    assert_eq!(quota(&rig).await["foreign_usage"], 0, "{style:?}");

    used_by_others(&rig, FOREIGN).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "nobody told of it yet");
    let told = quota(&rig).await;
    // A call of our own may be counted a little longer by us than by DataPulse.
    let foreign = told["foreign_usage"].as_u64().expect("a count");
    assert!((FOREIGN - 1..=FOREIGN).contains(&foreign), "{style:?}: {told}");
    assert!(told["used"].as_u64() >= Some(foreign + 6), "{style:?}: it counts: {told}");
    assert!(rig.status(&[]).await.contains("calls of others on the same key"));
    assert!(rig.series("quota_foreign_calls{quota=\"starter\"}").await >= foreign as f64);
    assert_eq!(told["model_error"], foreign, "{style:?}: {told}");
    assert!(rig.status(&[]).await.contains(&format!("{foreign} more than ours")));
    assert!(rig.series("quota_model_error_calls{quota=\"starter\"}").await >= foreign as f64);
    // Sixty-six of a hundred are gone: the pace is kept to until they are repaid, 39 s later. Without
    // what the answers told, fourteen more calls would leave at once.
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 503, "{style:?}");
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "would_miss_deadline");
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((20..=45).contains(&wait), "{style:?}: {wait}");
    assert_eq!(rig.emulator.statuses(429), 0, "{style:?}");
    rig.finish().await;
}

#[tokio::test]
async fn ratelimit_and_its_policy_tell_of_others() {
    check(RateHeaders::Policy, "ratelimit-policy").await;
}

#[tokio::test]
async fn ratelimit_remaining_tells_of_others() {
    check(RateHeaders::Split, "ratelimit-remaining").await;
}

#[tokio::test]
async fn x_ratelimit_remaining_tells_of_others() {
    check(RateHeaders::X, "x-ratelimit-remaining").await;
}
