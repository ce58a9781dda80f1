use super::*;
use tokio::task::JoinSet;

async fn start() -> (String, Arc<Control>, watch::Sender<bool>, JoinSet<()>) {
    let address = "127.0.0.1:0".parse().unwrap();
    let emulator = Emulator::bind(address, Settings::default()).await.unwrap();
    let (base, control) = (format!("http://{}", emulator.address()), emulator.control());
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(emulator.run(stopped));
    (base, control, stop, tasks)
}

fn client() -> reqwest::Client {
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
}

async fn get(base: &str, path: &str, key: &str) -> reqwest::Result<reqwest::Response> {
    client().get(format!("{base}{path}")).bearer_auth(key).send().await
}

#[tokio::test]
async fn levels_are_enforced_and_unknown_credentials_refused() {
    let (base, ..) = &start().await;
    for (path, key, want) in [
        ("/v1/datasets", "dp_live_emulator_read_only", 200),
        ("/v1/pipelines/1", "dp_live_emulator_read_only", 403),
        ("/v1/pipelines/1", "dp_live_emulator_read_write", 200),
        ("/v1/users/1", "dp_live_emulator_read_write", 403),
        ("/v1/users/1", "dp_live_emulator_admin", 200),
        ("/v1/datasets", "nobody", 401),
        ("/other", "dp_live_emulator_admin", 404),
    ] {
        assert_eq!(get(base, path, key).await.unwrap().status(), want, "{path} {key}");
    }
}

#[tokio::test]
async fn a_minted_token_works_until_it_is_revoked() {
    let (base, control, ..) = &start().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "emulator-admin"),
        ("client_secret", "emulator-secret"),
    ];
    let answer = client().post(format!("{base}/oauth/token")).form(&form).send().await.unwrap();
    let answer: serde_json::Value = answer.json().await.unwrap();
    let token = answer["access_token"].as_str().unwrap();
    assert_eq!(get(base, "/v1/users", token).await.unwrap().status(), 200);
    assert_eq!((control.mints(), control.revoke(None)), (1, 1));
    assert_eq!(get(base, "/v1/users", token).await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_reset_closes_without_an_answer_and_a_truncated_body_fails() {
    let (base, control, ..) = &start().await;
    let key = "dp_live_emulator_admin";
    control.fault(Fault::times(Scope::Api, Effect::Reset, 1));
    assert!(get(base, "/v1/datasets", key).await.is_err());
    control.fault(Fault::times(Scope::Api, Effect::Truncate, 1));
    let answer = get(base, "/v1/datasets", key).await.unwrap();
    assert!(answer.status() == 200 && answer.bytes().await.is_err());
    assert_eq!(
        get(base, "/v1/exports/100000", key).await.unwrap().bytes().await.unwrap().len(),
        100_000
    );
}

#[tokio::test]
async fn an_answer_that_is_held_back_comes_once_faults_are_forgotten() {
    let (base, control, ..) = &start().await;
    let latency = Effect::LatencyMs(60_000);
    control.fault(Fault { scope: Scope::Api, effect: latency, count: None, probability: None });
    let held = get(base, "/v1/datasets", "dp_live_emulator_admin");
    let healing = async {
        control.until(|counters| counters.in_flight == 1).await;
        control.heal();
    };
    let both = async { tokio::join!(held, healing).0 };
    let answer = tokio::time::timeout(Duration::from_secs(30), both).await.expect("at once");
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn faults_and_limits_set_over_http_strike_and_are_counted_without_secrets() {
    let (base, ..) = &start().await;
    let key = "dp_live_emulator_admin";
    let post = |what: &str, body: &'static str| {
        client().post(format!("{base}/_emulator/{what}")).body(body).send()
    };
    let fault = r#"{"scope":"api","effect":{"status":{"code":503,"retry_after":"7"}},"count":1}"#;
    assert_eq!(post("faults", fault).await.unwrap().status(), 200);
    let answer = get(base, "/v1/datasets", key).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert_eq!(post("settings", r#"{"limit":"1/min"}"#).await.unwrap().status(), 200);
    let echo = get(base, "/v1/echo?a=%2F", key).await.unwrap().text().await.unwrap();
    assert!(echo.contains("/v1/echo?a=%2F") && !echo.contains(key), "{echo}");
    let answer = get(base, "/v1/datasets", key).await.unwrap();
    assert!(answer.status() == 429 && answer.headers().contains_key("retry-after"));
    let counters = client().get(format!("{base}/_emulator/counters")).send().await.unwrap();
    let counters = counters.text().await.unwrap();
    assert!(counters.contains(r#""429":1"#) && !counters.contains(key), "{counters}");
}

#[tokio::test]
async fn what_tells_of_the_limit_is_switched_on_and_off_over_http() {
    let (base, ..) = &start().await;
    for (settings, status, told) in [
        (r#"{"limit":"9/min"}"#, 200, None),
        (r#"{"rate_headers":"x"}"#, 200, Some("x-ratelimit-limit")),
        (r#"{"rate_headers":"y","limit":"1/min"}"#, 400, Some("x-ratelimit-limit")),
        (r#"{"rate_headers":"policy"}"#, 200, Some("ratelimit-policy")),
        (r#"{"token_life_seconds":60}"#, 200, Some("ratelimit-policy")),
        (r#"{"rate_headers":"split"}"#, 200, Some("ratelimit-limit")),
        (r#"{"rate_headers":"none"}"#, 200, None),
    ] {
        let changed = client().post(format!("{base}/_emulator/settings")).body(settings);
        assert_eq!(changed.send().await.unwrap().status(), status, "{settings}");
        let answer = get(base, "/v1/datasets", "dp_live_emulator_admin").await.unwrap();
        assert_eq!(answer.status(), 200, "{settings}: nothing changes by half");
        let headers = answer.headers();
        let has_any = headers.keys().any(|name| name.as_str().contains("ratelimit"));
        assert_eq!(has_any, told.is_some(), "{settings}: {headers:?}");
        assert!(told.is_none_or(|name| headers.contains_key(name)), "{settings}: {headers:?}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_one_after_the_deed() {
    let (base, control, ..) = &start().await;
    let refresh = |token: &str| {
        let form = [("grant_type", "refresh_token"), ("client_id", "emulator-cli")];
        let form = [form[0], form[1], ("refresh_token", token)];
        client().post(format!("{base}/oauth/token")).form(&form).send()
    };
    let token = control.grant("emulator-cli", None).unwrap();
    control.fault(Fault::times(Scope::Token, Effect::LoseAnswer, 1));
    assert!(refresh(&token).await.is_err());
    assert_eq!(control.counters().refreshes["emulator-cli"], 1);
    assert_eq!(refresh(&token).await.unwrap().status(), 400);
    assert_eq!(control.counters().families_revoked["emulator-cli"], 1);
    let token = control.grant("emulator-cli", None).unwrap();
    control.fault(Fault::times(Scope::Token, Effect::LateAnswerMs(1), 1));
    assert_eq!(refresh(&token).await.unwrap().status(), 200);
}
