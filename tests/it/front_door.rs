//! Promise: what is ambiguous, or not meant for this address, is refused before anything leaves.

use crate::support::{Rig, exchange};

/// Not every refusal closes the connection, and [`exchange`] reads to its end.
const CLOSE: &str = "Connection: close\r\n";
const GET: &str = "GET /v1/datasets HTTP/1.1\r\n";

#[tokio::test]
async fn refused_requests_get_a_code_and_nothing_reaches_the_upstream() {
    let rig = Rig::start().await;
    check_refusals(async |request| exchange(rig.address, request).await).await;
    assert_eq!(rig.emulator.api_requests(), 0, "nothing was sent upstream");
    rig.finish().await;
}

/// Sends each request that has to be refused, over whatever `exchange` speaks.
pub(crate) async fn check_refusals(exchange: impl AsyncFn(&str) -> String) {
    let host = "Host: localhost\r\n";
    let cases = [
        ("TRACE /v1/datasets HTTP/1.1\r\n", host, 405, "method_not_allowed"),
        ("BREW /v1/datasets HTTP/1.1\r\n", host, 405, "method_not_allowed"),
        ("GET http://localhost/v1/datasets HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET * HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET //evil.example/x HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET /v1/../v1/users HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET /v1/%2e%2e/v1/users HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET /v1/%252e%252e/users HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET /v1/..%2fusers HTTP/1.1\r\n", host, 400, "bad_request"),
        ("GET /v1/datasets#x HTTP/1.1\r\n", host, 400, "bad_request"),
        (GET, "Host: evil.example\r\n", 421, "misdirected"),
        (GET, "Host: localhost.evil.example:8080\r\n", 421, "misdirected"),
        (GET, "Host: localhost\r\nOrigin: https://evil.example\r\n", 403, "caller_not_allowed"),
        (GET, "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", 403, "caller_not_allowed"),
        (GET, "Host: localhost\r\nConnection: \"authorization\"\r\n", 400, "bad_request"),
        (GET, "Host: localhost\r\nExpect: 200-ok\r\n", 417, "expectation_failed"),
        (
            GET,
            "Host: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
            400,
            "bad_request",
        ),
        (
            "POST /v1/datasets HTTP/1.1\r\n",
            "Host: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            400,
            "bad_request",
        ),
        (
            "POST /v1/datasets HTTP/1.1\r\n",
            "Host: localhost\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
            400,
            "bad_request",
        ),
        (
            "POST /v1/datasets HTTP/1.1\r\n",
            "Host: localhost\r\nConnection: content-length\r\nContent-Length: 3\r\n",
            400,
            "bad_request",
        ),
        (
            "GET /v1/datasets HTTP/1.1\r\n",
            "Host: localhost\r\nContent-Length: 3\r\n",
            400,
            "bad_request",
        ),
    ];
    for (line, headers, status, code) in cases {
        let answer = exchange(&format!("{line}{headers}{CLOSE}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{line}{headers}: {answer}");
        let marked = format!("x-datapulse-sidecar-error: {code}\r\n");
        assert!(answer.to_lowercase().contains(&marked), "{line}{headers}: {answer}");
        assert!(answer.contains("application/problem+json"), "{line}{headers}: {answer}");
    }
}

#[tokio::test]
async fn a_head_over_32_kib_is_refused() {
    let rig = Rig::start().await;
    let large = format!("{GET}Host: localhost\r\nX-Large: {}\r\n\r\n", "x".repeat(40 * 1024));
    let answer = exchange(rig.address, &large).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(rig.emulator.api_requests(), 0, "nothing was sent upstream");
    rig.finish().await;
}

/// What pingora's own parser refuses never becomes a call; it is answered and counted all the same.
#[tokio::test]
async fn malformed_heads_are_refused_whoever_finds_them() {
    let rig = Rig::start().await;
    for head in [
        "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nA : b\r\n\r\n",
        "GET /v1/datasets HTTP/1.1\nHost: localhost\n\n",
        "GET /v1/data sets HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
        "POST /v1/datasets HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /v1/datasets HTTP/1.1\r\n\r\n",
    ] {
        let answer = exchange(rig.address, head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
        for part in ["x-datapulse-sidecar-error: bad_request", "x-request-id: ", "problem+json"] {
            assert!(answer.to_lowercase().contains(part), "{head:?}: {part} in {answer}");
        }
    }
    let connect = "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n";
    let answer = exchange(rig.address, connect).await;
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.contains("method_not_allowed"),
        "{answer}"
    );
    let (_, metrics) = rig.health("/metrics").await;
    let counted = "datapulse_sidecar_rejected_total{code=\"bad_request\"} 7";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eq!(rig.emulator.api_requests(), 0, "nothing was sent upstream");
    rig.finish().await;
}

#[tokio::test]
async fn what_stock_clients_do_by_default_passes() {
    let rig = Rig::start().await;
    let port = rig.address.port();
    let close = "Connection: close\r\n\r\n";
    for head in [
        format!("GET /v1/datasets HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\n{close}"),
        format!("GET /v1/datasets HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nSec-Fetch-Mode: cors\r\n{close}"),
        format!("GET /v1/datasets HTTP/1.1\r\nHost: [::1]:{port}\r\n{close}"),
        "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, HTTP2-Settings, close\r\n\
         Upgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\n\r\n"
            .to_owned(),
        "GET /v1/datasets HTTP/1.0\r\nHost: localhost\r\n\r\n".to_owned(),
        format!("DELETE /v1/datasets/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{close}"),
        format!("GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 10.0.0.1\r\n{close}"),
    ] {
        let answer = exchange(rig.address, &head).await;
        assert!(answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.1 404"), "{head}: {answer}");
        assert!(!answer.contains("x-datapulse-sidecar-error"), "{head}: {answer}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_caller_that_is_refused_while_it_uploads_still_reads_why() {
    let rig = Rig::start().await;
    let upload = rig.client.post(rig.url("/auth/refresh")).body(vec![7; 5_000_000]);
    assert_eq!(upload.send().await.expect("an answer, no reset").status(), 403);
    rig.finish().await;
}

#[tokio::test]
async fn an_expected_100_is_answered_by_the_sidecar_and_not_passed_on() {
    let rig = Rig::start().await;
    let head = "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n\
                Content-Length: 5\r\nConnection: close\r\n\r\nhello";
    let answer = exchange(rig.address, head).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 "), "{answer}");
    assert!(!answer.to_lowercase().contains("\"expect\""), "{answer}");
    rig.finish().await;
}

#[tokio::test]
async fn a_slow_head_and_too_many_connections_are_cut() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let rig = Rig::builder()
        .await
        .config("front_door: {header_timeout: 500ms, max_connections: 3}\n")
        .start()
        .await;
    let mut slow = tokio::net::TcpStream::connect(rig.address).await.unwrap();
    let mut answer = Vec::new();
    // A byte every 50 ms keeps every single read short; the whole head still has to end.
    let dripping = async {
        let (mut reading, mut writing) = slow.split();
        let drip = async {
            let mut tick = tokio::time::interval(std::time::Duration::from_millis(50));
            loop {
                tick.tick().await;
                if writing.write_all(b"G").await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            () = drip => {}
            // A reset is an end as well.
            _ = reading.read_to_end(&mut answer) => {}
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, dripping).await.expect("it is cut");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(rig.open_connection().await);
    }
    let refused = exchange(rig.address, "").await;
    assert!(
        refused.starts_with("HTTP/1.1 503 ") && refused.contains("too_many_connections"),
        "{refused}"
    );
    drop(held);
    rig.finish().await;
}
