//! The shaper under a paused clock: waiting, leaving, being refused.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Place, Refusal, Shaper};
use crate::config::{self, Config, model};
use crate::credential::KeyPrint;
use crate::os::Boot;
use crate::secret::SecretValue;
use crate::telemetry::Metrics;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// One quota, `q`, and tenants that use it, each given as what follows its name.
fn config(quota: &str, tenants: &[&str], more: &str) -> Config {
    let mut text = format!(
        "version: 1\nlisteners: [{{listen: 'localhost:1', tenant: t0}}]\n\
         quotas: {{q: {{{quota}}}}}\n\
         credentials: [{{name: a, level: admin, quota: q, api_key: 'file:/k'}}]\n{more}tenants:\n"
    );
    for (number, tenant) in tenants.iter().enumerate() {
        text += &format!("  - {{name: t{number}, credentials: [a]{tenant}}}\n");
    }
    config::parse(&text, "test", &|_| None).unwrap().0
}

fn shaper_of(config: &Config) -> Arc<Shaper> {
    Arc::new(Shaper::begin(config, &Metrics::new().unwrap(), None))
}

/// 61 a minute (a call a second and a little), for two tenants.
fn shaper() -> Arc<Shaper> {
    shaper_of(&config("limit: 61/min", &["", ""], ""))
}

/// A call that is sent as soon as it may: when, and for which tenant.
async fn call(shaper: Arc<Shaper>, tenant: usize) -> Result<(Duration, usize), Refusal> {
    let (began, deadline) = (Instant::now(), Instant::now() + s(30));
    let mut place = shaper.admit(Some("q"), tenant, deadline)?;
    place.ready(deadline).await?;
    let (permit, ()) = place.depart(deadline, anyway).await?;
    place.answered(&HeaderMap::new());
    Ok((permit.departed_at - began, tenant))
}

/// Nothing else is needed to leave.
const fn anyway() -> Result<(), Refusal> {
    Ok(())
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

/// A process that is killed leaves nothing but the file.
struct Machine {
    boot: Boot,
    dir: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let at = Instant::now().checked_sub(s(1000)).unwrap();
        Self { boot: Boot { id: [1; 16], at }, dir: tempfile::tempdir().unwrap() }
    }

    fn start(&self, quota: &str) -> Arc<Shaper> {
        Arc::new(Shaper::begin(&self.config(quota), &Metrics::new().unwrap(), Some(self.boot)))
    }

    fn config(&self, quota: &str) -> Config {
        let mut config = config(quota, &[""], "");
        config.shaping.state_file = model::StateFile::At(self.dir.path().join("schedule"));
        config
    }

    /// How many calls leave at once.
    async fn burst(shaper: &Arc<Shaper>) -> usize {
        let began = Instant::now();
        for count in 0..10_000 {
            call(Arc::clone(shaper), 0).await.unwrap();
            if began.elapsed() >= Duration::from_millis(5) {
                return count;
            }
        }
        panic!("ten thousand calls have left at once");
    }
}

const STARTER: &str = "limit: 61/min";

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
    for bytes in [&b""[..], b"x", &[0; 200_000]] {
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

/// A call's place, after its attempt left.
async fn departed(shaper: &Shaper) -> Place {
    let mut place = placed(shaper).await;
    let _sent = place.depart(Instant::now() + s(30), anyway).await.unwrap();
    place
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
    assert_eq!(foreign(), 59);
    let refusal = shaper.admit(Some("q"), 0, Instant::now() + s(25)).unwrap_err();
    assert!(refusal.retry_after > s(30), "{refusal:?}");
    tokio::time::advance(s(130)).await;
    assert_eq!(foreign(), 0);
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

/// A configuration whose quotas are given whole, and the credential's one.
fn config_of(quotas: &str, quota: &str) -> Config {
    let text = format!(
        "version: 1\nlisteners: [{{listen: 'localhost:1', tenant: t0}}]\n\
         quotas: {{{quotas}}}\n\
         credentials: [{{name: a, level: admin, quota: {quota}, api_key: 'file:/k'}}]\n\
         tenants: [{{name: t0, credentials: [a]}}]\n"
    );
    config::parse(&text, "test", &|_| None).unwrap().0
}

/// A call with the credential's key: when it left.
async fn keyed(shaper: Arc<Shaper>) -> Result<Instant, Refusal> {
    keyed_with(&shaper, "k").await
}

async fn keyed_with(shaper: &Shaper, key: &str) -> Result<Instant, Refusal> {
    let deadline = Instant::now() + s(30);
    let key = |_| KeyPrint::new("", &SecretValue::new(key.into()));
    let mut place = shaper.enter_with(key, (0, 0), deadline, None)?;
    place.ready(deadline).await?;
    let (permit, ()) = place.depart(deadline, anyway).await?;
    place.answered(&HeaderMap::new());
    Ok(permit.departed_at)
}

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
