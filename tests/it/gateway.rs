//! Promise: the gateway as the chart renders it serves callers from elsewhere, over TLS and with a
//! token, and loses none of them when its pod ends.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use crate::pod::free_port;
use crate::support::tools::comes_true;
use crate::support::{Authority, CANARY, Pod, Process, Release, Rig, Stage, exchange};

const TOKEN: &str = "x-datapulse-sidecar-token";
/// How another pod calls it: the Service of the release, in its namespace.
const SERVICE: &str = "release-datapulse-sidecar";
const HOST: &str = "release-datapulse-sidecar.apps.svc";

/// What stays is that of `ci/ha-values.yaml`: three replicas, their Secrets, the quota.
fn values(stage: &Stage) -> Value {
    let base = stage.emulator.url();
    json!({
        "ports": {"proxy": free_port(), "health": free_port()},
        "config": {
            "upstream": {"base_url": base, "allow_plaintext": true},
            "auth": {"token_url": format!("{base}/oauth/token")},
            "admin": {"listen": "127.0.0.1:0"},
        },
    })
}

/// The port of the container behind a port of the Service.
fn behind(release: &Release, pod: &Pod, name: &str) -> u16 {
    let ports = release.object("Service")["spec"]["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == name).unwrap();
    pod.port(port["targetPort"].as_str().unwrap())
}

/// Trusts one authority alone, and finds each of `names` at `address`.
fn caller(authority: &Authority, names: &[&str], address: SocketAddr) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]);
    let client = names.iter().fold(client, |client, name| client.resolve(name, address));
    client.build().unwrap()
}

#[tokio::test]
async fn a_gateway_as_the_chart_renders_it_serves_other_pods_until_its_pod_has_ended() {
    let stage = Rig::builder().await.stage();
    let authority = Authority::new();
    let leaf = authority.issue(&[HOST, "elsewhere.test"], false);
    let (certificate, key) = leaf.write(stage.dir.path());
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (certificate, key, token) = (read(certificate), read(key), format!("{CANARY}-caller"));
    let release = Release::of_gateway("ha", &values(&stage)).await;
    let secrets: [(&str, &[(&str, &str)]); 3] = [
        ("gateway-tls", &[("tls.crt", &certificate), ("tls.key", &key)]),
        ("gateway-callers", &[("token", &token)]),
        ("datapulse-key", &[("key", &format!("dp_live_{CANARY}_reader"))]),
    ];
    let mut pod = Pod::new(&release, "Deployment", &secrets);
    pod.start_sidecar();
    pod.startup().await;
    pod.probed("readinessProbe").await;

    let port = behind(&release, &pod, "https");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let client = caller(&authority, &[HOST, "elsewhere.test"], address);
    let call = async |host: &str, token: &str| {
        let request = client.get(format!("https://{host}:{port}/v1/datasets"));
        let answer = request.header(TOKEN, token).send().await.unwrap();
        let code = answer.headers().get("x-datapulse-sidecar-error").cloned();
        (answer.status().as_u16(), code.map(|code| code.to_str().unwrap().to_owned()))
    };
    assert_eq!(call(HOST, &token).await, (200, None));
    let refused = |status, code: &str| (status, Some(code.to_owned()));
    assert_eq!(call(HOST, "guess").await, refused(403, "caller_not_allowed"));
    assert_eq!(call("elsewhere.test", &token).await, refused(421, "misdirected"));
    let anonymous = client.get(format!("https://{HOST}:{port}/v1/datasets")).send().await;
    assert_eq!(anonymous.unwrap().status(), 403);
    let plain = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{TOKEN}: {token}\r\n\r\n");
    assert!(!exchange(address, &plain).await.contains("HTTP/1.1"), "plain HTTP was answered");
    assert_eq!((stage.emulator.api_requests(), stage.emulator.anonymous()), (1, 0));
    // Three replicas, and two more while they are replaced.
    let limit = "datapulse_sidecar_quota_limit{quota=\"business\"} 200\n";
    assert!(pod.metrics().await.contains(limit), "{}", pod.metrics().await);

    // As `helm test` asks.
    let args = release.object("Pod")["spec"]["containers"][0]["args"].as_array().unwrap();
    let health = behind(&release, &pod, "sidecar-health");
    let args: Vec<_> = args.iter().map(|arg| arg.as_str().unwrap()).collect();
    let local = format!("http://127.0.0.1:{health}/");
    let rendered = format!("http://{SERVICE}:{health}/");
    let args: Vec<_> = args.iter().map(|arg| arg.replace(&rendered, &local)).collect();
    assert!(args.iter().any(|arg| arg.starts_with(&local)), "{args:?}");
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    assert_eq!(Process::sidecar(&args).ended().await.code(), Some(0));

    // Endpoints forget the pod only after a while, and until then callers still come.
    pod.sidecar.as_ref().unwrap().signal("TERM").await;
    let draining = async || pod.health("/readyz").await == Some(503);
    assert!(comes_true(draining).await, "it does not say that it is leaving");
    assert_eq!(call(HOST, &token).await, (200, None));
    assert_eq!(pod.terminated().await, Some(0));
}

#[tokio::test]
async fn a_gateway_without_its_callers_token_does_not_start() {
    let stage = Rig::builder().await.stage();
    let leaf = Authority::new().issue(&[HOST], false);
    let (certificate, key) = leaf.write(stage.dir.path());
    let read = |path| std::fs::read_to_string(path).unwrap();
    let release = Release::of_gateway("ha", &values(&stage)).await;
    let pair = [("tls.crt", &*read(certificate)), ("tls.key", &*read(key))];
    let mut pod = Pod::new(&release, "Deployment", &[("gateway-tls", &pair)]);
    pod.start_sidecar();
    let mut sidecar = pod.sidecar.take().unwrap();
    assert_eq!(sidecar.ended().await.code(), Some(2));
    let said = sidecar.stderr.lines().join("\n");
    assert!(said.contains("caller token"), "{said}");
}
