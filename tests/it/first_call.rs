//! Promise: an app calls localhost without a credential, and DataPulse answers; what the app sends
//! in the credential's place never arrives.

use serde_json::Value;

use crate::support::{Rig, exchange};

#[tokio::test]
async fn a_call_without_a_credential_returns_data() {
    let rig = Rig::start().await;
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 200);
    assert!(answer.headers().contains_key("x-request-id"));
    let data: Value = answer.json().await.unwrap();
    assert!(data["data"].as_array().is_some_and(|all| !all.is_empty()), "{data}");
    rig.finish().await;
}

/// Raw heads, because no client library sends what an attacker would.
#[tokio::test]
async fn the_upstream_sees_exactly_one_authorization_and_it_is_ours() {
    let rig = Rig::start().await;
    let stolen = "Bearer dp_live_of_the_caller".to_owned();
    let lines = [
        String::new(),
        format!("Authorization: {stolen}\r\n"),
        format!("authorization: {stolen}\r\nAUTHORIZATION: {stolen}\r\n"),
        format!("aUtHoRiZaTiOn: {stolen}\r\n"),
        "Authorization:\r\n".to_owned(),
        format!("Authorization: {}\r\n", "x".repeat(8 * 1024)),
        format!("Authorization_: {stolen}\r\nX_Api_Key: {stolen}\r\n"),
        format!(
            "X-Api-Key: {stolen}\r\nProxy-Authorization: {stolen}\r\nCookie: token=of_the_caller\r\n"
        ),
        format!("Connection: authorization\r\nAuthorization: {stolen}\r\n"),
        "Connection: Authorization, close\r\n".to_owned(),
        "Connection: , authorization\r\nConnection: AUTHORIZATION\r\n".to_owned(),
        format!("X-Forwarded-Authorization: {stolen}\r\nX-Original-URL: /v1/users\r\n"),
    ];
    for line in &lines {
        let request = format!(
            "GET /v1/echo?token=of_the_caller HTTP/1.1\r\nHost: localhost\r\n{line}\
             X-Kept: yes\r\nConnection: close\r\n\r\n"
        );
        let answer = exchange(rig.address, &request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{line:?}: {answer}");
        let echo: Value = serde_json::from_str(body(&answer)).unwrap();
        let names: Vec<String> = echo["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| pair[0].as_str().unwrap().to_lowercase())
            .collect();
        let count = |name: &str| names.iter().filter(|n| *n == name).count();
        assert_eq!(count("authorization"), 1, "{line:?}: {names:?}");
        assert_eq!(count("x-kept"), 1, "{line:?}: {names:?}");
        for gone in ["x-api-key", "x_api_key", "authorization_", "proxy-authorization", "cookie"] {
            assert_eq!(count(gone), 0, "{line:?}: {names:?}");
        }
        assert_eq!(echo["credential"], "reader", "{line:?}: {echo}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn the_least_privileged_credential_is_used_and_none_where_none_is_enough() {
    let rig = Rig::builder().await.without_admin().start().await;
    let client = &rig.client;
    for (method, path, status, credential) in [
        ("GET", "/v1/echo", 200, Some("reader")),
        ("HEAD", "/v1/datasets", 200, None),
        ("POST", "/v1/echo", 200, Some("etl")),
        ("GET", "/v1/pipelines", 200, None),
        ("GET", "/v1/users", 403, None),
        ("GET", "/v1/%75sers/7", 403, None),
        ("POST", "/auth/refresh", 403, None),
    ] {
        let method = method.parse::<reqwest::Method>().unwrap();
        let answer = client.request(method.clone(), rig.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), status, "{method} {path}");
        if let Some(credential) = credential {
            let echo: Value = answer.json().await.unwrap();
            assert_eq!(echo["credential"], credential, "{method} {path}");
        } else if status == 403 {
            let code = answer.headers()["x-datapulse-sidecar-error"].to_str().unwrap().to_owned();
            let want =
                if path.starts_with("/auth") { "denied_by_policy" } else { "level_not_granted" };
            assert_eq!(code, want, "{method} {path}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], want);
            assert_eq!(problem["status"], 403);
        }
    }
    assert_eq!(rig.emulator.seen("/v1/users"), 0, "nothing left for a denied call");
    rig.finish().await;
}

#[tokio::test]
async fn links_and_redirects_of_the_upstream_lead_back_through_the_sidecar() {
    let rig = Rig::start().await;
    let answer = rig.get("/v1/datasets").await;
    let link = answer.headers()["link"].to_str().unwrap().to_owned();
    assert!(
        link.contains(&format!("<http://localhost:{}/v1/datasets", rig.address.port())),
        "{link}"
    );
    let created = rig.client.post(rig.url("/v1/datasets")).json(&serde_json::json!({"name": "a"}));
    let created = created.send().await.unwrap();
    assert_eq!(created.status(), 201);
    let location = created.headers()["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with(&rig.url("/v1/datasets/")), "{location}");
    assert_eq!(rig.client.get(location).send().await.unwrap().status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn request_ids_and_traces_are_passed_on_or_started() {
    let rig = Rig::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let request = rig.client.get(rig.url("/v1/echo")).header("x-request-id", "abc.123");
    let answer = request.header("traceparent", trace).send().await.unwrap();
    assert_eq!(answer.headers()["x-request-id"], "abc.123");
    let echo: Value = answer.json().await.unwrap();
    assert_eq!(header(&echo, "x-request-id"), ["abc.123"]);
    assert_eq!(header(&echo, "traceparent"), [trace]);
    let odd = rig.client.get(rig.url("/v1/echo")).header("x-request-id", "a b\"c");
    let answer = odd.header("traceparent", "00-zz").send().await.unwrap();
    let given = answer.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_ne!(given, "a b\"c");
    let echo: Value = answer.json().await.unwrap();
    assert_eq!(header(&echo, "x-request-id"), [given]);
    let started = header(&echo, "traceparent");
    assert!(started.len() == 1 && started[0].len() == 55, "{started:?}");
    // Of a trace, all or nothing is passed on (W3C Trace Context, sections 3.2 and 3.3).
    let other = trace.replace("4bf9", "5bf9");
    for (parents, is_passed_on) in
        [(&[trace][..], true), (&[], false), (&["00-zz"], false), (&[trace, &other], false)]
    {
        let mut call = rig.client.get(rig.url("/v1/echo")).header("tracestate", "a=1");
        for parent in parents {
            call = call.header("traceparent", *parent);
        }
        let echo: Value = call.send().await.unwrap().json().await.unwrap();
        let (parent, state) = (header(&echo, "traceparent"), header(&echo, "tracestate"));
        assert_eq!(parent.len(), 1, "{parents:?}");
        assert_eq!(parents.contains(&&*parent[0]), is_passed_on, "{parents:?}: {parent:?}");
        assert_eq!(state == ["a=1"], is_passed_on, "{parents:?}: {state:?}");
        assert!(is_passed_on || state.is_empty());
    }
    rig.finish().await;
}

fn header(echo: &Value, name: &str) -> Vec<String> {
    let all = echo["headers"].as_array().unwrap().iter();
    all.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .map(|pair| pair[1].as_str().unwrap().to_owned())
        .collect()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}
