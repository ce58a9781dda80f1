//! Deliveries over real sockets, with an app that notes what it gets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use axum::extract::State;
use axum::response::IntoResponse;
use bytes::Bytes;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::signature::SigningKey;
use super::*;
use crate::config::model::{self, Dedupe};
use crate::secret::SecretValue;
use crate::store::{self, Secrets, Stores};
use crate::telemetry::Metrics;
use crate::tls::{self, Roots};

const CURRENT: &str = "current-secret-canary";
const PREVIOUS: &str = "previous-secret-canary";
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers 299 and notes what came.
#[derive(Clone)]
struct App {
    got: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    status: Arc<AtomicU16>,
    /// Each answer takes a permit.
    gate: Arc<Semaphore>,
}

struct Bench {
    dir: TempDir,
    address: SocketAddr,
    app: App,
    app_task: tokio::task::AbortHandle,
    endpoint: model::Endpoint,
    webhooks: Webhooks,
    secrets: Secrets,
    metrics: Metrics,
    tasks: JoinSet<()>,
    _stop: watch::Sender<bool>,
}

impl Bench {
    async fn new() -> Self {
        Self::with(|_| {}, &[("current", CURRENT), ("previous", PREVIOUS)]).await
    }

    async fn with(change: impl FnOnce(&mut model::Endpoint), files: &[(&str, &str)]) -> Self {
        tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let app = App {
            got: Arc::default(),
            status: Arc::new(AtomicU16::new(299)),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let router = Router::new().fallback(note).with_state(app.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forward_to = format!("http://{}/in?a=b", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        let app_task = tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let at = |name: &str| format!("file:{}", dir.path().join(name).display()).parse().unwrap();
        let mut endpoint = model::Endpoint {
            path: "/hook".into(),
            secrets: vec![at("current"), at("previous")],
            forward_to: forward_to.parse().unwrap(),
            body_bytes_max: 1024 * 1024,
            timeout: PATIENCE,
            dedupe: None,
        };
        change(&mut endpoint);
        let metrics = Metrics::new().unwrap();
        let (secrets, watcher) = store::watched(Arc::new(Stores::new(&metrics)));
        tasks.spawn(watcher.run());
        let http = tls::delivery_client(&Roots::none()).unwrap();
        let (webhooks, keepers) =
            Webhooks::new(std::slice::from_ref(&endpoint), http, &secrets, &metrics);
        keepers.into_iter().for_each(|keeper| drop(tasks.spawn(keeper.run())));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        tasks.spawn(serve(listener, webhooks.clone(), stopped));
        Self { dir, address, app, app_task, endpoint, webhooks, secrets, metrics, tasks, _stop }
    }

    /// Sends the pieces one after the other and reads to the end; status and the whole answer.
    async fn send(&self, pieces: &[&[u8]]) -> (u16, String) {
        self.talk(pieces, false).await
    }

    /// `is_all`: nothing more comes, whatever was announced.
    async fn talk(&self, pieces: &[&[u8]], is_all: bool) -> (u16, String) {
        let talk = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            for piece in pieces {
                // A server that refuses may close before everything is written.
                drop(stream.write_all(piece).await);
                tokio::task::yield_now().await;
            }
            if is_all {
                stream.shutdown().await.unwrap();
            }
            let mut answer = Vec::new();
            drop(stream.read_to_end(&mut answer).await);
            String::from_utf8_lossy(&answer).into_owned()
        };
        let answer = timeout(PATIENCE, talk).await.expect("it is answered");
        assert!(!answer.contains("canary"), "{answer}");
        let status = answer.get(9..12).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), answer)
    }

    async fn post(&self, lines: &str, body: &[u8]) -> (u16, String) {
        self.send(&[head(lines, body.len()).as_bytes(), body]).await
    }

    async fn deliver(&self, secret: &str, lines: &str, body: &[u8]) -> u16 {
        self.post(&format!("{}{lines}", signed(secret, body)), body).await.0
    }

