//! Promise: it starts in no time or says why not, tells how it is, and ends without losing a call.

use std::time::Duration;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Aws, CANARY, Process, Relay, Rig, Way, tools};

/// Longer than any test: it is ended by what the test waits for.
const HOUR: Duration = Duration::from_secs(3600);

/// 200 slow calls in flight, and new ones after SIGTERM: none lost, none refused, and the process
/// ends when the last answer is out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_loses_no_call_and_refuses_none() {
    let mut rig = Rig::builder().await.config("drain: {max: 60s}\n").start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.emulator.delay_api(HOUR);
    let url = rig.url("/v1/datasets");
    let slow = join_all((0..200).map(|_| rig.client.get(&url).send()));
    let after = async {
        rig.emulator.in_flight(200).await;
        rig.sidecar.signal("TERM").await;
        rig.log("draining").await;
        // A new connection each time: the listener still has to accept.
        let late = (0..20).map(|_| tools::client(Vec::new()).get(&url).send());
        let answering = async {
            rig.emulator.in_flight(220).await;
            rig.emulator.heal();
        };
        tokio::join!(join_all(late), answering).0
    };
    let (slow, late) = tokio::join!(slow, after);
    let statuses: Vec<_> =
        slow.into_iter().chain(late).map(|a| a.map(|a| a.status().as_u16())).collect();
    let lost: Vec<_> = statuses.iter().filter(|s| !matches!(s, Ok(200))).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), statuses.len());
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
}

/// An app that makes slow calls one after the other is still there when one ends.
#[tokio::test]
async fn an_app_that_calls_again_and_again_is_served_until_it_stops() {
    // The sidecar waits a quarter of a second for the next call, for which this machine may be too slow.
    for _ in 0..TRIES {
        if calls_again_and_again().await {
            return;
        }
    }
    panic!("the next call never came in time, {TRIES} times");
}

const TRIES: usize = 10;

/// Whether each call could be made in time.
async fn calls_again_and_again() -> bool {
    let mut rig = Rig::builder().await.config("drain: {max: 60s}\n").start().await;
    rig.emulator.delay_api(HOUR);
    let url = rig.url("/v1/datasets");
    let mut last = None;
    for number in 0..4 {
        let mut call = Box::pin(rig.client.get(&url).send());
        let arriving = async {
            rig.emulator.in_flight(1).await;
            if number == 0 {
                rig.sidecar.signal("TERM").await;
                rig.log("draining").await;
            }
        };
        tokio::select! {
            () = arriving => {}
            refused = &mut call => {
                let waited = last.map(|last: Instant| last.elapsed());
                let is_late = waited.is_some_and(|waited| waited >= Duration::from_millis(250));
                assert!(is_late, "call {number} after {waited:?}: {refused:?}");
                return false;
            }
        }
        last = Some(Instant::now());
        rig.emulator.heal();
        rig.emulator.delay_api(HOUR);
        assert_eq!(call.await.expect("it was accepted").status(), 200, "call {number}");
    }
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
    let end = rig.sidecar.stderr.lines().last().cloned().unwrap_or_default();
    assert!(end.contains("every call was answered"), "{end}");
    true
}

/// A call on its way, until faults are forgotten.
async fn slow_call(rig: &Rig) -> JoinSet<reqwest::Result<reqwest::Response>> {
    let slow = Effect::LatencyMs(u64::try_from(HOUR.as_millis()).unwrap());
    rig.emulator.fault(Fault::times(Scope::Api, slow, 1));
    let mut calls = JoinSet::new();
    calls.spawn(rig.client.get(rig.url("/v1/datasets")).send());
    rig.emulator.in_flight(1).await;
    calls
}

/// The `reader` of a changed configuration, with a key of its own.
fn another_reader(rig: &Rig) -> String {
    let file = rig.dir().join("second");
    std::fs::write(&file, rig.emulator.add_key("second")).unwrap();
    let file = file.display();
    format!("credentials: [{{name: reader, level: read_only, api_key: 'file:{file}'}}]")
}

