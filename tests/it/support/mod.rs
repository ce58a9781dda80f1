//! The harness: an emulator in the test's process, the sidecar as a process of its own, and a canary
//! in the place of every secret.
//!
//! [`Rig::finish`] ends the sidecar with SIGTERM and fails if the canary shows in anything it wrote.

mod aws;
mod builder;
mod callers;
mod emulator;
mod gate;
mod issuer;
mod jwt;
mod login;
mod moto;
mod openbao;
mod pki;
mod pod;
mod preload;
mod process;
mod raw;
mod relay;
pub(crate) mod tools;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

pub(crate) use aws::{Aws, Canned, Metadata, PodIdentity};
pub(crate) use builder::{Builder, Stage};
use builder::{Started, merge};
pub(crate) use callers::{Callers, Load};
pub(crate) use emulator::DataPulse;
pub(crate) use gate::{Gate, Hold};
pub(crate) use issuer::Issuer;
pub(crate) use jwt::{Signer, TokenReviews};
pub(crate) use login::{Login, person};
pub(crate) use moto::Moto;
pub(crate) use openbao::OpenBao;
pub(crate) use pki::{Authority, Leaf, TlsServer};
pub(crate) use pod::{Pod, Release};
pub(crate) use preload::{Clocks, Names};
pub(crate) use process::Process;
pub(crate) use raw::exchange;
pub(crate) use relay::{Relay, Way};
pub(crate) use tools::comes_true;
pub(crate) use tools::tool;
pub(crate) use upstream::{Upstream, read_head};

/// Every secret of the tests holds this.
pub(crate) const CANARY: &str = "CANARY7f3a";

/// The API key of this name, as DataPulse knows it.
pub(crate) fn key_of(name: &str) -> String {
    format!("dp_live_{CANARY}_{name}")
}

/// How long a test waits for something that should happen at once, on a slow and shared machine: only
/// a test that fails waits for so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A sidecar with everything around it.
pub(crate) struct Rig {
    /// DataPulse.
    pub(crate) emulator: DataPulse,
    /// The sidecar's process.
    pub(crate) sidecar: Process,
    /// Where apps call (IPv4).
    pub(crate) address: SocketAddr,
    /// An app's client: no proxy, no redirects followed.
    pub(crate) client: reqwest::Client,
    health: SocketAddr,
    admin: SocketAddr,
    /// Where the key of `reader` is.
    pub(crate) key_file: PathBuf,
    config: serde_json::Value,
    dir: TempDir,
    _tasks: JoinSet<()>,
}

impl Rig {
    /// With the defaults: `reader` (a static key for reading), `etl` (client credentials for
    /// reading and writing) and `root` (an admin's static key).
    pub(crate) async fn start() -> Self {
        Self::builder().await.start().await
    }

    pub(crate) async fn builder() -> Builder {
        Builder::new().await
    }

