//! Tenants: whose fault a refusal is, and the bounds of their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{call, config, config_of, keyed, s, settle, shaper, shaper_of};
use crate::config::model;
use crate::shaping::Shaper;
use crate::telemetry::Metrics;

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
async fn a_tenants_own_bound_holds_it_back_and_nobody_else() {
    let shaper = shaper_of(&config("limit: 600/min", &["", ", limit: 61/min"], ""));
    let mut calls = JoinSet::new();
    for tenant in [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0] {
        calls.spawn(call(Arc::clone(&shaper), tenant));
        settle().await;
    }
    let mut left: Vec<_> = calls.join_all().await.into_iter().map(Result::unwrap).collect();
    left.sort_unstable();
    let free = left.iter().filter(|(_, tenant)| *tenant == 0).map(|(at, _)| *at).max().unwrap();
    assert!(free < s(2), "those without a bound do not wait for it: {left:?}");
    // A fifth of the bound at once as far as the quota lets it, then one a second.
    let bounded = left.iter().filter(|(_, tenant)| *tenant == 1).map(|(at, _)| *at).max().unwrap();
    assert!((s(2)..s(4)).contains(&bounded), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_over_its_own_bound_is_told_so_and_when_there_is_room() {
    let shaper = shaper_of(&config("limit: 6000/min", &["", ", limit: 10/min"], ""));
    let deadline = || Instant::now() + s(20);
    let mut calls = JoinSet::new();
    let mut refused = Vec::new();
    for _ in 0..20 {
        match shaper.admit(Some("q"), 1, deadline()) {
            Ok(_) => {
                calls.spawn(call(Arc::clone(&shaper), 1));
                settle().await;
            }
            Err(refusal) => refused.push(refusal),
        }
    }
    assert!(refused.len() > 10, "{}", refused.len());
    let refusal = refused.first().unwrap();
    assert!(
        refusal.tenants_fault && !refusal.full,
        "its own limit, and not the queue: {refusal:?}"
    );
    assert!(shaper.admit(Some("q"), 0, deadline()).is_ok(), "the quota has room");
    let told = Instant::now() + refusal.retry_after;
    while calls.join_next().await.is_some() {}
    tokio::time::sleep_until(told).await;
    let mut place = shaper.admit(Some("q"), 1, deadline()).unwrap();
    place.ready(deadline()).await.unwrap();
    assert!(Instant::now() - told < Duration::from_millis(50), "it leaves when it was told");
}

#[tokio::test(start_paused = true)]
async fn who_is_displaced_by_another_tenant_is_told_at_once_and_not_at_its_deadline() {
    let shaper = shaper();
    let mut flood = JoinSet::new();
    for _ in 0..40 {
        let shaper = Arc::clone(&shaper);
        flood.spawn(async move {
            let began = Instant::now();
            let outcome = call(shaper, 0).await;
            (began.elapsed(), outcome)
        });
        settle().await;
    }
    // Twenty-five are let in, for as many seconds. Then another tenant asks for half of them.
    let mut other = JoinSet::new();
    for _ in 0..10 {
        other.spawn(call(Arc::clone(&shaper), 1));
        settle().await;
    }
    let (mut left, mut displaced) = (0, 0);
    while let Some(ended) = flood.join_next().await {
        match ended.unwrap() {
            (_, Ok(_)) => left += 1,
            (waited, Err(refusal)) => {
                assert!(waited < s(1), "told after {waited:?}");
                displaced += usize::from(refusal.tenants_fault);
            }
        }
    }
    assert_eq!(other.join_all().await.into_iter().filter(Result::is_ok).count(), 10);
    assert_eq!((left, displaced), (15, 10));
}

#[tokio::test(start_paused = true)]
async fn a_tenants_own_bound_that_changes_counts_what_was_sent() {
    let before = config("limit: 6000/min", &[", limit: 200/min"], "");
    let shaper = shaper_of(&before);
    for _ in 0..40 {
        call(Arc::clone(&shaper), 0).await.unwrap();
    }
    let after = config("limit: 6000/min", &[", limit: 40/min"], "");
    let renewed = shaper.renewed(&before, &after, &Metrics::new().unwrap());
    let refusal = renewed.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after > s(40), "{refusal:?}");
}

/// What is older than a window counts under no bound of ours.
#[tokio::test(start_paused = true)]
async fn a_tenants_own_bound_that_is_lowered_looks_back_a_window_and_no_more() {
    let before = config("limit: 6000/min", &[", limit: 200/min"], "");
    let shaper = shaper_of(&before);
    for _ in 0..500 {
        call(Arc::clone(&shaper), 0).await.unwrap();
    }
    let after = config("limit: 6000/min", &[", limit: 100/min"], "");
    let renewed = shaper.renewed(&before, &after, &Metrics::new().unwrap());
    let refusal = renewed.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!((s(28)..=s(60)).contains(&refusal.retry_after), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_tenants_own_bound_holds_also_where_its_calls_come_to_another_quota() {
    let of = |quota: &str| {
        let mut config = config_of("fast: {limit: 6000/min}, quick: {limit: 6000/min}", quota);
        let tenant = config.tenants.first_mut().unwrap();
        tenant.limit = Some(model::Rate { calls: 40, per: s(60) });
        config
    };
    let (before, after) = (of("fast"), of("quick"));
    let metrics = Metrics::new().unwrap();
    let first = Arc::new(Shaper::begin(&before, &metrics, None));
    let began = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..20 {
        calls.spawn(keyed(Arc::clone(&first)));
        tokio::time::advance(s(1)).await;
    }
    let second = Arc::new(first.renewed(&before, &after, &metrics));
    for _ in 0..60 {
        calls.spawn(keyed(Arc::clone(&second)));
        settle().await;
    }
    let left = calls.join_all().await;
    let within = left.iter().filter(|left| left.is_ok_and(|at| at <= began + s(60)));
    assert!((30..=40).contains(&within.count()), "{left:?}");
}
