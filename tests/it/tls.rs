//! Promise: the upstream is verified, by the name in the configuration, and a credential goes to
//! nobody else.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::support::{Authority, Leaf, Rig, TlsServer};

const BOTH: &[&str] = &["h2", "http/1.1"];
/// Longer than any test: it is ended by what the test waits for.
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_verified_upstream_is_called_over_http_2_and_over_http_1() {
    for (alpn, setting) in [(BOTH, "auto"), (&["http/1.1"][..], "auto"), (BOTH, "never")] {
        let authority = Authority::new();
        let (rig, server) =
            tls_rig(&authority, &authority.issue(&["localhost"], false), alpn, setting).await;
        let answer =
            rig.client.post(rig.url("/v1/echo")).body("x".repeat(100_000)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{setting}");
        let echo: Value = answer.json().await.unwrap();
        assert_eq!(echo["bytes"], 100_000, "{echo}");
        assert_eq!(echo["authorizations"], 1, "{echo}");
        let version =
            if alpn.contains(&"h2") && setting == "auto" { "HTTP/2.0" } else { "HTTP/1.1" };
        assert_eq!(echo["version"], version, "{setting}: {echo}");
        let host = format!("localhost:{}", server.address.port());
        assert_eq!(echo["authority"], host, "{echo}");
        rig.emulator.revoke_all();
        let replayed =
            rig.client.post(rig.url("/v1/uploads")).body("x".repeat(70_000)).send().await.unwrap();
        assert_eq!(replayed.status(), 200, "{setting}");
        assert_eq!(replayed.json::<Value>().await.unwrap()["bytes"], 70_000);
        rig.finish().await;
    }
}

/// What is under way is answered, and the next call goes over another connection.
#[tokio::test]
async fn an_upstream_that_leaves_its_connections_costs_no_call() {
    for alpn in [BOTH, &["http/1.1"][..]] {
        let authority = Authority::new();
        let leaf = authority.issue(&["localhost"], false);
        let (rig, server) = tls_rig(&authority, &leaf, alpn, "auto").await;
        for round in 0..5 {
            let before = server.handshakes();
            rig.emulator.delay_api(HOUR);
            let slow = join_all((0..5).map(|_| rig.get("/v1/datasets")));
            let leaving = async {
                rig.emulator.in_flight(5).await;
                server.leave();
                rig.emulator.heal();
            };
            let (answers, ()) = tokio::join!(slow, leaving);
            assert!(answers.iter().all(|answer| answer.status() == 200), "{alpn:?} {round}");
            assert_eq!(rig.get("/v1/datasets").await.status(), 200, "{alpn:?} {round}");
            assert!(server.handshakes() > before, "{alpn:?} {round}: over another connection");
        }
        rig.finish().await;
    }
}

#[tokio::test]
async fn a_certificate_that_does_not_verify_gets_no_request() {
    let (ours, other) = (Authority::new(), Authority::new());
    for (what, issuer, name, expired) in [
        ("another authority", &other, "localhost", false),
        ("another name", &ours, "evil.example", false),
        ("expired", &ours, "localhost", true),
    ] {
        let (rig, server) = tls_rig(&ours, &issuer.issue(&[name], expired), BOTH, "auto").await;
        let answer = rig.get("/v1/datasets").await;
        assert_eq!(answer.status(), 502, "{what}");
        assert_eq!(answer.headers()["x-datapulse-sidecar-error"], "upstream_unreachable", "{what}");
        assert_eq!(server.handshakes(), 0, "{what}");
        assert_eq!(rig.emulator.api_requests(), 0, "{what}");
        rig.finish().await;
    }
}

/// The emulator behind TLS; tokens still come over its plain port.
async fn tls_rig(trusted: &Authority, leaf: &Leaf, alpn: &[&str], http2: &str) -> (Rig, TlsServer) {
    let builder = Rig::builder().await;
    let server = TlsServer::start(builder.router(), leaf, alpn).await;
    let ca_file = trusted.write(builder.dir());
    let yaml = format!(
        "upstream: {{base_url: \"https://localhost:{}\", ca_file: {}, http2: {http2}}}\n",
        server.address.port(),
        ca_file.display()
    );
    (builder.config(&yaml).start().await, server)
}
