//! The short form of `benches/shaping`: the real schedule in simulated time against limiters that
//! know nothing of it.
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "simulated time is seconds as numbers"
)]

#[path = "../benches/shaping/allocations.rs"]
mod allocations;
#[path = "../benches/shaping/bars.rs"]
#[expect(dead_code, reason = "the long form uses all of it")]
mod bars;
#[path = "../benches/shaping/feedback.rs"]
mod feedback;
#[path = "../benches/shaping/limiters.rs"]
mod limiters;
#[path = "../benches/shaping/plot.rs"]
mod plot;
#[path = "../benches/shaping/simulation.rs"]
#[expect(dead_code, reason = "the long form uses all of it")]
mod simulation;

use std::hint::black_box;
use std::time::Duration;

use bars::{LOADS, at_once, killed, promises, saturated_use, setup_of, throttled};
use datapulse_sidecar::config;
use datapulse_sidecar::shaping::pace::Start;
use datapulse_sidecar::shaping::schedule::Schedule;
use datapulse_sidecar::shaping::{Refusal, Shaper};
use datapulse_sidecar::telemetry::Metrics;
use http::HeaderMap;
use simulation::Load;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// No promised class refuses one request, under any load.
fn check(limit: u32, seconds: f64) {
    for promise in promises(limit) {
        for (seed, load) in (0..).zip(LOADS) {
            let outcome = simulation::run(setup_of(&promise, limit, load, seconds, seed));
            assert!(outcome.counted.len() > limit as usize, "{load:?} is no load");
            assert_eq!(outcome.late, 0, "waited longer than told: L = {limit}, {load:?}");
            for vendor in &promise.classes {
                let refused = throttled(vendor, limit, &outcome.counted, 6);
                assert_eq!(refused, 0, "L = {limit}, {load:?}, {}: {}", promise.name, vendor.name);
            }
        }
    }
}

#[test]
fn no_promised_limiter_ever_refuses_at_a_hundred_a_minute() {
    check(100, 1800.0);
}

#[test]
fn no_promised_limiter_ever_refuses_at_a_thousand_a_minute() {
    check(1000, 700.0);
}

#[test]
fn the_quota_is_used_as_far_as_promised() {
    for (limit, bars) in [(100, [98.5, 96.9]), (1000, [99.4, 97.8])] {
        for (promise, bar) in promises(limit).iter().zip(bars) {
            let used = 100.0 * saturated_use(promise, limit, 1500.0, false);
            assert!(used >= bar, "L = {limit}, {}: {used:.2} % of {bar} %", promise.name);
            let used = 100.0 * saturated_use(promise, limit, 1500.0, true);
            assert!(used >= 95.0, "on new connections, L = {limit}, {}: {used:.2} %", promise.name);
        }
    }
}

#[test]
fn a_fresh_process_lets_the_first_calls_leave_at_once() {
    assert_eq!(at_once(100, 10), (0, 10));
    assert_eq!(at_once(1000, 500).0, 0, "none of 500 at one instant is refused");
}

#[test]
fn a_process_that_is_killed_every_two_minutes_never_trips_a_limiter() {
    for (limit, seconds) in [(100, 1800.0), (1000, 900.0)] {
        for (seed, load) in (0..).zip(LOADS) {
            let killed = killed(limit, load, seconds, true, seed);
            assert_eq!(killed.throttled, 0, "L = {limit}, {load:?}: {killed:?}");
        }
        let used = killed(limit, Load::Saturated, seconds, true, 4).used;
        assert!(used >= 97.5, "L = {limit}: {used:.2} %");
    }
}

/// When calls are counted, while so many processes are replaced one by one, each 3 s: what begins
/// knows nothing of its predecessor, which goes on for `overlap` seconds beside it.
fn replaced(
    (limit, processes): (u32, u32),
    (load, start): (Load, Start),
    overlap: f64,
    seed: u64,
) -> Vec<f64> {
    // One more than there are, as a rolling update has it for a moment.
    let share = limit / (processes + 1);
    let mut counted = Vec::new();
    for process in 0..processes {
        // Who was idle is asked for all at once a second before.
        let at = 301.0 + 3.0 * f64::from(process);
        let before = simulation::run(bars::setup(share, load, at + overlap, seed));
        counted.extend(before.counted.into_iter().filter(|one| *one < at + overlap));
        let after = bars::setup(share, Load::Saturated, 200.0, seed);
        let after = simulation::run(simulation::Setup { start, ..after });
        counted.extend(after.counted.into_iter().map(|one| at + one));
    }
    counted.sort_by(f64::total_cmp);
    counted
}

/// How many of them the default's classes of limiters refuse, one by one.
fn refused_while_replaced(of: (u32, u32), load: Load, start: Start, overlap: f64) -> usize {
    let promises = promises(of.0);
    let classes = promises.iter().take(1).flat_map(|promise| &promise.classes);
    let runs: Vec<_> = (0..3).map(|seed| replaced(of, (load, start), overlap, seed)).collect();
    let refused = |vendor| runs.iter().map(move |counted| throttled(vendor, of.0, counted, 20));
    classes.flat_map(refused).sum()
}