/// As when a roll-out changes a volume while the pods of before end: what works goes on.
#[tokio::test]
async fn a_configuration_that_changes_during_the_drain_costs_no_call() {
    let mut rig = Rig::builder().await.config("drain: {max: 60s}\n").start().await;
    let mut slow = slow_call(&rig).await;
    rig.sidecar.signal("TERM").await;
    rig.log("draining").await;
    let changed = another_reader(&rig);
    rig.reconfigure(&changed);
    rig.sidecar.signal("HUP").await;
    // Longer than a reload waits for a new credential.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(7) {
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    }
    rig.emulator.heal();
    assert_eq!(slow.join_next().await.unwrap().unwrap().unwrap().status(), 200);
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
    assert_eq!(rig.emulator.used("second"), 0, "nothing is changed any more");
}

#[tokio::test]
async fn a_reload_that_the_drain_finds_under_way_comes_to_its_end() {
    let aws = Aws::start().await;
    aws.create("prod/admin", &format!("{CANARY}-admin")).await;
    let relay = Relay::new(aws.address()).await;
    let mut rig = Rig::builder()
        .await
        .aws_keys()
        .config(&format!(
            "drain: {{max: 60s}}\n\
             stores: {{aws: {{region: eu-west-1, endpoint: 'http://{}'}}}}",
            relay.address
        ))
        .start()
        .await;
    let mut slow = slow_call(&rig).await;
    relay.set(Way::Slow(Duration::from_secs(1))).await;
    let changed = another_reader(&rig);
    rig.reconfigure(&format!("admin: {{token: 'aws:prod/admin'}}\n{changed}"));
    rig.until(async || relay.connections() > 0).await;
    rig.sidecar.signal("TERM").await;
    rig.log("draining").await;
    rig.log("the configuration was reloaded").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("second"), 1);
    rig.emulator.heal();
    assert_eq!(slow.join_next().await.unwrap().unwrap().unwrap().status(), 200);
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn readiness_tells_of_draining_and_a_second_signal_ends_at_once() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.health("/readyz").await.0, 200);
    rig.emulator.delay_api(Duration::from_secs(3600));
    let url = rig.url("/v1/datasets");
    let client = rig.client.clone();
    let hanging = client.get(&url).send();
    let ending = async {
        rig.emulator.in_flight(1).await;
        rig.sidecar.signal("TERM").await;
        rig.log("draining").await;
        assert_eq!(rig.health("/readyz").await.0, 503);
        assert_eq!(rig.health("/livez").await.0, 200);
        rig.sidecar.signal("TERM").await;
        rig.sidecar.ended().await
    };
    let (cut, status) = tokio::join!(hanging, ending);
    assert!(cut.is_err());
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn start_up_waits_for_required_credentials_and_opens_all_the_same() {
    let rig = Rig::builder()
        .await
        .without_authorization_server()
        .config("startup_timeout: 5s\n")
        .unready()
        .start()
        .await;
    assert_eq!(rig.health("/startupz").await.0, 503);
    assert_eq!(rig.health("/livez").await.0, 200);
    rig.log("started without a required credential").await;
    assert_eq!(rig.health("/startupz").await.0, 200);
    assert_eq!(rig.health("/readyz").await.0, 200);
    rig.finish().await;
}

