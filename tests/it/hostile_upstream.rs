//! Promise: whatever the upstream does, the app gets an answer that says who failed, and nothing of
//! one call shows up in another.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Notify;

use crate::support::tools::free_address;
use crate::support::{PATIENCE, Rig, Upstream, read_head};

#[tokio::test]
async fn answers_that_are_no_http_are_a_502() {
    let cases: [(&'static [u8], &str); 6] = [
        (b"", "upstream_invalid"),
        (b"\x16\x03\x01garbage garbage garbage\r\n\r\n", "upstream_invalid"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "upstream_invalid"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "upstream_invalid"),
        (b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", "upstream_invalid"),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw bytes",
            "upstream_invalid",
        ),
    ];
    for (answer, code) in cases {
        let upstream = Upstream::answering(answer).await;
        let rig = Rig::builder().await.upstream(upstream.address).start().await;
        let got = rig.get("/v1/datasets").await;
        let what = String::from_utf8_lossy(answer).into_owned();
        assert_eq!(got.status(), 502, "{what}");
        assert_eq!(got.headers()["x-datapulse-sidecar-error"], code, "{what}");
        assert!(!got.text().await.unwrap().contains("raw bytes"), "{what}");
        assert_eq!(upstream.connections(), 1, "{what}: sent once");
        rig.until_series(r#"rejected_total{code="upstream_invalid"}"#, |count| count == 1.0).await;
        rig.finish().await;
    }
}

#[tokio::test]
async fn an_upstream_that_resets_or_does_not_listen_is_a_502() {
    let resetting = Upstream::new(|mut stream| async move {
        read_head(&mut stream).await;
        // Zero linger: the close is a reset.
        #[expect(deprecated, reason = "a drop that blocks for no time at all is what is wanted")]
        stream.set_linger(Some(Duration::ZERO)).unwrap();
    })
    .await;
    let rig = Rig::builder().await.upstream(resetting.address).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 502);
    rig.finish().await;

    let rig = Rig::builder().await.upstream(free_address()).start().await;
    let got = rig.get("/v1/datasets").await;
    assert_eq!(got.status(), 502);
    assert_eq!(got.headers()["x-datapulse-sidecar-error"], "upstream_unreachable");
    rig.finish().await;
}

#[tokio::test]
async fn an_upstream_that_stalls_is_a_504_at_the_deadline_and_a_cut_body_is_a_cut_body() {
    let stalling = Upstream::new(|mut stream| async move {
        read_head(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::builder()
        .await
        .upstream(stalling.address)
        .config("upstream: {request_timeout: 500ms}\n")
        .start()
        .await;
    let got = rig.get("/v1/datasets").await;
    assert_eq!(got.status(), 504);
    assert_eq!(got.headers()["x-datapulse-sidecar-error"], "upstream_timeout");
    rig.until_series(r#"rejected_total{code="upstream_timeout"}"#, |count| count == 1.0).await;
    rig.finish().await;

    let short = Upstream::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
    let rig = Rig::builder().await.upstream(short.address).start().await;
    let got = rig.get("/v1/datasets").await;
    assert_eq!(got.status(), 200);
    assert!(got.bytes().await.is_err(), "the app must be able to tell");
    rig.finish().await;

    let stalled_body = Upstream::new(|mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::builder()
        .await
        .upstream(stalled_body.address)
        .config("upstream: {request_timeout: 5s, idle_timeout: 700ms}\n")
        .start()
        .await;
    assert!(rig.get("/v1/datasets").await.bytes().await.is_err());
    rig.finish().await;
}

#[tokio::test]
async fn what_belongs_to_the_connection_or_holds_the_token_does_not_reach_the_app() {
    let upstream = Upstream::new(|mut stream| async move {
        let head = read_head(&mut stream).await;
        let token = head.lines().find_map(|l| {
            l.strip_prefix("Authorization: ").or_else(|| l.strip_prefix("authorization: "))
        });
        let token = token.unwrap().to_owned();
        let answer = format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nConnection: X-Hop\r\n\
             X-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nSet-Cookie: a=b\r\n\
             WWW-Authenticate: {token}\r\nX-Debug: you sent {token}\r\nServer: nginx\r\n\
             X-DataPulse-Sidecar-Error: forged\r\nX-Kept: yes\r\nContent-Length: 2\r\n\r\nok"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let rig = Rig::builder().await.upstream(upstream.address).start().await;
    let got = rig.get("/v1/datasets").await;
    assert_eq!(got.status(), 200);
    let names: Vec<&str> = got.headers().keys().map(http::HeaderName::as_str).collect();
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-authenticate",
        "set-cookie",
        "www-authenticate",
        "x-debug",
        "server",
        "x-datapulse-sidecar-error",
    ] {
        assert!(!names.contains(&gone), "{gone}: {names:?}");
    }
    assert_eq!(got.headers()["x-kept"], "yes");
    assert_eq!(got.text().await.unwrap(), "ok");
    rig.finish().await;
}

/// A keep-alive race: the upstream closes a pooled connection just as a request is sent on it. It may
/// have acted on the request, so that only what may arrive twice is sent again.
#[tokio::test]
async fn a_lost_pooled_connection_costs_no_call_that_may_arrive_twice() {
    for (method, key, second) in
        [("GET", None, 200), ("PUT", None, 200), ("POST", Some("k"), 200), ("POST", None, 502)]
    {
        let upstream = Upstream::new(|mut stream| async move {
            read_head(&mut stream).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            // The second request on this connection is read and not answered.
            read_head(&mut stream).await;
        })
        .await;
        let rig = Rig::builder().await.upstream(upstream.address).start().await;
        for want in [200, second] {
            let method: reqwest::Method = method.parse().unwrap();
            let mut call = rig.client.request(method, rig.url("/v1/datasets"));
            if let Some(key) = key {
                call = call.header("Idempotency-Key", key);
            }
            assert_eq!(call.send().await.unwrap().status(), want, "{key:?}");
        }
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_caller_that_leaves_in_the_middle_of_an_answer_ends_it_on_the_other_side() {
    let ended = Arc::new(Notify::new());
    let tell = Arc::clone(&ended);
    let upstream = Upstream::new(move |mut stream| {
        let tell = Arc::clone(&tell);
        async move {
            read_head(&mut stream).await;
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
            stream.write_all(head).await.unwrap();
            while stream.write_all(&[b'x'; 10_000]).await.is_ok() {}
            tell.notify_one();
        }
    })
    .await;
    let quota = "quotas: {one: {limit: 1000/min}}\n\
        credentials: [{name: reader, level: read_only, quota: one, api_key: 'file:${DIR}/reader'}]\n";
    let rig = Rig::builder().await.upstream(upstream.address).config_in_dir(quota).start().await;
    let mut answer = rig.get("/v1/datasets").await;
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    tokio::time::timeout(PATIENCE, ended.notified()).await.expect("the upstream is told");
    rig.quiet().await;
    assert_eq!(rig.series(r#"queue_depth{quota="one"}"#).await, 0.0);
    rig.finish().await;
}
