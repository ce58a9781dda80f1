//! A real OpenBao: in memory for most tests; over TLS, with storage, where it is sealed, killed and
//! started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tools::{client, comes_true, command, free_address};
use super::{Authority, CANARY, Process};

/// Runs until it is dropped.
pub(crate) struct OpenBao {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    client: reqwest::Client,
    root_token: String,
    /// What unseals one with storage.
    unseal_key: Option<String>,
    process: Process,
    dir: TempDir,
}

impl OpenBao {
    /// In memory and unsealed, over plain HTTP; KV v2 is mounted at `secret/`.
    pub(crate) async fn dev() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let root_token = format!("{CANARY}-root-token");
        let mut server = command("bin/bao", dir.path());
        server.args(["server", "-dev", "-dev-no-store-token"]);
        server.arg(format!("-dev-root-token-id={root_token}"));
        server.arg(format!("-dev-listen-address={address}"));
        let process = Process::start(server);
        let client = client(Vec::new());
        let (scheme, unseal_key) = ("http", None);
        let bao = Self { address, scheme, client, root_token, unseal_key, process, dir };
        bao.active().await;
        bao.mounted("secret").await;
        bao
    }

    /// Over TLS with a certificate of `authority`'s, with storage; initialised and unsealed, KV v2 at
    /// `secret/`.
    pub(crate) async fn sealable(authority: &Authority) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let address = free_address();
        let (certificate, key) =
            authority.issue(&["localhost", "127.0.0.1"], false).write(dir.path());
        std::fs::create_dir(dir.path().join("data")).expect("made");
        let config = format!(
            "storage \"raft\" {{\n  path = \"{}\"\n  node_id = \"one\"\n  \
             performance_multiplier = 1\n}}\n\
             listener \"tcp\" {{\n  address = \"{address}\"\n  cluster_address = \"{cluster}\"\n  \
             tls_cert_file = \"{}\"\n  tls_key_file = \"{}\"\n}}\n\
             api_addr = \"https://{address}\"\ncluster_addr = \"https://{cluster}\"\n",
            dir.path().join("data").display(),
            certificate.display(),
            key.display(),
            cluster = free_address(),
        );
        std::fs::write(dir.path().join("config.hcl"), config).expect("written");
        let root = std::fs::read(authority.write(dir.path())).expect("written");
        let root = reqwest::Certificate::from_pem(&root).expect("a certificate");
        let process = Self::serve(dir.path());
        let mut bao = Self {
            address,
            scheme: "https",
            client: client(vec![root]),
            root_token: String::new(),
            unseal_key: None,
            process,
            dir,
        };
        bao.health(501).await;
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let init = bao.post("sys/init", &shares).await;
        bao.unseal_key = Some(init["keys"][0].as_str().expect("a key").to_owned());
        bao.root_token = init["root_token"].as_str().expect("a token").to_owned();
        bao.unseal().await;
        bao.post("sys/mounts/secret", &json!({"type": "kv", "options": {"version": "2"}})).await;
        bao.mounted("secret").await;
        bao
    }

    fn serve(dir: &Path) -> Process {
        let mut server = command("bin/bao", dir);
        server.args(["server", "-config=config.hcl"]);
        Process::start(server)
    }

    /// For `stores.vault.address`.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where its own files are: `ca.pem` is the authority's.
    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Forgets the key in memory: every call is refused until [`Self::unseal`].
    pub(crate) async fn seal(&self) {
        self.post("sys/seal", &Value::Null).await;
        self.health(503).await;
    }

    pub(crate) async fn unseal(&self) {
        let key = self.unseal_key.as_ref().expect("it has storage");
        self.post("sys/unseal", &json!({"key": key})).await;
        self.active().await;
    }

    /// Ends it with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.signal("KILL").await;
        self.process.ended().await;
    }

    /// Starts one with storage again, and unseals it.
    pub(crate) async fn restart(&mut self) {
        self.process = Self::serve(self.dir.path());
        self.health(503).await;
        self.unseal().await;
    }

    async fn active(&self) {
        self.health(200).await;
    }

    /// Waits until a KV mount can be used: a new one of version 2 is upgraded for a moment.
    pub(crate) async fn mounted(&self, mount: &str) {
        let path = format!("{mount}/config");
        let ready = async || self.call(Method::GET, &path, &Value::Null).await.0 == 200;
        assert!(comes_true(ready).await, "{mount} does not get ready");
    }

    async fn health(&self, status: u16) {
        let url = format!("{}/v1/sys/health", self.url());
        let answers = async || {
            let answer = self.client.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == status)
        };
        let said = || [self.process.stdout.lines(), self.process.stderr.lines()];
        assert!(comes_true(answers).await, "no {status} of OpenBao: {:?}", said());
    }

    /// A call as root: status and answer.
    pub(crate) async fn call(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/v1/{path}", self.url());
        let mut request = self.client.request(method, url);
        if !self.root_token.is_empty() {
            request = request.header("x-vault-token", &self.root_token);
        }
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await.expect("OpenBao answers");
        let status = answer.status().as_u16();
        let text = answer.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A call that has to succeed.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// A read that has to succeed: its `data`.
    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer["data"].clone()
    }

    pub(crate) async fn delete(&self, path: &str) {
        let (status, answer) = self.call(Method::DELETE, path, &Value::Null).await;
        assert_eq!(status, 204, "{path}: {answer}");
    }

    /// Writes a version of a secret in `secret/`; its number.
    pub(crate) async fn put(&self, path: &str, fields: &Value) -> u64 {
        let answer = self.post(&format!("secret/data/{path}"), &json!({"data": fields})).await;
        answer["data"]["version"].as_u64().expect("a version")
    }

    /// A policy, in HCL.
    pub(crate) async fn policy(&self, name: &str, rules: &str) {
        self.post(&format!("sys/policies/acl/{name}"), &json!({"policy": rules})).await;
    }

    /// A token of this policy, which can be renewed, and holds the canary.
    pub(crate) async fn token(&self, policy: &str, ttl: &str) -> String {
        let id = format!("{CANARY}-token-{}", fastrand::u64(..));
        let request = json!({"id": id, "policies": [policy], "ttl": ttl, "no_parent": true});
        self.post("auth/token/create", &request).await;
        id
    }

    /// Ends a token.
    pub(crate) async fn revoke(&self, token: &str) {
        self.post("auth/token/revoke", &json!({"token": token})).await;
    }
}
