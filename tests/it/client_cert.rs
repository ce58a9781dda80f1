//! Promise: where DataPulse asks for a certificate, ours is shown, the newest that works, and a
//! broken one costs nothing while it runs.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Authority, Aws, Builder, Callers, Leaf, Process, Rig, TlsServer, key_of};
use crate::vault;

/// A sidecar that shows the certificate in its folder to an emulator that asks for one.
struct Bench {
    rig: Rig,
    server: TlsServer,
    clients: Authority,
    /// What is shown at first.
    first: Leaf,
    files: (PathBuf, PathBuf),
}

fn files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("client.crt"), dir.join("client.key"))
}

async fn bench(http2: &str) -> Bench {
    bench_of(Rig::builder().await, http2).await
}

async fn bench_of(builder: Builder, http2: &str) -> Bench {
    let (servers, clients) = (Authority::new(), Authority::new());
    let leaf = servers.issue(&["localhost"], false);
    let alpn = &["h2", "http/1.1"];
    let server = TlsServer::start_asking(builder.router(), &leaf, alpn, &clients).await;
    let first = clients.issue(&["sidecar"], false);
    let files = files(builder.dir());
    first.write_to(&files.0, &files.1);
    servers.write(builder.dir());
    let yaml = format!(
        "upstream: {{base_url: 'https://localhost:{}', http2: {http2}, ca_file: '${{DIR}}/ca.pem', \
         client_cert: {{cert_file: '${{DIR}}/client.crt', key: 'file:${{DIR}}/client.key'}}}}",
        server.address.port()
    );
    let rig = builder.config_in_dir(&yaml).start().await;
    Bench { rig, server, clients, first, files }
}

#[tokio::test]
async fn the_certificate_is_shown_to_an_upstream_that_asks_for_one() {
    for http2 in ["auto", "never"] {
        let Bench { rig, server, first, .. } = bench(http2).await;
        for _ in 0..3 {
            let answer = rig.get("/v1/datasets").await;
            assert_eq!(answer.status(), 200, "{http2}");
            answer.bytes().await.unwrap();
            // When the call is over, its connection is there for the next one.
            rig.quiet().await;
        }
        assert_eq!(server.showed(&first), 1, "{http2}: connections are used again");
        assert!(rig.status(&[]).await.contains("the client certificate ends in"));
        rig.finish().await;
    }
}

