//! The shaper under a paused clock: waiting, leaving, being refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Place, Refusal, Shaper, build};
use crate::config::model::{Quota, Rate};
use crate::telemetry::Metrics;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One quota, `q`, of 61 a minute (a call a second and a little), for two tenants.
fn shaper() -> Arc<Shaper> {
    let quota = Quota {
        limit: Some(Rate { calls: 61, per: s(60) }),
        share: 1.0,
        also: None,
        spread: Duration::from_millis(250),
        tick: Duration::ZERO,
        burst: None,
        cautious: false,
    };
    let shaped = build("q", &quota, &[1, 1], &Metrics::new().unwrap()).unwrap();
    Arc::new(Shaper { quotas: [("q".to_owned(), shaped)].into() })
}

/// A call that is sent as soon as it may: when, and for which tenant.
async fn call(shaper: Arc<Shaper>, tenant: usize) -> Result<(Duration, usize), Refusal> {
    let (began, deadline) = (Instant::now(), Instant::now() + s(30));
    let mut place = shaper.admit(Some("q"), tenant, deadline)?;
    place.ready(deadline).await?;
    let permit = place.depart(deadline).await?;
    place.answered();
    Ok((permit.departed_at - began, tenant))
}

async fn placed(shaper: &Shaper) -> Place {
    shaper.admit(Some("q"), 0, Instant::now() + s(30)).unwrap()
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_quota_never_waits() {
    let mut place = shaper().admit(None, 0, Instant::now()).unwrap();
    place.ready(Instant::now()).await.unwrap();
    assert_eq!(place.depart(Instant::now()).await.unwrap().waited, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn calls_leave_evenly_and_tenants_take_turns() {
    let shaper = shaper();
    let mut calls = JoinSet::new();
    for tenant in [0, 0, 0, 0, 0, 1, 1] {
        calls.spawn(call(Arc::clone(&shaper), tenant));
        settle().await;
    }
    let mut left: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    left.sort_unstable();
    let tenants: Vec<_> = left.iter().map(|(_, tenant)| *tenant).collect();
    assert_eq!(tenants, [0, 0, 1, 0, 1, 0, 0]);
    let gaps: Vec<_> = left.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert!(gaps.iter().all(|gap| *gap > Duration::from_millis(990)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_would_miss_its_deadline_is_refused_on_arrival_and_nobody_later() {
    let shaper = shaper();
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        calls.spawn(call(Arc::clone(&shaper), 0));
    }
    let (mut left, mut refused) = (0, 0);
    let began = Instant::now();
    while let Some(result) = calls.join_next().await {
        match result.unwrap() {
            Ok(_) => left += 1,
            Err(refusal) => {
                assert_eq!(Instant::now(), began, "refused after waiting");
                assert!(refusal.retry_after >= s(24) && !refusal.tenants_fault, "{refusal:?}");
                refused += 1;
            }
        }
    }
    assert_eq!((left, refused), (25, 35));
}

#[tokio::test(start_paused = true)]
async fn a_flooding_tenant_is_told_that_it_is_its_own_fault() {
    let shaper = shaper();
    let mut calls = JoinSet::new();
    for tenant in [0].repeat(20).into_iter().chain([1]) {
        calls.spawn(call(Arc::clone(&shaper), tenant));
        settle().await;
    }
    let refusal = (0..20)
        .find_map(|_| shaper.admit(Some("q"), 0, Instant::now() + s(10)).err())
        .expect("no room within ten seconds");
    assert!(refusal.tenants_fault, "{refusal:?}");
    assert!(shaper.admit(Some("q"), 1, Instant::now() + s(10)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_left_gives_its_place_on() {
    let shaper = shaper();
    let began = Instant::now();
    call(Arc::clone(&shaper), 0).await.unwrap();
    let mut leaving = JoinSet::new();
    for _ in 0..10 {
        leaving.spawn(call(Arc::clone(&shaper), 0));
    }
    settle().await;
    let mut staying = JoinSet::new();
    staying.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    leaving.shutdown().await;
    staying.join_next().await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() < s(2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_place_that_is_dropped_before_the_wire_gives_its_permit_back() {
    let shaper = shaper();
    let began = Instant::now();
    for _ in 0..10 {
        placed(&shaper).await.ready(Instant::now() + s(30)).await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_was_held_up_on_its_way_to_the_wire_is_taken_anew() {
    let shaper = shaper();
    let deadline = Instant::now() + s(30);
    let mut late = placed(&shaper).await;
    late.ready(deadline).await.unwrap();
    tokio::time::advance(s(5)).await;
    call(Arc::clone(&shaper), 0).await.unwrap();
    let before = Instant::now();
    let _sent = late.depart(deadline).await.unwrap();
    assert!(before.elapsed() > Duration::from_millis(900), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_429_holds_the_whole_quota_and_tells_those_who_cannot_wait() {
    let shaper = shaper();
    let deadline = Instant::now() + s(30);
    let mut first = placed(&shaper).await;
    first.ready(deadline).await.unwrap();
    let _sent = first.depart(deadline).await.unwrap();
    let mut patient = JoinSet::new();
    patient.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    let began = Instant::now();
    assert_eq!(first.throttled(Some(s(9)), deadline), Some((s(10), true)));
    patient.join_next().await.unwrap().unwrap().unwrap();
    assert!(began.elapsed() >= s(10));
    let mut waiting = JoinSet::new();
    waiting.spawn(call(Arc::clone(&shaper), 0));
    settle().await;
    let began = Instant::now();
    assert_eq!(first.throttled(Some(s(60)), began + s(30)), Some((s(61), false)));
    let refusal = waiting.join_next().await.unwrap().unwrap().unwrap_err();
    assert_eq!(began.elapsed(), Duration::ZERO, "told at once");
    assert!(refusal.retry_after >= s(61) && !refusal.tenants_fault && !refusal.full);
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_schedule_of_an_equal_quota_and_trusts_no_changed_one() {
    let config = |limit: &str, tenant: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{listen: 'localhost:1'}}]\n\
             quotas: {{q: {{limit: {limit}}}}}\n\
             credentials: [{{name: a, level: admin, quota: q, api_key: 'file:/k'}}]\n\
             tenants: [{{name: {tenant}, credentials: [a], callers: [{{listener: 'localhost:1'}}]}}]\n"
        );
        crate::config::parse(&text, "test", &|_| None).unwrap().0
    };
    let metrics = Metrics::new().unwrap();
    let before = config("60/min", "x");
    let shaper = Shaper::new(&before, &metrics);
    let known = |shaper: &Shaper| Arc::clone(&shaper.quotas.get("q").unwrap().quota);
    let same = shaper.renewed(&before, &config("60/min", "x"), &metrics);
    assert!(Arc::ptr_eq(&known(&shaper), &known(&same)));
    for changed in [config("61/min", "x"), config("60/min", "y")] {
        let renewed = shaper.renewed(&before, &changed, &metrics);
        assert!(!Arc::ptr_eq(&known(&shaper), &known(&renewed)));
        let shaper = Arc::new(renewed);
        let (waited, _) = call(Arc::clone(&shaper), 0).await.unwrap();
        assert!(waited > s(1), "what was sent before is not known: {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_end_the_upstreams_pause() {
    let config = |limit: &str| {
        let text = format!(
            "version: 1\nlisteners: [{{listen: 'localhost:1'}}]\n\
             quotas: {{q: {{limit: {limit}}}}}\n\
             credentials: [{{name: a, level: admin, quota: q, api_key: 'file:/k'}}]\n"
        );
        crate::config::parse(&text, "test", &|_| None).unwrap().0
    };
    let (metrics, before) = (Metrics::new().unwrap(), config("600/min"));
    let shaper = Shaper::new(&before, &metrics);
    let place = shaper.admit(Some("q"), 0, Instant::now() + s(30)).unwrap();
    place.throttled(Some(s(60)), Instant::now() + s(30));
    let renewed = shaper.renewed(&before, &config("700/min"), &metrics);
    let refusal = renewed.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after >= s(60), "{refusal:?}");
}

/// By the real clock, because only that goes on between the turn and the wire.
#[tokio::test]
async fn a_quota_without_spread_lets_calls_leave() {
    let quota = Quota {
        limit: Some(Rate { calls: 600, per: s(60) }),
        share: 1.0,
        also: None,
        spread: Duration::ZERO,
        tick: Duration::ZERO,
        burst: None,
        cautious: false,
    };
    let shaped = build("q", &quota, &[1], &Metrics::new().unwrap()).unwrap();
    let shaper = Arc::new(Shaper { quotas: [("q".to_owned(), shaped)].into() });
    for _ in 0..3 {
        call(Arc::clone(&shaper), 0).await.unwrap();
    }
}
