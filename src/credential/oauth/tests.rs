//! What a token endpoint may answer, with a real one on loopback.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::super::{Given, MintError, Minted};
use super::TokenEndpoint;
use crate::config::model::{Auth, TokenRequest};
use crate::secret::SecretValue;
use crate::tls;

type Header = (&'static str, &'static str);

/// An issuer that gives one answer, on a free port; it ends with the set.
async fn issuer(app: Router) -> (url::Url, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/oauth/token", listener.local_addr().unwrap()).parse().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, tasks)
}

fn endpoint(token_url: url::Url, token_request: TokenRequest) -> TokenEndpoint {
    tls::install_provider();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ca_file = dir.path().join("ca.pem");
    std::fs::write(&ca_file, pair.cert.pem()).unwrap();
    let http = tls::http_client(&tls::Roots::load(Some(&ca_file)).unwrap()).unwrap();
    let auth = Auth {
        token_url,
        authorize_url: "http://127.0.0.1/a".parse().unwrap(),
        redirect_uri: None,
        refresh_path: "/auth/refresh".to_owned(),
        verify_path: "/auth/verify".to_owned(),
        token_request,
        ca_file: None,
    };
    TokenEndpoint::new(http, &auth)
}

async fn answer(
    status: u16,
    headers: &[Header],
    body: impl Into<Bytes>,
) -> Result<Minted, MintError> {
    given(status, headers, body).await.and_then(|given| given.token)
}

async fn given(
    status: u16,
    headers: &[Header],
    body: impl Into<Bytes>,
) -> Result<Given, MintError> {
    let status = StatusCode::from_u16(status).unwrap();
    let body = body.into();
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    let respond = move || async move { (status, headers, body).into_response() };
    let (url, _tasks) = issuer(Router::new().route("/oauth/token", post(respond))).await;
    let form = BTreeMap::from([("client_secret", "s3cr3t")]);
    let outcome = endpoint(url, TokenRequest::Json).ask(&form).await;
    if let Err(error) = &outcome {
        let text = format!("{} {error:?}", crate::telemetry::error_chain(error));
        assert!(!text.contains("s3cr3t") && !text.contains("canary"), "{text}");
    }
    outcome
}

