//! Promise: no call fails, and none carries a wrong value, while keys, tokens and the configuration
//! change every second.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::{CANARY, Callers, Load, Rig};

const MINUTE: Duration = Duration::from_secs(60);
/// After so many seconds, whatever grows to its size has done so.
const WARM: usize = 10;
/// The longest that a key may be used after its swap: a tenth of a second, and what a machine that is
/// busy with the calls adds.
const OLD_KEY_MAX: Duration = Duration::from_secs(5);
/// Once all callers wait at the same time, each has a connection to the upstream. One file that is
/// left behind in each round is more.
const OPEN_FILES_GROWTH_MAX: usize = 2 * Load::WORKERS;
const RESIDENT_GROWTH_MAX: u64 = 16 * 1024 * 1024;

/// What a test sees of the process once a second.
struct Sample {
    files: usize,
    resident: u64,
}

/// The key of `reader`, replaced in its file.
struct Swap {
    old: String,
    at: Instant,
}

/// Tokens live two seconds; each second the key in its file is replaced and the configuration is
/// written anew, one time in five with a mistake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minute_of_calls_while_keys_tokens_and_the_configuration_change_each_second() {
    let builder = Rig::builder().await.log_level("info").token_life(Duration::from_secs(2));
    let mut rig = builder.start().await;
    let load = Load::start(&rig, &["/v1/datasets", "/v1/pipelines"], MINUTE).ended();
    tokio::pin!(load);
    let (mut swaps, mut samples) = (Vec::new(), Vec::new());
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut current = "reader".to_owned();
    let load = loop {
        let next = async {
            second.tick().await;
            // One that is replaced before it was noticed would never be used.
            rig.emulator.uses(&current).await;
        };
        tokio::select! {
            load = &mut load => break load,
            () = next => {}
        }
        let round = swaps.len();
        let name = format!("key{round}");
        let key = rig.emulator.add_key(&name);
        std::fs::write(&rig.key_file, key).unwrap();
        swaps.push(Swap { old: std::mem::replace(&mut current, name), at: Instant::now() });
        match round % 5 {
            4 => rig.write_config(&format!("version: 1\nbroken{round}: {CANARY}\n")),
            _ => rig.reconfigure(&format!("front_door: {{max_connections: {}}}", 900 + round)),
        }
        samples.push(Sample { files: rig.open_files(), resident: rig.sidecar_rss_bytes() });
    };
    let rounds = swaps.len();
    let (made, took, tokens) = (load.made, load.took, rig.emulator.mints("etl"));
    println!("{made} calls in {took:?} ({:.0}/s), {} failed", load.rate(), load.failed);
    println!("{rounds} keys, {tokens} tokens, {rounds} configurations");
    assert_eq!(load.failed, 0);
    check_values(&rig, made);
    check_old_keys(&rig, &swaps);
    check_reloads(&rig, rounds).await;
    check_growth(&samples);
    rig.finish().await;
}

/// Each request had one whole credential that was accepted at that moment.
fn check_values(rig: &Rig, made: u64) {
    let counters = rig.emulator.counters();
    let odd = (counters.anonymous, counters.several_authorizations, rig.emulator.answered(401));
    assert_eq!(odd, (0, 0, 0), "without, with several, with a value that was never one");
    let known: u64 = counters.by_credential.values().sum();
    assert_eq!((known, counters.api_requests), (made, made));
}

/// Every key was used, and none for long after it was replaced.
fn check_old_keys(rig: &Rig, swaps: &[Swap]) {
    let last_used = rig.emulator.counters().last_used;
    let used = swaps.iter().filter_map(|swap| Some(swap.at..*last_used.get(&swap.old)?));
    let longest = used.map(|use_| use_.end.saturating_duration_since(use_.start)).max().unwrap();
    println!("an old key was last used {longest:?} after its swap, at most");
    assert!(longest < OLD_KEY_MAX, "{longest:?}");
}

/// What was written was read: good ones are in force, bad ones were told.
async fn check_reloads(rig: &Rig, rounds: usize) {
    let applied = rig.series(r#"config_reloads_total{outcome="applied"}"#).await;
    let invalid = rig.series(r#"config_reloads_total{outcome="invalid"}"#).await;
    println!("{applied} configurations applied, {invalid} turned down");
    let most = rounds as f64 * 0.9;
    assert!(applied + invalid >= most && invalid >= most / 5.0 - 1.0, "of {rounds}");
}

fn check_growth(samples: &[Sample]) {
    let (warm, last) = (&samples[WARM], samples.last().unwrap());
    let files = samples[WARM..].iter().map(|sample| sample.files).max().unwrap();
    println!(
        "open files {} -> {} (at most {files}), resident KiB {} -> {}",
        warm.files,
        last.files,
        warm.resident / 1024,
        last.resident / 1024
    );
    assert!(files <= warm.files + OPEN_FILES_GROWTH_MAX, "{} -> {files}", warm.files);
    assert!(last.resident <= warm.resident + RESIDENT_GROWTH_MAX);
}

/// By signal, so that nothing waits for a file to come to rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_reloads_fail_no_call_and_leave_nothing_behind() {
    const RELOADS: usize = 1000;
    let rig = Rig::builder().await.log_level("info").start().await;
    let callers = Callers::start(&rig, "/v1/pipelines");
    let began = Instant::now();
    let mut samples = Vec::new();
    let applied = r#"config_reloads_total{outcome="applied"}"#;
    for number in 1..=RELOADS {
        rig.sidecar.signal("HUP").await;
        rig.until(async || rig.series(applied).await >= number as f64).await;
        if number % 50 == 0 {
            samples.push(Sample { files: rig.open_files(), resident: rig.sidecar_rss_bytes() });
        }
    }
    let (made, failed) = callers.stop().await;
    println!("{RELOADS} reloads in {:?}, {made} calls", began.elapsed());
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(rig.emulator.mints("etl"), 1, "tokens stay");
    check_growth(&samples);
    rig.finish().await;
}
