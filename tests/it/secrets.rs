//! Promise: a secret that is not there yet, or cannot work, costs its own calls and nothing else, and
//! the reason is told without the value.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use crate::support::{CANARY, Rig};

/// What is done to the file that should hold a key.
fn spoil(path: &Path, how: &str) {
    std::fs::remove_file(path).unwrap();
    match how {
        "absent" => {}
        "empty" => std::fs::write(path, "").unwrap(),
        "only a line end" => std::fs::write(path, "\n").unwrap(),
        "unreadable" => std::fs::create_dir(path).unwrap(),
        "too large" => std::fs::write(path, CANARY.repeat(10_000)).unwrap(),
        "a line break inside" => std::fs::write(path, format!("{CANARY}\n{CANARY}")).unwrap(),
        "not ASCII" => std::fs::write(path, format!("{CANARY}\u{e9}")).unwrap(),
        other => panic!("unknown: {other}"),
    }
}

#[tokio::test]
async fn a_secret_that_cannot_work_costs_only_its_own_calls_and_heals() {
    for (how, told) in [
        ("absent", "there is no such secret"),
        ("empty", "empty"),
        ("only a line end", "empty"),
        ("unreadable", "regular file"),
        ("too large", "64 KiB"),
        ("a line break inside", "line break"),
        ("not ASCII", "ASCII"),
    ] {
        let builder = Rig::builder().await;
        let key = builder.dir().join("reader");
        let good = std::fs::read(&key).unwrap();
        spoil(&key, how);
        let rig = builder.unready().start().await;
        let answer = rig.get("/v1/datasets").await;
        assert_eq!(answer.status(), 503, "{how}");
        assert_eq!(
            answer.headers()["x-datapulse-sidecar-error"],
            "credential_unavailable",
            "{how}"
        );
        assert_eq!(rig.get("/v1/pipelines").await.status(), 200, "{how}: another credential");
        let pending = r#"credential_state{credential="reader",state="pending"}"#;
        assert_eq!(rig.series(pending).await, 1.0, "{how}");
        let status = rig.status(&[]).await;
        assert!(status.replace('\n', " ").contains("pending"), "{how}: {status}");
        let json = rig.status(&["--json"]).await;
        assert!(json.contains(told), "{how}: {told:?} is not in {json}");
        if how == "unreadable" {
            std::fs::remove_dir(&key).unwrap();
        }
        std::fs::write(&key, &good).unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
        rig.eventually("/v1/datasets", 200).await;
        rig.finish().await;
    }
}

/// A call waits for two seconds for a credential's first value, which may not be enough on a slow
/// machine: where most of them were over when the value was noticed, it is tried once more.
#[tokio::test]
async fn a_key_that_comes_while_the_first_call_waits_costs_no_error() {
    for _ in 0..TRIES {
        if a_key_comes_while_the_first_call_waits().await {
            return;
        }
    }
    panic!("no call waited until its key came, of {TRIES}");
}

const TRIES: usize = 5;
/// For so long a call waits.
const HOLD: Duration = Duration::from_secs(2);

/// Whether the key came in time.
async fn a_key_comes_while_the_first_call_waits() -> bool {
    let builder = Rig::builder().await;
    let key = builder.dir().join("reader");
    let good = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let rig = builder.unready().log_level("info").start().await;
    assert_eq!(rig.health("/startupz").await.0, 503);
    let began = Instant::now();
    let call = async { (rig.get("/v1/datasets").await.status(), began.elapsed()) };
    let mut call = Box::pin(call);
    let refused = |(status, waited)| {
        let is_refused = status == 503;
        assert!(!is_refused || waited >= HOLD, "it did not wait for the key: {waited:?}");
        is_refused
    };
    tokio::select! {
        () = rig.metric("datapulse_sidecar_in_flight 1") => {}
        ended = &mut call => {
            assert!(refused(ended), "there was no key yet");
            return false;
        }
    }
    std::fs::write(&key, &good).unwrap();
    let usable = async {
        let told = |line: &str| line.contains("is usable") && line.contains("reader");
        rig.sidecar.stderr.line(told).await;
        began.elapsed()
    };
    let (ended, usable) = tokio::join!(call, usable);
    if refused(ended) {
        assert!(usable > HOLD / 2, "usable after {usable:?}, and the call was not told");
        return false;
    }
    assert_eq!(ended.0, 200);
    rig.until(async || rig.health("/startupz").await.0 == 200).await;
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
    true
}