#[tokio::test]
async fn an_answer_that_is_no_token_is_refused_by_name() {
    let large = vec![b' '; 5 * 1024 * 1024];
    let long = format!(r#"{{"access_token": "{}"}}"#, "x".repeat(8 * 1024 + 1));
    let cases: [(u16, &[Header], Bytes, &str, bool); 17] = [
        (200, &[("content-type", "text/html")], "<h1>canary</h1>".into(), "not_an_answer", false),
        (200, &[], r#"{"token": "canary"}"#.into(), "not_an_answer", false),
        (200, &[], r#"{"access_token": null}"#.into(), "not_an_answer", false),
        (200, &[], r#"{"access_token": "canary""#.into(), "not_an_answer", false),
        (200, &[], r#"{"access_token": ""}"#.into(), "unusable_token", false),
        (200, &[], r#"{"access_token": "canary\r\nX: y"}"#.into(), "unusable_token", false),
        (200, &[], r#"{"access_token": "can ary"}"#.into(), "unusable_token", false),
        (200, &[], long.into(), "unusable_token", false),
        (
            200,
            &[],
            r#"{"access_token": "canary", "token_type": "mac"}"#.into(),
            "not_bearer",
            false,
        ),
        (200, &[], large.into(), "too_large", false),
        (
            200,
            &[],
            r#"{"access_token": "a", "refresh_token": "can ary"}"#.into(),
            "unusable_token",
            false,
        ),
        (204, &[], "".into(), "not_an_answer", false),
        (302, &[("location", "http://127.0.0.1:9/canary")], "".into(), "redirected", false),
        (
            401,
            &[],
            r#"{"error": "invalid_client", "error_description": "canary"}"#.into(),
            "invalid_client",
            false,
        ),
        (400, &[], r#"{"error": "canary"}"#.into(), "refused", false),
        (429, &[], "canary".into(), "refused", true),
        (500, &[], "canary".into(), "refused", true),
    ];
    for (status, headers, body, want, is_transient) in cases {
        let error = answer(status, headers, body).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (want, is_transient));
    }
}

#[tokio::test]
async fn a_token_and_its_life_are_taken() {
    for (rest, want, is_clamped) in [
        ("", 300, false),
        (r#", "token_type": "bEARER""#, 300, false),
        (r#", "token_type": "Bearer", "expires_in": 3600"#, 3600, false),
        (r#", "expires_in": "3600""#, 3600, false),
        (r#", "expires_in": 3600.0"#, 3600, false),
        (r#", "expires_in": null"#, 300, false),
        (r#", "expires_in": "soon""#, 300, false),
        (r#", "expires_in": 0"#, 1, true),
        (r#", "expires_in": -1"#, 1, true),
        (r#", "expires_in": 1e12"#, 30 * 86_400, true),
    ] {
        let body = format!(r#"{{"access_token": "canary"{rest}}}"#);
        let minted = answer(200, &[], body).await.unwrap();
        assert_eq!(minted.value.expose_str(), Some("canary"));
        let life = minted.life.unwrap();
        assert_eq!(
            (life.length, life.is_clamped),
            (Duration::from_secs(want), is_clamped),
            "{rest}"
        );
    }
}

#[tokio::test]
async fn a_refresh_token_is_taken_also_beside_an_access_token_of_no_use() {
    for (body, token, next) in [
        (r#"{"access_token": "a", "refresh_token": "canary2"}"#, Ok(()), Some("canary2")),
        (r#"{"access_token": "a"}"#, Ok(()), None),
        (r#"{"access_token": "a", "refresh_token": null}"#, Ok(()), None),
        (r#"{"access_token": "a", "refresh_token": ""}"#, Ok(()), None),
        (r#"{"refresh_token": "canary2"}"#, Err("not_an_answer"), Some("canary2")),
        (r#"{"access_token": "", "refresh_token": "r"}"#, Err("unusable_token"), Some("r")),
    ] {
        let given = given(200, &[], body).await.unwrap();
        assert_eq!(given.token.map(drop).map_err(|error| error.kind()), token, "{body}");
        assert_eq!(given.next_secret.as_ref().and_then(SecretValue::expose_str), next, "{body}");
        assert!(!format!("{:?}", given.next_secret).contains("canary"));
    }
}

#[tokio::test]
async fn retry_after_is_read_as_seconds_or_as_a_date_and_bounded() {
    for (value, want) in [
        ("7", Some(7..=7)),
        ("1000000", Some(900..=900)),
        ("Tue, 31 Dec 2199 23:59:59 GMT", Some(900..=900)),
        ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0..=0)),
        ("-1", None),
        ("soon", None),
    ] {
        let error = answer(500, &[("retry-after", value)], "").await.unwrap_err();
        let got = error.retry_after().map(|wait| wait.as_secs());
        match want {
            Some(range) => assert!(range.contains(&got.unwrap()), "{value}: {got:?}"),
            None => assert_eq!(got, None, "{value}"),
        }
    }
}

/// A port where nobody listens, a name that nobody has, and a server that does not speak TLS, or shows a
/// certificate that nobody here trusts.
#[tokio::test]
async fn without_a_connection_nothing_was_sent_and_it_is_transient() {
    // tcpmux: not one of those that the kernel gives away.
    let nobody = "http://127.0.0.1:1/s3cr3t".to_owned();
    let (plain, _tasks) = issuer(Router::new()).await;
    let no_tls = plain.as_str().replace("http://", "https://");
    let (untrusted, _served) = served_over_tls().await;
    for url in [nobody, "http://s3cr3t.invalid/t".to_owned(), no_tls, untrusted] {
        let endpoint = endpoint(url.parse().unwrap(), TokenRequest::Json);
        let error = endpoint.ask(&BTreeMap::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), ("unreachable", true), "{url}");
        assert!(!error.may_have_acted(), "{url}");
        assert!(!format!("{error:?}").contains("/s3cr3t"));
    }
}

/// A server with a certificate of its own making.
async fn served_over_tls() -> (String, JoinSet<()>) {
    tls::install_provider();
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![pair.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    (format!("https://localhost:{port}/t"), tasks)
}

/// Nobody takes connections from the queue, which is full: the next one is never answered.
#[tokio::test]
async fn a_connection_that_takes_too_long_is_known_to_have_sent_nothing() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    let soon = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(soon, tokio::net::TcpStream::connect(address)).await
    {
        queued.push(stream.unwrap());
        assert!(queued.len() < 16, "the queue has no end");
    }
    let url = format!("http://{address}/t").parse().unwrap();
    let error = endpoint(url, TokenRequest::Json).ask(&BTreeMap::new()).await.unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error:?}");
    assert!(!error.may_have_acted());
}

#[tokio::test]
async fn the_request_is_written_as_configured() {
    async fn echo(headers: HeaderMap, body: Bytes) -> Response {
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
        let good = match kind {
            "application/json" => &body[..] == br#"{"client_id":"a&b","scope":"x y"}"#,
            "application/x-www-form-urlencoded" => &body[..] == b"client_id=a%26b&scope=x+y",
            _ => false,
        };
        let status = if good { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        (status, r#"{"access_token": "t"}"#).into_response()
    }
    let (url, _tasks) = issuer(Router::new().route("/oauth/token", post(echo))).await;
    let form = BTreeMap::from([("client_id", "a&b"), ("scope", "x y")]);
    for encoding in [TokenRequest::Json, TokenRequest::Form] {
        assert!(endpoint(url.clone(), encoding).ask(&form).await.is_ok(), "{encoding:?}");
    }
}
