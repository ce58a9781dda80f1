use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};
use url::Url;

use super::super::{Client, Control, Settings};
use crate::config::model::Level;

/// RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const BACK: &str = "http://127.0.0.1:40000/callback";
const WEB: &str = "https://app.example/back?a=1";
const ISSUER: &str = "http://issuer";

fn control() -> Control {
    let mut settings = Settings::default();
    let (secret, redirect_uris) = (Some("s".to_owned()), vec![WEB.to_owned()]);
    settings.clients.push(Client {
        id: "web".into(),
        secret,
        level: Level::ReadOnly,
        redirect_uris,
    });
    Control::new(settings)
}

/// A good request, with these parameters in the place of its own; an empty one is left out.
fn query(changes: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let good = [
        ("response_type", "code"),
        ("client_id", "emulator-cli"),
        ("redirect_uri", BACK),
        ("scope", "analytics:read"),
        ("state", "a&b"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    for (name, value) in good {
        let changed = changes.iter().find(|(other, _)| *other == name);
        query.append_pair(name, changed.map_or(value, |(_, value)| value));
    }
    query.finish()
}

async fn text(response: Response) -> String {
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Where the browser is sent, and what with.
fn sent(response: &Response) -> (Url, Vec<(String, String)>) {
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let to: Url = response.headers()[header::LOCATION].to_str().unwrap().parse().unwrap();
    let pairs = to.query_pairs().into_owned().collect();
    (to, pairs)
}

/// What comes of the question when a person says this to it.
async fn decided(control: &Control, query: &str, decision: &str) -> Response {
    let page = control.state.lock().authorize(query, ISSUER);
    assert_eq!(page.status(), StatusCode::OK);
    let page = text(page).await;
    let (_, rest) = page.split_once(r#"name="request" value=""#).unwrap();
    let id = rest.split('"').next().unwrap();
    let body = format!("request={id}&decision={decision}");
    let answer = control.state.lock().decide(body.as_bytes(), ISSUER);
    let again = control.state.lock().decide(body.as_bytes(), ISSUER);
    assert_eq!(again.status(), StatusCode::BAD_REQUEST, "a question is answered once");
    answer
}

async fn code(control: &Control, changes: &[(&str, &str)]) -> String {
    let (_, pairs) = sent(&decided(control, &query(changes), "approve").await);
    pairs.into_iter().find(|(name, _)| name == "code").unwrap().1
}

async fn token(control: &Control, body: Value) -> (u16, Value) {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let answer = control.state.lock().token(&headers, body.to_string().as_bytes(), None);
    (answer.status().as_u16(), serde_json::from_str(&text(answer).await).unwrap())
}

fn exchange(code: &str) -> Value {
    json!({"grant_type": "authorization_code", "client_id": "emulator-cli", "code": code,
        "redirect_uri": BACK, "code_verifier": VERIFIER})
}

fn refresh(token: &Value) -> Value {
    json!({"grant_type": "refresh_token", "client_id": "emulator-cli", "refresh_token": token})
}

fn works(control: &Control, token: &Value) -> bool {
    let value = format!("Bearer {}", token.as_str().unwrap());
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
    control.state.lock().identify(&headers, tokio::time::Instant::now()).is_some()
}

#[tokio::test]
async fn a_browser_is_sent_only_where_the_client_has_registered() {
    let control = control();
    for changes in [
        &[("client_id", "nobody")][..],
        &[("client_id", "")],
        &[("redirect_uri", "")],
        &[("redirect_uri", "http://127.0.0.1:40000/other")],
        &[("redirect_uri", "http://127.0.0.1:40000/callback?a=1")],
        &[("redirect_uri", "http://127.0.0.1:40000/callback#a")],
        &[("redirect_uri", "http://user@127.0.0.1:40000/callback")],
        &[("redirect_uri", "https://127.0.0.1:40000/callback")],
        &[("redirect_uri", "http://localhost:40000/callback")],
        &[("redirect_uri", "http://127.0.0.1.evil.example/callback")],
        &[("redirect_uri", "http://127.0.0.1:1@evil.example/callback")],
        &[("redirect_uri", "javascript:alert(1)")],
        &[("client_id", "web"), ("redirect_uri", BACK)],
        &[("client_id", "web"), ("redirect_uri", "https://app.example:444/back?a=1")],
        &[("client_id", "web"), ("redirect_uri", "https://app.example/back")],
    ] {
        let answer = control.state.lock().authorize(&query(changes), ISSUER);
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{changes:?}");
        assert!(!answer.headers().contains_key(header::LOCATION), "{changes:?}");
    }
    let twice = format!("{}&client_id=emulator-cli", query(&[]));
    assert_eq!(control.state.lock().authorize(&twice, ISSUER).status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn what_else_is_wrong_is_told_to_the_client_with_its_state_and_the_issuer() {
    let control = control();
    for (changes, error) in [
        (&[("response_type", "token")][..], "unsupported_response_type"),
        (&[("response_type", "")], "invalid_request"),
        (&[("code_challenge", "")], "invalid_request"),
        (&[("code_challenge", "short")], "invalid_request"),
        (&[("code_challenge_method", "plain")], "invalid_request"),
        (&[("code_challenge_method", "")], "invalid_request"),
        (&[("scope", "everything")], "invalid_scope"),
        (&[("scope", "users:admin")], "invalid_scope"),
    ] {
        let answer = control.state.lock().authorize(&query(changes), ISSUER);
        let (to, pairs) = sent(&answer);
        assert!(to.as_str().starts_with(BACK), "{to}");
        let want = [("error", error), ("state", "a&b"), ("iss", ISSUER)];
        assert_eq!(pairs, want.map(|(a, b)| (a.to_owned(), b.to_owned())), "{changes:?}");
    }
    let (_, pairs) = sent(&decided(&control, &query(&[]), "deny").await);
    assert_eq!(pairs[0], ("error".to_owned(), "access_denied".to_owned()));
    let web = [("client_id", "web"), ("redirect_uri", WEB)];
    let (to, pairs) = sent(&decided(&control, &query(&web), "approve").await);
    assert_eq!((to.host_str(), pairs[0].0.as_str()), (Some("app.example"), "a"));
}

#[tokio::test]
async fn the_page_says_who_asks_and_lets_nothing_in() {
    let control = control();
    let odd = Client::native("<b>&\"", None, Level::ReadOnly);
    control.add_client(odd);
    let page = control.state.lock().authorize(&query(&[("client_id", "<b>&\"")]), ISSUER);
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:40000"), "{policy}");
    let page = text(page).await;
    assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>"), "{page}");
}

#[tokio::test]
async fn a_code_is_good_once_and_a_second_use_ends_what_came_of_it() {
    let control = control();
    let code = code(&control, &[]).await;
    let wrong = [("code_verifier", CHALLENGE), ("redirect_uri", WEB), ("client_id", "nobody")];
    for (name, value) in wrong {
        let mut body = exchange(&code);
        body[name] = json!(value);
        assert!(token(&control, body).await.0 >= 400, "{name}");
    }
    let (status, first) = token(&control, exchange(&code)).await;
    assert_eq!((status, &first["scope"]), (200, &json!("analytics:read")));
    assert!(works(&control, &first["access_token"]));
    let (status, refused) = token(&control, exchange(&code)).await;
    assert_eq!((status, &refused["error"]), (400, &json!("invalid_grant")));
    assert!(!works(&control, &first["access_token"]));
    assert_eq!(token(&control, refresh(&first["refresh_token"])).await.0, 400);
    let counters = control.counters();
    let count = |map: &std::collections::BTreeMap<String, u64>| map["emulator-cli"];
    assert_eq!((count(&counters.grants), count(&counters.families_revoked)), (1, 1));
}

#[tokio::test]
async fn a_used_refresh_token_ends_the_family_with_its_access_tokens() {
    let control = control();
    let first = json!(control.grant("emulator-cli", Some("analytics:read")).unwrap());
    let (_, second) = token(&control, refresh(&first)).await;
    let (_, third) = token(&control, refresh(&second["refresh_token"])).await;
    assert!(works(&control, &third["access_token"]));
    let mut wide = refresh(&third["refresh_token"]);
    wide["scope"] = json!("pipelines:write");
    assert_eq!(token(&control, wide).await.1["error"], "invalid_scope");
    let mut other = refresh(&first);
    other["client_id"] = json!("web");
    other["client_secret"] = json!("s");
    assert_eq!(token(&control, other).await.1["error"], "invalid_grant");
    assert!(works(&control, &third["access_token"]), "another client ends nothing");
    assert_eq!(token(&control, refresh(&first)).await.1["error"], "invalid_grant");
    assert!(!works(&control, &second["access_token"]) && !works(&control, &third["access_token"]));
    assert_eq!(token(&control, refresh(&third["refresh_token"])).await.0, 400);
    let counters = control.counters();
    let want = (2, 1, 1);
    let got = [&counters.refreshes, &counters.reuses, &counters.families_revoked];
    assert_eq!(got.map(|map| map["emulator-cli"]), <[u64; 3]>::from(want));
}

#[tokio::test]
async fn a_token_that_is_refreshed_hangs_on_the_same_grant() {
    let control = control();
    let first = json!(control.grant("emulator-cli", Some("analytics:read")).unwrap());
    let (_, granted) = token(&control, refresh(&first)).await;
    let value = format!("Bearer {}", granted["access_token"].as_str().unwrap());
    let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
    let answer = control.state.lock().refresh(&headers, None);
    let answer: Value = serde_json::from_str(&text(answer).await).unwrap();
    assert!(works(&control, &answer["access_token"]), "{answer}");
    assert_eq!(control.revoke_grants(None), 1);
    assert!(
        !works(&control, &answer["access_token"]) && !works(&control, &granted["access_token"])
    );
}

#[tokio::test]
async fn tests_grant_revoke_and_switch_rotation_off_over_http() {
    let control = control();
    let post = |what: &str, body: Value| {
        let answer = control.http(&http::Method::POST, what, body.to_string().as_bytes());
        async {
            (answer.status().as_u16(), serde_json::from_str::<Value>(&text(answer).await).unwrap())
        }
    };
    assert_eq!(post("grants", json!({"client": "nobody"})).await.0, 400);
    assert_eq!(post("settings", json!({"rotate_refresh_tokens": false})).await.0, 200);
    let (_, granted) = post("grants", json!({"client": "emulator-cli"})).await;
    for _ in 0..2 {
        let (status, answer) = token(&control, refresh(&granted["refresh_token"])).await;
        assert!(status == 200 && answer.get("refresh_token").is_none(), "{answer}");
    }
    assert_eq!(post("revoke-grants", json!({"client": "web"})).await.1, json!({"revoked": 0}));
    assert_eq!(post("revoke-grants", json!({})).await.1, json!({"revoked": 1}));
    assert_eq!(token(&control, refresh(&granted["refresh_token"])).await.0, 400);
}

#[tokio::test]
async fn a_public_client_has_no_token_of_its_own_and_a_secret_is_needed_where_there_is_one() {
    let control = control();
    let ask = |grant: &str, id: &str, secret: &str| {
        token(
            &control,
            json!({"grant_type": grant, "client_id": id, "client_secret": secret,
            "refresh_token": "x"}),
        )
    };
    for (grant, id, secret, want) in [
        ("client_credentials", "emulator-cli", "", "unauthorized_client"),
        ("refresh_token", "emulator-cli", "", "invalid_grant"),
        ("refresh_token", "emulator-cli", "guess", "invalid_client"),
        ("refresh_token", "emulator-admin", "", "invalid_client"),
        ("refresh_token", "emulator-admin", "emulator-secret", "invalid_grant"),
    ] {
        assert_eq!(ask(grant, id, secret).await.1["error"], want, "{grant} {id} {secret}");
    }
}
