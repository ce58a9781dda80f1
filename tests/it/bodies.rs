//! Promise: bodies stream both ways, and what can be sent again after a 401 is, exactly up to the
//! configured size.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{PATIENCE, Rig};

const REPLAY_BODY: usize = 300_000;
const STREAMED: usize = 64 * 1024;

/// Sends a POST while the token is revoked and gives the status that the app sees.
async fn post_on_a_revoked_token(rig: &Rig, body: reqwest::Body) -> (u16, Value) {
    rig.emulator.revoke_all();
    let answer = rig.client.post(rig.url("/v1/uploads")).body(body).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn a_body_of_exactly_replay_body_is_replayed_and_one_byte_more_is_not() {
    let mut outcomes = Vec::new();
    for size in [0, 1, STREAMED, STREAMED + 1, REPLAY_BODY - 1, REPLAY_BODY, REPLAY_BODY + 1] {
        // A forced renewal is only had every ten seconds, so each size has a sidecar of its own.
        let own = Rig::builder()
            .await
            .config(&format!("upstream: {{replay_body: {REPLAY_BODY}B}}\n"))
            .start()
            .await;
        assert_eq!(own.get("/v1/datasets").await.status(), 200);
        let (status, seen) = post_on_a_revoked_token(&own, vec![b'x'; size].into()).await;
        if status == 200 {
            assert_eq!(seen["bytes"], size, "the replayed body is whole");
        }
        outcomes.push((size, status));
        own.finish().await;
    }
    let want: Vec<(usize, u16)> = outcomes
        .iter()
        .map(|(size, _)| (*size, if *size <= REPLAY_BODY { 200 } else { 401 }))
        .collect();
    assert_eq!(outcomes, want);
}

#[tokio::test]
async fn a_chunked_body_is_replayed_up_to_64_kib() {
    for (size, want) in [(1, 200), (STREAMED, 200), (STREAMED + 1, 401)] {
        let rig = Rig::start().await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
        let pieces: Vec<Result<Bytes, std::io::Error>> = vec![b'x'; size]
            .chunks(10_000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = reqwest::Body::wrap_stream(stream::iter(pieces));
        let (status, seen) = post_on_a_revoked_token(&rig, body).await;
        assert_eq!(status, want, "{size}");
        if status == 200 {
            assert_eq!(seen["bytes"], size);
        }
        rig.finish().await;
    }
}

/// The upload's second piece is sent only after the upstream got the first: a sidecar that collects
/// bodies would wait for ever.
#[tokio::test]
async fn a_slow_chunked_upload_is_passed_on_as_it_comes() {
    let rig = Rig::start().await;
    let (pieces, body) = mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = stream::unfold(body, |mut body| async { body.recv().await.map(|p| (p, body)) });
    let upload = rig.client.post(rig.url("/v1/uploads")).body(reqwest::Body::wrap_stream(body));
    let sending = async {
        for number in 1..=3_u64 {
            pieces.send(Ok(Bytes::from_static(b"piece"))).await.unwrap();
            rig.emulator.uploaded(number * 5).await;
        }
        drop(pieces);
    };
    let (answer, ()) = tokio::join!(upload.send(), sending);
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.json::<Value>().await.unwrap()["bytes"], 15);
    rig.finish().await;
}

#[tokio::test]
async fn events_reach_the_app_one_by_one() {
    let rig = Rig::start().await;
    let answer = rig.get("/v1/events?n=3&every_ms=100").await;
    let mut events = answer.bytes_stream();
    let first = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&first).matches("data:").count(), 1, "{first:?}");
    let mut rest = 0;
    while let Some(piece) = events.next().await {
        rest += String::from_utf8_lossy(&piece.unwrap()).matches("data:").count();
    }
    assert_eq!(rest, 2);
    rig.finish().await;
}

