//! Promise: an operator can change what has to change while calls are made, nobody else can, and
//! each change leaves a trace.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{CANARY, Process, Rig};

/// A rig whose operators are known by a token.
async fn rig(yaml: &str) -> Rig {
    let builder = Rig::builder().await;
    std::fs::write(builder.dir().join("operators"), format!("{}\n", token())).unwrap();
    let builder = builder.config_in_dir("admin: {token: 'file:${DIR}/operators'}");
    builder.config_in_dir(yaml).start().await
}

fn token() -> String {
    format!("{CANARY}-operators")
}

/// Asks with the token: status and text.
async fn ask(rig: &Rig, method: Method, path: &str, body: &'static str) -> (u16, String) {
    let request = rig.client.request(method, rig.admin_url(path)).bearer_auth(token()).body(body);
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    assert!(!text.contains(CANARY), "{text}");
    (status, text)
}

async fn post(rig: &Rig, path: &str) -> (u16, String) {
    ask(rig, Method::POST, path, "").await
}

#[tokio::test]
async fn without_an_admin_token_the_verbs_are_off_and_say_what_turns_them_on() {
    let rig = Rig::start().await;
    for (method, path) in [
        (Method::POST, "/credentials/reader/pause"),
        (Method::POST, "/credentials/none/refresh"),
        (Method::POST, "/quotas/none/forget"),
        (Method::PUT, "/log-level"),
    ] {
        let (status, text) = ask(&rig, method, path, "debug").await;
        assert_eq!(status, 403, "{path}");
        assert!(text.contains("set admin.token"), "{text}");
    }
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn only_who_sends_the_token_once_and_is_no_web_page_is_obeyed() {
    let rig = rig("{}").await;
    let right = format!("Bearer {}", token());
    let longer = format!("{right}x");
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer ")], 401),
        (vec![("authorization", &*longer)], 401),
        (vec![("authorization", &right[..right.len() - 1])], 401),
        (vec![("authorization", &*right); 2], 401),
        (vec![("x-datapulse-sidecar-token", &right[7..])], 401),
        (vec![("authorization", &*right), ("origin", "http://127.0.0.1:9465")], 403),
        (vec![("authorization", &*right), ("sec-fetch-site", "cross-site")], 403),
        (vec![("authorization", &*right), ("host", "evil.example")], 421),
    ] {
        let mut request = rig.client.post(rig.admin_url("/credentials/reader/pause"));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{headers:?}");
        let text = answer.text().await.unwrap();
        assert!(!text.contains(CANARY), "{text}");
        assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{headers:?}");
    }
    rig.log("an operator's request was not done").await;
    assert_eq!(rig.series(r#"admin_verbs_total{status="401",verb="pause"}"#).await, 6.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_paused_credential_refuses_its_calls_until_it_is_resumed() {
    let mut rig = rig("{}").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let (status, text) = post(&rig, "/credentials/reader/pause").await;
    assert_eq!(status, 200);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["state"], &report["paused"]), (&"fresh".into(), &true.into()));
    let check_refused = async |rig: &Rig| {
        let before = rig.emulator.api_requests();
        let refused = rig.get("/v1/datasets").await;
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused.headers()["x-datapulse-sidecar-error"], "credential_unavailable");
        assert!(refused.headers().contains_key("retry-after"));
        let body: Value = refused.json().await.unwrap();
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("credential reader") && detail.contains("paused"), "{detail}");
        assert_eq!(rig.emulator.api_requests(), before, "nothing was sent");
    };
    check_refused(&rig).await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200, "others are not harmed");
    assert_eq!(rig.series(r#"credential_paused{credential="reader"}"#).await, 1.0);
    assert_eq!(rig.health("/readyz/credentials").await, (503, "not usable: reader\n".to_owned()));
    let shown = rig.status(&[]).await;
    assert!(shown.contains("paused (fresh)") && shown.contains("/resume"), "{shown}");
    // A reload that leaves the credential as it is leaves it paused.
    rig.reconfigure("front_door: {max_connections: 900}");
    rig.log("the configuration was reloaded").await;
    check_refused(&rig).await;
    assert_eq!(post(&rig, "/credentials/reader/resume").await.0, 200);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200, "at once");
    assert_eq!(rig.series(r#"credential_paused{credential="reader"}"#).await, 0.0);
    let audited = rig.sidecar.stdout.line(|line| line.contains(r#""verb":"resume""#)).await;
    let audited: Value = serde_json::from_str(&audited).unwrap();
    assert_eq!((&audited["name"], &audited["status"]), (&"reader".into(), &200.into()));
    rig.finish().await;
}

#[tokio::test]
async fn a_call_that_waits_for_its_turn_is_not_sent_with_a_credential_that_is_paused_meanwhile() {
    let rig =
        rig("quotas: {slow: {limit: 10/min}}\ncredentials:\n  - {name: reader, level: read_only, \
         quota: slow, api_key: 'file:${DIR}/reader'}\n")
        .await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let waiting = rig.get("/v1/datasets");
    let pausing = async {
        rig.until(async || rig.series(r#"queue_depth{quota="slow"}"#).await >= 1.0).await;
        post(&rig, "/credentials/reader/pause").await
    };
    let (answer, (status, _)) = tokio::join!(waiting, pausing);
    assert_eq!((status, answer.status().as_u16()), (200, 503));
    assert_eq!(rig.emulator.api_requests(), 1);
    rig.finish().await;
}

#[tokio::test]
async fn a_refresh_gives_a_new_token_or_the_reason_why_there_is_none() {
    let rig = rig("{}").await;
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200);
    let mints = rig.emulator.mints("etl");
    let (status, text) = post(&rig, "/credentials/etl/refresh").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(rig.emulator.mints("etl"), mints + 1);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["generation"], mints + 1);
    rig.emulator.fail_token_endpoint(503);
    let (status, text) = post(&rig, "/credentials/etl/refresh").await;
    assert_eq!(status, 502);
    assert!(text.contains("the token endpoint answered 503"), "{text}");
    assert_eq!(rig.get("/v1/pipelines").await.status(), 200, "the token stays");
    let tries = r#"credential_refreshes_total{credential="etl",outcome="refused",reason="asked"}"#;
    assert_eq!(rig.series(tries).await, 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_new_key_that_was_rejected_is_tried_again_when_an_operator_asks() {
    let rig = rig("{}").await;
    let key = format!("dp_live_{CANARY}_later");
    std::fs::write(&rig.key_file, &key).unwrap();
    rig.log("the changed secret was rejected").await;
    rig.emulator.accept("later", &key);
    let (status, text) = post(&rig, "/credentials/reader/refresh").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.emulator.used("later"), 1);
    rig.finish().await;
}

#[tokio::test]
async fn a_quota_that_forgets_its_pause_lets_calls_go_and_what_was_sent_still_counts() {
    let rig = rig(
        "quotas: {starter: {limit: 20/s}}\ncredentials:\n  - {name: reader, level: read_only, \
         quota: starter, api_key: 'file:${DIR}/reader'}\n",
    )
    .await;
    rig.emulator.throttle_api("600");
    assert_eq!(rig.get("/v1/datasets").await.status(), 429);
    assert_eq!(rig.get("/v1/datasets").await.status(), 503, "paused for ten minutes");
    let (status, text) = post(&rig, "/quotas/starter/forget").await;
    assert_eq!((status, &*text), (200, r#"{"forgotten":true,"quota":"starter"}"#));
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn a_name_that_is_none_is_answered_with_the_nearest_one() {
    let rig = rig("quotas: {starter: {limit: 20/s}}").await;
    for (path, meant) in [
        ("/credentials/raeder/pause", "did you mean \"reader\"?"),
        ("/credentials/elt/refresh", "did you mean \"etl\"?"),
        ("/credentials/%0A%1b/resume", "there is no credential of this name\n"),
        ("/quotas/startr/forget", "did you mean \"starter\"?"),
    ] {
        let (status, text) = post(&rig, path).await;
        assert_eq!(status, 404, "{path}");
        assert!(text.contains(meant), "{path}: {text}");
    }
    assert_eq!(post(&rig, "/credentials/reader/rotate").await.0, 404);
    rig.finish().await;
}

#[tokio::test]
async fn the_log_level_changes_at_once_and_for_our_own_lines_alone() {
    let rig = rig("log: {level: info}").await;
    let put = |level: &'static str| ask(&rig, Method::PUT, "/log-level", level);
    for wrong in ["", "verbose", "datapulse_sidecar=trace,pingora=debug", "info,hyper=trace"] {
        let (status, text) = put(wrong).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(text.contains("error, warn, info, debug, trace"), "{text}");
    }
    assert_eq!(put("trace\n").await, (200, r#"{"before":"info","level":"trace"}"#.to_owned()));
    let refused = rig.client.get(rig.url("/v1/datasets")).header("origin", "x").send().await;
    assert_eq!(refused.unwrap().status(), 403);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.log(r#""level":"DEBUG""#).await;
    assert_eq!(put("warn").await, (200, r#"{"before":"trace","level":"warn"}"#.to_owned()));
    assert_eq!(put("info").await, (200, r#"{"before":"warn","level":"info"}"#.to_owned()));
    let lines = rig.sidecar.stderr.lines();
    let ours = |line: &String| line.contains(r#""target":"datapulse_sidecar"#);
    let others = lines.iter().filter(|line| line.contains("DEBUG") && !ours(line));
    assert_eq!(others.count(), 0, "{lines:?}");
    rig.finish().await;
}

#[tokio::test]
async fn an_admin_token_is_read_at_a_reload_and_one_that_is_not_there_changes_nothing() {
    let mut rig = rig("{}").await;
    std::fs::write(rig.dir().join("operators2"), format!("{CANARY}-second")).unwrap();
    let path = rig.dir().join("operators2");
    rig.reconfigure("admin: {token: 'file:/no/such/token'}");
    rig.log("the admin token cannot be read").await;
    assert_eq!(post(&rig, "/credentials/reader/pause").await.0, 200, "the old one holds");
    rig.reconfigure(&format!("admin: {{token: 'file:{}'}}", path.display()));
    rig.log("the configuration was reloaded").await;
    assert_eq!(post(&rig, "/credentials/reader/resume").await.0, 401);
    let resume = rig.client.post(rig.admin_url("/credentials/reader/resume"));
    let resume = resume.bearer_auth(format!("{CANARY}-second")).send().await.unwrap();
    assert_eq!(resume.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn an_admin_token_that_callers_hold_too_ends_the_start() {
    let builder = Rig::builder().await;
    std::fs::write(builder.dir().join("door"), token()).unwrap();
    let stage = builder
        .config_in_dir(
            "listeners: [{listen: localhost:0, caller_token: 'file:${DIR}/door'}]\n\
             admin: {token: 'file:${DIR}/door'}",
        )
        .stage();
    let mut sidecar = Process::sidecar(&["run", "--config", &stage.config]);
    assert_eq!(sidecar.ended().await.code(), Some(2));
    let said = sidecar.stderr.lines().join("\n");
    assert!(said.contains("admin.token") && said.contains("one of their own"), "{said}");
    assert!(!said.contains(CANARY), "{said}");
}