    fn write(&self, name: &str, text: &str) {
        let beside = self.dir.path().join("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Delivers until the answer has this status.
    async fn until(&self, secret: &str, status: u16) {
        let trying = async {
            while self.deliver(secret, "", b"until").await != status {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, trying).await.expect("it comes to that");
    }

    fn got(&self) -> usize {
        self.app.got.lock().len()
    }

    fn counted(&self, outcome: &str) -> u64 {
        self.metrics.webhook_deliveries.with_label_values(&["/hook", outcome]).get()
    }
}

async fn note(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    app.got.lock().push((headers, body));
    app.gate.acquire().await.unwrap().forget();
    let status = StatusCode::from_u16(app.status.load(Ordering::SeqCst)).unwrap();
    (status, [("x-app", "yes")], "the app's own words").into_response()
}

fn key(secret: &str) -> SigningKey {
    SigningKey::new(&SecretValue::new(secret.into())).unwrap()
}

fn signed(secret: &str, body: &[u8]) -> String {
    format!("X-Datapulse-Signature: {}\r\n", key(secret).sign(body))
}

fn head(lines: &str, length: usize) -> String {
    format!(
        "POST /hook HTTP/1.1\r\nHost: hooks.example\r\nConnection: close\r\nX-Request-Id: r1\r\n\
         Content-Length: {length}\r\n{lines}\r\n"
    )
}

/// With a byte order mark, both line ends, bytes that are no text, and a NUL.
const ODD: &[u8] = b"\xef\xbb\xbf{\"b\" : 1,\r\n \"a\":\t\"\xff\xfe\0\" }\n\n";

#[tokio::test]
async fn a_signed_delivery_reaches_the_app_byte_for_byte_wherever_it_is_split() {
    let bench = Bench::new().await;
    for at in 0..=ODD.len() {
        let (one, two) = ODD.split_at(at);
        let lines = signed(CURRENT, ODD);
        let (status, answer) = bench.send(&[head(&lines, ODD.len()).as_bytes(), one, two]).await;
        assert_eq!(status, 299, "{answer}");
        let chunked = format!(
            "POST /hook?x=y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n{lines}\r\n"
        );
        let mut pieces = vec![chunked.into_bytes()];
        for part in [one, two].into_iter().filter(|part| !part.is_empty()) {
            pieces.push(format!("{:x}\r\n", part.len()).into_bytes());
            pieces.push([part, b"\r\n"].concat());
        }
        pieces.push(b"0\r\n\r\n".to_vec());
        let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
        assert_eq!(bench.send(&pieces).await.0, 299);
    }
    let got = bench.app.got.lock();
    assert_eq!(got.len(), 2 * (ODD.len() + 1));
    assert!(got.iter().all(|(_, body)| body == ODD));
}

#[tokio::test]
async fn large_random_and_empty_bodies_are_delivered_identically_or_not_at_all() {
    let bench = Bench::new().await;
    let mut random = vec![0; 1024 * 1024];
    fastrand::fill(&mut random);
    for body in [&random[..], b""] {
        assert_eq!(bench.deliver(CURRENT, "", body).await, 299);
        let mut chunked = Vec::new();
        for part in body.chunks(4097) {
            chunked.extend_from_slice(format!("{:X};ext=1\r\n", part.len()).as_bytes());
            chunked.extend_from_slice(&[part, b"\r\n"].concat());
        }
        chunked.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
        let lines = format!("Transfer-Encoding: chunked\r\n{}", signed(PREVIOUS, body));
        let head = head(&lines, 0).replace("Content-Length: 0\r\n", "");
        assert_eq!(bench.send(&[head.as_bytes(), &chunked]).await.0, 299);
        for (headers, got) in bench.app.got.lock().drain(..) {
            assert_eq!(got, body);
            assert!(!headers.contains_key("x-trailer"));
        }
    }
    // One byte is another one, or missing, or too much.
    let lines = signed(CURRENT, &random);
    random[700_000] ^= 1;
    assert_eq!(bench.post(&lines, &random).await.0, 401);
    random[700_000] ^= 1;
    assert_eq!(bench.post(&lines, &random[1..]).await.0, 401);
    let cut = [head(&lines, random.len()).into_bytes(), random[1..].to_vec()];
    let (status, answer) = bench.talk(&[&cut[0], &cut[1]], true).await;
    assert!(matches!(status, 0 | 400), "it breaks off: {answer}");
    assert_eq!(bench.got(), 0);
}

#[tokio::test]
async fn whatever_is_not_one_well_formed_signature_is_a_401_and_all_look_alike() {
    let bench = Bench::new().await;
    let body = b"{}";
    let good = key(CURRENT).sign(body);
    let digits = &good[7..];
    let line = |value: &str| format!("X-Datapulse-Signature: {value}\r\n");
    let flipped = if digits.starts_with('0') { "1" } else { "0" };
    let mut seen = Vec::new();
    for lines in [
        String::new(),
        line(""),
        line(digits),
        line(&format!("sha1={digits}")),
        line(&format!("SHA256={digits}")),
        line(&good[..good.len() - 1]),
        line(&good[..good.len() - 2]),
        line(&format!("{good}0")),
        line(&format!("sha256={digits}{digits}")),
        line(&format!("sha256=zz{}", &digits[2..])),
        line(&format!("sha256=é{}", &digits[2..])),
        line(&format!("sha256= {digits}")),
        line(&format!("{good},{good}")),
        line(&format!("{good}, sha256={digits}")),
        line(&good) + &line(&good),
        line(&good) + "Connection: X-Datapulse-Signature\r\n",
        line(&format!("sha256={flipped}{}", &digits[1..])),
        signed("some-other-secret", body),
        signed(CURRENT, b"{} "),
        line(&good).replace('-', "_"),
        "X-Forwarded-For: 127.0.0.1\r\nX-Datapulse-Verified: true\r\n".to_owned(),
    ] {
        let (status, answer) = bench.post(&lines, body).await;
        assert_eq!(status, 401, "{lines}: {answer}");
        // All but the date.
        seen.push(answer.lines().filter(|l| !l.starts_with("date:")).collect::<String>());
    }
    assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
    assert!(seen[0].contains("\"request_id\":\"r1\""), "{}", seen[0]);
    // A signature behind the body is no header.
    let trailer = format!("2\r\n{{}}\r\n0\r\nX-Datapulse-Signature: {good}\r\n\r\n");
    let chunked = head("Transfer-Encoding: chunked\r\nTrailer: X-Datapulse-Signature\r\n", 0)
        .replace("Content-Length: 0\r\n", "");
    assert_eq!(bench.send(&[chunked.as_bytes(), trailer.as_bytes()]).await.0, 401);
    // What is no HTTP is 400.
    for value in [format!("{good}\0"), format!("\0{good}")] {
        assert_eq!(bench.post(&line(&value), body).await.0, 400);
    }
    assert_eq!(bench.got(), 0);
    for value in [
        format!("sha256={}", digits.to_ascii_uppercase()),
        format!("  {good}  "),
        format!("\t{good}"),
    ] {
        assert_eq!(bench.post(&line(&value), body).await.0, 299, "{value:?}");
    }
    assert_eq!((bench.got(), bench.counted("delivered")), (3, 3));
    assert_eq!(bench.counted("signature_mismatch"), 3);
}

#[tokio::test]
async fn what_is_no_delivery_is_told_so_and_the_app_hears_nothing_of_it() {
    let bench =
        Bench::with(|endpoint| endpoint.body_bytes_max = 1000, &[("current", CURRENT)]).await;
    let large = [b'x'; 1001];
    assert_eq!(bench.deliver(CURRENT, "", &large).await, 413);
    let chunked = head(&format!("Transfer-Encoding: chunked\r\n{}", signed(CURRENT, &large)), 0)
        .replace("Content-Length: 0\r\n", "");
    let body = [b"3e9\r\n", &large[..], b"\r\n0\r\n\r\n"].concat();
    assert_eq!(bench.send(&[chunked.as_bytes(), &body]).await.0, 413);
    let asked = head("Expect: 100-continue\r\n", 1_000_000);
    assert_eq!(bench.send(&[asked.as_bytes()]).await.0, 413, "refused before it is sent");
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "BREW"] {
        let (status, answer) = bench.send(&[head("", 0).replace("POST", method).as_bytes()]).await;
        assert!(status == 405 && answer.contains("allow: POST"), "{method}: {answer}");
    }
    for path in ["/", "/hook/", "/Hook", "/hook%2f", "//hook", "/hooks", "/h%6fok"] {
        assert_eq!(bench.send(&[head("", 0).replace("/hook", path).as_bytes()]).await.0, 404);
    }
    assert_eq!(bench.deliver(CURRENT, "", &large[..1000]).await, 299);
    assert_eq!((bench.got(), bench.counted("too_large")), (1, 3));
    let unknown = bench.metrics.webhook_deliveries.with_label_values(&["unknown", "unknown_path"]);
    assert_eq!(unknown.get(), 7);
}

#[tokio::test]
async fn the_apps_answer_comes_back_and_only_the_senders_headers_reach_it() {
    let bench = Bench::new().await;
    let lines = "Content-Type: application/json\r\nX-Datapulse-Delivery: 7\r\nAuthorization: Basic x\r\n\
                 X-Forwarded-For: 127.0.0.1\r\nX-DataPulse-Sidecar-Token: x\r\nX-Datapulse-Verified: 1\r\n\
                 Connection: X-Mine\r\nX-Mine: 1\r\nX_A: 1\r\nExpect: 100-continue\r\n";
    bench.app.status.store(503, Ordering::SeqCst);
    let body = b"{}";
    let (status, answer) = bench.post(&format!("{lines}{}", signed(CURRENT, body)), body).await;
    assert!(answer.ends_with("the app's own words") && answer.contains("x-app: yes"), "{answer}");
    let answer = answer.trim_start_matches("HTTP/1.1 100 Continue\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("x-request-id: r1"), "{status}");
    let got = bench.app.got.lock();
    let mut names: Vec<_> = got[0].0.keys().map(http::HeaderName::as_str).collect();
    names.sort_unstable();
    let want = [
        "accept",
        "authorization",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-datapulse-delivery",
        "x-datapulse-signature",
        "x-request-id",
    ];
    assert_eq!(names, want);
    assert_eq!(bench.counted("refused_by_app"), 1);
}

#[tokio::test]
async fn an_app_that_is_down_or_hangs_is_told_so_that_the_sender_tries_again() {
    let brief = Duration::from_millis(500);
    let mut bench = Bench::with(|endpoint| endpoint.timeout = brief, &[("current", CURRENT)]).await;
    bench.app.gate.forget_permits(Semaphore::MAX_PERMITS);
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 504);
    bench.app_task.abort();
    let gone = async { while bench.tasks.join_next().await.is_some_and(|ended| ended.is_ok()) {} };
    timeout(PATIENCE, gone).await.expect("the app ends");
    let patient = model::Endpoint { timeout: PATIENCE, ..bench.endpoint.clone() };
    let http = tls::delivery_client(&Roots::none()).unwrap();
    assert!(bench.webhooks.renew(&[patient], http, &bench.secrets).is_empty());
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 502);
    assert_eq!((bench.counted("app_timeout"), bench.counted("app_unreachable")), (1, 1));
}

#[tokio::test]
async fn a_secret_is_swapped_while_running_and_a_bad_one_never_replaces_it() {
    let bench = Bench::new().await;
    assert_eq!(bench.deliver(PREVIOUS, "", b"{}").await, 299);
    bench.write("current", "the-next-secret-canary\n");
    bench.until("the-next-secret-canary", 299).await;
    bench.until(CURRENT, 401).await;
    assert_eq!(bench.deliver(PREVIOUS, "", b"{}").await, 299, "its neighbour is not touched");
    for bad in ["short", "", "a secret with spaces"] {
        bench.write("current", bad);
        // The neighbour's change is noticed by the same look.
        let neighbour = format!("neighbour-canary-{}", bad.len());
        bench.write("previous", &neighbour);
        bench.until(&neighbour, 299).await;
        assert_eq!(bench.deliver("the-next-secret-canary", "", b"{}").await, 299, "{bad:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_down_takes_no_secret_away_and_without_one_the_sender_tries_again() {
    let bench = Bench::with(|_| {}, &[]).await;
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 503);
    let (_, answer) = bench.post("", b"{}").await;
    assert!(answer.contains("secret_unavailable") && answer.contains("retry-after: 5"), "{answer}");
    bench.write("current", "short");
    assert_eq!(bench.deliver("short-secret-canary", "", b"{}").await, 503);
    bench.write("current", CURRENT);
    bench.until(CURRENT, 299).await;
    std::fs::remove_file(bench.path("current")).unwrap();
    bench.write("previous", PREVIOUS);
    bench.until(PREVIOUS, 299).await;
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 299);
}

#[tokio::test]
async fn a_repeat_of_what_the_app_took_is_not_delivered_again() {
    let by_header = Dedupe {
        header: Some("x-datapulse-delivery".parse().unwrap()),
        entries: 10,
        keep: Duration::from_secs(3600),
    };
    let change = |endpoint: &mut model::Endpoint| endpoint.dedupe = Some(by_header.clone());
    let bench = Bench::with(change, &[("current", CURRENT), ("previous", PREVIOUS)]).await;
    let deliver = |id: &'static str, body: &'static [u8]| {
        let bench = &bench;
        async move {
            let lines = format!("X-Datapulse-Delivery: {id}\r\n");
            bench.deliver(CURRENT, &lines, body).await
        }
    };
    bench.app.status.store(500, Ordering::SeqCst);
    assert_eq!((deliver("1", b"a").await, deliver("1", b"a").await, bench.got()), (500, 500, 2));
    bench.app.status.store(204, Ordering::SeqCst);
    assert_eq!((deliver("1", b"a").await, bench.got()), (204, 3));
    assert_eq!((deliver("1", b"a").await, bench.got()), (200, 3), "a repeat");
    assert_eq!((deliver("2", b"a").await, bench.got()), (204, 4), "another one of the same words");
    assert_eq!((deliver("1", b"b").await, bench.got()), (204, 5), "not the one of that name");
    assert_eq!(bench.deliver("some-other-secret", "X-Datapulse-Delivery: 1\r\n", b"a").await, 401);
    // A configuration that changes something else keeps what was seen.
    let again = model::Endpoint { timeout: Duration::from_secs(7), ..bench.endpoint.clone() };
    let http = tls::delivery_client(&Roots::none()).unwrap();
    assert!(bench.webhooks.renew(&[again], http, &bench.secrets).is_empty());
    assert_eq!((deliver("1", b"a").await, bench.got(), bench.counted("repeat")), (200, 5, 2));
}

#[tokio::test]
async fn the_same_delivery_twice_at_once_is_with_the_app_once() {
    let by_signature = Dedupe { header: None, entries: 10, keep: Duration::from_secs(3600) };
    let bench =
        Bench::with(|endpoint| endpoint.dedupe = Some(by_signature), &[("current", CURRENT)]);
    let bench = bench.await;
    bench.app.gate.forget_permits(Semaphore::MAX_PERMITS);
    let first = bench.deliver(CURRENT, "", b"a");
    let second = async {
        let comes = async {
            while bench.got() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, comes).await.expect("the first one comes");
        let status = bench.deliver(CURRENT, "", b"a").await;
        bench.app.gate.add_permits(1);
        status
    };
    assert_eq!(tokio::join!(first, second), (299, 503));
    assert_eq!((bench.deliver(CURRENT, "", b"a").await, bench.got()), (200, 1));
}

#[tokio::test]
async fn a_secret_that_verifies_goes_on_when_its_list_changes_while_its_store_is_down() {
    let only = |endpoint: &mut model::Endpoint| endpoint.secrets.truncate(1);
    let mut bench = Bench::with(only, &[("current", CURRENT)]).await;
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 299);
    std::fs::remove_file(bench.path("current")).unwrap();
    let current = bench.endpoint.secrets[0].clone();
    let at = |name: &str| format!("file:{}", bench.path(name).display()).parse().unwrap();
    let lists = [vec![at("absent"), current.clone()], vec![current.clone(), at("previous")]];
    for list in lists {
        bench.endpoint.secrets = list;
        let http = tls::delivery_client(&Roots::none()).unwrap();
        let endpoints = std::slice::from_ref(&bench.endpoint);
        for keeper in bench.webhooks.renew(endpoints, http, &bench.secrets) {
            bench.tasks.spawn(keeper.run());
        }
        assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 299);
        assert_eq!(bench.deliver(PREVIOUS, "", b"{}").await, 401);
    }
    bench.write("previous", PREVIOUS);
    bench.until(PREVIOUS, 299).await;
    assert_eq!(bench.deliver(CURRENT, "", b"{}").await, 299);
}
