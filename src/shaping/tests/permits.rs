//! Permits: taken, held up on their way, and given back.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, call, config, departed, placed, s, shaper, shaper_of};
use crate::shaping::{Refusal, Shaper};
use crate::telemetry::Metrics;

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
    let _sent = late.depart(deadline, anyway).await.unwrap();
    assert!(before.elapsed() > Duration::from_millis(900), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_any_more_when_its_turn_comes_is_charged_nothing() {
    let (metrics, config) = (Metrics::new().unwrap(), config("limit: 61/min", &[""], ""));
    let shaper = Arc::new(Shaper::begin(&config, &metrics, None));
    departed(&shaper).await.answered(&HeaderMap::new());
    let (began, ends) = (Instant::now(), Instant::now() + Duration::from_millis(500));
    let refusal = Refusal { retry_after: s(7), full: false, tenants_fault: false };
    let mut late = placed(&shaper).await;
    let left = late.depart(began + s(30), || (Instant::now() < ends).then_some(()).ok_or(refusal));
    assert_eq!(left.await.map(drop), Err(refusal));
    assert!(began.elapsed() > Duration::from_millis(900), "its turn: {:?}", began.elapsed());
    drop(late);
    let told = shaper.report(&config)[0].clone();
    assert_eq!((told.used, metrics.quota_sent.with_label_values(&["q"]).get()), (1, 1));
    let next = Instant::now();
    departed(&shaper).await.answered(&HeaderMap::new());
    assert_eq!(next.elapsed(), Duration::ZERO, "its turn is the next one's");
}

/// Calls at one instant, each of which needs a connection that takes so long to set up: when each
/// left, or that it was refused.
async fn connecting(limit: &str, calls: usize, set_up: Duration) -> Vec<Result<Duration, Refusal>> {
    let shaper = shaper_of(&config(limit, &[""], ""));
    // No state file: bursts are allowed once a window went by.
    tokio::time::advance(s(61)).await;
    let (began, mut all) = (Instant::now(), JoinSet::new());
    for _ in 0..calls {
        let shaper = Arc::clone(&shaper);
        all.spawn(async move {
            let deadline = began + s(30);
            let mut place = shaper.admit(Some("q"), 0, deadline)?;
            place.ready(deadline).await?;
            tokio::time::sleep(set_up).await;
            Ok(place.depart(deadline, anyway).await?.0.departed_at - began)
        });
    }
    all.join_all().await
}

#[tokio::test(start_paused = true)]
async fn a_burst_whose_connections_take_long_leaves_as_soon_as_they_are_there() {
    let (set_up, soon) = (Duration::from_millis(200), Duration::from_millis(210));
    let left = connecting("limit: 100/min", 20, set_up).await;
    assert!(left.iter().all(|left| left.is_ok_and(|left| left <= soon)), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn nobody_who_was_let_in_is_refused_because_connections_take_long() {
    for set_up in [0, 200, 1500].map(Duration::from_millis) {
        let left = connecting("limit: 1000/min", 500, set_up).await;
        assert_eq!(left.iter().filter(|left| left.is_err()).count(), 0, "{set_up:?}");
    }
}

/// Others have taken its place in the queue by then.
#[tokio::test(start_paused = true)]
async fn nobody_who_had_a_turn_is_refused_for_a_full_queue_because_a_connection_takes_long() {
    let shaper = shaper_of(&config("limit: 61/min", &[""], "shaping: {queue: 2}\n"));
    let mut calls = JoinSet::new();
    for _ in 0..60 {
        let (shaper, deadline) = (Arc::clone(&shaper), Instant::now() + s(30));
        calls.spawn(async move {
            let mut place = shaper.admit(Some("q"), 0, deadline).ok()?;
            let left = async {
                place.ready(deadline).await?;
                tokio::time::sleep(Duration::from_millis(40)).await;
                place.depart(deadline, anyway).await.map(drop)
            };
            Some(left.await)
        });
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let let_in: Vec<_> = calls.join_all().await.into_iter().flatten().collect();
    assert!((15..30).contains(&let_in.len()), "{}", let_in.len());
    assert!(let_in.iter().all(Result::is_ok), "{let_in:?}");
}

#[tokio::test(start_paused = true)]
async fn permits_that_were_not_used_are_there_for_the_next_whatever_their_order() {
    let shaper = shaper_of(&config("limit: 100/min", &[""], ""));
    tokio::time::advance(s(61)).await;
    let deadline = Instant::now() + s(30);
    let mut ready = Vec::new();
    for _ in 0..20 {
        let mut place = placed(&shaper).await;
        place.ready(deadline).await.unwrap();
        ready.push(place);
    }
    // No connection could be had, or their callers left: the first in line first.
    ready.into_iter().for_each(drop);
    let began = Instant::now();
    for _ in 0..20 {
        call(Arc::clone(&shaper), 0).await.unwrap();
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
}
