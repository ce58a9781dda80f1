//! The real servers that the tests of stores stand on: that they start, and do what is assumed.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Authority, Moto, OpenBao, Relay, Way, exchange};

#[tokio::test]
async fn an_openbao_in_memory_keeps_versions() {
    let bao = OpenBao::dev().await;
    assert_eq!(bao.put("datapulse/billing", &json!({"api_key": "one"})).await, 1);
    assert_eq!(bao.put("datapulse/billing", &json!({"api_key": "two"})).await, 2);
    let found = bao.get("secret/data/datapulse/billing").await;
    assert_eq!(
        (&found["data"]["api_key"], &found["metadata"]["version"]),
        (&json!("two"), &json!(2))
    );
    let (status, _) = bao.call(Method::GET, "secret/data/absent", &Value::Null).await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn an_openbao_knows_policies_and_tokens() {
    let bao = OpenBao::dev().await;
    bao.policy("reader", "path \"secret/data/a\" { capabilities = [\"read\"] }").await;
    let token = bao.token("reader", "1h").await;
    let about = json!({"token": token, "paths": ["secret/data/a", "secret/data/b"]});
    let can = bao.post("sys/capabilities", &about).await;
    assert_eq!(can["secret/data/a"], json!(["read"]));
    assert_eq!(can["secret/data/b"], json!(["deny"]));
    bao.delete("sys/policies/acl/reader").await;
    assert_eq!(bao.post("sys/capabilities", &about).await["secret/data/a"], json!(["deny"]));
    bao.revoke(&token).await;
    assert_eq!(bao.call(Method::POST, "sys/capabilities", &about).await.0, 400);
}

#[tokio::test]
async fn an_openbao_with_storage_is_sealed_killed_and_started_again() {
    let mut bao = OpenBao::sealable(&Authority::new()).await;
    bao.put("a", &json!({"k": "v"})).await;
    bao.seal().await;
    assert_eq!(bao.call(Method::GET, "secret/data/a", &Value::Null).await.0, 503);
    bao.unseal().await;
    bao.kill().await;
    bao.restart().await;
    assert_eq!(bao.get("secret/data/a").await["data"]["k"], "v");
    assert!(bao.dir().join("ca.pem").exists());
}

#[tokio::test]
async fn a_secrets_manager_keeps_stages() {
    let moto = Moto::start().await;
    moto.call("CreateSecret", &json!({"Name": "a", "SecretString": "one"})).await;
    moto.call("PutSecretValue", &json!({"SecretId": "a", "SecretString": "two"})).await;
    let get = async |stage: &str| {
        let request = json!({"SecretId": "a", "VersionStage": stage});
        moto.call("GetSecretValue", &request).await["SecretString"].clone()
    };
    assert_eq!((get("AWSCURRENT").await, get("AWSPREVIOUS").await), (json!("two"), json!("one")));
}

#[tokio::test]
async fn the_relay_does_what_networks_do() {
    let bao = OpenBao::dev().await;
    let relay = Relay::new(bao.address).await;
    let request = "GET /v1/sys/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert!(exchange(relay.address, request).await.starts_with("HTTP/1.1 200"));
    for way in [Way::Slow(Duration::from_millis(20)), Way::Drip(Duration::from_millis(1))] {
        relay.set(way).await;
        assert!(exchange(relay.address, request).await.starts_with("HTTP/1.1 200"), "{way:?}");
    }
    relay.set(Way::Reset).await;
    assert_eq!(exchange(relay.address, request).await, "");
    relay.set(Way::BlackHole).await;
    let mut stream = TcpStream::connect(relay.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    relay.set(Way::Refuse).await;
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap_or(0), 0, "a change ends what is open");
    assert!(TcpStream::connect(relay.address).await.is_err());
    relay.set(Way::Open).await;
    assert!(exchange(relay.address, request).await.starts_with("HTTP/1.1 200"));
    let other = OpenBao::dev().await;
    relay.lead_to(other.address);
    drop(bao);
    assert!(exchange(relay.address, request).await.starts_with("HTTP/1.1 200"));
    assert!(relay.connections() >= 6);
}
