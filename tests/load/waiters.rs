//! Promise: who waits for a quota costs little memory, and no more than there is room for may wait.

use datapulse_sidecar::os::{open_files_max, raise_open_files};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::Rig;

/// As many as the limit of open files leaves room for: a connection may need another one, upstream.
const WAITERS_MAX: usize = 10_000;
/// Calls an hour.
const LIMIT: u64 = 420;
/// Callers who come last.
const LAST: usize = 50;
/// A caller's connection, what is known of its call, and its place in the queue, in bytes. Almost twice
/// what is measured, because allocators differ.
const BYTES_EACH_MAX: u64 = 64 * 1024;

/// Callers who have sent their requests, and nobody has an answer; then one more, and then nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_as_can_wait_do_so_in_bounded_memory_and_leave_no_trace() {
    let _open_files = raise_open_files();
    let files = open_files_max().and_then(|files| usize::try_from(files).ok()).expect("on Unix");
    let waiters = WAITERS_MAX.min(files / 2 - 200);
    assert!(waiters >= 1000, "at least 2,400 open files are needed here: ulimit -n");
    // No bursts, as nothing is known of what was sent before, and seven calls a minute: those who wait
    // leave within a day, which is as long as anybody can be told to.
    let yaml = format!(
        "quotas: {{slow: {{limit: {LIMIT}/h}}}}\n\
         shaping: {{queue: {waiters}, max_wait: 24h, state_file: none}}\n\
         upstream: {{request_timeout: 24h}}\nfront_door: {{max_connections: {}}}\ncredentials:\n  \
         - {{name: reader, level: read_only, quota: slow, api_key: \"file:${{DIR}}/reader\"}}\n",
        2 * waiters
    );
    let rig = Rig::builder().await.config_in_dir(&yaml).log_level("info").start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let before = rig.sidecar_rss_bytes();

    let mut callers = Vec::with_capacity(waiters);
    for _ in 0..waiters {
        callers.push(TcpStream::connect(rig.address).await.expect("it listens"));
    }
    rig.series_above("connections", waiters as f64 - 0.5).await;
    let connected = rig.sidecar_rss_bytes();
    let request = "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nUser-Agent: an-app/1.0\r\n\
                   Accept: application/json\r\nAccept-Encoding: gzip\r\n\r\n";
    for caller in &mut callers {
        caller.write_all(request.as_bytes()).await.expect("it takes a request");
    }
    rig.series_above("queue_depth{quota=\"slow\"}", (waiters - LAST / 2) as f64).await;
    // More than those who have left meanwhile: for somebody there is no place.
    let mut last = JoinSet::new();
    for _ in 0..LAST {
        let mut caller = TcpStream::connect(rig.address).await.expect("it listens");
        caller.write_all(request.as_bytes()).await.expect("it takes a request");
        last.spawn(told_to_come_back(caller, waiters as u64));
    }
    rig.series_above("rejected_total{code=\"queue_full\"}", 0.5).await;
    let full = rig.series("queue_depth{quota=\"slow\"}").await;
    assert!(full >= (waiters - LAST) as f64, "{full}");
    let waiting = rig.sidecar_rss_bytes();
    let each = (waiting - before) / waiters as u64;
    println!(
        "resident KiB: {} at first, {} with {waiters} connections, {} with as many who wait: {} bytes each",
        before / 1024,
        connected / 1024,
        waiting / 1024,
        each
    );
    assert!(each <= BYTES_EACH_MAX, "{each} bytes each");
    last.join_next().await.expect("one of them").expect("it was told so");

    // All hang up: their places are free, and nothing is sent for them.
    let sent = rig.emulator.api_requests();
    drop((callers, last));
    rig.quiet().await;
    assert_eq!(rig.series("queue_depth{quota=\"slow\"}").await, 0.0);
    assert!(rig.emulator.api_requests() < sent + 5, "{sent}");
    rig.finish().await;
}

/// Somebody for whom there is no place: when to come back.
async fn told_to_come_back(mut caller: TcpStream, waiters: u64) {
    let mut answer = [0; 2048];
    let read = caller.read(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(answer.get(..read).unwrap_or_default()).to_lowercase();
    assert!(answer.starts_with("http/1.1 503") && answer.contains("queue_full"), "{answer}");
    let after = answer.lines().find_map(|line| line.strip_prefix("retry-after: "));
    let after: u64 = after.expect("it says when").parse().expect("seconds");
    let wait = waiters * 3600 / LIMIT;
    assert!((wait - wait / 50..wait + wait / 50).contains(&after), "{after} of {wait}");
}
