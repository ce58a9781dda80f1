//! Promise: a secret that is replaced while calls are made fails none of them, and one that does not
//! work never replaces one that does.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;
use tokio::time::{Instant, sleep_until};

use crate::support::{Builder, CANARY, Callers, Rig};

/// The way in which a key gets into its file.
type Replace = fn(&Path, &str);

fn in_place(file: &Path, key: &str) {
    std::fs::write(file, key).unwrap();
}

fn by_rename(file: &Path, key: &str) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, key).unwrap();
    std::fs::rename(beside, file).unwrap();
}

fn by_deletion(file: &Path, key: &str) {
    std::fs::remove_file(file).unwrap();
    std::fs::write(file, key).unwrap();
}

fn in_pieces(file: &Path, key: &str) {
    use std::io::Write as _;
    let mut open = std::fs::File::create(file).unwrap();
    for byte in key.as_bytes() {
        open.write_all(&[*byte]).unwrap();
    }
}

static VERSIONS: AtomicU64 = AtomicU64::new(1);

/// As the kubelet does it: a folder for each version, and a link that is renamed over the last.
fn by_swap(file: &Path, key: &str) {
    let mount = file.parent().unwrap();
    let version = format!("..v{}", VERSIONS.fetch_add(1, Ordering::Relaxed));
    std::fs::create_dir(mount.join(&version)).unwrap();
    std::fs::write(mount.join(&version).join("key"), key).unwrap();
    let old = std::fs::read_link(mount.join("..data"));
    symlink(&version, mount.join("..data_tmp")).unwrap();
    std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    if let Ok(old) = old {
        std::fs::remove_dir_all(mount.join(old)).unwrap();
    }
}

/// The key of `reader` in a folder such as the kubelet mounts.
async fn mounted() -> Rig {
    let builder = Rig::builder().await;
    let mount = builder.dir().join("mount");
    std::fs::create_dir(&mount).unwrap();
    by_swap(&mount.join("key"), &format!("dp_live_{CANARY}_reader"));
    symlink("..data/key", mount.join("key")).unwrap();
    let file = mount.join("key").display().to_string();
    let mut rig = builder
        .log_level("info")
        .config(&format!(
            "credentials: [{{name: reader, level: read_only, api_key: 'file:{file}'}}]"
        ))
        .start()
        .await;
    rig.key_file = mount.join("key");
    rig
}

