//! Promise: what is in memory stays there, and the environment cannot send it elsewhere.

use std::os::unix::process::ExitStatusExt as _;

use crate::support::{Authority, PATIENCE, Process, Rig, TlsServer};

/// The soft limit of core files in a `/proc/PID/limits`.
fn core_limit(limits: &str) -> &str {
    let line = limits.lines().find(|line| line.starts_with("Max core file size"));
    line.expect("on Linux").split_whitespace().nth(4).expect("a soft limit")
}

#[tokio::test]
async fn a_crash_leaves_no_core_dump() {
    let mut rig = Rig::start().await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.sidecar.id())).unwrap();
    assert_eq!(core_limit(&limits), "0");
    // Not SEGV: Rust's own handler takes the first one for an overflow of the stack.
    rig.sidecar.signal("ABRT").await;
    let status = rig.sidecar.ended().await;
    assert_eq!((status.signal(), status.core_dumped()), (Some(6), false));
}

#[tokio::test]
async fn exec_is_locked_up_and_its_child_is_not() {
    let stage = Rig::builder().await.stage();
    let program = "cat /proc/$PPID/limits; echo child; cat /proc/self/limits";
    let args = ["--config", &stage.config, "exec", "--", "bash", "-c", program];
    let mut process = Process::sidecar(&args);
    assert_eq!(process.ended().await.code(), Some(0));
    let out = process.stdout.lines().join("\n");
    let (ours, childs) = out.split_once("\nchild\n").unwrap();
    assert_eq!(core_limit(ours), "0");
    let own = std::fs::read_to_string("/proc/self/limits").unwrap();
    assert_eq!(core_limit(childs), core_limit(&own));
}

#[tokio::test]
async fn variables_that_would_reroute_calls_or_log_session_keys_change_nothing_and_are_named() {
    let authority = Authority::new();
    let builder = Rig::builder().await;
    let leaf = authority.issue(&["localhost"], false);
    let server = TlsServer::start(builder.router(), &leaf, &["http/1.1"]).await;
    let ca_file = authority.write(builder.dir());
    let keys = builder.dir().join("session-keys");
    let base = format!("https://localhost:{}", server.address.port());
    let yaml = format!(
        "upstream: {{base_url: \"{base}\", ca_file: {}}}\nauth: {{token_url: \"{base}/oauth/token\"}}\n",
        ca_file.display()
    );
    // Nothing listens on port 9: what went there would fail.
    let nowhere = "http://127.0.0.1:9";
    let builder = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"]
        .into_iter()
        .fold(builder.config(&yaml), |builder, name| builder.env(name, nowhere));
    let rig = builder.env("SSLKEYLOGFILE", keys.to_str().unwrap()).start().await;
    // One credential is minted, and the call is made, each over TLS of its own.
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert!(server.handshakes() >= 2);
    assert!(!keys.exists(), "session keys were written");
    let line = rig.log("ignores variables").await;
    for name in ["SSLKEYLOGFILE", "HTTP_PROXY", "https_proxy", "ALL_PROXY"] {
        assert!(line.contains(name), "{line}");
    }
    let lines = rig.sidecar.stderr.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("SSLKEYLOGFILE")).count(), 1);
    tokio::time::timeout(PATIENCE, rig.finish()).await.unwrap();
}
