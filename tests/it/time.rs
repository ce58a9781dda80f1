//! Promise: the first call succeeds, however long the machine slept and whatever its clock says.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::refresh_tokens::{DATA, LIFE, in_vault, open_bao};
use crate::support::{Authority, Builder, Clocks, Rig, TlsServer, Upstream, read_head};

const HOUR: Duration = Duration::from_secs(3600);

/// On a machine with clocks of its own.
async fn machine() -> (Builder, Clocks) {
    let builder = Rig::builder().await;
    let clocks = Clocks::new(builder.dir());
    let builder = clocks.env().fold(builder, |builder, (name, value)| builder.env(name, value));
    (builder, clocks)
}

#[tokio::test]
async fn the_first_call_after_eight_hours_of_sleep_has_a_new_token() {
    let (builder, clocks) = machine().await;
    let rig = builder.token_life(HOUR).start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    // Hours pass for the tokens, too.
    rig.emulator.revoke_all();
    clocks.slept(8 * HOUR);
    let report = rig.status(&["--json"]).await;
    assert!(report.contains(r#""state":"expired""#), "{report}");
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert_eq!((rig.emulator.mints("etl"), rig.emulator.answered(401)), (2, 0));
    assert_eq!(rig.series(r#"credential_generation{credential="etl"}"#).await, 2.0);
    rig.log("the machine slept\",\"seconds\":28800").await;
    rig.finish().await;
}

/// The other end has forgotten it, and what is between the two says nothing.
#[tokio::test]
async fn a_connection_from_before_a_sleep_is_not_used_after_it() {
    let upstream = Upstream::new(|mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let (builder, clocks) = machine().await;
    let rig = builder.upstream(upstream.address).start().await;
    for (slept, connections) in [(0, 1), (0, 1), (8, 2), (8, 2), (16, 3)] {
        clocks.slept(slept * HOUR);
        let answer = rig.get("/v1/datasets").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), "ok");
        // When the call is over, its connection is there for the next one.
        rig.quiet().await;
        assert_eq!(upstream.connections(), connections, "after {slept} hours");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_wall_clock_that_steps_an_hour_either_way_changes_nothing() {
    let (builder, clocks) = machine().await;
    let rig = builder.token_life(HOUR / 2).start().await;
    for ahead in [0, 3600, -3600, 600, -600] {
        clocks.set_ahead(ahead);
        for path in ["/v1/pipelines", "/v1/datasets"] {
            assert_eq!(rig.get(path).await.status(), 200, "{ahead} seconds ahead");
        }
    }
    assert_eq!((rig.emulator.mints("etl"), rig.emulator.answered(401)), (1, 0));
    rig.finish().await;
}

/// The age of another one's claim is no time of day.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_whose_wall_clocks_are_an_hour_apart_share_a_refresh_token() {
    let (bao, (builder, clocks)) = (open_bao().await, machine().await);
    let builder = in_vault(builder.token_life(LIFE), &bao, &bao.url(), "alice").await;
    let rig = builder.start().await;
    rig.eventually(DATA, 200).await;
    // On a machine whose clock is right.
    let twin = rig.twin(DATA).await;
    for ahead in [3600, -3600, 0] {
        clocks.set_ahead(ahead);
        let refreshed = rig.emulator.refreshes("cli");
        rig.emulator.refreshed("cli", refreshed + 4).await;
        rig.eventually(DATA, 200).await;
    }
    twin.stop().await;
    assert_eq!((rig.emulator.reuses("cli"), rig.emulator.families_revoked("cli")), (0, 0));
    rig.finish().await;
}

/// No certificate is valid that early: nothing can be reached, and the reason is named.
#[tokio::test]
async fn a_machine_that_starts_in_1970_works_once_its_clock_is_set() {
    let authority = Authority::new();
    let (builder, clocks) = machine().await;
    let leaf = authority.issue(&["localhost"], false);
    let server = TlsServer::start(builder.router(), &leaf, &["http/1.1"]).await;
    let ca_file = authority.write(builder.dir());
    let base = format!("https://localhost:{}", server.address.port());
    let yaml = format!(
        "upstream: {{base_url: \"{base}\", ca_file: {}}}\nauth: {{token_url: \"{base}/oauth/token\"}}\n",
        ca_file.display()
    );
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs();
    clocks.set_ahead(-i64::try_from(now).unwrap());
    let rig = builder.config(&yaml).unready().start().await;
    rig.log("clock_suspect").await;
    for (path, status) in [("/v1/pipelines", 503), ("/v1/datasets", 502)] {
        assert_eq!(rig.get(path).await.status(), status, "{path}");
    }
    assert_eq!(rig.series("clock_suspect").await, 1.0);
    let report: Value = serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
    assert_eq!(report["clock_suspect"], true);
    assert!(rig.status(&[]).await.contains("clock_suspect"));
    assert_eq!(rig.emulator.api_requests(), 0);
    clocks.set_ahead(0);
    for path in ["/v1/datasets", "/v1/pipelines"] {
        rig.eventually(path, 200).await;
    }
    assert_eq!(rig.series("clock_suspect").await, 0.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_process_that_stood_still_for_longer_than_its_token_lives_fails_no_call() {
    let rig = Rig::builder().await.token_life(Duration::from_secs(2)).start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.sidecar.signal("STOP").await;
    // tidy: passes time because the process stands still while its token expires.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let going_on = async {
        rig.sidecar.signal("CONT").await;
    };
    let (answer, ()) = tokio::join!(rig.get("/v1/pipelines"), going_on);
    assert_eq!(answer.status(), 200);
    assert_eq!((rig.emulator.anonymous(), rig.emulator.answered(401)), (0, 0));
    rig.finish().await;
}