/// Replaces the key three times under calls; a second after each swap the old key is dead. Gives the
/// longest time from a swap to the first use of the new key.
async fn check_replaced(rig: Rig, replace: Replace) -> Duration {
    let (mut longest, mut written_in) = (Duration::ZERO, Duration::ZERO);
    let callers = Callers::start(&rig, "/v1/datasets");
    let mut old = "reader".to_owned();
    for name in ["second", "third", "fourth"] {
        let key = rig.emulator.add_key(name);
        rig.emulator.further(20).await;
        let begun = Instant::now();
        replace(&rig.key_file, &key);
        let swapped = Instant::now();
        written_in = written_in.max(swapped - begun);
        rig.emulator.uses(name).await;
        longest = longest.max(swapped.elapsed());
        // tidy: passes time because the old key ends a second after the swap.
        sleep_until(swapped + Duration::from_secs(1)).await;
        rig.emulator.remove_key(&old);
        let uses = rig.emulator.used(&old);
        rig.emulator.further(50).await;
        assert_eq!(rig.emulator.used(&old), uses);
        assert!(rig.emulator.used(name) > 0);
        old = name.to_owned();
    }
    let (made, failed) = callers.stop().await;
    assert_eq!(failed, 0, "of {made}");
    let counters = rig.emulator.counters();
    assert_eq!((counters.anonymous, counters.several_authorizations), (0, 0));
    // Half a key of somebody who was held up is tried, and turned down.
    if written_in < Duration::from_millis(50) {
        assert_eq!(rig.emulator.answered(401), 0, "each call had one whole key");
    }
    let ok = r#"credential_refreshes_total{credential="reader",outcome="ok",reason="changed"}"#;
    // One that is read while it is being written may be noticed once more when it is whole.
    assert!((3.0..=6.0).contains(&rig.series(ok).await));
    rig.finish().await;
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_replaced_in_its_file_fails_no_call() {
    for replace in [in_place as Replace, by_rename, by_deletion, in_pieces] {
        let rig = Rig::builder().await.log_level("info").start().await;
        println!("used {:?} after the swap", check_replaced(rig, replace).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_the_kubelet_swaps_fails_no_call() {
    println!("used {:?} after the swap", check_replaced(mounted().await, by_swap).await);
}

async fn reader(rig: &Rig) -> Value {
    let status: Value = serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
    status["credentials"][0].clone()
}

#[tokio::test]
async fn a_key_that_is_rejected_never_replaces_one_that_works() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    by_rename(&rig.key_file, &format!("dp_live_{CANARY}_wrong"));
    rig.log("the changed secret was rejected").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let (before, uses) = (rig.emulator.answered(401), rig.emulator.used("reader"));
    assert_eq!((before, uses), (1, 2), "the trial alone was rejected");
    let report = reader(&rig).await;
    assert_eq!(report["state"], "stale");
    assert!(report["last_error"].as_str().unwrap().contains("rejected with 401"), "{report}");
    let rejected = r#"credential_refreshes_total{credential="reader",outcome="rejected_secret",reason="changed"}"#;
    assert_eq!(rig.series(rejected).await, 1.0);
    // The next value is tried again.
    let key = rig.emulator.add_key("second");
    by_rename(&rig.key_file, &key);
    rig.log(
        "the credential is usable\",\"credential\":\"reader\",\"state\":\"fresh\",\"generation\":2",
    )
    .await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("second"), 1);
    assert_eq!(reader(&rig).await["last_error"], Value::Null);
    rig.finish().await;
}

#[tokio::test]
async fn garbage_in_the_place_of_a_key_is_told_and_the_key_stays() {
    let rig = Rig::start().await;
    for garbage in ["", "two words\n"] {
        in_place(&rig.key_file, garbage);
        rig.log("a secret in use cannot be read").await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    }
    assert_eq!(rig.emulator.answered(401), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_changed_client_secret_is_used_at_once_and_a_wrong_one_not_at_all() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let mints = rig.emulator.mints("etl");
    by_rename(&rig.dir().join("etl"), &format!("{CANARY}-wrong"));
    rig.log("the changed secret was rejected").await;
    let turned_down = r#"credential_refreshes_total{credential="etl",outcome="rejected_secret",reason="changed"}"#;
    assert_eq!(rig.series(turned_down).await, 1.0);
    // The secret that worked still gets tokens, though no file has it any more.
    rig.emulator.revoke_all();
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert!(rig.emulator.mints("etl") > mints);
    rig.finish().await;
}

/// A session token with six seconds left, which DataPulse takes.
async fn with_session(builder: Builder) -> (Rig, PathBuf, String) {
    let builder = builder.token_life(Duration::from_secs(60));
    let file = builder.dir().join("session");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\": {}}}", now + 6));
    let first = format!("e30.{claims}.{CANARY}");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let config = format!(
        "credentials: [{{name: console, level: read_only, session_token: {{token: 'file:{}'}}}}]",
        file.display()
    );
    builder.accept("person", &first);
    (builder.config(&config).start().await, file, first)
}

fn content(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_session_token_is_renewed_and_found_again_after_a_restart() {
    let (mut rig, file, first) = with_session(Rig::builder().await).await;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.emulator.uses("person/1").await;
    assert_ne!(content(&file), first);
    assert_eq!(mode(&file), 0o600);
    assert_eq!(callers.stop().await.1, 0);
    // The first one is dead by now, and nobody has to log in again.
    rig.emulator.remove_key("person");
    let before = rig.emulator.used("person/1");
    rig.restart().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("person/1"), before + 1);
    assert_eq!(rig.emulator.anonymous(), 0);
    rig.finish().await;
}

/// No byte can be written to any file: for the process it is as if the disk were full.
pub(crate) const FULL_DISK: &str = "trap '' XFSZ; ulimit -S -f 0";

pub(crate) fn make_room(rig: &Rig) {
    let id = rig.sidecar.id().to_string();
    let mut command = std::process::Command::new("prlimit");
    let made = command.args(["--pid", &id, "--fsize=unlimited"]).status();
    assert!(made.expect("prlimit runs").success());
}

const UNPERSISTED: &str = "datapulse_sidecar_credential_unpersisted{credential=\"console\"}";

#[tokio::test]
async fn a_renewed_token_that_cannot_be_written_is_used_and_written_once_that_works() {
    let (rig, file, first) = with_session(Rig::builder().await.shell(FULL_DISK)).await;
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.emulator.uses("person/1").await;
    rig.metric(&format!("{UNPERSISTED} 1")).await;
    assert_eq!(content(&file), first);
    assert!(rig.status(&[]).await.contains("cannot be written back"));
    let failed = r#"store_writes_total{outcome="unwritable",store="file"}"#;
    assert!(rig.series(failed).await >= 1.0);
    make_room(&rig);
    rig.metric(&format!("{UNPERSISTED} 0")).await;
    assert_ne!(content(&file), first);
    assert_eq!(callers.stop().await.1, 0);
    rig.finish().await;
}

#[tokio::test]
async fn the_end_waits_for_a_last_write_and_says_what_is_lost() {
    for is_lost in [false, true] {
        let (mut rig, file, first) = with_session(Rig::builder().await.shell(FULL_DISK)).await;
        rig.log("cannot be written back").await;
        if !is_lost {
            make_room(&rig);
        }
        rig.sidecar.signal("TERM").await;
        assert_eq!(rig.sidecar.ended().await.code(), Some(0));
        assert_eq!(content(&file) == first, is_lost);
        let lines = rig.sidecar.stderr.lines();
        let is_told =
            lines.iter().any(|line| line.contains("could not be written back and is lost"));
        assert_eq!(is_told, is_lost);
    }
}

fn mode(file: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(file).unwrap().permissions().mode() & 0o777
}