#[test]
fn processes_that_begin_paced_take_others_places_without_a_429() {
    let (busy, burst) = (Load::Saturated, Load::IdleThenSaturated);
    let (paced, cautious) = (Start::Unknown, Start::UsedUp);
    for limit in [100, 1000] {
        for (processes, load, start, overlap) in [
            (1, busy, paced, 5.0),
            (2, busy, paced, 5.0),
            (12, busy, paced, 5.0),
            // 60 s shared by all of them, as long as there is no burst before.
            (3, busy, paced, 19.0),
            // A burst before needs a fifth more room.
            (1, burst, paced, 20.0),
            (3, burst, paced, 5.0),
            (4, burst, paced, 2.0),
            (12, burst, cautious, 5.0),
        ] {
            let refused = refused_while_replaced((limit, processes), load, start, overlap);
            assert_eq!(refused, 0, "L = {limit}, {processes}, {load:?}, {start:?}, {overlap} s");
        }
    }
    // Bursts at the start, a longer overlap, and a burst before are each too much for eight.
    for (load, start, overlap) in
        [(busy, Start::Idle, 5.0), (busy, paced, 20.0), (burst, paced, 5.0)]
    {
        let refused = refused_while_replaced((1000, 8), load, start, overlap);
        assert!(refused > 10, "{load:?}, {start:?}, {overlap} s: {refused}");
    }
}

#[test]
fn a_limiter_that_nobody_told_of_is_learnt_and_its_silence_is_kept() {
    for (vendor, own, nodes) in feedback::undeclared(100) {
        for asks in [None, Some(Duration::from_secs(10))] {
            for heard in feedback::heard_under_all(&vendor, (own, nodes), 100, asks, 1) {
                let (name, respite) = (vendor.name, heard.respite());
                assert_eq!(heard.too_early, 0, "{name}: {heard:?}");
                assert!(heard.sent > 1000 && heard.refused < heard.sent / 4, "{name}: {heard:?}");
                let declarable = nodes == 1 && own == 100;
                assert!(!declarable || respite.is_none_or(|s| s >= 120.0), "{name}: {heard:?}");
            }
        }
    }
}

#[test]
fn a_limit_that_is_half_of_what_is_configured_is_found_and_used() {
    for limit in [100, 1000] {
        let undeclared = feedback::undeclared(limit);
        let half = undeclared.iter().find(|(vendor, ..)| vendor.name == "half the limit").unwrap();
        let (vendor, own, nodes) = half;
        let seeds = 2;
        let runs = feedback::heard_under_all(vendor, (*own, *nodes), limit, None, seeds);
        for heard in &runs {
            // Some to find it, and one in a while to see whether it is still there.
            assert!(heard.throttles.len() <= 20, "L = {limit}: {heard:?}");
        }
        for saturated in runs.iter().take(seeds as usize) {
            let used = (saturated.sent - saturated.refused) as f64 / f64::from(own * 60);
            assert!(used >= 0.88, "L = {limit}: {used} of what there is");
        }
    }
}

#[test]
fn a_permit_takes_no_memory_whether_there_is_room_or_not() {
    let mut setup = bars::setup(1000, Load::Saturated, 1.0, 1);
    setup.also = Some((20, Duration::from_secs(1)));
    let mut schedule = Schedule::new(setup.terms, setup.also, Start::Idle, Duration::ZERO);
    let (mut now, mut permits) = (Duration::ZERO, 0);
    let allocated = allocations::during(|| {
        while now < Duration::from_secs(300) {
            now += Duration::from_millis(7);
            let Ok(charge) = black_box(schedule.admit(now)) else { continue };
            permits += u32::from(schedule.restamp(charge, now + Duration::from_millis(1)));
        }
    });
    assert!(permits > 4500, "{permits}");
    assert_eq!(allocated, 0);
}

#[test]
fn a_call_that_leaves_when_it_comes_takes_no_memory_for_its_turn() {
    let text = "version: 1\nlisteners: [{listen: 'localhost:1'}]\n\
        quotas: {q: {limit: 10000/min}}\nshaping: {state_file: none}\n\
        credentials: [{name: a, level: admin, quota: q, api_key: 'file:/k'}]\n";
    let config = config::parse(text, "test", &|_| None).unwrap().0;
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
        let (shaper, none) = (Shaper::new(&config, &Metrics::new().unwrap()), HeaderMap::new());
        // No state file: bursts are allowed once a window went by.
        tokio::time::advance(Duration::from_secs(61)).await;
        let deadline = Instant::now() + Duration::from_secs(25);
        let (mut first, mut after) = (0, 0);
        for number in 0..1000 {
            let before = allocations::count();
            let mut place = shaper.admit(Some("q"), 0, deadline).unwrap();
            place.ready(deadline).await.unwrap();
            let (permit, ()) = place.depart(deadline, || Ok::<_, Refusal>(())).await.unwrap();
            place.answered(&none);
            assert!(permit.waited.is_zero());
            // The first one makes the metrics' series.
            let allocated = allocations::count() - before;
            *if number == 0 { &mut first } else { &mut after } += allocated;
        }
        assert!(first > 0, "nothing is counted");
        assert_eq!(after, 0);
    });
}

/// `make plot` draws it anew.
#[test]
fn the_plot_in_the_documentation_is_what_the_simulation_draws() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/shaping.svg");
    let drawn = plot::plot();
    if update() {
        std::fs::write(path, &drawn).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap_or_default() == drawn, "run `make plot`");
}

#[expect(clippy::disallowed_methods, reason = "a switch of this test alone")]
fn update() -> bool {
    std::env::var("UPDATE_PLOT").is_ok_and(|value| value == "1")
}