#[tokio::test]
async fn the_sidecars_own_calls_to_the_api_host_show_it_too() {
    let Bench { rig, server, first, .. } = bench("auto").await;
    let before = server.showed(&first);
    // Tried at the API before it replaces the one that works.
    std::fs::write(&rig.key_file, rig.emulator.add_key("second")).unwrap();
    let verified = async {
        while rig.emulator.seen("/auth/verify") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::support::PATIENCE, verified).await.unwrap();
    assert_eq!(server.showed(&first), before + 1);
    rig.finish().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_by_new_connections_without_a_restart() {
    let Bench { rig, server, clients, first, files } = bench("auto").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    let second = clients.issue(&["sidecar"], false);
    second.write_to(&files.0, &files.1);
    rig.log("the client certificate changed; new connections show it").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!((server.showed(&first), server.showed(&second)), (1, 1), "the pools are apart");
    rig.finish().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_never_replaces_one_that_works() {
    let Bench { mut rig, server: _server, clients, first, files } = bench("auto").await;
    let other = clients.issue(&["sidecar"], false);
    // The certificate alone, as whoever writes one after the other has it for a while.
    let beside = rig.dir().join("other.key");
    other.write_to(&files.0, &beside);
    rig.log("the private key is not the certificate's").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert!(rig.status(&[]).await.contains("is not shown: upstream.client_cert"));
    // It stands in nobody's way.
    rig.reconfigure("front_door: {max_connections: 900}");
    rig.log("the configuration was reloaded").await;
    std::fs::rename(&beside, &files.1).unwrap();
    rig.log("the client certificate changed; new connections show it").await;
    assert!(!rig.status(&[]).await.contains("is not shown"));
    // A reload that names what cannot be used is none.
    first.write_to(&files.0, &beside);
    rig.reconfigure("upstream: {client_cert: {key: 'file:/no/such/key'}}");
    rig.log("the new configuration cannot be used; the old one stays").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    rig.finish().await;
}

/// Its key in AWS Secrets Manager, reached in this way.
async fn bench_in_aws(aws: &Aws) -> Bench {
    aws.create("prod/key", &key_of("reader")).await;
    let builder = Rig::builder().await.aws_keys();
    let reader = "credentials: [{name: reader, level: read_only, api_key: 'aws:prod/key'}]";
    bench_of(builder.config(reader).config(&stores(aws)), "auto").await
}

fn stores(aws: &Aws) -> String {
    format!("stores: {{aws: {{region: eu-west-1, poll: 1s, endpoint: '{}'}}}}\n", aws.url())
}

/// For as long as a reload reads what the new configuration names, the running one has its own stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_a_failing_reload_names_is_used_by_no_call() {
    let (aws, other) = (Aws::start().await, Aws::start().await);
    let Bench { mut rig, server: _server, .. } = bench_in_aws(&aws).await;
    other.create("prod/key", &rig.emulator.add_key("other")).await;
    // It is accepted, and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(rig.dir().join("vault"), "a-token").unwrap();
    let callers = Callers::start(&rig, "/v1/datasets");
    rig.reconfigure(&format!(
        "stores: {{aws: {{endpoint: '{}'}}, vault: {{address: 'http://{}', \
         auth: {{method: token, token: 'file:{}'}}}}}}\n\
         upstream: {{client_cert: {{key: 'vault:secret/client#key'}}}}",
        other.url(),
        silent.local_addr().unwrap(),
        rig.dir().join("vault").display()
    ));
    rig.log("the new configuration cannot be used; the old one stays").await;
    aws.put("prod/key", &rig.emulator.add_key("second")).await;
    rig.emulator.uses("second").await;
    assert_eq!(callers.stop().await.1, 0);
    assert_eq!((rig.emulator.used("other"), other.all_calls()), (0, 0));
    rig.finish().await;
}

/// What a reload has put in place before it fails is taken back.
#[tokio::test]
async fn a_reload_that_fails_leaves_the_store_that_is_in_force() {
    let (aws, nowhere) = (Aws::start().await, Aws::start().await);
    let named = |aws: &Aws, key: &str| {
        stores(aws) + &format!("upstream: {{client_cert: {{key: 'file:{key}'}}}}")
    };
    let Bench { mut rig, server: _server, files, .. } = bench_in_aws(&aws).await;
    let key = files.1.display().to_string();
    rig.reconfigure(&named(&nowhere, "/no/such/key"));
    rig.log("the new configuration cannot be used; the old one stays").await;
    let follows = async |rig: &Rig, name: &str, generation: u32| {
        aws.put("prod/key", &rig.emulator.add_key(name)).await;
        let state = "datapulse_sidecar_credential_generation{credential=\"reader\"}";
        rig.metric(&format!("{state} {generation}")).await;
        assert_eq!(rig.get("/v1/datasets").await.status(), 200);
        assert_eq!(rig.emulator.used(name), 1, "{name}");
    };
    follows(&rig, "second", 2).await;
    // Also once the change is taken back: nothing of it is left.
    rig.reconfigure(&named(&aws, &key));
    rig.log("the configuration was reloaded").await;
    follows(&rig, "third", 3).await;
    assert_eq!(nowhere.all_calls(), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_reload_can_show_a_certificate_and_stop_showing_it() {
    let Bench { mut rig, server, first, .. } = bench("never").await;
    rig.reconfigure("upstream: {client_cert: null}");
    rig.log("the configuration was reloaded").await;
    assert_eq!(rig.series("client_cert_expiry_timestamp_seconds").await, 0.0);
    let refused = rig.get("/v1/datasets").await;
    assert_eq!(refused.status(), 502, "the upstream asks for one");
    assert_eq!(server.showed(&first), 0);
    rig.finish().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_ends_the_start_with_a_sentence() {
    for (certificate, key, want) in [
        (None, Some("x"), "there is no such secret"),
        (Some("nothing"), Some("x"), "there is no certificate in PEM"),
        (Some(""), Some("nothing"), "there is no private key in PEM"),
        (Some(""), Some("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "without a passphrase"),
        (Some(""), None, "there is no such secret"),
    ] {
        let builder = Rig::builder().await;
        let files = files(builder.dir());
        Authority::new().issue(&["sidecar"], false).write_to(&files.0, &files.1);
        for (file, text) in [(&files.0, certificate), (&files.1, key)] {
            match text {
                None => std::fs::remove_file(file).unwrap(),
                Some("") => {}
                Some(text) => std::fs::write(file, text).unwrap(),
            }
        }
        let yaml = "upstream: {base_url: 'https://localhost:1', client_cert: \
                    {cert_file: '${DIR}/client.crt', key: 'file:${DIR}/client.key'}}";
        let stage = builder.config_in_dir(yaml).stage();
        let mut sidecar = Process::sidecar(&["run", "--config", &stage.config]);
        assert_eq!(sidecar.ended().await.code(), Some(2), "{want}");
        let said = sidecar.stderr.lines().join("\n");
        assert!(said.contains("upstream.client_cert") && said.contains(want), "{want}: {said}");
        assert!(!said.contains("panic"), "{said}");
    }
}

#[tokio::test]
async fn the_key_may_be_in_vault_and_is_renewed_there() {
    let bao = vault::stocked().await;
    let builder = Rig::builder().await;
    let auth = vault::by_token(&builder, &bao).await;
    let (servers, clients) = (Authority::new(), Authority::new());
    let leaf = servers.issue(&["localhost"], false);
    let server = TlsServer::start_asking(builder.router(), &leaf, &["h2"], &clients).await;
    let files = files(builder.dir());
    let key = async || {
        let key = std::fs::read_to_string(&files.1).unwrap();
        bao.put("datapulse/client", &json!({"key": key})).await;
    };
    let (first, second) = (clients.issue(&["a"], false), clients.issue(&["b"], false));
    first.write_to(&files.0, &files.1);
    key().await;
    servers.write(builder.dir());
    let yaml = format!(
        "upstream: {{base_url: 'https://localhost:{}', ca_file: '${{DIR}}/ca.pem', client_cert: \
         {{cert_file: '${{DIR}}/client.crt', key: 'vault:secret/datapulse/client#key'}}}}\n\
         stores: {{vault: {{address: '{}', poll: 1s, auth: {auth}}}}}",
        server.address.port(),
        bao.url()
    );
    let rig = builder.config_in_dir(&yaml).start().await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    second.write_to(&files.0, &files.1);
    key().await;
    rig.log("the client certificate changed; new connections show it").await;
    assert_eq!(rig.get("/v1/datasets").await.status(), 200);
    assert_eq!((server.showed(&first), server.showed(&second)), (1, 1));
    rig.finish().await;
}
