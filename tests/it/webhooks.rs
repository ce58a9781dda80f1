//! Promise: what reaches the app was signed by DataPulse, whatever is sent and however the secrets
//! rotate.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::support::{CANARY, PATIENCE, Process, Rig};

/// The app: it takes deliveries, and each answer costs a permit.
struct App {
    address: SocketAddr,
    got: watch::Receiver<Vec<Bytes>>,
    gate: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

type Noted = (Arc<watch::Sender<Vec<Bytes>>>, Arc<Semaphore>);

async fn note(State((got, gate)): State<Noted>, body: Bytes) -> &'static str {
    got.send_modify(|got| got.push(body));
    gate.acquire().await.unwrap().forget();
    "taken"
}

impl App {
    async fn start() -> Self {
        let (sender, got) = watch::channel(Vec::new());
        let gate = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        let router = Router::new().fallback(note).with_state((Arc::new(sender), Arc::clone(&gate)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, got, gate, _tasks: tasks }
    }

    /// Waits until so many deliveries came.
    async fn gets(&self, count: usize) {
        let mut got = self.got.clone();
        let waited = tokio::time::timeout(PATIENCE, got.wait_for(|got| got.len() >= count)).await;
        waited.expect("it comes").unwrap();
    }

    fn count(&self) -> usize {
        self.got.borrow().len()
    }
}

fn secret(name: &str) -> String {
    format!("{CANARY}-webhook-{name}")
}

fn endpoint(app: &App, path: &str) -> String {
    format!(
        "webhooks: {{listen: '127.0.0.1:0', endpoints: [{{path: {path}, \
         forward_to: 'http://{}/in', dedupe: {{header: X-Datapulse-Delivery}}, \
         secrets: ['file:${{DIR}}/hook-current', 'file:${{DIR}}/hook-previous']}}]}}\n",
        app.address
    )
}

/// A sidecar with an endpoint, and where DataPulse delivers to it.
async fn receiving(app: &App) -> (Rig, String) {
    let builder = Rig::builder().await;
    for name in ["current", "previous"] {
        std::fs::write(builder.dir().join(format!("hook-{name}")), secret(name)).unwrap();
    }
    let rig = builder.config_in_dir(&endpoint(app, "/webhooks/datapulse")).start().await;
    let line: serde_json::Value =
        serde_json::from_str(&rig.log("DataPulse can deliver").await).unwrap();
    let url = format!("http://{}/webhooks/datapulse", line["address"].as_str().unwrap());
    rig.log("deliveries that this secret signs are taken").await;
    (rig, url)
}

/// What a command says, and its code.
async fn run(args: &[&str]) -> (Option<i32>, String) {
    let mut process = Process::sidecar(args);
    let code = process.ended().await.code();
    let said = [process.stdout.lines().join("\n"), process.stderr.lines().join("\n")].concat();
    assert!(!said.contains(CANARY), "{said}");
    (code, said)
}

async fn send(secret: &Path, url: &str, further: &[&str]) -> (Option<i32>, String) {
    let at = format!("file:{}", secret.display());
    let args = [&["emulator", "send-webhook", "--secret", &at][..], further, &[url]].concat();
    run(&args).await
}

#[tokio::test]
async fn a_signed_delivery_reaches_the_app_once_and_a_bad_one_never() {
    let app = App::start().await;
    let (rig, url) = receiving(&app).await;
    let current = rig.dir().join("hook-current");
    let (code, said) = send(&current, &url, &["--id", "d1", "--times", "2"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("200 OK taken") && said.contains("200 OK delivered before"), "{said}");
    assert_eq!(app.count(), 1);
    for flaw in ["unsigned", "forged", "tampered", "sha1", "short", "twice"] {
        let (code, said) = send(&current, &url, &["--bad", flaw]).await;
        assert!(code == Some(1) && said.contains("401 Unauthorized"), "{flaw}: {said}");
    }
    assert_eq!(app.count(), 1);
    let series = |outcome: &str| {
        format!(
            "webhook_deliveries_total{{endpoint=\"/webhooks/datapulse\",outcome=\"{outcome}\"}}"
        )
    };
    for (outcome, want) in [("delivered", 1.0), ("repeat", 1.0), ("signature_malformed", 2.0)] {
        assert_eq!(rig.series(&series(outcome)).await, want, "{outcome}");
    }
    let told = "delivered: 1, repeat: 1, several_signatures: 1, signature_absent: 1, \
                signature_malformed: 2, signature_mismatch: 2";
    // What the alert looks for is what a bad one is counted as.
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/datapulse-sidecar/files/rules.yaml");
    let rules = std::fs::read_to_string(rules).unwrap();
    let alert = rules.split("alert: DataPulseForgedWebhooks").nth(1).unwrap();
    let listed = alert.split("outcome=~\"").nth(1).unwrap().split('"').next().unwrap();
    let bad = told.split(", ").filter(|one| one.contains("signature"));
    for outcome in bad.map(|one| one.split(':').next().unwrap()) {
        assert!(listed.split('|').any(|one| one == outcome), "{outcome} is not in {listed}");
    }
    let (code, table) = run(&["status", "--admin", &rig.admin_url("")]).await;
    assert_eq!(code, Some(0));
    for shown in
        [table, rig.client.get(rig.admin_url("/")).send().await.unwrap().text().await.unwrap()]
    {
        assert!(shown.contains(told) && shown.contains("2 of 2"), "{shown}");
    }
    rig.finish().await;
}

#[tokio::test]
async fn a_webhook_secret_that_rotates_fails_no_delivery() {
    let app = App::start().await;
    let (mut rig, url) = receiving(&app).await;
    let dir = rig.dir().to_owned();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.join("new"), text).unwrap();
        std::fs::rename(dir.join("new"), dir.join(name)).unwrap();
    };
    let mut old = secret("current");
    for round in 0..3 {
        // As an operator does it: the old one beside, the new one in its place, then the vendor.
        write("hook-previous", &old);
        let new = secret(&format!("round-{round}"));
        write("hook-current", &new);
        for (name, text) in [("old", &old), ("new", &new)] {
            write(name, text);
        }
        let (code, said) = send(&dir.join("old"), &url, &[]).await;
        assert_eq!(code, Some(0), "{round}: {said}");
        // The vendor uses the new one once it is known here.
        let taken = async { while send(&dir.join("new"), &url, &[]).await.0 != Some(0) {} };
        tokio::time::timeout(PATIENCE, taken).await.expect("the new secret is used");
        let (code, said) = send(&dir.join("old"), &url, &[]).await;
        assert_eq!(code, Some(0), "{round}: {said}");
        old = new;
    }
    // A reload with another path keeps the listener and the secrets.
    let again = endpoint(&app, "/other").replace("${DIR}", &dir.display().to_string());
    rig.reconfigure(&again);
    rig.log("the configuration was reloaded").await;
    let other = url.replace("/webhooks/datapulse", "/other");
    let (code, said) = send(&dir.join("old"), &other, &[]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = send(&dir.join("old"), &url, &[]).await;
    assert!(code == Some(1) && said.contains("404"), "{said}");
    rig.finish().await;
}

#[tokio::test]
async fn a_delivery_under_way_is_finished_when_the_sidecar_is_told_to_stop() {
    let app = App::start().await;
    let (mut rig, url) = receiving(&app).await;
    app.gate.forget_permits(Semaphore::MAX_PERMITS);
    let current = rig.dir().join("hook-current");
    let stopping = async {
        app.gets(1).await;
        rig.sidecar.signal("TERM").await;
        rig.log("draining").await;
        app.gate.add_permits(1);
    };
    let ((code, said), ()) = tokio::join!(send(&current, &url, &[]), stopping);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(rig.sidecar.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sign_and_verify_agree_and_say_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let body = file("body", "{\"a\": 1}\n");
    let [one, two, short] = [secret("one"), secret("two"), "short".to_owned()];
    let at = |name: &str, text: &str| format!("file:{}", file(name, text));
    let (one, two, short) = (at("one", &one), at("two", &two), at("short", &short));
    let (code, signature) = run(&["webhook", "sign", "--secret", &one, &body]).await;
    assert_eq!((code, signature.len()), (Some(0), 71), "{signature}");
    let verify = |secrets: &[&str], signature: &str, body: &str| {
        let secrets = secrets.iter().flat_map(|secret| ["--secret", secret]);
        let words = ["webhook", "verify", "--signature", signature, body];
        let args: Vec<String> = words.into_iter().chain(secrets).map(str::to_owned).collect();
        async move { run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    assert_eq!(verify(&[&two, &one], &signature, &body).await, (Some(0), "verified".to_owned()));
    let other = file("other", "{\"a\":1}");
    for (secrets, signature, body, code, part) in [
        (&[&*two][..], &*signature, &*body, 1, "no secret gives this signature"),
        (&[&one], &signature, &other, 1, "a body of 7 bytes"),
        (&[&one], &signature[7..], &body, 1, "not `sha256=` and 64"),
        (&[&short], &signature, &body, 2, "fewer than 16 bytes"),
        (&["file:/nowhere/x"], &signature, &body, 2, "no such secret"),
        (&["vault:secret/hook#key"], &signature, &body, 2, "give file:PATH"),
        (&["aws:hook"], &signature, &body, 2, "give file:PATH"),
        (&[&one], &signature, "/nowhere/body", 2, "cannot be read"),
    ] {
        let (got, said) = verify(secrets, signature, body).await;
        assert!(got == Some(code) && said.contains(part), "{part}: {got:?} {said}");
    }
}
