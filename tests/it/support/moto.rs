//! A Secrets Manager endpoint: moto, which keeps secrets, versions and stages as AWS does.

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

use super::Process;
use super::tools::{client, comes_true, command, free_address};

/// Runs until it is dropped.
pub(crate) struct Moto {
    /// Where it listens, plain HTTP.
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    process: Process,
    _dir: TempDir,
}

impl Moto {
    /// Empty.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let mut command = command("venv/bin/moto_server", dir.path());
        command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
        let process = Process::start(command);
        let ready = comes_true(async || TcpStream::connect(address).await.is_ok()).await;
        assert!(ready, "moto does not start: {:?}", process.stderr.lines());
        Self { address, client: client(Vec::new()), process, _dir: dir }
    }

    /// For `stores.aws.endpoint`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// An operation of Secrets Manager, such as `CreateSecret`, which has to succeed. Signatures are
    /// not checked.
    pub(crate) async fn call(&self, operation: &str, request: &Value) -> Value {
        let answer = self
            .client
            .post(self.url())
            .header("x-amz-target", format!("secretsmanager.{operation}"))
            .header("content-type", "application/x-amz-json-1.1")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/secretsmanager/aws4_request, \
                 SignedHeaders=host, Signature=0",
            )
            .body(request.to_string())
            .send()
            .await
            .expect("moto answers");
        let status = answer.status();
        let text = answer.text().await.expect("text");
        let said = || format!("{operation}: {status} {text}\n{:?}", self.process.stderr.lines());
        assert!(status.is_success(), "{}", said());
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", said()))
    }
}