#[tokio::test]
async fn a_credential_that_is_not_required_holds_up_no_start() {
    let builder = Rig::builder().await;
    let key = builder.dir().join("reader").display().to_string();
    let config = format!(
        "startup_timeout: 10m\ncredentials:\n\
         - {{name: there, level: read_only, api_key: 'file:{key}'}}\n\
         - {{name: missing, level: admin, required: false, api_key: 'file:{key}.not'}}\n"
    );
    let rig = builder.config(&config).start().await;
    assert_eq!(rig.health("/startupz").await.0, 200);
    assert_eq!(rig.health("/readyz/credentials").await.0, 200);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let refused = rig.get("/v1/users").await;
    assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
    let pending = r#"credential_state{credential="missing",state="pending"}"#;
    assert_eq!(rig.series(pending).await, 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn an_address_in_use_is_an_error_at_once() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let dir = tempfile::tempdir().unwrap();
    for yaml in [
        format!("listeners: [{{listen: 127.0.0.1:{port}}}]\nhealth: {{listen: 127.0.0.1:0}}\n"),
        format!("listeners: [{{listen: localhost:0}}]\nhealth: {{listen: 127.0.0.1:{port}}}\n"),
    ] {
        let yaml = format!(
            "version: 1\n{yaml}admin: {{listen: 127.0.0.1:0}}\n\
             credentials: [{{name: a, level: read_only, api_key: env:NONE}}]\n"
        );
        let path = dir.path().join("config.yaml");
        std::fs::write(&path, yaml).unwrap();
        let mut sidecar = Process::sidecar(&["run", "--config", path.to_str().unwrap()]);
        assert_eq!(sidecar.ended().await.code(), Some(2));
        let said = sidecar.stderr.lines().join("\n");
        assert!(said.contains(&port.to_string()) && said.contains("another program"), "{said}");
    }
}

#[tokio::test]
async fn metrics_and_status_tell_the_state_of_each_credential() {
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    // A call is counted when it is over, which may be after its answer is here.
    rig.quiet().await;
    let (status, metrics) = rig.health("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "datapulse_sidecar_requests_total{credential=\"etl\",method=\"GET\",status=\"200\",tenant=\"default\"} 1",
        "datapulse_sidecar_credential_state{credential=\"etl\",state=\"fresh\"} 1",
        "datapulse_sidecar_credential_state{credential=\"etl\",state=\"expired\"} 0",
        "datapulse_sidecar_credential_generation{credential=\"etl\"} 1",
        "datapulse_sidecar_store_reads_total{outcome=\"ok\",store=\"file\"}",
        "datapulse_sidecar_in_flight 0",
        "datapulse_sidecar_panics_total 0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(rig.health("/status").await.0, 404, "the health listener tells no more");
    let report: Value = serde_json::from_str(&rig.status(&["--json"]).await).unwrap();
    assert_eq!(report["phase"], "ready");
    assert_eq!(report["credentials"][0]["state"], "fresh");
    let table = rig.status(&[]).await;
    for word in ["reader", "etl", "fresh", "read_only"] {
        assert!(table.contains(word), "{table}");
    }
    let admin = rig.admin_url("");
    let watching = Process::sidecar(&["status", "--watch", "--admin", &admin]);
    let cleared = |line: &String| line.contains("\u{1b}[H\u{1b}[J") && line.contains("ready");
    watching.stdout.until(|lines| lines.iter().filter(|line| cleared(line)).count() >= 2).await;
    let rebound = rig.client.get(rig.admin_url("/status")).header("host", "evil.example");
    assert_eq!(rebound.send().await.unwrap().status(), 421);
    rig.finish().await;
}

#[tokio::test]
async fn each_call_has_an_audit_line_and_no_secret_in_it() {
    let rig = Rig::start().await;
    let call = rig.client.get(rig.url("/v1/pipelines?q=1")).header("x-request-id", "audited");
    assert_eq!(call.send().await.unwrap().status(), 200);
    let line = rig.sidecar.stdout.line(|line| line.contains("\"audited\"")).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    for (field, want) in [
        ("tenant", Value::from("default")),
        ("credential", "etl".into()),
        ("method", "GET".into()),
        ("rule", "default:pipelines".into()),
        ("status", 200.into()),
        ("attempts", 1.into()),
    ] {
        assert_eq!(line[field], want, "{line}");
    }
    let denied = rig.client.post(rig.url("/auth/refresh")).header("x-request-id", "denied");
    assert_eq!(denied.send().await.unwrap().status(), 403);
    let refused = rig.sidecar.stdout.line(|line| line.contains("\"denied\"")).await;
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(refused["rule"], "default:refresh", "{refused}");
    assert_eq!(refused["tenant"], "default", "{refused}");
    assert!(line["token"].as_str().is_some_and(|print| !print.is_empty()), "{line}");
    assert!(!line.to_string().contains("q=1"), "{line}");
    rig.finish().await;
}

/// The audit line of the call with this request id.
async fn audited(rig: &Rig, id: &str) -> Value {
    let line = rig.sidecar.stdout.line(|line| line.contains(&format!("\"{id}\""))).await;
    serde_json::from_str(&line).unwrap()
}

#[tokio::test]
async fn the_audit_line_tells_what_was_sent_and_not_what_was_meant_to_be() {
    let rig = Rig::builder().await.upstream(tools::free_address()).start().await;
    let call = rig.client.get(rig.url("/v1/datasets")).header("x-request-id", "unsent");
    assert_eq!(call.send().await.unwrap().status(), 502);
    let line = audited(&rig, "unsent").await;
    assert_eq!((&line["token"], &line["attempts"]), (&"".into(), &0.into()), "{line}");
    assert_eq!(line["credential"], "reader", "{line}");
    rig.finish().await;
}

#[tokio::test]
async fn the_audit_line_tells_how_long_a_call_waited_for_its_turn() {
    let yaml = "quotas: {q: {limit: 10/min, burst: 1}}\n\
                credentials: [{name: reader, level: read_only, quota: q, api_key: 'file:${DIR}/reader'}]";
    let rig = Rig::builder().await.config_in_dir(yaml).start().await;
    rig.emulator.delay_api(Duration::from_millis(700));
    let waited = |line: &Value| line["queue_wait_ms"].as_f64().unwrap();
    let call = async |id: &str| {
        let call = rig.client.get(rig.url("/v1/datasets")).header("x-request-id", id);
        assert_eq!(call.send().await.unwrap().status(), 200);
        let line = audited(&rig, id).await;
        let took = line["duration_ms"].as_f64().unwrap();
        assert!(took >= 700.0 && waited(&line) <= took - 700.0, "{line}");
        waited(&line)
    };
    // One in six seconds.
    let (first, second) = (call("first").await, call("second").await);
    println!("the first waits {first} ms, the next {second} ms");
    assert!(second > 1_000.0, "{second}");
    // One that waits until it hangs up waited, too.
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: left\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    rig.until_series("queue_depth{quota=\"q\"}", |depth| depth == 1.0).await;
    drop(stream);
    let line = audited(&rig, "left").await;
    assert!(waited(&line) > 0.0 && line["attempts"] == 0 && line["token"] == "", "{line}");
    rig.finish().await;
}

/// The operator's mistake is mended while the start still waits for what it named.
#[tokio::test]
async fn start_up_waits_for_the_credentials_of_the_configuration_in_force() {
    let builder = Rig::builder().await.config("startup_timeout: 10m\n");
    let yaml = |file: &str| {
        format!("credentials: [{{name: reader, level: read_only, api_key: 'file:{file}'}}]")
    };
    let key = builder.dir().join("reader").display().to_string();
    let mut rig = builder.config(&yaml("/no/such/key")).unready().start().await;
    assert_eq!(rig.health("/startupz").await.0, 503);
    rig.reconfigure(&yaml(&key));
    rig.log("started: each required credential is usable").await;
    assert_eq!(rig.health("/startupz").await.0, 200);
    assert_eq!(rig.health("/readyz").await.0, 200);
    rig.finish().await;
}

/// An app that keeps its connection to the end would meet the end under its next call.
#[tokio::test]
async fn the_sidecars_own_answers_close_their_connection_during_the_drain() {
    let mut rig = Rig::builder().await.config("drain: {max: 60s}\n").start().await;
    let denied = async || {
        let denied = rig.get("/auth/refresh").await;
        assert_eq!(denied.status(), 403);
        denied.headers()["connection"].to_str().unwrap().to_owned()
    };
    assert_eq!(denied().await, "keep-alive");
    let mut slow = slow_call(&rig).await;
    rig.sidecar.signal("TERM").await;
    rig.log("draining").await;
    assert_eq!(denied().await, "close");
    rig.emulator.heal();
    assert_eq!(slow.join_next().await.unwrap().unwrap().unwrap().status(), 200);
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
}
