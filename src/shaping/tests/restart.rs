//! What the state file keeps over a restart.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Machine, STARTER, anyway, call, placed, s, settle};
use crate::config::Config;
use crate::shaping::Shaper;
use crate::shaping::state_file::layout::REGION_BYTES;
use crate::telemetry::Metrics;

#[tokio::test(start_paused = true)]
async fn a_process_that_was_killed_goes_on_where_it_was() {
    let machine = Machine::new();
    let shaper = machine.start(STARTER);
    assert_eq!(Machine::burst(&shaper).await, 12, "a first start");
    drop(shaper);
    let shaper = machine.start(STARTER);
    assert_eq!(Machine::burst(&shaper).await, 0, "the burst is remembered");
    drop(shaper);
    tokio::time::advance(s(130)).await;
    let shaper = machine.start(STARTER);
    assert_eq!(Machine::burst(&shaper).await, 12, "and so is that it is long ago");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_may_take_anothers_place_begins_paced_and_then_goes_on_where_it_was() {
    let (machine, paced) = (Machine::new(), format!("{STARTER}, cold_start: paced"));
    let shaper = machine.start(&paced);
    assert_eq!(Machine::burst(&shaper).await, 1, "a call at once, and no burst");
    tokio::time::advance(s(62)).await;
    assert_eq!(Machine::burst(&shaper).await, 12, "a window later it knows what was sent");
    drop(shaper);
    tokio::time::advance(s(130)).await;
    assert_eq!(Machine::burst(&machine.start(&paced)).await, 12, "it has a file by now");
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_the_process() {
    let machine = Machine::new();
    let shaper = machine.start(STARTER);
    let mut place = placed(&shaper).await;
    let _sent = place.depart(Instant::now() + s(30), anyway).await.unwrap();
    place.throttled(Some(s(60)), &HeaderMap::new(), Instant::now() + s(30));
    drop((place, shaper));
    let shaper = machine.start(STARTER);
    let refusal = shaper.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after >= s(60), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_and_from_a_broken_file_the_worst_is_assumed() {
    let mut machine = Machine::new();
    drop(machine.start(STARTER));
    machine.boot.id = [2; 16];
    let began = Instant::now();
    Machine::burst(&machine.start(STARTER)).await;
    assert!(began.elapsed() > s(12), "a whole burst has to be repaid: {:?}", began.elapsed());
    let path = machine.dir.path().join("schedule");
    let whole = std::fs::read(&path).unwrap();
    for bytes in [&b""[..], &whole[..5000], &[7; REGION_BYTES], &[0; 200_000]] {
        std::fs::write(&path, bytes).unwrap();
        let began = Instant::now();
        Machine::burst(&machine.start(STARTER)).await;
        assert!(began.elapsed() > s(12), "{} bytes: {:?}", bytes.len(), began.elapsed());
        assert_eq!(Machine::burst(&machine.start(STARTER)).await, 0, "it is whole again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_is_not_misread_after_a_restart() {
    let machine = Machine::new();
    let shaper = machine.start("limit: 600/min");
    tokio::time::advance(s(200)).await;
    assert!(Machine::burst(&shaper).await >= 100);
    drop(shaper);
    let lower = machine.start("limit: 60/min");
    let refusal = lower.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after > s(95), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_process_on_the_same_file_does_without() {
    let machine = Machine::new();
    let first = machine.start(STARTER);
    let second = machine.start(STARTER);
    assert_eq!(Machine::burst(&second).await, 1, "paced from the start, without bursts");
    drop(second);
    assert_eq!(Machine::burst(&first).await, 12);
    drop(first);
    assert_eq!(Machine::burst(&machine.start(STARTER)).await, 0, "it was the first one's");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_the_file_does_not_know_begins_paced() {
    let machine = Machine::new();
    drop(machine.start(STARTER));
    let config = machine.config(STARTER);
    let other = Config {
        quotas: config.quotas.into_values().map(|quota| ("other".to_owned(), quota)).collect(),
        ..config
    };
    let shaper = Shaper::begin(&other, &Metrics::new().unwrap(), Some(machine.boot));
    let marks = shaper.quotas.get("other").unwrap().quota.history().marks;
    assert!(marks.bursts_from > Instant::now() - machine.boot.at, "{marks:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_out_of_shadow_holds_back_for_what_was_overdrawn_of_late_and_no_more() {
    let machine = Machine::new();
    let mut shadowed = machine.config("limit: 60/min");
    shadowed.shaping.shadow = true;
    // Sixty a minute is a little more than the pace, which gives a sixtieth away.
    for (pause, silence) in [(s(1), s(0)..s(10)), (Duration::from_millis(500), s(100)..s(125))] {
        let shaper =
            Arc::new(Shaper::begin(&shadowed, &Metrics::new().unwrap(), Some(machine.boot)));
        for _ in 0..9000 {
            call(Arc::clone(&shaper), 0).await.unwrap();
            tokio::time::advance(pause).await;
        }
        drop(shaper);
        let kept = machine.start("limit: 60/min");
        let marks = kept.quotas.get("q").unwrap().quota.history().marks;
        let left = marks.clear_at.saturating_sub(Instant::now() - machine.boot.at);
        assert!(silence.contains(&left), "{pause:?}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_gone_writes_into_no_place_of_another_ones() {
    let (machine, metrics) = (Machine::new(), Metrics::new().unwrap());
    let before = machine.config(STARTER);
    let first = Arc::new(Shaper::begin(&before, &metrics, Some(machine.boot)));
    Machine::burst(&first).await;
    let mut waiting = JoinSet::new();
    waiting.spawn(call(Arc::clone(&first), 0));
    settle().await;
    let rename = |config: Config| {
        let quotas = config.quotas.into_values().map(|quota| ("other".to_owned(), quota)).collect();
        Config { quotas, ..config }
    };
    let after = rename(machine.config(STARTER));
    let second = first.renewed(&before, &after, &metrics);
    Shaper::forget_gauges(&before, &after, &metrics);
    waiting.join_next().await.unwrap().unwrap().unwrap();
    let gauges = metrics.render().unwrap();
    assert!(!gauges.contains("queue_depth{"), "{gauges}");
    drop((first, second));
    let third = Shaper::begin(&rename(machine.config(STARTER)), &metrics, Some(machine.boot));
    let marks = third.quotas.get("other").unwrap().quota.history().marks;
    let now = Instant::now() - machine.boot.at;
    assert!(marks.clear_at < now + s(2), "it is not taken to be used up: {marks:?} at {now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_a_reload_brings_to_a_process_without_any_is_kept_too() {
    let (machine, metrics) = (Machine::new(), Metrics::new().unwrap());
    let after = machine.config(STARTER);
    let mut before = after.clone();
    before.quotas.clear();
    let first = Shaper::begin(&before, &metrics, Some(machine.boot));
    let second = Arc::new(first.renewed(&before, &after, &metrics));
    tokio::time::advance(s(62)).await;
    assert_eq!(Machine::burst(&second).await, 12);
    drop((first, second));
    assert_eq!(Machine::burst(&machine.start(STARTER)).await, 0, "the burst is remembered");
}

#[tokio::test(start_paused = true)]
async fn the_first_quota_of_a_process_that_began_without_any_goes_on_where_the_file_left_off() {
    let (machine, metrics) = (Machine::new(), Metrics::new().unwrap());
    let after = machine.config(STARTER);
    let mut before = after.clone();
    before.quotas.clear();
    let reloaded = || {
        let first = Shaper::begin(&before, &metrics, Some(machine.boot));
        Arc::new(first.renewed(&before, &after, &metrics))
    };
    let used = |shaper: &Shaper| shaper.report(&after)[0].used;
    let first = reloaded();
    assert_eq!(Machine::burst(&first).await, 1, "what was sent without a quota is not known");
    let sent = used(&first);
    drop(first);
    assert_eq!((sent > 0, used(&reloaded())), (true, sent), "what the one before sent is");
    tokio::time::advance(s(130)).await;
    assert_eq!(used(&reloaded()), 0, "and that it is long ago");
    assert_eq!(Machine::burst(&reloaded()).await, 1);
    std::fs::write(machine.dir.path().join("schedule"), [0; 100]).unwrap();
    assert_eq!(Machine::burst(&reloaded()).await, 1, "no worse than if it said nothing");
}
