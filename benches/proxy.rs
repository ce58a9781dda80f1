//! What the sidecar adds to a call: the same requests directly to the emulator (the floor) and
//! through the sidecar, in turn, in one run. `make bench` runs it; ratios are what to read, because
//! the machine's own speed is in both numbers.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a program for people, which stops where its set-up fails"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use datapulse_sidecar::emulator::{Emulator, Settings};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One measurement lasts this long.
const SPAN: Duration = Duration::from_secs(4);
/// Measurements each way, in turn, of which the middle one counts.
const ROUNDS: usize = 3;
/// Clock ticks a second in `/proc/<pid>/stat` (`getconf CLK_TCK`; 100 on every Linux there is).
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    datapulse_sidecar::tls::install_provider();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run());
}

async fn run() {
    let local = (Ipv4Addr::LOCALHOST, 0).into();
    let emulator = Emulator::bind(local, Settings::default()).await.expect("a free port");
    let origin = emulator.address();
    let (_stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks.spawn(emulator.run(stopped));
    let folder = tempfile::tempdir().expect("a folder");
    let sidecar = Sidecar::start(folder.path(), origin);
    println!(
        "connections |   direct: calls/s  p50  p99 |  sidecar: calls/s  p50  p99 | ratio of calls/s | p50 added | sidecar's CPU a call"
    );
    for connections in [1, 8, 64] {
        let (mut direct, mut through) = (Vec::new(), Vec::new());
        let (before, mut calls) = (sidecar.cpu_seconds(), 0);
        for _ in 0..ROUNDS {
            direct.push(
                measure(
                    origin,
                    "Authorization: Bearer dp_live_emulator_read_only\r\n",
                    connections,
                )
                .await,
            );
            let measured = measure(sidecar.address, "", connections).await;
            calls += measured.calls;
            through.push(measured);
        }
        let cpu = (sidecar.cpu_seconds() - before) / calls as f64;
        let (direct, through) = (middle(direct), middle(through));
        println!(
            "{connections:>11} | {:>17.0} {:>4.0} {:>4.0} | {:>17.0} {:>4.0} {:>4.0} | {:>16.2} | {:>6.0} us | {:>8.1} us",
            direct.rate(),
            micros(direct.p50),
            micros(direct.p99),
            through.rate(),
            micros(through.p50),
            micros(through.p99),
            through.rate() / direct.rate(),
            micros(through.p50) - micros(direct.p50),
            cpu * 1e6,
        );
    }
    println!("times in microseconds; emulator and client share the machine with the sidecar");
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

struct Sidecar {
    child: Child,
    address: SocketAddr,
}

impl Sidecar {
    fn start(folder: &std::path::Path, origin: SocketAddr) -> Self {
        use std::io::BufRead as _;
        let key = folder.join("key");
        std::fs::write(&key, "dp_live_emulator_read_only").expect("written");
        let config = folder.join("config.yaml");
        let yaml = format!(
            "version: 1\nlisteners: [{{listen: \"127.0.0.1:0\"}}]\n\
             upstream: {{base_url: \"http://{origin}\", allow_plaintext: true}}\n\
             credentials: [{{name: bench, level: read_only, api_key: \"file:{}\"}}]\n\
             health: {{listen: \"127.0.0.1:0\"}}\nadmin: {{listen: \"127.0.0.1:0\"}}\n\
             log: {{format: json, audit: stdout}}\n",
            key.display()
        );
        std::fs::write(&config, yaml).expect("written");
        let mut child = Command::new(env!("CARGO_BIN_EXE_datapulse-sidecar"))
            .args(["run", "--config"])
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the sidecar starts");
        let mut address = None;
        let log = std::io::BufReader::new(child.stderr.take().expect("piped"));
        for line in log.lines() {
            let line: serde_json::Value =
                serde_json::from_str(&line.expect("text")).expect("a JSON line");
            if let Some(found) = line.get("address").and_then(serde_json::Value::as_str) {
                address = Some(found.parse().expect("an address"));
            }
            if line.to_string().contains("each required credential is usable") {
                break;
            }
        }
        Self { child, address: address.expect("the sidecar says where it listens") }
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the sidecar runs");
        // Behind the name in brackets, user and system time are fields 12 and 13.
        let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
        let ticks: f64 = fields.skip(11).take(2).map(|n| n.parse::<f64>().expect("a number")).sum();
        ticks / TICKS_PER_SECOND
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[derive(Clone, Copy)]
struct Measured {
    calls: usize,
    took: Duration,
    p50: Duration,
    p99: Duration,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.calls as f64 / self.took.as_secs_f64()
    }
}

fn middle(mut rounds: Vec<Measured>) -> Measured {
    rounds.sort_by(|a, b| a.rate().total_cmp(&b.rate()));
    *rounds.get(rounds.len() / 2).expect("at least one round")
}

/// Calls on so many connections, one after the other on each.
async fn measure(to: SocketAddr, header: &str, connections: usize) -> Measured {
    let request = format!("GET /v1/datasets HTTP/1.1\r\nHost: localhost\r\n{header}\r\n");
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..connections {
        callers.spawn(call_on_one_connection(to, request.clone(), began + SPAN));
    }
    let mut times: Vec<Duration> = callers.join_all().await.into_iter().flatten().collect();
    let took = began.elapsed();
    times.sort_unstable();
    let at = |part: usize| *times.get((times.len() - 1) * part / 100).expect("some calls");
    Measured { calls: times.len(), took, p50: at(50), p99: at(99) }
}

async fn call_on_one_connection(to: SocketAddr, request: String, until: Instant) -> Vec<Duration> {
    let stream = TcpStream::connect(to).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let mut stream = BufReader::new(stream);
    let (mut times, mut line, mut body) = (Vec::new(), String::new(), Vec::new());
    while Instant::now() < until {
        let began = Instant::now();
        stream.get_mut().write_all(request.as_bytes()).await.expect("it reads");
        let mut length = 0;
        loop {
            line.clear();
            stream.read_line(&mut line).await.expect("a head");
            let text = line.trim_end().to_ascii_lowercase();
            if let Some(value) = text.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
            assert!(!text.starts_with("http/") || text.contains(" 200"), "{text}");
            if text.is_empty() {
                break;
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await.expect("a body");
        times.push(began.elapsed());
    }
    times
}
