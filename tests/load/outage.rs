//! Promise: an authorization server that is down costs no call while a token is good, and is not asked
//! more often than it should be.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::support::Rig;

const LIFE: Duration = Duration::from_secs(40);
/// Of a token that lives [`LIFE`].
const LAST_USE: Duration = Duration::from_secs(36);
/// Past the last use by as long again.
const DOWN: Duration = Duration::from_secs(75);

/// What a call was answered with, and when.
struct Answer {
    at: Instant,
    status: u16,
    code: String,
    retry_after: Option<u64>,
}

/// Calls all the time until `end`.
async fn calls(client: reqwest::Client, url: String, end: Instant) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut tick = interval(Duration::from_millis(50));
    while Instant::now() < end {
        tick.tick().await;
        let answer = client.get(&url).send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|value| value.to_str().unwrap());
        let code = header("x-datapulse-sidecar-error").unwrap_or_default().to_owned();
        let retry_after = header("retry-after").map(|value| value.parse().unwrap());
        let status = answer.status().as_u16();
        answers.push(Answer { at: Instant::now(), status, code, retry_after });
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authorization_server_that_is_down_costs_no_call_before_a_tokens_last_use() {
    let begin = Instant::now();
    let rig = Rig::builder().await.token_life(LIFE).log_level("info").start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let asked = || rig.emulator.seen("/oauth/token");
    let before = asked();
    rig.emulator.fail_token_endpoint(503);
    let mut workers = JoinSet::new();
    for _ in 0..4 {
        let url = rig.url("/v1/pipelines");
        workers.spawn(calls(rig.client.clone(), url, begin + DOWN));
    }
    let mut answers = Vec::new();
    while let Some(worker) = workers.join_next().await {
        answers.extend(worker.unwrap());
    }
    answers.sort_by_key(|answer| answer.at);
    let first = answers.iter().position(|answer| answer.status != 200).unwrap();
    let (good, bad) = answers.split_at(first);
    let (down, tries) = (bad[0].at - begin, asked() - before);
    println!(
        "{} calls answered; refused from {down:?} on; {tries} token calls in {DOWN:?}",
        good.len()
    );
    assert!(down >= LAST_USE, "{down:?}: a token was given up early");
    for answer in bad {
        assert_eq!((answer.status, answer.code.as_str()), (503, "credential_expired"));
        assert!(answer.retry_after.is_some_and(|wait| (1..=60).contains(&wait)));
    }
    // With full jitter one in a second at most, and for calls that wait one in two seconds.
    let while_good = (LAST_USE - LIFE.mul_f64(0.5)).as_secs();
    let while_bad = (DOWN - LAST_USE).as_secs() / 2;
    assert!((5..=while_good + while_bad + 3).contains(&tries), "{tries} token calls");
    let counted = rig
        .series(r#"credential_refreshes_total{credential="etl",outcome="refused",reason="retry"}"#);
    assert!(counted.await >= tries as f64 - 2.0);
    // The first try that meets a server that is well is the last.
    let before = asked();
    rig.emulator.heal();
    rig.eventually("/v1/pipelines", 200).await;
    assert!(asked() - before <= 1, "one was under way at most");
    assert_eq!((rig.emulator.anonymous(), rig.emulator.answered(401)), (0, 0));
    rig.finish().await;
}
