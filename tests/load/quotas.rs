//! Promise: a quota is kept and used, by the clock on the wall: the real binary, saturated for three
//! minutes, against each of the emulator's limiters at once. `make test-quota` runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datapulse_sidecar::emulator::{Kind, Limit, Rate};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::support::Rig;

const LIMIT: u32 = 1000;
const MINUTES: u32 = 3;
/// Calls that wait at any time.
const WORKERS: usize = 50;

/// What one limiter saw.
struct Seen {
    kind: Kind,
    accepted: u64,
    throttled: u64,
    took: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_saturated_minutes_trip_none_of_four_limiters_and_use_the_quota() {
    let (mut runs, stalled) = (JoinSet::new(), Stalled::watch());
    for kind in [Kind::FixedWindow, Kind::SlidingLog, Kind::SlidingCounter, Kind::TokenBucket] {
        runs.spawn(saturate(kind));
    }
    let seen = runs.join_all().await;
    let longest = stalled.longest_ms.load(Ordering::Relaxed);
    println!("this process stood still for {longest} ms, at most");
    for seen in seen {
        let quota = f64::from(LIMIT) * seen.took.as_secs_f64() / 60.0;
        let used = 100.0 * seen.accepted as f64 / quota;
        println!(
            "{:?}: {} accepted in {:.0} s, {used:.2} % of the quota, 429s: {}",
            seen.kind,
            seen.accepted,
            seen.took.as_secs_f64(),
            seen.throttled
        );
        assert_eq!(seen.throttled, 0, "{:?}; it stood still for {longest} ms", seen.kind);
        // 97.5 with this spread; what the machine stands still for is not used.
        assert!(used > 90.0, "{:?}: {used:.2} %; it stood still for {longest} ms", seen.kind);
    }
}

/// How long this process, and so the limiters, did not run: what they see meanwhile comes together,
/// which the quotas' `spread` has to cover.
struct Stalled {
    longest_ms: Arc<AtomicU64>,
    _watching: JoinSet<()>,
}

impl Stalled {
    fn watch() -> Self {
        let longest_ms = Arc::new(AtomicU64::new(0));
        let (longest, mut watching) = (Arc::clone(&longest_ms), JoinSet::new());
        watching.spawn(async move {
            let (mut tick, mut last) = (interval(Duration::from_millis(10)), Instant::now());
            loop {
                tick.tick().await;
                let gap = u64::try_from(last.elapsed().as_millis()).expect("not so long");
                longest.fetch_max(gap, Ordering::Relaxed);
                last = Instant::now();
            }
        });
        Self { longest_ms, _watching: watching }
    }
}

async fn saturate(kind: Kind) -> Seen {
    let yaml = format!(
        "quotas: {{business: {{limit: {LIMIT}/min, spread: 1500ms}}}}\n\
         shaping: {{max_wait: 60s, state_file: none}}\nupstream: {{request_timeout: 60s}}\n\
         credentials:\n  - {{name: reader, level: read_only, quota: business, \
         api_key: \"file:${{DIR}}/reader\"}}\n"
    );
    let builder = Rig::builder().await.config_in_dir(&yaml).log_level("info");
    let rig = builder.start().await;
    rig.emulator
        .set_limit(Limit { kind, rate: Rate { limit: LIMIT, window: Duration::from_secs(60) } });
    let (began, length) = (Instant::now(), Duration::from_secs(60) * MINUTES);
    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        let (client, url) = (rig.client.clone(), rig.url("/v1/datasets"));
        workers.spawn(async move {
            while began.elapsed() < length {
                let answer = client.get(&url).send().await.expect("an answer");
                assert_eq!(answer.status(), 200);
            }
        });
    }
    workers.join_all().await;
    let took = began.elapsed();
    let seen = Seen {
        kind,
        accepted: rig.emulator.statuses(200),
        throttled: rig.emulator.statuses(429),
        took,
    };
    assert_eq!(rig.emulator.api_requests(), seen.accepted, "{kind:?}: a permit for each attempt");
    rig.finish().await;
    seen
}
