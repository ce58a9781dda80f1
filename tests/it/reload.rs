//! Promise: a changed configuration takes effect while calls are made, and a broken one never does.

use std::time::Duration;

use crate::support::{Authority, CANARY, Callers, PATIENCE, Rig, TlsServer};

const RELOADED: &str = "the configuration was reloaded";

/// Waits until so many reloads ended in this way.
async fn reloads(rig: &Rig, outcome: &str, count: f64) {
    let series = format!(r#"config_reloads_total{{outcome="{outcome}"}}"#);
    let waiting = async {
        while rig.series(&series).await < count {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "{:?}", rig.sidecar.stderr.lines());
}

#[tokio::test]
async fn a_reload_changes_the_policy_and_keeps_the_tokens() {
    let mut rig = Rig::start().await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let mints = rig.emulator.mints("etl");
    rig.reconfigure("policy: [{methods: [ANY], path: /v1/datasets/**, deny: true}]");
    rig.log(RELOADED).await;
    let denied = rig.get("/v1/datasets").await;
    assert_eq!(denied.headers()["x-datapulse-sidecar-error"], "denied_by_policy");
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    assert_eq!(rig.emulator.mints("etl"), mints, "the token was kept");
    let at = "config_last_reload_success_timestamp_seconds";
    assert!(rig.series(at).await > 1e9);
    rig.finish().await;
}

#[tokio::test]
async fn a_broken_configuration_is_told_with_its_place_and_changes_nothing() {
    let mut rig = Rig::start().await;
    let good = std::fs::read_to_string(rig.config_file()).unwrap();
    let mut count = 0.0;
    for broken in ["", "version: 1\nlistener: []\n", "\u{1}", good.trim_end_matches('}')] {
        rig.write_config(broken);
        count += 1.0;
        reloads(&rig, "invalid", count).await;
        assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    }
    rig.log("config.yaml:2:1: listener: ").await;
    rig.log("the old one stays in force").await;
    let shown = rig.status(&[]).await;
    assert!(shown.contains("what is in the configuration's file is not in force"), "{shown}");
    std::fs::remove_file(rig.config_file()).unwrap();
    reloads(&rig, "unreadable", 1.0).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.reconfigure("policy: [{methods: [ANY], path: /v1/datasets/**, deny: true}]");
    rig.log(RELOADED).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 403);
    rig.finish().await;
}

#[tokio::test]
async fn new_credentials_are_usable_when_they_are_in_force_and_removed_ones_end() {
    let mut rig = Rig::start().await;
    let key = rig.emulator.add_key("second");
    let file = rig.dir().join("second");
    std::fs::write(&file, key).unwrap();
    let state = r#"credential_state{credential="reader",state="fresh"}"#;
    assert_eq!(rig.series(state).await, 1.0);
    rig.reconfigure(&format!(
        "credentials: [{{name: other, level: read_only, api_key: 'file:{}'}}]",
        file.display()
    ));
    rig.log(RELOADED).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!((rig.emulator.used("second"), rig.emulator.used("reader")), (1, 0));
    assert_eq!(rig.get("/v1/pipelines").await.status(), 403);
    assert_eq!(rig.series(state).await, 0.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_hangup_reads_the_file_again_and_ends_nothing() {
    let rig = Rig::start().await;
    rig.sidecar.signal("HUP").await;
    rig.log(RELOADED).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn what_needs_a_restart_is_told_and_the_rest_is_applied() {
    let mut rig = Rig::start().await;
    rig.reconfigure(
        "listeners: [{listen: 'localhost:1'}]\nhealth: {listen: '127.0.0.1:2'}\n\
         upstream: {base_url: 'http://127.0.0.1:3'}\n\
         policy: [{methods: [ANY], path: /v1/datasets/**, deny: true}]",
    );
    for part in ["listeners", "health.listen", "upstream.base_url"] {
        rig.log(&format!("needs a restart\",\"part\":\"{part}\"")).await;
    }
    rig.log(RELOADED).await;
    let status = rig.status(&["--json"]).await;
    assert!(
        status.contains(r#""needs_restart":["upstream.base_url","health.listen","listeners"]"#)
    );
    assert_eq!(rig.get("/v1/datasets").await.status(), 403);
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    rig.finish().await;
}

/// The upstream's file is the authorization server's as well, where that names none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_file_that_was_replaced_is_read_again_and_the_upstreams_is_told_to_need_a_restart() {
    let authority = Authority::new();
    let builder = Rig::builder().await.log_level("info").token_life(Duration::from_secs(3));
    let leaf = authority.issue(&["localhost"], false);
    let server = TlsServer::start(builder.router(), &leaf, &["http/1.1"]).await;
    let ca_file = authority.write(builder.dir());
    let base = format!("https://localhost:{}", server.address.port());
    let yaml = format!(
        "upstream: {{base_url: '{base}', ca_file: '{}'}}\n\
         auth: {{token_url: '{base}/oauth/token'}}\n",
        ca_file.display()
    );
    let mut rig = builder.config(&yaml).start().await;
    // A reload that fails, and is taken back, changes nothing of it.
    let good = std::fs::read_to_string(rig.config_file()).unwrap();
    rig.reconfigure(
        "auth: {verify_path: /auth/other}\n\
         upstream: {client_cert: {cert_file: /no/such/certificate, key: 'file:/no/such/key'}}",
    );
    reloads(&rig, "failed", 1.0).await;
    rig.write_config(&good);
    reloads(&rig, "applied", 1.0).await;
    let is_fresh = r#"credential_state{credential="etl",state="fresh"}"#;
    let generation = r#"credential_generation{credential="etl"}"#;
    Authority::new().write(rig.dir());
    rig.sidecar.signal("HUP").await;
    rig.log("needs a restart\",\"part\":\"upstream.ca_file\"").await;
    rig.until_series(is_fresh, |fresh| fresh == 0.0).await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "calls are verified as they were");
    let before = rig.series(generation).await;
    authority.write(rig.dir());
    rig.sidecar.signal("HUP").await;
    rig.until_series(is_fresh, |fresh| fresh == 1.0).await;
    assert!(rig.series(generation).await > before, "it is the same credential");
    assert!(rig.status(&["--json"]).await.contains(r#""needs_restart":[]"#));
    rig.finish().await;
}

/// Once all eight callers wait at the same time, each has a connection of its own to the upstream.
const OPEN_FILES_GROWTH_MAX: usize = 24;

/// Tokens of two seconds, a key that is replaced, reloads, and every third of those broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_everything_changes() {
    let builder = Rig::builder().await.log_level("info").token_life(Duration::from_secs(2));
    let mut rig = builder.start().await;
    let callers = [Callers::start(&rig, "/v1/datasets"), Callers::start(&rig, "/v1/pipelines")];
    let mut files = 0;
    for round in 0..12 {
        let key = rig.emulator.add_key(&format!("key{round}"));
        std::fs::write(&rig.key_file, key).unwrap();
        match round % 3 {
            0 => rig.write_config(&format!("version: 1\nbroken{round}: {CANARY}\n")),
            _ => rig.reconfigure(&format!("front_door: {{max_connections: {}}}", 900 + round)),
        }
        rig.emulator.uses(&format!("key{round}")).await;
        let (bad, good) = (f64::from(round / 3 + 1), f64::from(round - round / 3));
        reloads(&rig, "invalid", bad).await;
        reloads(&rig, "applied", good).await;
        let open = open_files(&rig);
        if round == 2 {
            files = open;
        }
        assert!(
            files == 0 || open <= files + OPEN_FILES_GROWTH_MAX,
            "{open} open files, {files} at first"
        );
    }
    for callers in callers {
        let (made, failed) = callers.stop().await;
        assert!(made > 100);
        assert_eq!(failed, 0, "of {made}");
    }
    let odd = (rig.emulator.anonymous(), rig.emulator.answered(401));
    assert_eq!(odd, (0, 0), "each call had one whole credential");
    rig.finish().await;
}

fn open_files(rig: &Rig) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", rig.sidecar.id())).expect("on Linux").count()
}
