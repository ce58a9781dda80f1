//! Promise: no quota is used beyond what DataPulse accepts, whatever its limiter and whatever the
//! apps ask for; what has to wait waits here, and what cannot is told so at once.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use datapulse_sidecar::emulator::{Kind, Limit, Rate};
use reqwest::StatusCode;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{CANARY, PATIENCE, Process, Rig};

/// 20 calls a second, so that seconds are many windows. A machine that stands still for less than
/// `spread` pushes no more requests together than the product promises to keep apart.
async fn rig() -> Rig {
    rig_with("quotas: {starter: {limit: 20/s, spread: 2s}}\n").await
}

/// One credential under the quota `starter`, which is in `yaml`.
async fn rig_with(yaml: &str) -> Rig {
    let yaml = format!(
        "credentials:\n  \
         - {{name: reader, level: read_only, quota: starter, api_key: \"file:${{DIR}}/reader\"}}\n{yaml}"
    );
    Rig::builder().await.config_in_dir(&yaml).start().await
}

/// Calls that all come at once: how many were answered with each status.
async fn flood(rig: &Rig, count: usize) -> Vec<StatusCode> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        calls.spawn(rig.client.get(rig.url("/v1/datasets")).send());
    }
    let answers = calls.join_all().await;
    answers.into_iter().map(|answer| answer.expect("an answer").status()).collect()
}

/// Far more than the limit, for several windows: the limiter has nothing to refuse.
async fn check(kind: Kind) {
    let rig = rig().await;
    let rate = Rate { limit: 20, window: Duration::from_secs(1) };
    rig.emulator.set_limit(Limit { kind, rate });
    let began = Instant::now();
    let statuses = flood(&rig, 30).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{kind:?}: {statuses:?}");
    assert_eq!(rig.emulator.statuses(429), 0, "{kind:?}");
    assert_eq!(rig.emulator.api_requests(), 30, "{kind:?}: a permit for each attempt");
    assert!(began.elapsed() > Duration::from_secs(2), "they cannot have been held to the limit");
    rig.finish().await;
}

#[tokio::test]
async fn a_fixed_window_has_nothing_to_refuse() {
    check(Kind::FixedWindow).await;
}

#[tokio::test]
async fn a_sliding_log_has_nothing_to_refuse() {
    check(Kind::SlidingLog).await;
}

#[tokio::test]
async fn a_sliding_counter_has_nothing_to_refuse() {
    check(Kind::SlidingCounter).await;
}

#[tokio::test]
async fn a_token_bucket_has_nothing_to_refuse() {
    check(Kind::TokenBucket).await;
}

#[tokio::test]
async fn what_cannot_leave_in_time_is_told_so_at_once_and_when_to_come_back() {
    // One leaves each 3.2 seconds: the third of them has more than a second left when it does, and
    // there is no fourth unless all of them come as late.
    let quota = "quotas: {starter: {limit: 20/min}}\nupstream: {request_timeout: 8s}\n";
    let rig = rig_with(quota).await;
    let statuses = flood(&rig, 100).await;
    let refused = statuses.iter().filter(|status| **status == 503).count();
    let served = statuses.iter().filter(|status| **status == 200).count();
    assert_eq!(refused + served, 100, "{statuses:?}");
    assert!((3..=4).contains(&served), "eight seconds of one each 3.2 seconds: {served}");
    assert_eq!(
        usize::try_from(rig.emulator.api_requests()),
        Ok(served),
        "refused calls went nowhere"
    );
    let (_, metrics) = rig.health("/metrics").await;
    for family in [
        "quota_limit{quota=\"starter\"} 20",
        "queue_depth{quota=\"starter\"} 0",
        "quota_used_ratio{quota=\"starter\"}",
        "queue_wait_seconds_count{quota=\"starter\"}",
    ] {
        assert!(metrics.contains(&format!("datapulse_sidecar_{family}")), "{family}: {metrics}");
    }
    rig.finish().await;
}

