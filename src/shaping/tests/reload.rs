//! A changed configuration: nobody who waits is lost, and what was sent counts.

use std::sync::Arc;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, call, config, placed, s, settle, shaper_of};
use crate::shaping::Shaper;
use crate::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_schedule_of_an_equal_quota() {
    let metrics = Metrics::new().unwrap();
    let before = config("limit: 60/min", &[""], "");
    let shaper = Arc::new(Shaper::begin(&before, &metrics, None));
    let known = |shaper: &Shaper| Arc::clone(&shaper.quotas.get("q").unwrap().quota);
    call(Arc::clone(&shaper), 0).await.unwrap();
    for (tenants, more) in [
        (&[""][..], ""),
        (&["", ", weight: 3, limit: 10/min"][..], ""),
        (&[""][..], "shaping: {max_wait: 3s, queue: 5}\n"),
    ] {
        let same = shaper.renewed(&before, &config("limit: 60/min", tenants, more), &metrics);
        assert!(Arc::ptr_eq(&known(&shaper), &known(&same)), "{tenants:?} {more}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_loses_nobody_who_waits_and_new_weights_count_from_then_on() {
    let metrics = Metrics::new().unwrap();
    let before = config("limit: 61/min", &["", ""], "");
    let first = Arc::new(Shaper::begin(&before, &metrics, None));
    let mut calls = JoinSet::new();
    call(Arc::clone(&first), 0).await.unwrap();
    for tenant in [0, 0, 0, 0] {
        calls.spawn(call(Arc::clone(&first), tenant));
        settle().await;
    }
    // The first tenant is gone, and the second has three turns to a third one's one.
    let mut after = config("limit: 61/min", &["", ", weight: 3", ""], "");
    after.tenants.remove(0);
    let second = Arc::new(first.renewed(&before, &after, &metrics));
    for tenant in [1, 1, 0, 0, 0] {
        let second = Arc::clone(&second);
        calls.spawn(async move {
            let (at, tenant) = call(second, tenant).await?;
            Ok((at, tenant + 1))
        });
        settle().await;
    }
    let mut left: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    left.sort_unstable();
    let tenants: Vec<_> = left.iter().map(|(_, tenant)| *tenant).collect();
    assert_eq!(tenants, [0, 2, 1, 1, 1, 0, 2, 0, 0]);
    drop((first, before));
    let third = second.renewed(&after, &after, &metrics);
    assert_eq!(third.quotas.get("q").unwrap().lines.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_end_the_upstreams_pause() {
    let (metrics, before) = (Metrics::new().unwrap(), config("limit: 600/min", &[""], ""));
    let shaper = Shaper::begin(&before, &metrics, None);
    let mut place = placed(&shaper).await;
    let _sent = place.depart(Instant::now() + s(30), anyway).await.unwrap();
    place.throttled(Some(s(60)), &HeaderMap::new(), Instant::now() + s(30));
    let renewed = shaper.renewed(&before, &config("limit: 700/min", &[""], ""), &metrics);
    let refusal = renewed.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after >= s(60), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_quota_goes_on_with_what_was_sent() {
    let before = config("limit: 600/min", &[""], "");
    for (changed, waits) in [
        ("limit: 1200/min", 2..6),  // the same calls are half the debt
        ("limit: 60/min", 95..122), // more than was ever allowed: all is waited out
        ("limit: 600/min, tick: 1s", 5..13),
    ] {
        let shaper = shaper_of(&before);
        tokio::time::advance(s(200)).await;
        let began = Instant::now();
        for _ in 0..100 {
            call(Arc::clone(&shaper), 0).await.unwrap();
        }
        assert!(began.elapsed() < s(1), "a burst: {:?}", began.elapsed());
        let after = config(changed, &[""], "");
        let renewed = shaper.renewed(&before, &after, &Metrics::new().unwrap());
        let clear_at = renewed.quotas.get("q").unwrap().quota.history().marks.clear_at;
        let rest = clear_at.saturating_sub(Instant::now() - renewed.began_at);
        assert!(waits.contains(&rest.as_secs()), "{changed}: {rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_as_a_quota_changes_leave_by_its_new_terms_and_in_their_order() {
    let before = config("limit: 61/min", &[""], "");
    let shaper = shaper_of(&before);
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        calls.spawn(call(Arc::clone(&shaper), 0));
    }
    settle().await;
    let after = config("limit: 6000/min", &[""], "");
    let renewed = Arc::new(shaper.renewed(&before, &after, &Metrics::new().unwrap()));
    calls.spawn(call(renewed, 0));
    let left = calls.join_all().await;
    assert!(left.into_iter().all(|left| left.unwrap().0 < s(1)), "the new limit is generous");
}

#[tokio::test(start_paused = true)]
async fn gauges_of_what_is_no_longer_configured_are_gone() {
    let metrics = Metrics::new().unwrap();
    let before = config("limit: 61/min", &["", ""], "");
    let shaper = Arc::new(Shaper::begin(&before, &metrics, None));
    let mut calls = JoinSet::new();
    for tenant in [0, 0, 1] {
        calls.spawn(call(Arc::clone(&shaper), tenant));
        settle().await;
    }
    shaper.observe();
    drop(calls.join_all().await);
    let gauge = |text: &str| {
        let all = metrics.render().unwrap();
        all.lines().any(|line| line.starts_with(&format!("datapulse_sidecar_{text}")))
    };
    let tenants = [0, 1].map(|tenant| format!("queue_waiting{{quota=\"q\",tenant=\"t{tenant}\"}}"));
    assert!(tenants.iter().all(|tenant| gauge(tenant)));
    let after = config("limit: 61/min", &[""], "");
    Shaper::forget_gauges(&before, &after, &metrics);
    assert_eq!([gauge(&tenants[0]), gauge(&tenants[1])], [true, false]);
    assert!(gauge("quota_limit{quota=\"q\"}"));
    Shaper::forget_gauges(&after, &config("limit: unlimited", &[""], ""), &metrics);
    for name in ["quota_limit", "quota_used_ratio", "queue_depth", "queue_waiting", "quota_lessons"]
    {
        assert!(!gauge(&format!("{name}{{quota=\"q\"")), "{name}");
    }
    assert!(gauge("quota_sent_total{quota=\"q\"} 3"), "counts stay");
}
