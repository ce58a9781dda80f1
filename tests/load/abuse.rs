//! Promise: no answer reaches the wrong caller, and nothing leaks, whatever callers and the upstream
//! do to their connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::support::{Builder, Rig};

const AT_LEAST: Duration = Duration::from_secs(60);
const CALLS: u64 = 60_000;
const WORKERS: u64 = 20;

#[derive(Default)]
struct Count {
    made: AtomicU64,
    answered: AtomicU64,
    hung_up: AtomicU64,
    failed_upstream: AtomicU64,
}

/// A minute *and* 60,000 calls: one in ten callers hangs up, one in twenty answers is a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_hang_up_and_an_upstream_that_resets_mix_nothing_up_and_leak_nothing() {
    let rig: Builder = Rig::builder().await;
    let rig = rig.token_life(Duration::from_secs(2)).log_level("info").start().await;
    let reset =
        Fault { scope: Scope::Api, effect: Effect::Reset, count: None, probability: Some(0.05) };
    rig.emulator.fault(reset);
    for _ in 0..200 {
        drop(rig.client.get(rig.url("/v1/pipelines")).send().await);
    }
    let (files, memory) = (rig.open_files(), rig.sidecar_rss_bytes());
    let (count, began) = (Arc::new(Count::default()), Instant::now());
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (client, url) = (rig.client.clone(), rig.url("/v1/echo"));
        workers.spawn(work(worker, client, url, Arc::clone(&count), began));
    }
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{} calls in {:?}: {} answered, {} hung up, {} reset upstream",
        load(&count.made),
        began.elapsed(),
        load(&count.answered),
        load(&count.hung_up),
        load(&count.failed_upstream),
    );
    rig.quiet().await;
    let (files_after, memory_after) = (rig.open_files(), rig.sidecar_rss_bytes());
    println!(
        "open files {files} -> {files_after}, resident KiB {} -> {}",
        memory / 1024,
        memory_after / 1024
    );
    assert!(load(&count.answered) > load(&count.made) / 2);
    // Idle connections are pooled, so that the number may be a few higher; a leak is thousands.
    assert!(files_after < files + 100, "{files} -> {files_after}");
    assert!(memory_after < memory + 32 * 1024 * 1024, "{memory} -> {memory_after}");
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

async fn work(
    worker: u64,
    client: reqwest::Client,
    url: String,
    count: Arc<Count>,
    began: Instant,
) {
    let mut tick = interval(Duration::from_millis(WORKERS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut number = 0_u64;
    while began.elapsed() < AT_LEAST || count.made.load(Ordering::Relaxed) < CALLS {
        tick.tick().await;
        number += 1;
        let canary = format!("caller-{worker}-{number}");
        let call = client.get(format!("{url}?{canary}")).send();
        count.made.fetch_add(1, Ordering::Relaxed);
        let answer = if number.is_multiple_of(10) {
            // Somewhere between the request and its answer.
            let patience = Duration::from_micros(200 + 100 * (number % 30));
            match tokio::time::timeout(patience, call).await {
                Ok(answer) => answer,
                Err(_hung_up) => {
                    count.hung_up.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
            }
        } else {
            call.await
        };
        match answer {
            Ok(answer) if answer.status() == 200 => {
                let echo: Value = answer.json().await.unwrap();
                assert_eq!(echo["target"], format!("/v1/echo?{canary}"), "another caller's answer");
                count.answered.fetch_add(1, Ordering::Relaxed);
            }
            Ok(answer) => {
                assert_eq!(answer.status(), 502, "{answer:?}");
                count.failed_upstream.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => panic!("the sidecar always answers: {error}"),
        }
    }
}