/// Two tenants, the first on the listener, the second by its token, on a quota of 20 a second.
async fn tenants(more: &str) -> Rig {
    let yaml = format!(
        "quotas: {{starter: {{limit: 20/s}}}}\nupstream: {{request_timeout: 5s}}\n\
         listeners: [{{listen: 'localhost:0', tenant: first}}]\ncredentials:\n  \
         - {{name: reader, level: read_only, quota: starter, api_key: \"file:${{DIR}}/reader\"}}\n\
         tenants:\n  - {{name: first, credentials: [reader]}}\n  \
         - {{name: second, credentials: [reader], callers: [{{caller_token: \"file:${{DIR}}/second\"}}]{more}}}\n"
    );
    let builder = Rig::builder().await;
    std::fs::write(builder.dir().join("second"), SECOND).expect("written");
    builder.config_in_dir(&yaml).start().await
}

const SECOND: &str = "CANARY7f3a-second";

/// Calls of the second tenant that come at once.
async fn flood_second(rig: &Rig, count: usize) -> Vec<reqwest::Response> {
    let mut calls = JoinSet::new();
    for _ in 0..count {
        let call = rig.client.get(rig.url("/v1/datasets"));
        calls.spawn(call.header("x-datapulse-sidecar-token", SECOND).send());
    }
    calls.join_all().await.into_iter().map(|answer| answer.expect("an answer")).collect()
}

