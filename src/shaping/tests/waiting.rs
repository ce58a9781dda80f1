//! Calls that wait, leave, or are refused.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, call, config, placed, s, settle, shaper, shaper_of};
use crate::shaping::{Place, Refusal, Shaper};

#[tokio::test(start_paused = true)]
async fn a_call_without_a_quota_never_waits() {
    let mut place = shaper().admit(None, 0, Instant::now()).unwrap();
    place.ready(Instant::now()).await.unwrap();
    assert_eq!(place.depart(Instant::now(), anyway).await.unwrap().0.waited, Duration::ZERO);
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

/// By the real clock, because only that goes on between the turn and the wire.
#[tokio::test]
async fn a_quota_without_spread_lets_calls_leave() {
    let shaper = shaper_of(&config("limit: 600/min, spread: 0s", &[""], ""));
    for _ in 0..3 {
        call(Arc::clone(&shaper), 0).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn max_wait_and_queue_say_how_long_and_how_many_wait() {
    let shaper = shaper_of(&config("limit: 61/min", &[""], "shaping: {max_wait: 5s}\n"));
    let patient = Instant::now() + s(600);
    let mut waiting = JoinSet::new();
    let mut places = Vec::new();
    for _ in 0..8 {
        let Ok(mut place) = shaper.admit(Some("q"), 0, patient) else { continue };
        places.push(());
        waiting.spawn(async move { place.ready(patient).await.map(|()| place) });
        settle().await;
    }
    assert_eq!(places.len(), 5, "at once, and one a second and a little");
    let shaper = shaper_of(&config("limit: 61/min", &[""], "shaping: {queue: 2}\n"));
    for _ in 0..8 {
        waiting.spawn(hold(Arc::clone(&shaper), 0));
        settle().await;
    }
    let refusal = shaper.admit(Some("q"), 0, patient).unwrap_err();
    assert!(refusal.full && !refusal.tenants_fault, "{refusal:?}");
    waiting.shutdown().await;
}

/// A call that waits, and then does not send for a day.
async fn hold(shaper: Arc<Shaper>, tenant: usize) -> Result<Place, Refusal> {
    let mut place = shaper.admit(Some("q"), tenant, Instant::now() + s(600))?;
    place.ready(Instant::now() + s(600)).await?;
    tokio::time::sleep(s(86_400)).await;
    Ok(place)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_wait_in_order_and_not_one_more() {
    let more = "shaping: {max_wait: 700s, queue: 10000}\n";
    let shaper = shaper_of(&config("limit: 1001/min", &[""], more));
    let patient = Instant::now() + s(700);
    let (mut waiting, left) = (JoinSet::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 0..10_001 {
        let (shaper, left) = (Arc::clone(&shaper), Arc::clone(&left));
        waiting.spawn(async move {
            let mut place = shaper.admit(Some("q"), 0, patient).unwrap();
            place.ready(patient).await.unwrap();
            let _sent = place.depart(patient, anyway).await.unwrap();
            left.lock().push(number);
        });
        tokio::task::yield_now().await;
    }
    settle().await;
    assert!(shaper.admit(Some("q"), 0, patient).is_err_and(|refusal| refusal.full));
    waiting.join_all().await;
    let left = std::mem::take(&mut *left.lock());
    assert!(left.is_sorted() && left.len() == 10_001, "{} left", left.len());
}

/// Neither the time upstream of an attempt before, nor that of an upload.
#[tokio::test(start_paused = true)]
async fn a_wait_is_what_was_spent_in_the_queue_alone() {
    let shaper = shaper();
    let deadline = Instant::now() + s(30);
    let mut place = placed(&shaper).await;
    place.ready(deadline).await.unwrap();
    assert_eq!(place.depart(deadline, anyway).await.unwrap().0.waited, Duration::ZERO);
    // The upstream takes its time over an answer that asks for another attempt.
    tokio::time::advance(s(10)).await;
    assert_eq!(place.depart(deadline, anyway).await.unwrap().0.waited, Duration::ZERO);
    let third = place.depart(deadline, anyway).await.unwrap().0.waited;
    assert!(third > Duration::from_millis(900) && third < s(2), "{third:?}");
}
