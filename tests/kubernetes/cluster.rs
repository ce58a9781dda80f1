//! A control plane on loopback, for the life of a test.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::support::tools::{client, command, free_address, tool};
use crate::support::{Authority, Process};

/// What a program said: its standard output where it succeeded, its standard error else.
pub(crate) type Said = Result<String, String>;

/// etcd, kube-apiserver and kube-controller-manager; ended when dropped.
pub(crate) struct Cluster {
    dir: TempDir,
    /// Where the API server listens.
    pub(crate) url: String,
    /// In the order of their start.
    processes: Vec<Process>,
}

impl Cluster {
    /// Up, with the namespaces `apps` (Pod Security restricted) and `open` (nothing enforced).
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { url: String::new(), dir, processes: Vec::new() };
        let etcd = cluster.start_etcd().await;
        cluster.start_api_server(&etcd).await;
        cluster.start_controllers();
        for (name, level) in [("apps", "restricted"), ("open", "privileged")] {
            let labels = json!({"pod-security.kubernetes.io/enforce": level});
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
                                   "metadata": {"name": name, "labels": labels}});
            cluster.create(&namespace).await.expect("a namespace");
            // Pods need it, and a controller makes it.
            let account = async || {
                cluster.kubectl(&["get", "serviceaccount", "default", "-n", name]).await.is_ok()
            };
            assert!(comes_true(account).await, "no service account in {name}");
        }
        cluster
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A certificate authority's file, for whoever calls the API server.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    async fn start_etcd(&mut self) -> String {
        let (client, peer) = (free_address(), free_address());
        let mut etcd = command("bin/etcd", self.path());
        etcd.arg(format!("--listen-client-urls=http://{client}"));
        etcd.arg(format!("--advertise-client-urls=http://{client}"));
        etcd.arg(format!("--listen-peer-urls=http://{peer}"));
        etcd.arg(format!("--initial-advertise-peer-urls=http://{peer}"));
        etcd.arg(format!("--initial-cluster=default=http://{peer}"));
        self.processes.push(Process::start(etcd));
        let up = async || tokio::net::TcpStream::connect(client).await.is_ok();
        assert!(comes_true(up).await, "etcd does not start");
        format!("http://{client}")
    }

    async fn start_api_server(&mut self, etcd: &str) {
        let address = free_address();
        self.url = format!("https://{address}");
        let authority = Authority::new();
        authority.write(self.path());
        let names = ["localhost", "127.0.0.1", "kubernetes.default.svc"];
        let (certificate, key) = authority.issue(&names, false).write(self.path());
        // A key of its own for service accounts' tokens.
        let signing = self.path().join("accounts");
        std::fs::create_dir(&signing).expect("made");
        let (public, signing) = authority.issue(&["accounts"], false).write(&signing);
        let tokens = self.path().join("tokens.csv");
        std::fs::write(&tokens, "admin-token,admin,admin,system:masters\n").expect("written");
        self.write_kubeconfig();
        let mut server = command("bin/kube-apiserver", self.path());
        for (flag, value) in [
            ("etcd-servers", etcd),
            ("bind-address", "127.0.0.1"),
            ("advertise-address", "127.0.0.1"),
            ("endpoint-reconciler-type", "none"),
            ("secure-port", &address.port().to_string()),
            ("cert-dir", path(self.path())),
            ("tls-cert-file", path(&certificate)),
            ("tls-private-key-file", path(&key)),
            ("service-account-issuer", "https://kubernetes.default.svc"),
            ("service-account-key-file", path(&public)),
            ("service-account-signing-key-file", path(&signing)),
            ("service-cluster-ip-range", "10.96.0.0/16"),
            ("token-auth-file", path(&tokens)),
            ("authorization-mode", "RBAC"),
        ] {
            server.arg(format!("--{flag}={value}"));
        }
        self.processes.push(Process::start(server));
        // Not by kubectl, which would take from the server the time that it needs to start.
        let root = reqwest::Certificate::from_pem(authority.pem().as_bytes()).expect("PEM");
        let (client, ready) = (client(vec![root]), format!("{}/readyz", self.url));
        let up = async || {
            let answer = client.get(&ready).bearer_auth("admin-token").send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        assert!(comes_true(up).await, "no API server: {:?}", self.last_words());
    }

    fn start_controllers(&mut self) {
        let mut manager = command("bin/kube-controller-manager", self.path());
        manager.arg(format!("--kubeconfig={}", path(&self.kubeconfig())));
        manager.args(["--leader-elect=false", "--secure-port=0"]);
        let wanted = "serviceaccount-controller,namespace-controller,deployment-controller,\
                      replicaset-controller,job-controller,garbage-collector-controller";
        manager.arg(format!("--controllers={wanted}"));
        self.processes.push(Process::start(manager));
    }

    fn last_words(&self) -> Vec<String> {
        let last = self.processes.last().expect("one was started").stderr.lines();
        last.iter().rev().take(5).cloned().collect()
    }

    fn kubeconfig(&self) -> PathBuf {
        self.path().join("kubeconfig")
    }

    fn write_kubeconfig(&self) {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url,
                          "certificate-authority": self.ca()}}],
            "users": [{"name": "admin", "user": {"token": "admin-token"}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        });
        std::fs::write(self.kubeconfig(), config.to_string()).expect("written");
    }

    /// `kubectl`; what it warns of is behind what it prints.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> Said {
        self.run("bin/kubectl", args, "").await
    }

    /// Creates what the JSON says; gives what was stored.
    pub(crate) async fn create(&self, object: &Value) -> Result<Value, String> {
        self.create_by(&["create", "-o", "json", "-f", "-"], object).await
    }

    /// As [`Self::create`], but nothing is stored.
    pub(crate) async fn would_create(&self, object: &Value) -> Result<Value, String> {
        self.create_by(&["create", "--dry-run=server", "-o", "json", "-f", "-"], object).await
    }

    async fn create_by(&self, args: &[&str], object: &Value) -> Result<Value, String> {
        let said = self.run("bin/kubectl", args, &object.to_string()).await?;
        Ok(serde_json::from_str(&said).expect("kubectl prints JSON"))
    }

    /// `kubectl apply`; with the warnings.
    pub(crate) async fn apply(&self, object: &Value) -> Said {
        self.run("bin/kubectl", &["apply", "-f", "-"], &object.to_string()).await
    }

    /// An object as JSON.
    pub(crate) async fn get(&self, args: &[&str]) -> Value {
        let said =
            self.kubectl(&[&["get", "-o", "json"], args].concat()).await.expect("it is there");
        serde_json::from_str(&said).expect("kubectl prints JSON")
    }

    /// A Helm, in the folder of the charts.
    pub(crate) async fn helm(&self, helm: &str, args: &[&str]) -> Said {
        self.run(&format!("bin/{helm}"), args, "").await
    }

    async fn run(&self, program: &str, args: &[&str], input: &str) -> Said {
        let mut command = Command::new(tool(program));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.path())
            .env("KUBECONFIG", self.kubeconfig());
        command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("charts"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().await.expect("it ends");
        let words = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            let warnings = words(&output.stderr);
            let told = warnings.lines().filter(|line| line.starts_with("Warning:"));
            let told: String = told.map(|line| format!("{line}\n")).collect();
            // JSON has no room for them, and nobody asks for both.
            let out = words(&output.stdout);
            Ok(if out.starts_with('{') { out } else { out + &told })
        } else {
            Err(words(&output.stderr))
        }
    }
}

/// Asks again and again until it is so, seldom enough that who is asked gets on meanwhile; whether it
/// ever was.
pub(crate) async fn comes_true(ask: impl AsyncFn() -> bool) -> bool {
    let asking = async {
        let mut tick = interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !ask().await {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(180), asking).await.is_ok()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
