//! What the upstream's answers do: pauses, lessons, and what others use.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, call, config, departed, placed, s, settle, shaper, shaper_of};
use crate::shaping::Shaper;
use crate::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn a_429_holds_the_whole_quota_and_tells_those_who_cannot_wait() {
    let shaper = shaper();
    let deadline = Instant::now() + s(30);
    let mut first = placed(&shaper).await;
    first.ready(deadline).await.unwrap();
    let _sent = first.depart(deadline, anyway).await.unwrap();
    let mut patient = JoinSet::new();
    patient.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    let began = Instant::now();
    assert_eq!(first.throttled(Some(s(9)), &HeaderMap::new(), deadline), Some((s(10), true)));
    patient.join_next().await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() >= s(10));
    let mut waiting = JoinSet::new();
    waiting.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    let began = Instant::now();
    assert_eq!(
        first.throttled(Some(s(60)), &HeaderMap::new(), began + s(30)),
        Some((s(61), false))
    );
    let refusal = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "told at once");
    assert!(refusal.retry_after >= s(61) && !refusal.tenants_fault && !refusal.full);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_left_before_a_pause_and_ends_late_is_not_its_probe() {
    let shaper = shaper();
    let deadline = Instant::now() + s(90);
    let (mut slow, mut held, mut first) =
        (placed(&shaper).await, placed(&shaper).await, placed(&shaper).await);
    let _sent = slow.depart(deadline, anyway).await.unwrap();
    let _sent = first.depart(deadline, anyway).await.unwrap();
    held.ready(deadline).await.unwrap();
    assert_eq!(first.throttled(Some(s(9)), &HeaderMap::new(), deadline), Some((s(10), true)));
    let began = Instant::now();
    let mut probe = placed(&shaper).await;
    let _sent = probe.depart(deadline, anyway).await.unwrap();
    assert!(began.elapsed() >= s(10));
    let mut waiting = JoinSet::new();
    waiting.spawn(call(Arc::clone(&shaper), 0));
    let probed = Instant::now();
    slow.answered(&HeaderMap::new());
    drop(held);
    settle().await;
    assert!(waiting.try_join_next().is_none(), "the probe is still out");
    assert!(probed.elapsed() < s(2), "{:?}", probed.elapsed());
    probe.answered(&HeaderMap::new());
    waiting.join_next().await.unwrap().unwrap().unwrap();
    assert!(probed.elapsed() < s(4), "{:?}", probed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_taken_before_a_pause_is_not_used_in_it() {
    let shaper = shaper();
    let deadline = Instant::now() + s(90);
    let (mut first, mut next) = (placed(&shaper).await, placed(&shaper).await);
    let _sent = first.depart(deadline, anyway).await.unwrap();
    next.ready(deadline).await.unwrap();
    let began = Instant::now();
    first.throttled(Some(s(9)), &HeaderMap::new(), deadline);
    let _sent = next.depart(deadline, anyway).await.unwrap();
    assert!(began.elapsed() >= s(10), "{:?}", began.elapsed());
}

fn head(list: &[(&'static str, &str)]) -> HeaderMap {
    let one = |(name, value): &(&'static str, &str)| {
        (http::HeaderName::from_static(name), value.parse().unwrap())
    };
    list.iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn what_others_use_of_the_key_is_told_and_waited_for() {
    let shaper = shaper_of(&config("limit: 100/min", &[""], ""));
    let place = departed(&shaper).await;
    place.answered(&head(&[("x-ratelimit-limit", "100"), ("x-ratelimit-remaining", "40")]));
    let foreign = || shaper.quotas.get("q").unwrap().quota.report().foreign_usage;
    let error = || shaper.quotas.get("q").unwrap().quota.report().model_error;
    assert_eq!((foreign(), error()), (59, Some(59)));
    let refusal = shaper.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after > s(30), "{refusal:?}");
    tokio::time::advance(s(130)).await;
    assert_eq!((foreign(), error()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn what_a_429_taught_is_shown_with_the_line_that_would_keep_it_until_it_is_forgotten() {
    let metrics = Metrics::new().unwrap();
    let before = config("limit: 200/min, share: 1/2", &[""], "");
    let shaper = Arc::new(Shaper::begin(&before, &metrics, None));
    tokio::time::advance(s(200)).await;
    let mut last = departed(&shaper).await;
    for _ in 0..9 {
        last = departed(&shaper).await;
    }
    last.throttled(Some(s(1)), &HeaderMap::new(), Instant::now() + s(30));
    let learnt = |shaper: &Shaper| shaper.report(&before)[0].learnt.clone();
    tokio::time::advance(s(7)).await;
    let one = learnt(&shaper);
    assert_eq!((one.len(), &*one[0].config, one[0].for_seconds), (1, "quotas.q.burst: 24", 7));
    let counted = metrics.upstream_throttled.with_label_values(&["q", "smaller_burst"]).get();
    assert_eq!(counted, 1);
    // An equal quota keeps it over a reload, and a changed one has not deserved it.
    let same = shaper.renewed(&before, &before, &metrics);
    assert_eq!(learnt(&same), one);
    assert!(shaper.forget("q"));
    assert!(learnt(&shaper).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_lower_than_configured_is_kept_to_and_told_with_the_share_that_it_is() {
    let before = config("limit: 200/min, share: 1/2", &[""], "");
    let shaper = shaper_of(&before);
    let told = |shaper: &Shaper| {
        let quota = shaper.report(&before)[0].clone();
        assert_eq!((quota.limit, quota.share), (200, 0.5), "as it is configured");
        quota.learnt.first().map(|one| one.config.clone())
    };
    let interval = || shaper.quotas.get("q").unwrap().quota.interval();
    let configured = interval();
    tokio::time::advance(s(200)).await;
    for share in ["1/2", "0.425", "0.360"] {
        departed(&shaper).await.throttled(Some(s(1)), &HeaderMap::new(), Instant::now() + s(30));
        assert_eq!(told(&shaper), Some(format!("quotas.q.share: {share}")));
        tokio::time::advance(s(200)).await;
        departed(&shaper).await.answered(&HeaderMap::new());
        tokio::time::advance(s(100)).await;
    }
    assert!(interval() > configured.mul_f64(1.35), "{:?}", interval());
    tokio::time::advance(s(301)).await;
    departed(&shaper).await.answered(&HeaderMap::new());
    assert_eq!(told(&shaper), Some("quotas.q.share: 0.385".to_owned()), "a little more is tried");
    assert!(shaper.forget("q"));
    assert_eq!((told(&shaper), interval()), (None, configured));
}

#[tokio::test(start_paused = true)]
async fn how_long_a_quota_is_nearly_used_up_is_counted_once_whoever_asks() {
    let (metrics, config) = (Metrics::new().unwrap(), config("limit: 61/min", &[""], ""));
    let shaper = Arc::new(Shaper::begin(&config, &metrics, None));
    for _ in 0..90 {
        departed(&shaper).await.answered(&HeaderMap::new());
        shaper.observe();
    }
    let told = || shaper.report(&config)[0].near_limit_seconds;
    let counted = || metrics.quotas.near_limit.with_label_values(&["q"]).get();
    // A call a second: the fifty-fifth is nine tenths.
    assert!((30.0..40.0).contains(&told()), "{}", told());
    assert_eq!(told(), counted());
    tokio::time::advance(s(130)).await;
    let all = told();
    assert!((35.0..50.0).contains(&all), "until the first of them are a minute old: {all}");
    tokio::time::advance(s(600)).await;
    assert_eq!([told(), counted()], [all; 2]);
    assert!(metrics.render().unwrap().contains("quota_near_limit_seconds_total{quota=\"q\"}"));
}
