//! Calls that are not held back, and what is told of them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, call, config, departed, placed, s, settle, shaper_of};
use crate::shaping::Shaper;
use crate::telemetry::Metrics;

/// Calls of two tenants, the gaps between them drawn from so many milliseconds: what becomes of each,
/// in numbers: at once, later, refused.
async fn fates(shaper: &Arc<Shaper>, seed: u64, gap_max: u64) -> [u64; 3] {
    let mut state = seed;
    let mut draw = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut calls = JoinSet::new();
    for _ in 0..400 {
        let (gap, tenant) = (draw(gap_max), usize::from(draw(3) == 0));
        let deadline = Instant::now() + Duration::from_millis(gap + 2_000 + draw(25_000));
        tokio::time::sleep(Duration::from_millis(gap)).await;
        let shaper = Arc::clone(shaper);
        calls.spawn(async move {
            let mut place = shaper.admit(Some("q"), tenant, deadline)?;
            place.ready(deadline).await?;
            place.depart(deadline, anyway).await.map(|(permit, ())| permit.waited)
        });
        settle().await;
    }
    let mut fates = [0; 3];
    for fate in calls.join_all().await {
        match fate {
            Ok(waited) if waited < Duration::from_millis(2) => fates[0] += 1,
            Ok(_) => fates[1] += 1,
            Err(_) => fates[2] += 1,
        }
    }
    fates
}

