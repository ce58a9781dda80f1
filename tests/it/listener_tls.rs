//! Promise: an address that others can reach is for callers that are known, over TLS; and everything
//! that holds for plain HTTP holds there.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

use crate::front_door::check_refusals;
use crate::support::{Authority, Builder, CANARY, Leaf, PATIENCE, Process, Rig};

const TOKEN: &str = "x-datapulse-sidecar-token";

/// A sidecar whose callers speak TLS, and what they trust.
struct Bench {
    rig: Rig,
    authority: Authority,
    client: reqwest::Client,
}

/// `more`: further keys of the listener; `front`: further keys of the configuration.
async fn bench(listen: &str, more: &str, front: &str) -> Bench {
    let (builder, authority) = (Rig::builder().await, Authority::new());
    write(&authority.issue(&["localhost"], false), &builder);
    std::fs::write(builder.dir().join("door"), format!("{CANARY}-door")).unwrap();
    let yaml = format!(
        "listeners: [{{listen: '{listen}', {more} tls: {{cert_file: '${{DIR}}/gateway.crt', \
         key_file: '${{DIR}}/gateway.key'}}}}]\n{front}"
    );
    let roots = std::fs::read(authority.write(builder.dir())).unwrap();
    let rig = builder.config_in_dir(&yaml).start().await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tls_certs_only([reqwest::Certificate::from_pem(&roots).unwrap()])
        .build()
        .unwrap();
    Bench { rig, authority, client }
}

fn write(leaf: &Leaf, builder: &Builder) {
    leaf.write_to(&builder.dir().join("gateway.crt"), &builder.dir().join("gateway.key"));
}

impl Bench {
    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.rig.address.port())
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        let config = ClientConfig::builder()
            .with_root_certificates(self.authority.roots())
            .with_no_client_auth();
        let stream = TcpStream::connect(self.rig.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    async fn exchange(&self, request: &str) -> String {
        let talk = async {
            let mut stream = self.connect().await;
            drop(stream.write_all(request.as_bytes()).await);
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            String::from_utf8_lossy(&answer).into_owned()
        };
        timeout(PATIENCE, talk).await.expect("the connection is closed in the end")
    }
}

#[tokio::test]
async fn callers_speak_http_1_over_tls_and_bodies_go_both_ways() {
    let bench = bench("localhost:0", "", "").await;
    for size in [0, 1, 70_000, 3_000_000] {
        let body = vec![b'x'; size];
        let answer = bench.client.post(bench.url("/v1/echo")).body(body).send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.version()),
            (reqwest::StatusCode::OK, reqwest::Version::HTTP_11)
        );
        let echo: Value = answer.json().await.unwrap();
        assert_eq!(echo["bytes"], size);
    }
    let plain = crate::support::exchange(bench.rig.address, "GET / HTTP/1.1\r\n\r\n").await;
    assert!(!plain.contains("HTTP/1.1"), "{plain}");
    bench.rig.metric("datapulse_sidecar_tls_handshakes_failed_total{reason=\"tls\"} 1").await;
    bench.rig.finish().await;
}

#[tokio::test]
async fn what_the_front_door_refuses_it_refuses_over_tls() {
    let bench = bench("localhost:0", "", "").await;
    check_refusals(async |request| bench.exchange(request).await).await;
    assert_eq!(bench.rig.emulator.api_requests(), 0, "nothing was sent upstream");
    bench.rig.finish().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_over_tls_while_it_waits_is_noticed() {
    for politely in [true, false] {
        let bench = bench("localhost:0", "", "").await;
        bench.rig.emulator.delay_api(std::time::Duration::from_secs(3600));
        let mut stream = bench.connect().await;
        let request = "GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        bench.rig.emulator.in_flight(1).await;
        if politely {
            stream.shutdown().await.unwrap();
        }
        drop(stream);
        bench.rig.quiet().await;
        bench.rig.finish().await;
    }
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_cut_and_counts_as_a_connection() {
    let front = "front_door: {header_timeout: 5s, max_connections: 2}";
    let bench = bench("localhost:0", "", front).await;
    let mut held = bench.rig.open_connection().await;
    let _other = bench.rig.open_connection().await;
    let mut refused = TcpStream::connect(bench.rig.address).await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(PATIENCE, refused.read_to_end(&mut answer)).await.expect("it is closed"));
    assert!(answer.is_empty());
    drop(timeout(PATIENCE, held.read_to_end(&mut answer)).await.expect("it is cut"));
    bench.rig.metric("datapulse_sidecar_tls_handshakes_failed_total{reason=\"timeout\"} 2").await;
    let answer = bench.client.get(bench.url("/v1/datasets")).send().await.unwrap();
    assert_eq!(answer.status(), 200, "the places came back");
    bench.rig.finish().await;
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_for_callers_that_are_known() {
    let more = "caller_token: 'file:${DIR}/door', allowed_hosts: [localhost],";
    let bench = bench("0.0.0.0:0", more, "").await;
    let url = bench.url("/v1/datasets");
    let stranger = bench.client.get(&url).send().await.unwrap();
    assert_eq!(stranger.status(), 403);
    let known = bench.client.get(&url).header(TOKEN, format!("{CANARY}-door")).send().await;
    assert_eq!(known.unwrap().status(), 200);
    bench.rig.finish().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_told_to_need_a_restart() {
    let mut bench = bench("localhost:0", "", "").await;
    let leaf = bench.authority.issue(&["localhost"], false);
    let dir = bench.rig.dir().to_owned();
    leaf.write_to(&dir.join("gateway.crt"), &dir.join("gateway.key"));
    bench.rig.reconfigure("front_door: {max_connections: 900}");
    bench.rig.log("needs a restart\",\"part\":\"listeners[].tls\"").await;
    std::fs::write(dir.join("gateway.key"), "nothing").unwrap();
    bench.rig.reconfigure("front_door: {max_connections: 901}");
    bench.rig.log("after a restart this listener could not be served").await;
    let answer = bench.client.get(bench.url("/v1/datasets")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    bench.rig.finish().await;
}

#[tokio::test]
async fn a_listeners_certificate_that_cannot_be_used_ends_the_start() {
    let builder = Rig::builder().await;
    write(&Authority::new().issue(&["localhost"], false), &builder);
    std::fs::write(builder.dir().join("gateway.key"), "nothing").unwrap();
    let yaml = "listeners: [{listen: 'localhost:0', tls: {cert_file: '${DIR}/gateway.crt', \
                key_file: '${DIR}/gateway.key'}}]";
    let stage = builder.config_in_dir(yaml).stage();
    let mut sidecar = Process::sidecar(&["run", "--config", &stage.config]);
    assert_eq!(sidecar.ended().await.code(), Some(2));
    let said = sidecar.stderr.lines().join("\n");
    assert!(said.contains("listeners[].tls") && said.contains("no private key"), "{said}");
}