    /// The address that an app would be configured with.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.address.port())
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }

    pub(crate) async fn get(&self, path: &str) -> reqwest::Response {
        let answer = self.client.get(self.url(path)).send().await.expect("the sidecar answers");
        let telling = answer
            .headers()
            .iter()
            .find(|(_, value)| String::from_utf8_lossy(value.as_bytes()).contains(CANARY));
        assert!(telling.is_none(), "a secret is in an answer's head: {telling:?}");
        answer
    }

    /// Calls until the answer has this status.
    pub(crate) async fn eventually(&self, path: &str, status: u16) -> reqwest::Response {
        let calling = async {
            loop {
                let answer = self.get(path).await;
                if answer.status() == status {
                    return answer;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE * 2, calling).await.expect("the status comes")
    }

    /// Status and body of a path on the health listener.
    pub(crate) async fn health(&self, path: &str) -> (u16, String) {
        let answer = self.client.get(format!("http://{}{path}", self.health)).send().await;
        let answer = answer.expect("the health listener answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// What the `status` command prints.
    pub(crate) async fn status(&self, args: &[&str]) -> String {
        let admin = self.admin_url("");
        let args: Vec<&str> = ["status", "--admin", &admin].iter().chain(args).copied().collect();
        let mut process = Process::sidecar(&args);
        assert_eq!(process.ended().await.code(), Some(0), "{:?}", process.stderr.lines());
        process.stdout.lines().join("\n")
    }

    /// The path of the configuration.
    pub(crate) fn config_path(&self) -> String {
        self.dir.path().join("config.yaml").display().to_string()
    }

    /// Waits for a log line with this text.
    pub(crate) async fn log(&self, text: &str) -> String {
        self.sidecar.stderr.line(|line| line.contains(text)).await
    }

    /// A connection that the sidecar has accepted and counts.
    pub(crate) async fn open_connection(&self) -> TcpStream {
        let before = self.gauge("connections").await;
        let stream = TcpStream::connect(self.address).await.expect("it listens");
        self.wait_for_gauge("connections", |now| now > before).await;
        stream
    }

    /// Waits until no call is in flight.
    pub(crate) async fn quiet(&self) {
        self.wait_for_gauge("in_flight", |now| now == 0.0).await;
    }

    async fn wait_for_gauge(&self, name: &str, wanted: impl Fn(f64) -> bool) {
        let waiting = async {
            while !wanted(self.gauge(name).await) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the gauge gets there");
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, wanted: impl AsyncFn() -> bool) {
        let waiting = async {
            while !wanted().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("it gets there");
    }

    /// A client of the health listener that asks and never reads.
    pub(crate) async fn ask_health_and_read_nothing(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.health).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it takes a request");
        stream
    }

    /// Waits until a line is among the metrics.
    pub(crate) async fn metric(&self, line: &str) {
        let waiting = async {
            while !self.health("/metrics").await.1.lines().any(|have| have == line) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the metric gets there");
    }

    /// Waits until a metric is above a value.
    pub(crate) async fn series_above(&self, series: &str, value: f64) {
        let above = comes_true(async || self.series(series).await > value).await;
        assert!(above, "{series} stays at {value}");
    }

    /// Waits until Vault was asked so many times more, and answered.
    pub(crate) async fn looks_at_vault(&self, count: u32) {
        let series = r#"store_reads_total{outcome="ok",store="vault"}"#;
        let wanted = self.series(series).await + f64::from(count);
        self.series_above(series, wanted - 1.0).await;
    }

    async fn gauge(&self, name: &str) -> f64 {
        let (_, metrics) = self.health("/metrics").await;
        let name = format!("datapulse_sidecar_{name} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("the gauge is there").parse().expect("a number")
    }

    /// Open file descriptors of the sidecar.
    pub(crate) fn open_files(&self) -> usize {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.sidecar.id()));
        open.expect("the sidecar runs").count()
    }

    /// Resident memory of the sidecar now.
    pub(crate) fn sidecar_rss_bytes(&self) -> u64 {
        self.proc_status("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn sidecar_rss_peak_bytes(&self) -> u64 {
        self.proc_status("VmHWM:")
    }

    fn proc_status(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.sidecar.id()));
        let status = status.expect("the sidecar runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("on Linux");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kib * 1024
    }

    /// DataPulse takes another key for `reader` and no longer the old one; the file has the new one.
    pub(crate) fn replace_api_key(&self) {
        let key = format!("dp_live_{CANARY}_second");
        self.emulator.replace_key("reader", &key);
        std::fs::write(&self.key_file, key).expect("written");
    }

    /// Where the secrets and the configuration are.
    pub(crate) fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The file of the configuration.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.path().join("config.yaml")
    }

    /// Writes a changed configuration, as an editor does: mappings are merged, everything else is
    /// replaced.
    pub(crate) fn reconfigure(&mut self, yaml: &str) {
        let change = serde_saphyr::from_str(yaml).expect("the test's own YAML");
        merge(&mut self.config, change);
        self.write_config(&self.config.to_string());
    }

    /// Writes this text in the place of the configuration.
    pub(crate) fn write_config(&self, text: &str) {
        let beside = self.dir.path().join("config.new");
        std::fs::write(&beside, text).expect("written");
        std::fs::rename(beside, self.config_file()).expect("renamed");
    }

    /// Ends the sidecar and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.sidecar.signal("TERM").await;
        assert_eq!(self.sidecar.ended().await.code(), Some(0));
        self.start_again().await;
    }

    /// Kills the sidecar, which it does not notice, and starts it again.
    pub(crate) async fn crash(&mut self) {
        self.sidecar.signal("KILL").await;
        assert_eq!(self.sidecar.ended().await.code(), None);
        self.start_again().await;
    }

    /// A second sidecar with the same configuration, under calls.
    pub(crate) async fn twin(&self, path: &str) -> Callers {
        let config = self.config_file();
        let twin = Started::from(config.to_str().expect("UTF-8"), &[], None).await;
        let url = format!("http://localhost:{}{path}", twin.address.port());
        let serves = async || {
            let answer = self.client.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        assert!(comes_true(serves).await, "the second one serves no call");
        Callers::at(&self.client, &url, Some(twin.sidecar))
    }

    /// Starts it once more, after it has ended.
    pub(crate) async fn start_again(&mut self) {
        let config = self.config_file();
        let started = Started::from(config.to_str().expect("UTF-8"), &[], None).await;
        self.sidecar = started.sidecar;
        (self.address, self.health, self.admin) = (started.address, started.health, started.admin);
        self.log("each required credential is usable").await;
    }

    /// The value of a metric with these labels, from `name{labels}`; 0 when it is not there.
    pub(crate) async fn series(&self, series: &str) -> f64 {
        let (_, metrics) = self.health("/metrics").await;
        let series = format!("datapulse_sidecar_{series} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Several of them together.
    pub(crate) async fn sum(&self, several: &[String]) -> f64 {
        let mut sum = 0.0;
        for series in several {
            sum += self.series(series).await;
        }
        sum
    }

    /// Waits until several metrics together have such a value.
    pub(crate) async fn until_sum(&self, several: &[String], wanted: impl Fn(f64) -> bool) {
        let waiting = async {
            while !wanted(self.sum(several).await) {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(reached.is_ok(), "{several:?}: {}", self.health("/metrics").await.1);
    }

    /// Waits until a metric has such a value.
    pub(crate) async fn until_series(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        self.until_sum(&[series.to_owned()], wanted).await;
    }

    /// Waits until a count is above zero.
    pub(crate) async fn counted(&self, series: &str) {
        self.until_series(series, |now| now > 0.0).await;
    }

    /// Ends the sidecar and looks for the canary in all that it wrote.
    pub(crate) async fn finish(mut self) {
        let mut seen = vec![("/metrics", self.health("/metrics").await.1)];
        seen.push(("/status", self.status(&["--json"]).await));
        self.sidecar.signal("TERM").await;
        let status = self.sidecar.ended().await;
        let stderr = self.sidecar.stderr.lines().join("\n");
        assert_eq!(status.code(), Some(0), "{stderr}");
        seen.push(("stdout", self.sidecar.stdout.lines().join("\n")));
        seen.push(("stderr", stderr));
        for (place, text) in seen {
            if let Some(line) = text.lines().find(|line| line.contains(CANARY)) {
                panic!("a secret is in {place}: {line}");
            }
        }
        assert!(self.dir.path().exists());
    }
}