#[tokio::test(start_paused = true)]
async fn in_shadow_nobody_waits_and_what_is_told_is_what_becomes_of_the_same_calls_when_they_do() {
    let tenants = ["", ", weight: 2, limit: 25/min"];
    for (seed, gap_max) in [(1, 300), (2, 700), (3, 1500), (4, 1900), (5, 100)] {
        let kept = shaper_of(&config("limit: 61/min", &tenants, ""));
        let truth = fates(&kept, seed, gap_max).await;
        let shadowed = config("limit: 61/min", &tenants, "shaping: {shadow: true}\n");
        let shaper = shaper_of(&shadowed);
        assert_eq!(fates(&shaper, seed, gap_max).await, [400, 0, 0], "nobody is held");
        tokio::time::advance(s(60)).await;
        let told = shaper.report(&shadowed)[0].shadow.clone().unwrap();
        let told = [told.at_once, told.would_wait, told.would_refuse];
        assert_eq!(told.iter().sum::<u64>(), 400);
        // A timer is a millisecond late, and that may be one too many for somebody: one in a hundred.
        let off = told.iter().zip(&truth).map(|(told, true_one)| told.abs_diff(*true_one)).max();
        assert!(off <= Some(4), "{seed}: told {told:?}, in truth {truth:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn shadow_comes_and_goes_with_a_reload_and_the_schedule_stays() {
    let metrics = Metrics::new().unwrap();
    let kept = config("limit: 61/min", &[""], "");
    let shadowed = config("limit: 61/min", &[""], "shaping: {shadow: true}\n");
    let first = Arc::new(Shaper::begin(&kept, &metrics, None));
    call(Arc::clone(&first), 0).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(call(Arc::clone(&first), 0));
    }
    settle().await;
    let second = Arc::new(first.renewed(&kept, &shadowed, &metrics));
    let began = Instant::now();
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    for _ in 0..70 {
        call(Arc::clone(&second), 0).await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "nobody waits any more");
    let told = second.report(&shadowed)[0].clone();
    assert_eq!((told.used, told.shadow.unwrap().would_refuse > 40), (76, true));
    // A pause is told of, and nobody waits for its end; nor is the call that met it sent again.
    let mut place = placed(&second).await;
    let _sent = place.depart(began + s(30), anyway).await.unwrap();
    let throttled = place.throttled(Some(s(1)), &HeaderMap::new(), began + s(30));
    assert_eq!(throttled, Some((s(2), false)));
    call(Arc::clone(&second), 0).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
    let told = second.report(&shadowed)[0].clone();
    assert_eq!((told.paused_for_seconds, told.throttled, told.learnt.len()), (Some(2), 1, 0));
    assert_eq!(told.throttles(), "1 (1 ours)");
    // Kept again: all of it counts.
    let third = Arc::new(second.renewed(&shadowed, &kept, &metrics));
    let told = third.report(&kept)[0].clone();
    assert_eq!((told.used, told.shadow.is_none()), (78, true));
    let refusal = third.admit(Some("q"), 0, began + s(25)).unwrap_err();
    // 78 calls of a second and a little, all of them within the last minute.
    assert!((s(70)..s(85)).contains(&refusal.retry_after), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_in_shadow_is_owed_for_two_windows_and_no_longer() {
    let metrics = Metrics::new().unwrap();
    let kept = config("limit: 61/min", &[""], "");
    let shadowed = config("limit: 61/min", &[""], "shaping: {shadow: true}\n");
    let shaper = Arc::new(Shaper::begin(&shadowed, &metrics, None));
    // A fifth more than the limit, for an hour.
    for _ in 0..3600 * 6 / 5 {
        call(Arc::clone(&shaper), 0).await.unwrap();
        tokio::time::advance(Duration::from_secs(5) / 6).await;
    }
    let third = Arc::new(shaper.renewed(&shadowed, &kept, &metrics));
    let refusal = third.admit(Some("q"), 0, Instant::now() + s(10)).unwrap_err();
    assert!((s(20)..s(30)).contains(&refusal.retry_after), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_leaves_is_no_call_in_shadow_and_nothing_is_counted_twice() {
    let shadowed = config("limit: 61/min", &[""], "shaping: {shadow: true}\n");
    let shaper = shaper_of(&shadowed);
    let counts = || {
        let told = shaper.report(&shadowed)[0].shadow.clone().unwrap();
        [told.at_once, told.would_wait, told.would_refuse, told.waiting as u64]
    };
    // Without a token, or without a connection.
    for _ in 0..100 {
        drop(placed(&shaper).await);
        placed(&shaper).await.ready(Instant::now() + s(30)).await.unwrap();
    }
    for _ in 0..30 {
        let own = shaper.own_call(Some("q"), Instant::now()).await.unwrap().unwrap();
        own.give_back();
    }
    assert_eq!(counts(), [0; 4]);
    // A key that came late asks for a second place.
    drop(placed(&shaper).await);
    let mut place = departed(&shaper).await;
    assert_eq!(counts(), [1, 0, 0, 0]);
    // It is sent again: no other call, and room for one less.
    let _sent = place.depart(Instant::now() + s(30), anyway).await.unwrap();
    let own = shaper.own_call(Some("q"), Instant::now()).await.unwrap().unwrap();
    own.answered();
    assert_eq!(counts(), [1, 0, 0, 0]);
    let _next = departed(&shaper).await;
    assert_eq!(counts(), [1, 0, 0, 1]);
    tokio::time::advance(s(4)).await;
    assert_eq!(counts(), [1, 1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_when_shadow_comes_are_counted_too() {
    let metrics = Metrics::new().unwrap();
    let kept = config("limit: 61/min", &[""], "");
    let shadowed = config("limit: 61/min", &[""], "shaping: {shadow: true}\n");
    let first = Arc::new(Shaper::begin(&kept, &metrics, None));
    call(Arc::clone(&first), 0).await.unwrap();
    let mut waiting = JoinSet::new();
    for _ in 0..5 {
        waiting.spawn(call(Arc::clone(&first), 0));
    }
    settle().await;
    let second = Arc::new(first.renewed(&kept, &shadowed, &metrics));
    assert!(waiting.join_all().await.iter().all(Result::is_ok));
    tokio::time::advance(s(30)).await;
    let told = second.report(&shadowed)[0].shadow.clone().unwrap();
    assert_eq!((told.at_once, told.would_wait, told.would_refuse), (0, 5, 0));
}
