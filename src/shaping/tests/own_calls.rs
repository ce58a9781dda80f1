//! Calls of the sidecar's own.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{call, config, departed, s, settle, shaper};
use crate::shaping::Shaper;
use crate::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn a_call_of_our_own_goes_on_as_soon_as_it_may_whatever_it_was_told_before() {
    let metrics = Metrics::new().unwrap();
    let before = config("limit: 600/min", &[""], "");
    let wider = config("limit: 6000/min", &[""], "");
    for change in 0..3 {
        let shaper = Arc::new(Shaper::begin(&before, &metrics, None));
        let deadline = Instant::now() + s(90);
        // The probe's answer is awaited; or a pause is not over; or the debt is not repaid.
        let (asked, probed) = [(1, true), (60, false), (0, false)][change];
        if change < 2 {
            departed(&shaper).await.throttled(Some(s(asked)), &HeaderMap::new(), deadline);
        } else {
            tokio::time::advance(s(61)).await;
            for _ in 0..120 {
                call(Arc::clone(&shaper), 0).await.unwrap();
            }
            shaper.quotas.get("q").unwrap().quota.calm();
        }
        let probe = if probed { Some(departed(&shaper).await) } else { None };
        let mut own = JoinSet::new();
        let same = Arc::clone(&shaper);
        own.spawn(async move { same.own_call(Some("q"), deadline).await.unwrap().unwrap() });
        settle().await;
        tokio::time::advance(Duration::from_millis(50)).await;
        assert!(own.try_join_next().is_none(), "it waits: {change}");
        let began = Instant::now();
        match (change, probe) {
            (0, Some(probe)) => probe.answered(&HeaderMap::new()),
            (1, _) => assert!(shaper.forget("q")),
            _ => drop(shaper.renewed(&before, &wider, &metrics)),
        }
        own.join_next().await.unwrap().unwrap().answered();
        // 120 of ten milliseconds each are owed after the change.
        assert!(began.elapsed() < s(2), "{change}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_of_our_own_goes_before_everybody_and_counts() {
    let shaper = shaper();
    let _first = departed(&shaper).await;
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(call(Arc::clone(&shaper), 0));
    }
    settle().await;
    let began = Instant::now();
    let own = shaper.own_call(Some("q"), began + s(8)).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_millis(1100), "{:?}", began.elapsed());
    assert_eq!(waiting.len(), 5);
    assert!(waiting.try_join_next().is_none(), "they come after it");
    own.answered();
    let left = waiting.join_all().await;
    let first = left.into_iter().map(|left| left.unwrap().0).min().unwrap();
    assert!(first > Duration::from_millis(1900), "it took a permit: {first:?}");
    assert!(shaper.own_call(None, began).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_call_of_our_own_that_is_refused_pauses_the_quota_and_one_that_did_not_leave_costs_nothing()
 {
    let shaper = shaper();
    let own = shaper.own_call(Some("q"), Instant::now()).await.unwrap().unwrap();
    own.give_back();
    let own = shaper.own_call(Some("q"), Instant::now()).await.unwrap().unwrap();
    own.throttled(Some(s(60)));
    let refusal = shaper.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after >= s(60), "{refusal:?}");
    let began = Instant::now();
    assert!(shaper.own_call(Some("q"), began + s(8)).await.is_err());
    assert_eq!(began.elapsed(), Duration::ZERO, "it is told at once");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_our_own_that_is_given_up_lets_the_others_go_on() {
    let shaper = shaper();
    let _first = departed(&shaper).await;
    let mut own = JoinSet::new();
    let given_up = Arc::clone(&shaper);
    own.spawn(async move { given_up.own_call(Some("q"), Instant::now() + s(8)).await.is_ok() });
    settle().await;
    let mut waiting = JoinSet::new();
    waiting.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    own.shutdown().await;
    let (waited, _) = waiting.join_next().await.unwrap().unwrap().unwrap();
    assert!(waited < s(2), "{waited:?}");
}