#[tokio::test]
async fn a_tenant_over_its_limit_gets_429_and_the_others_notice_nothing() {
    // Five at once, then one each three seconds: the sixth has two seconds left when it leaves.
    let rig = tenants(", limit: 20/min").await;
    let (second, first) = tokio::join!(flood_second(&rig, 60), flood(&rig, 20));
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    let refused: Vec<_> = second.iter().filter(|answer| answer.status() == 429).collect();
    let served = second.iter().filter(|answer| answer.status() == 200).count();
    assert_eq!(refused.len() + served, 60);
    assert!((5..=7).contains(&served), "five seconds of 20 a minute: {served}");
    for answer in refused {
        assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "would_miss_deadline");
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=15).contains(&wait), "{wait}");
    }
    assert_eq!(rig.emulator.statuses(429), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_tenant_that_floods_leaves_the_others_their_turns() {
    let rig = tenants("").await;
    // Twice as many as leave in time, before the others and once more behind them.
    let (before, first, behind) =
        tokio::join!(flood_second(&rig, 150), flood(&rig, 20), flood_second(&rig, 150));
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    let second = || before.iter().chain(&behind);
    let served = second().filter(|answer| answer.status() == 200).count();
    let refused = second().filter(|answer| answer.status() == 429).count();
    assert!(served >= 20, "a turn for each of the others: {served}");
    assert!(refused > 0, "those who are told while the other waits");
    rig.finish().await;
}

/// The second tenant's credential is `copy`: another file, and no quota unless `more` has one.
async fn two_credentials(quotas: &str, more: &str) -> Rig {
    let builder = Rig::builder().await;
    std::fs::write(builder.dir().join("second"), SECOND).expect("written");
    std::fs::copy(builder.dir().join("reader"), builder.dir().join("copy")).expect("copied");
    let rest = "
listeners: [{listen: 'localhost:0', tenant: first}]
credentials:
  - {name: reader, level: read_only, quota: starter, api_key: \"file:${DIR}/reader\"}
  - {name: copy, level: read_only, api_key: \"file:${DIR}/copy\"}
tenants:
  - {name: first, credentials: [reader]}
  - {name: second, credentials: [copy], callers: [{caller_token: \"file:${DIR}/second\"}]}
";
    let yaml = format!("{quotas}{rest}").replace("{name: copy, ", &format!("{{name: copy, {more}"));
    builder.config_in_dir(&yaml).start().await
}

async fn shared_keys(rig: &Rig) -> serde_json::Value {
    let status: serde_json::Value =
        serde_json::from_str(&rig.status(&["--json"]).await).expect("JSON");
    status["shared_keys"].clone()
}

#[tokio::test]
async fn credentials_that_hold_the_same_key_share_a_quota_also_when_it_changes() {
    let rig = two_credentials("quotas: {starter: {limit: 20/s, spread: 2s}}", "").await;
    let rate = Rate { limit: 20, window: Duration::from_secs(1) };
    rig.emulator.set_limit(Limit { kind: Kind::SlidingLog, rate });
    let (second, first) = tokio::join!(flood_second(&rig, 15), flood(&rig, 15));
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    assert!(second.iter().all(|answer| answer.status() == 200));
    assert_eq!(rig.emulator.statuses(429), 0, "one key, one quota");
    let want = serde_json::json!([{"credentials": ["reader", "copy"], "quota": "starter"}]);
    assert_eq!(shared_keys(&rig).await, want);
    let told = rig.log("these credentials hold the same key").await;
    assert!(told.contains("reader, copy"), "{told}");
    // A key of its own has no quota, and is no longer held back.
    std::fs::write(rig.dir().join("copy"), rig.emulator.add_key("other")).expect("written");
    rig.metric("datapulse_sidecar_credential_generation{credential=\"copy\"} 2").await;
    assert_eq!(shared_keys(&rig).await, serde_json::json!([]));
    let began = Instant::now();
    let second = flood_second(&rig, 20).await;
    assert!(second.iter().all(|answer| answer.status() == 200), "by its own key's limit");
    let first = flood(&rig, 15).await;
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    assert!(began.elapsed() >= Duration::from_secs(1), "the other is held to its quota as before");
    assert_eq!(rig.emulator.statuses(429), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_call_whose_key_changed_as_it_waited_is_sent_again_by_the_quota_of_the_new_one() {
    let rig = two_credentials(
        "quotas: {starter: {limit: 10/min}, other: {limit: 10/min}}",
        "quota: other, ",
    )
    .await;
    std::fs::write(rig.dir().join("copy"), rig.emulator.add_key("other")).expect("written");
    rig.metric("datapulse_sidecar_credential_generation{credential=\"copy\"} 2").await;
    flood_second(&rig, 1).await;
    let sent = |quota: &str| format!("quota_sent_total{{quota=\"{quota}\"}}");
    let before = (rig.series(&sent("starter")).await, rig.series(&sent("other")).await);
    // Six seconds from the one before: it has its token already.
    let changed = async {
        rig.series_above("queue_depth{quota=\"other\"}", 0.0).await;
        rig.emulator.remove_key("other");
        std::fs::copy(rig.dir().join("reader"), rig.dir().join("copy")).expect("copied");
    };
    let (answers, ()) = tokio::join!(flood_second(&rig, 1), changed);
    assert_eq!(answers.first().expect("an answer").status(), 200);
    assert_eq!(rig.emulator.answered(401), 1, "it left with the key that it had");
    let after = (rig.series(&sent("starter")).await, rig.series(&sent("other")).await);
    assert_eq!(
        (after.0 - before.0, after.1 - before.1),
        (1.0, 2.0),
        "an attempt each, and the trial of the key"
    );
    rig.finish().await;
}

#[tokio::test]
async fn status_tells_of_each_quota_its_limit_its_use_and_who_waits() {
    let rig = tenants("").await;
    let seen = async {
        loop {
            let status: serde_json::Value =
                serde_json::from_str(&rig.status(&["--json"]).await).expect("JSON");
            let quota = status["quotas"][0].clone();
            if quota["waiting"].as_array().is_some_and(|waiting| !waiting.is_empty()) {
                return quota;
            }
        }
    };
    let flooding = async {
        loop {
            flood_second(&rig, 60).await;
        }
    };
    let seen = tokio::time::timeout(PATIENCE, seen);
    let quota = tokio::select! { quota = seen => quota, () = flooding => unreachable!() };
    let quota = quota.expect("somebody waits");
    assert_eq!((&quota["name"], &quota["limit"]), (&"starter".into(), &20.into()));
    assert_eq!((&quota["window_seconds"], &quota["share"]), (&1.into(), &1.0.into()));
    assert_eq!(quota["waiting"][0]["tenant"], "second");
    assert_eq!(quota["throttled"], 0);
    let table = rig.status(&[]).await;
    assert!(table.contains("20/s") && table.contains("starter"), "{table}");
    rig.finish().await;
}

/// What `explain` says of a call, with what the sidecar that runs tells of its quota.
async fn explained(rig: &Rig, tenant: &str) -> String {
    let (admin, config) = (rig.admin_url(""), rig.config_path());
    let call = ["explain", "GET", "/v1/datasets", "--tenant", tenant];
    let asked = ["--admin", &admin, "--config", &config];
    let args: Vec<&str> = call.into_iter().chain(asked).collect();
    let mut process = Process::sidecar(&args);
    assert_eq!(process.ended().await.code(), Some(0), "{:?}", process.stderr.lines());
    process.stdout.lines().join("\n")
}

#[tokio::test]
async fn explain_tells_how_the_quota_is_used_what_was_learnt_and_of_a_key_that_is_shared() {
    // With a schedule that is known to be unused, so that there may be a burst.
    let rig = two_credentials(
        "quotas: {starter: {limit: 600/min, share: 1/2}}\n\
         shaping: {state_file: \"${DIR}/schedule\"}",
        "",
    )
    .await;
    for _ in 0..5 {
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    }
    let told = explained(&rig, "first").await;
    for part in [
        "running     starter, as the same key is in reader, copy",
        "limit       600/min, 50 % of it",
        "used        5 (2 %)",
        "waiting     none",
        "paused for  none",
        "429s        0",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    rig.emulator.throttle_api("600");
    assert_eq!(rig.get("/v1/datasets").await.status(), 429);
    // The other credential has no quota by the configuration, and the same key.
    let told = explained(&rig, "second").await;
    for part in ["credential  copy", "none: its calls", "429s        1 (1 ", "paused for  "] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    assert!(!told.contains("paused for  none") && told.contains("used        6"), "{told}");
    assert!(told.contains("quotas.starter.burst: "), "what was learnt: {told}");
    rig.finish().await;
}

#[tokio::test]
async fn what_is_held_back_since_the_start_is_told_by_status_explain_and_the_page() {
    // Nothing is known of the hour before, and the hour is not over.
    let rig = two_credentials("quotas: {starter: {limit: 100/h}}", "").await;
    let page = rig.client.get(rig.admin_url("/")).send().await.expect("an answer");
    let page = page.text().await.expect("text");
    for told in [page, rig.status(&[]).await, explained(&rig, "first").await] {
        assert!(told.contains("held back since the start"), "{told}");
        assert!(told.contains("no bursts for 3"), "{told}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_429_pauses_the_quota_and_the_call_is_sent_again() {
    let rig = rig().await;
    rig.emulator.throttle_api("1");
    let began = Instant::now();
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 200);
    assert!(began.elapsed() >= Duration::from_secs(2), "Retry-After and a second");
    assert_eq!(rig.emulator.statuses(429), 1);
    assert_eq!(rig.emulator.api_requests(), 2);
    assert_eq!(rig.series(r#"retries_total{reason="throttled"}"#).await, 1.0);
    let answered =
        r#"requests_total{credential="reader",method="GET",status="200",tenant="default"}"#;
    rig.until_series(answered, |count| count == 1.0).await;
    // An hour is cut to a quarter of one, which no call waits for: the 429 is the answer.
    rig.emulator.throttle_api("3600");
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(
        (answer.status(), &answer.headers()["retry-after"]),
        (StatusCode::TOO_MANY_REQUESTS, &"3600".parse().unwrap())
    );
    assert!(answer.headers().get("x-datapulse-sidecar-error").is_none(), "it is DataPulse's");
    // And nothing leaves meanwhile.
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "would_miss_deadline");
    let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((600..=901).contains(&wait), "{wait}");
    assert_eq!(rig.emulator.api_requests(), 3);
    rig.finish().await;
}

#[tokio::test]
async fn a_process_that_is_killed_again_and_again_never_trips_the_limit() {
    // A bucket that the first burst empties but for what the spread allows for: whatever is forgotten
    // is refused.
    let quotas = "quotas: {starter: {limit: 120/min, burst: 26, spread: 2s}}\n\
                  shaping: {state_file: \"${DIR}/schedule\"}\n";
    let mut rig = rig_with(quotas).await;
    let rate = Rate { limit: 26, window: Duration::from_secs(13) };
    rig.emulator.set_limit(Limit { kind: Kind::TokenBucket, rate });
    let mut began = None;
    for round in 0..6 {
        let mut calls = JoinSet::new();
        for _ in 0..40 {
            calls.spawn(rig.client.get(rig.url("/v1/datasets")).send());
        }
        let first = began.get_or_insert_with(Instant::now);
        let wanted = if round == 0 { 20 } else { 1 };
        rig.emulator.further(wanted).await;
        let (sent, most) =
            (rig.emulator.api_requests(), 25.0 + first.elapsed().as_secs_f64() * 2.0);
        assert!((20.0..=most).contains(&(sent as f64)), "{sent} in round {round}, at most {most}");
        rig.crash().await;
    }
    assert_eq!(rig.emulator.statuses(429), 0);
    rig.finish().await;
}

#[tokio::test]
async fn permits_charged_are_the_requests_that_arrived_to_the_last_one() {
    let builder = Rig::builder().await.token_life(Duration::from_secs(60));
    // A session that is about to end: it is renewed at the API host.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\": {}}}", now + 6));
    let first = format!("e30.{claims}.{CANARY}");
    std::fs::write(builder.dir().join("session"), &first).unwrap();
    builder.accept("person", &first);
    let rig = builder
        .config_in_dir(
            "quotas: {starter: {limit: 600/min}}\ncredentials:\n  \
             - {name: reader, level: read_only, quota: starter, api_key: \"file:${DIR}/reader\"}\n  \
             - {name: console, level: read_write, quota: starter, \
                session_token: {token: \"file:${DIR}/session\"}}\n",
        )
        .start()
        .await;
    assert!(flood(&rig, 10).await.iter().all(|status| *status == 200));
    rig.emulator.throttle_api("1");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.emulator.answer_api(503, 1);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    // A changed key is tried at the API before it is used, and a 401 is met once.
    rig.replace_api_key();
    rig.emulator.sees("/auth/verify").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.emulator.sees("/auth/refresh").await;
    // Callers that hang up while they wait cause no request.
    let mut leaving = JoinSet::new();
    for _ in 0..200 {
        leaving.spawn(rig.client.get(rig.url("/v1/datasets")).send());
    }
    leaving.join_next().await.expect("one of them").expect("it ran").expect("an answer");
    leaving.shutdown().await;
    rig.quiet().await;
    let arrived = rig.emulator.counters().requests;
    assert!(arrived < 200, "{arrived}");
    let sent = format!("datapulse_sidecar_quota_sent_total{{quota=\"starter\"}} {arrived}");
    rig.metric(&sent).await;
    rig.finish().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_with_its_body_unread_gives_its_place_on() {
    // The first call leaves at once, and the next minutes later. Half a body is more than is kept.
    let rig = rig_with(
        "quotas: {starter: {limit: 10/h}}\nshaping: {max_wait: 2h}\n\
         upstream: {request_timeout: 2h, replay_body: 0B}\n\
         policy: [{methods: [POST], path: /v1/uploads, level: read_only}]\n",
    )
    .await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    for politely in [true, false] {
        let mut caller = TcpStream::connect(rig.address).await.expect("it listens");
        let head = "POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n";
        caller.write_all(head.as_bytes()).await.expect("it takes a head");
        caller.write_all(&[b'x'; 100_000]).await.expect("the system takes as much");
        rig.series_above("queue_depth{quota=\"starter\"}", 0.5).await;
        caller.write_all(b"and more of it while the call waits").await.expect("it is open");
        assert_eq!(rig.series("queue_depth{quota=\"starter\"}").await, 1.0, "it is not gone");
        if politely {
            caller.shutdown().await.expect("it is open");
        }
        drop(caller);
        rig.metric("datapulse_sidecar_queue_depth{quota=\"starter\"} 0").await;
        rig.quiet().await;
    }
    assert_eq!(rig.emulator.api_requests(), 1, "nothing was sent for them");
    rig.finish().await;
}
