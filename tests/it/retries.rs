//! Promise: a call that the upstream could not take is tried again where that does no harm, and an
//! upstream in trouble does not get twice the load.

use std::net::SocketAddr;
use std::time::Duration;

use datapulse_sidecar::emulator::{Effect, Fault, Scope};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::tools::free_address;
use crate::support::{Names, Rig, read_head};

#[tokio::test]
async fn an_unwell_answer_is_tried_once_more_where_that_does_no_harm() {
    for (method, key, code, failures, want) in [
        ("GET", None, 503, 1, 200),
        ("GET", None, 502, 1, 200),
        ("GET", None, 504, 1, 200),
        ("GET", None, 503, 2, 503),
        ("GET", None, 500, 1, 500),
        ("PUT", None, 503, 1, 200),
        ("POST", None, 503, 1, 503),
        ("POST", Some("k1"), 503, 1, 200),
    ] {
        let rig = Rig::start().await;
        rig.emulator.answer_api(code, failures);
        let method: reqwest::Method = method.parse().unwrap();
        let mut call = rig.client.request(method.clone(), rig.url("/v1/echo")).body("x");
        if method == reqwest::Method::GET {
            call = rig.client.get(rig.url("/v1/echo"));
        }
        if let Some(key) = key {
            call = call.header("Idempotency-Key", key);
        }
        let status = call.send().await.unwrap().status().as_u16();
        assert_eq!(status, want, "{method} {key:?} after {failures} times {code}");
        let reasons = ["bad_gateway", "unavailable", "gateway_timeout"];
        let mut retries = 0.0;
        for reason in reasons {
            retries += rig.series(&format!(r#"retries_total{{reason="{reason}"}}"#)).await;
        }
        assert_eq!(retries, rig.emulator.api_requests() as f64 - 1.0);
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_wait_that_does_not_fit_is_not_waited_for() {
    let rig = Rig::builder().await.config("upstream: {request_timeout: 5s}\n").start().await;
    let effect =
        |seconds: &str| Effect::Status { code: 503, retry_after: Some(seconds.to_owned()) };
    rig.emulator.fault(Fault::times(Scope::Api, effect("60"), 1));
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["retry-after"]),
        (503, &"60".parse().unwrap())
    );
    assert_eq!(rig.emulator.api_requests(), 1);
    rig.emulator.fault(Fault::times(Scope::Api, effect("1"), 1));
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

/// Requests that so many calls make at an upstream that is down: a tenth more, one for each second of
/// the window, and as many again should the window move.
const fn most(calls: u64) -> u64 {
    calls + 2 * (calls / 10 + 10)
}

#[tokio::test]
async fn an_upstream_that_is_down_gets_a_tenth_more_and_not_twice_the_load() {
    let rig = Rig::builder().await.log_level("info").start().await;
    rig.emulator.answer_api(503, 10_000);
    for _ in 0..300 {
        assert_eq!(rig.get("/v1/datasets").await.status(), 503);
    }
    let arrived = rig.emulator.api_requests();
    println!("300 calls made {arrived} requests");
    assert!((301..=most(300)).contains(&arrived), "{arrived}");
    rig.finish().await;
}

/// What is refused never went near the upstream, and says nothing of how much it can take.
#[tokio::test]
async fn refused_calls_give_nobody_more_retries() {
    let rig = Rig::builder().await.log_level("info").start().await;
    for _ in 0..10 {
        for denied in join_all((0..200).map(|_| rig.get("/auth/refresh"))).await {
            assert_eq!(denied.status(), 403);
        }
    }
    rig.emulator.answer_api(503, 10_000);
    for answer in join_all((0..100).map(|_| rig.get("/v1/datasets"))).await {
        assert_eq!(answer.status(), 503);
    }
    let arrived = rig.emulator.api_requests();
    println!("100 calls made {arrived} requests");
    assert!((101..=most(100)).contains(&arrived), "{arrived}");
    rig.finish().await;
}

#[tokio::test]
async fn a_429_is_tried_again_as_often_as_the_configuration_says() {
    for (retries, want) in [(0, 1), (1, 2), (3, 4)] {
        let yaml = format!(
            "quotas: {{q: {{limit: 6000/min}}}}\nupstream: {{retries: {retries}}}\n\
             credentials: [{{name: reader, level: read_only, quota: q, \
             api_key: 'file:${{DIR}}/reader'}}]"
        );
        let rig = Rig::builder().await.config_in_dir(&yaml).start().await;
        let throttled = Effect::Status { code: 429, retry_after: Some("0".to_owned()) };
        rig.emulator.fault(Fault::times(Scope::Api, throttled, 100));
        assert_eq!(rig.get("/v1/datasets").await.status(), 429);
        assert_eq!(rig.emulator.api_requests(), want, "{retries}");
        rig.finish().await;
    }
}

/// Calls go to a name with these addresses; the emulator is at 127.0.0.1.
async fn named(addresses: &[&str], more: &str) -> (Rig, Names) {
    let builder = Rig::builder().await;
    let names = Names::new(builder.dir(), addresses);
    let builder = names.env().fold(builder, |builder, (name, value)| builder.env(name, value));
    let base = format!("http://{}:{}", Names::NAME, builder.upstream_port());
    let rig = builder.config(&format!("upstream: {{base_url: \"{base}\"{more}}}\n")).start().await;
    (rig, names)
}

/// Five at once, so that connections are made and not only used again.
async fn five_calls(rig: &Rig) {
    for answer in join_all((0..5).map(|_| rig.get("/v1/datasets"))).await {
        assert_eq!(answer.status(), 200);
    }
}

const NO_CONNECTION: &str = r#"retries_total{reason="no_connection"}"#;

#[tokio::test]
async fn one_dead_address_of_two_costs_no_call() {
    let (rig, _names) = named(&["127.0.0.2", "127.0.0.1"], "").await;
    for _ in 0..6 {
        five_calls(&rig).await;
    }
    let retries = rig.series(NO_CONNECTION).await;
    assert!((1.0..=5.0).contains(&retries), "{retries}: it is passed over after that");
    rig.finish().await;
}

/// The queue of a listener that accepts nothing is full: whoever connects hears nothing at all.
#[tokio::test]
async fn an_address_that_says_nothing_is_given_up_in_a_moment() {
    let (rig, _names) = named(&["127.0.0.1", "127.0.0.2"], ", connect_timeout: 15s").await;
    let silent = SocketAddr::from(([127, 0, 0, 2], rig.emulator.port()));
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(silent).unwrap();
    let _listener = socket.listen(0).unwrap();
    let mut queue = Vec::new();
    let full = Duration::from_millis(300);
    while let Ok(stream) = tokio::time::timeout(full, TcpStream::connect(silent)).await {
        queue.push(stream.unwrap());
        assert!(queue.len() < 100, "a queue that is never full");
    }
    let began = Instant::now();
    for _ in 0..6 {
        five_calls(&rig).await;
    }
    println!("thirty calls took {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(12), "one of them waited for the dead address");
    let retries = rig.series(NO_CONNECTION).await;
    assert!((1.0..=5.0).contains(&retries), "{retries}: it is passed over after that");
    rig.finish().await;
}

/// Whoever meets a dead address has the name looked up again.
#[tokio::test]
async fn a_name_that_moves_to_another_address_costs_a_wait() {
    let (rig, names) = named(&["127.0.0.2"], ", retries: 10").await;
    let moving = async {
        rig.log("no connection to the upstream").await;
        names.set(&["127.0.0.1"]);
    };
    let (answer, ()) = tokio::join!(rig.get("/v1/datasets"), moving);
    assert_eq!(answer.status(), 200);
    assert!(rig.series(NO_CONNECTION).await >= 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_call_waits_out_an_upstream_that_restarts() {
    let address = free_address();
    let rig =
        Rig::builder().await.upstream(address).config("upstream: {retries: 10}\n").start().await;
    let restart = async {
        rig.log("no connection to the upstream").await;
        let listener = TcpListener::bind(address).await.unwrap();
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        stream
    };
    let call = tokio::time::timeout(Duration::from_secs(30), rig.get("/v1/datasets"));
    let (answer, _stream) = tokio::join!(call, restart);
    assert_eq!(answer.unwrap().status(), 200);
    assert!(rig.series(r#"retries_total{reason="no_connection"}"#).await >= 1.0);
    rig.finish().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_its_call_waits_causes_no_further_attempt() {
    let rig = Rig::start().await;
    let unwell = Effect::Status { code: 503, retry_after: Some("2".to_owned()) };
    rig.emulator.fault(Fault::times(Scope::Api, unwell, 1));
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"DELETE /v1/datasets/1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    rig.metric("datapulse_sidecar_retries_total{reason=\"unavailable\"} 1").await;
    drop(stream);
    rig.quiet().await;
    assert_eq!(rig.emulator.api_requests(), 1);
    rig.finish().await;
}
