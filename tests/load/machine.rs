//! Promise: little of a processor, or a reader of lines that stopped reading, costs time and no call.

use std::time::Duration;

use tokio::process::Command;

use crate::support::{Callers, Load, Process, Rig};

/// Puts the shell on the first processor that it may use.
const PIN: &str = "taskset -cp $(taskset -cp $$ | sed 's/.*: //; s/[-,].*//') $$ >/dev/null";

/// The sidecar gets about a tenth of one processor, beside a program that never rests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenth_of_a_processor_is_enough_to_keep_tokens_fresh() {
    let mut busy = Command::new("bash");
    busy.args(["-c", &format!("{PIN}; exec timeout 300 bash -c 'while :; do :; done'")]);
    let mut busy = Process::start(busy);
    let builder = Rig::builder().await.log_level("info").token_life(Duration::from_secs(3));
    let rig = builder.shell(&format!("{PIN}; renice -n 10 $$ >/dev/null")).start().await;
    let callers = Callers::start(&rig, "/v1/pipelines");
    // Ten tokens, one after the other: each is waited for as long as that takes.
    for count in 2..=10 {
        rig.until(async || rig.emulator.mints("etl") >= count).await;
    }
    let (made, failed) = callers.stop().await;
    println!("{made} calls, {} tokens", rig.emulator.mints("etl"));
    assert_eq!(failed, 0, "of {made}");
    assert_eq!(rig.emulator.answered(401), 0);
    busy.signal("TERM").await;
    busy.ended().await;
    rig.finish().await;
}

/// The pipe is full after a few hundred lines and the queue after some thousands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_audit_lines_that_stopped_reading_costs_lines_and_no_call() {
    let pipe = "mkfifo ${DIR}/pipe; exec 3<>${DIR}/pipe; exec >${DIR}/pipe";
    let rig = Rig::builder().await.log_level("info").shell(pipe).start().await;
    let load = Load::start(&rig, &["/v1/datasets"], Duration::from_secs(20)).ended().await;
    let dropped = rig.series(r#"log_lines_dropped_total{stream="audit"}"#).await;
    println!("{} calls ({:.0}/s), {dropped} audit lines dropped", load.made, load.rate());
    assert_eq!(load.failed, 0);
    assert!(dropped > 0.0);
    rig.finish().await;
}