#[tokio::test]
async fn a_hundred_megabytes_pass_both_ways_in_flat_memory() {
    const SIZE: usize = 100 * 1000 * 1000;
    let rig = Rig::start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let before = rig.sidecar_rss_bytes();
    let piece = Bytes::from(vec![7; 100_000]);
    let pieces =
        stream::iter((0..SIZE / piece.len()).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let upload = rig.client.post(rig.url("/v1/uploads")).body(reqwest::Body::wrap_stream(pieces));
    let seen: Value = upload.send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["bytes"], SIZE);
    let mut download = rig.get(&format!("/v1/exports/{SIZE}")).await.bytes_stream();
    let mut got = 0;
    while let Some(piece) = download.next().await {
        got += piece.unwrap().len();
    }
    assert_eq!(got, SIZE);
    let grown = rig.sidecar_rss_peak_bytes().saturating_sub(before);
    println!("resident memory grew by {} KiB at most", grown / 1024);
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes for bodies of {SIZE}");
    rig.finish().await;
}

#[tokio::test]
async fn keep_alive_serves_call_after_call_on_one_connection() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    for number in 0..5 {
        let request = format!("GET /v1/datasets?n={number} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut piece = [0; 8192];
        let whole = async {
            loop {
                let read = stream.read(&mut piece).await.unwrap();
                assert!(read > 0, "closed after {number} calls");
                answer.extend_from_slice(&piece[..read]);
                if is_whole(&answer) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.expect("answered");
        assert!(answer.starts_with(b"HTTP/1.1 200 "));
    }
    rig.finish().await;
}

fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")
            .map(|n| n.trim().parse::<usize>().unwrap())
    });
    length.is_some_and(|length| body.len() >= length)
}

#[tokio::test]
async fn an_upload_that_breaks_off_ends_the_call_on_both_sides() {
    let rig = Rig::start().await;
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let head = "POST /v1/uploads HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf";
    stream.write_all(head.as_bytes()).await.unwrap();
    rig.emulator.uploaded(0).await;
    drop(stream);
    rig.quiet().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

#[tokio::test]
async fn a_call_whose_answer_never_comes_ends_with_504_at_its_deadline() {
    let rig = Rig::builder().await.config("upstream: {request_timeout: 700ms}\n").start().await;
    rig.emulator.delay_api(Duration::from_secs(3600));
    let answer = rig.get("/v1/datasets").await;
    assert_eq!(answer.status(), 504);
    assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "upstream_timeout");
    rig.finish().await;
}

/// The second request comes while the first is under way, behind a stray empty line.
#[tokio::test]
async fn a_pipelined_request_is_answered_in_its_turn() {
    let rig = Rig::start().await;
    rig.emulator.delay_api(Duration::from_millis(300));
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let first = "GET /v1/echo?first HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(first.as_bytes()).await.unwrap();
    rig.emulator.in_flight(1).await;
    let second = "\r\nGET /v1/echo?second HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answers = String::new();
    let reading = stream.read_to_string(&mut answers);
    tokio::time::timeout(PATIENCE, reading).await.expect("closed after the second").unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    let (one, two) = (answers.find("?first").unwrap(), answers.find("?second").unwrap());
    assert!(one < two, "{answers}");
    rig.finish().await;
}

#[tokio::test]
async fn an_http_1_0_caller_gets_no_chunks() {
    let rig = Rig::start().await;
    let head = "GET /v1/exports/1000?chunked HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n";
    let answer = crate::support::exchange(rig.address, head).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body.len(), 1000, "{body}");
    rig.finish().await;
}

#[tokio::test]
async fn a_large_upload_of_known_length_streams_by_without_being_kept() {
    const SIZE: usize = 20_000_000;
    let rig = Rig::start().await;
    let upload = rig.client.post(rig.url("/v1/uploads")).body(vec![7; SIZE]);
    let seen: Value = upload.send().await.unwrap().json().await.unwrap();
    assert_eq!(seen["bytes"], SIZE);
    rig.finish().await;
}
