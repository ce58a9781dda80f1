//! Keys that come to draw from another quota.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{anyway, config_of, keyed, keyed_with, s, settle};
use crate::credential::KeyPrint;
use crate::secret::SecretValue;
use crate::shaping::{Place, Shaper};
use crate::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn a_key_that_moves_to_another_quota_takes_along_what_it_sent_and_who_waits() {
    let starter = "starter: {limit: 100/min}";
    for (quotas, limit) in [
        ("plan: {limit: 100/min}", 100),
        ("starter: {limit: 100/min}, plan: {limit: 100/min}", 100),
        ("starter: {limit: 100/min}, plan: {limit: 200/min}", 200),
        ("starter: {limit: 100/min}, plan: {limit: 50/min}", 100),
    ] {
        let metrics = Metrics::new().unwrap();
        // The other quota is there before, or it comes with the reload.
        let there = if quotas.starts_with("plan") { starter } else { quotas };
        let before = config_of(there, "starter");
        let first = Arc::new(Shaper::begin(&before, &metrics, None));
        tokio::time::advance(s(200)).await;
        let mut calls = JoinSet::new();
        for _ in 0..300 {
            calls.spawn(keyed(Arc::clone(&first)));
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        settle().await;
        let waiting = first.quotas.get("starter").unwrap().quota.report().waiting;
        assert!(waiting[0].calls > 30, "{waiting:?}");
        let after = config_of(quotas, "plan");
        let second = Arc::new(first.renewed(&before, &after, &metrics));
        for _ in 0..600 {
            calls.spawn(keyed(Arc::clone(&second)));
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        let left = calls.join_all().await;
        let mut left: Vec<_> = left.into_iter().filter_map(Result::ok).collect();
        left.sort_unstable();
        let most = (0..left.len()).map(|at| {
            left.iter().filter(|one| (left[at]..=left[at] + s(60)).contains(one)).count()
        });
        let most = most.max().unwrap();
        assert!((limit * 9 / 10..=limit).contains(&most), "{most} in a minute: {quotas}");
    }
}

/// As after a 401, when the key was replaced.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_sent_again_with_another_key_of_the_same_quota_keeps_its_place() {
    let shaper =
        Shaper::begin(&config_of("q: {limit: 61/min}", "q"), &Metrics::new().unwrap(), None);
    let deadline = Instant::now() + s(30);
    let enter = |key: &'static str, held| {
        let key = move |_| KeyPrint::new("", &SecretValue::new(key.into()));
        shaper.enter_with(key, (0, 0), deadline, held)
    };
    let mut first = enter("old", None).unwrap();
    drop(first.depart(deadline, anyway).await.unwrap());
    let mut place = enter("old", None).unwrap();
    drop(place.depart(deadline, anyway).await.unwrap());
    let (waited, later) = (place.waited(), enter("new", None).unwrap());
    assert!(waited > Duration::from_millis(900), "{waited:?}");
    let place = enter("new", Some(place)).unwrap();
    assert_eq!(place.waited(), waited);
    let ticket = |place: &Place| place.0.as_ref().unwrap().ticket;
    assert!(ticket(&place) < ticket(&later), "it stands where it stood");
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_comes_back_with_another_key_draws_from_its_own_quota_again() {
    let metrics = Metrics::new().unwrap();
    let quotas = "starter: {limit: 100/min}, plan: {limit: 100/min}";
    let [starter, plan] = ["starter", "plan"].map(|quota| config_of(quotas, quota));
    let first = Shaper::begin(&starter, &metrics, None);
    keyed_with(&first, "old").await.unwrap();
    let second = first.renewed(&starter, &plan, &metrics);
    keyed_with(&second, "old").await.unwrap();
    let third = second.renewed(&plan, &starter, &metrics);
    tokio::time::advance(s(200)).await;
    keyed_with(&third, "new").await.unwrap();
    let used = ["starter", "plan"].map(|name| third.quotas.get(name).unwrap().quota.report().used);
    assert_eq!(used, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn calls_that_wait_keep_their_order_however_often_their_key_moves_to_and_fro() {
    let metrics = Metrics::new().unwrap();
    let terms = "{limit: 601/min, cold_start: cautious}";
    let quotas = format!("starter: {terms}, plan: {terms}");
    let configs = ["starter", "plan"].map(|quota| config_of(&quotas, quota));
    let mut shaper = Arc::new(Shaper::begin(&configs[0], &metrics, None));
    let (mut calls, order) = (JoinSet::new(), Arc::new(Mutex::new(Vec::new())));
    for number in 1..=400 {
        if number % 10 == 0 {
            let (shaper, order) = (Arc::clone(&shaper), Arc::clone(&order));
            calls.spawn(async move {
                keyed(shaper).await.unwrap();
                order.lock().push(number);
            });
            settle().await;
        }
        let [from, to] = [number + 1, number].map(|number| &configs[number % 2]);
        shaper = Arc::new(shaper.renewed(from, to, &metrics));
        tokio::task::yield_now().await;
    }
    calls.join_all().await;
    assert_eq!(*order.lock(), (1..=40).map(|ten| ten * 10).collect::<Vec<_>>());
}

/// As after a 401, when the key that another credential holds was put in the place of the first.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_sent_again_with_a_key_of_another_quota_stands_before_later_ones() {
    let mut config = config_of("plan: {limit: 100/min}, starter: {limit: 61/min}", "plan");
    let mut other = config.credentials.first().unwrap().clone();
    (other.name, other.quota) = ("b".into(), Some("starter".into()));
    config.credentials.push(other);
    let shaper = Shaper::begin(&config, &Metrics::new().unwrap(), None);
    let deadline = Instant::now() + s(30);
    let enter = |own: &'static str, credential, held| {
        let key = move |index| {
            let key = if index == 0 { own } else { "b's" };
            KeyPrint::new("", &SecretValue::new(key.into()))
        };
        shaper.enter_with(key, (credential, 0), deadline, held)
    };
    let mut place = enter("a's", 0, None).unwrap();
    drop(place.depart(deadline, anyway).await.unwrap());
    let later = enter("a's", 1, None).unwrap();
    let quota = |place: &Place| Arc::clone(&place.0.as_ref().unwrap().quota);
    assert!(!Arc::ptr_eq(&quota(&place), &quota(&later)));
    let place = enter("b's", 0, Some(place)).unwrap();
    assert!(Arc::ptr_eq(&quota(&place), &quota(&later)));
    let ticket = |place: &Place| place.0.as_ref().unwrap().ticket;
    assert!(ticket(&place) < ticket(&later));
}
