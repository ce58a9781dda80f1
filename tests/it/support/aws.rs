//! AWS Secrets Manager and its security token service: moto as a process, and a relay in front of it
//! that counts calls by operation and answers chosen ones itself, for what moto cannot do.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::tools::{client, free_address};
use super::{Builder, CANARY, Moto, PATIENCE};

/// What the relay answers itself.
#[derive(Debug, Clone)]
pub(crate) enum Canned {
    /// AWS's own way to refuse, with any code.
    Refusal(u16, &'static str),
    /// The same, with a message, which may hold what must not be shown.
    Message(u16, &'static str, String),
    /// The token service's own way to refuse.
    Xml(u16, &'static str),
    /// Any text.
    Text(u16, String),
    /// Nothing, ever.
    Silence,
}

/// Both services on one address.
pub(crate) struct Aws {
    address: SocketAddr,
    relay: Arc<Relay>,
    moto: Moto,
    /// The relay's listener.
    listening: tokio::sync::Mutex<JoinSet<()>>,
}

struct Relay {
    moto: String,
    http: reqwest::Client,
    canned: Mutex<BTreeMap<String, Canned>>,
    /// Calls by operation.
    calls: watch::Sender<BTreeMap<String, u64>>,
}

impl Builder {
    /// Who the sidecar is to AWS, in its environment.
    pub(crate) fn aws_keys(self) -> Self {
        let key = format!("{CANARY}-aws-key");
        self.env("AWS_ACCESS_KEY_ID", "AKIDTEST").env("AWS_SECRET_ACCESS_KEY", &key)
    }

    /// It is nobody to AWS but who the test says, whatever this machine has.
    pub(crate) fn nobody_in_aws(self) -> Self {
        let nowhere = self.dir().join("nowhere").display().to_string();
        self.env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_CONFIG_FILE", &nowhere)
            .env("AWS_SHARED_CREDENTIALS_FILE", &nowhere)
    }
}

impl Aws {
    pub(crate) async fn start() -> Self {
        let moto = Moto::start().await;
        let relay = Arc::new(Relay {
            moto: moto.url(),
            http: client(Vec::new()),
            canned: Mutex::default(),
            calls: watch::Sender::default(),
        });
        // One that nobody else is given while nobody listens here.
        let (address, listening) = serve(free_address(), router(&relay)).await;
        Self { address, relay, moto, listening: listening.into() }
    }

    /// Where the sidecar is sent.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same, for a relay in front.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same services, to be served in another way.
    pub(crate) fn router(&self) -> Router {
        router(&self.relay)
    }

    /// Whether new connections are refused.
    pub(crate) async fn set_down(&self, is_down: bool) {
        let mut listening = self.listening.lock().await;
        listening.shutdown().await;
        if !is_down {
            *listening = serve(self.address, router(&self.relay)).await.1;
        }
    }

    /// One call of the API, past the relay.
    pub(crate) async fn call(&self, operation: &str, body: Value) -> Value {
        self.moto.call(operation, &body).await
    }

    /// A new secret; its ARN.
    pub(crate) async fn create(&self, name: &str, text: &str) -> String {
        let made = self.call("CreateSecret", json!({"Name": name, "SecretString": text})).await;
        made["ARN"].as_str().expect("an ARN").to_owned()
    }

    /// A new current version.
    pub(crate) async fn put(&self, name: &str, text: &str) {
        self.call("PutSecretValue", json!({"SecretId": name, "SecretString": text})).await;
    }

    /// A version that waits; its id.
    pub(crate) async fn put_pending(&self, name: &str, text: &str) -> String {
        let pending = json!({
            "SecretId": name, "SecretString": text, "VersionStages": ["AWSPENDING"],
            "ClientRequestToken": "00000000-0000-0000-0000-000000000001",
        });
        let made = self.call("PutSecretValue", pending).await;
        made["VersionId"].as_str().expect("an id").to_owned()
    }

    /// `AWSCURRENT` moves to this version. With moto, nothing may be put afterwards.
    pub(crate) async fn make_current(&self, name: &str, version: &str) {
        let described = self.call("DescribeSecret", json!({"SecretId": name})).await;
        let stages = described["VersionIdsToStages"].as_object().expect("versions");
        let current = stages.iter().find(|(_, stages)| **stages == json!(["AWSCURRENT"]));
        let (current, _) = current.expect("one is current");
        let moved = json!({
            "SecretId": name, "VersionStage": "AWSCURRENT",
            "MoveToVersionId": version, "RemoveFromVersionId": current,
        });
        self.call("UpdateSecretVersionStage", moved).await;
    }

    /// What has a stage now.
    pub(crate) async fn text(&self, name: &str, stage: &str) -> String {
        let found =
            self.call("GetSecretValue", json!({"SecretId": name, "VersionStage": stage})).await;
        found["SecretString"].as_str().expect("a text").to_owned()
    }

    /// This operation is answered so from now on.
    pub(crate) fn answer(&self, operation: &str, canned: Canned) {
        self.relay.canned.lock().expect("not poisoned").insert(operation.to_owned(), canned);
    }

    /// Every operation goes through again.
    pub(crate) fn heal(&self) {
        self.relay.canned.lock().expect("not poisoned").clear();
    }

    /// How often an operation was asked for, through the relay.
    pub(crate) fn calls(&self, operation: &str) -> u64 {
        self.relay.calls.borrow().get(operation).copied().unwrap_or(0)
    }

    /// Waits until an operation was asked for so often more.
    pub(crate) async fn further(&self, operation: &str, count: u64) {
        let wanted = self.calls(operation) + count;
        let mut calls = self.relay.calls.subscribe();
        let reached = |calls: &BTreeMap<String, u64>| {
            calls.get(operation).is_some_and(|&count| count >= wanted)
        };
        timeout(PATIENCE, calls.wait_for(reached)).await.expect("it comes").expect("counted");
    }

    /// How often anything was asked for.
    pub(crate) fn all_calls(&self) -> u64 {
        self.relay.calls.borrow().values().sum()
    }
}

fn router(relay: &Arc<Relay>) -> Router {
    Router::new().fallback(pass_on).with_state(Arc::clone(relay))
}

async fn serve(at: SocketAddr, router: Router) -> (SocketAddr, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind(at).await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
    (address, tasks)
}

async fn pass_on(State(relay): State<Arc<Relay>>, headers: HeaderMap, body: Bytes) -> Response {
    let operation = operation(&headers, &body);
    relay.calls.send_modify(|calls| *calls.entry(operation.clone()).or_default() += 1);
    let canned = relay.canned.lock().expect("not poisoned").get(&operation).cloned();
    match canned {
        None => {}
        Some(Canned::Silence) => std::future::pending().await,
        Some(Canned::Text(status, text)) => return (code(status), text).into_response(),
        Some(Canned::Xml(status, name)) => return xml(status, name),
        Some(Canned::Refusal(status, name)) => return refusal(status, name, "refused"),
        Some(Canned::Message(status, name, message)) => return refusal(status, name, &message),
    }
    let mut headers = headers;
    headers.remove("host");
    let sent = relay.http.post(&relay.moto).headers(headers).body(body).send().await;
    let Ok(answer) = sent else { return StatusCode::BAD_GATEWAY.into_response() };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for name in ["connection", "transfer-encoding", "content-length"] {
        headers.remove(name);
    }
    let Ok(body) = answer.bytes().await else { return StatusCode::BAD_GATEWAY.into_response() };
    (status, headers, body).into_response()
}

/// Secrets Manager names the operation in a header, the token service in the body.
fn operation(headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(target) = headers.get("x-amz-target") {
        let target = target.to_str().expect("ASCII");
        return target.rsplit('.').next().unwrap_or_default().to_owned();
    }
    let form = String::from_utf8_lossy(body);
    let action = form.split('&').find_map(|pair| pair.strip_prefix("Action="));
    action.unwrap_or_default().to_owned()
}

fn refusal(status: u16, name: &str, message: &str) -> Response {
    let body = json!({"__type": name, "Message": message}).to_string();
    let headers = [("x-amzn-errortype", name), ("content-type", "application/x-amz-json-1.1")];
    (code(status), headers, body).into_response()
}

fn xml(status: u16, name: &str) -> Response {
    let error =
        format!("<Error><Type>Sender</Type><Code>{name}</Code><Message>no</Message></Error>");
    let body = format!("<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>");
    (code(status), [("content-type", "text/xml")], body).into_response()
}

fn code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).expect("a status")
}

/// The agent that gives a pod its keys (EKS Pod Identity).
pub(crate) struct PodIdentity {
    /// Where keys are given out.
    pub(crate) url: String,
    agent: Arc<Agent>,
    _tasks: JoinSet<()>,
}

struct Agent {
    token: String,
    is_down: AtomicBool,
    given: AtomicU64,
}

impl PodIdentity {
    /// Gives keys to whoever shows this token.
    pub(crate) async fn start(token: &str) -> Self {
        let agent = Arc::new(Agent {
            token: token.to_owned(),
            is_down: AtomicBool::new(false),
            given: AtomicU64::new(0),
        });
        let router = Router::new().route("/v1/credentials", get(keys));
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let (address, tasks) = serve(any, router.with_state(Arc::clone(&agent))).await;
        Self { url: format!("http://{address}/v1/credentials"), agent, _tasks: tasks }
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.agent.is_down.store(is_down, Ordering::SeqCst);
    }

    /// How often keys were given out.
    pub(crate) fn given(&self) -> u64 {
        self.agent.given.load(Ordering::SeqCst)
    }
}

async fn keys(State(agent): State<Arc<Agent>>, headers: HeaderMap) -> Response {
    if agent.is_down.load(Ordering::SeqCst) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    if headers.get("authorization").is_none_or(|shown| shown != agent.token.as_str()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let given = agent.given.fetch_add(1, Ordering::SeqCst);
    axum::Json(json!({
        "AccessKeyId": format!("ASIA{given}"),
        "SecretAccessKey": format!("{CANARY}-pod-key"),
        "Token": format!("{CANARY}-pod-session"),
        "Expiration": "2099-01-01T00:00:00Z",
    }))
    .into_response()
}

/// The metadata service of an instance.
pub(crate) struct Metadata {
    /// Where it answers.
    pub(crate) url: String,
    is_silent: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl Metadata {
    pub(crate) async fn start() -> Self {
        let is_silent = Arc::new(AtomicBool::new(false));
        let router = Router::new().fallback(metadata).with_state(Arc::clone(&is_silent));
        let (address, tasks) = serve((Ipv4Addr::LOCALHOST, 0).into(), router).await;
        Self { url: format!("http://{address}/"), is_silent, _tasks: tasks }
    }

    /// As for a pod, whose packets are a hop too far away to be answered.
    pub(crate) fn set_silent(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }
}

async fn metadata(State(is_silent): State<Arc<AtomicBool>>, uri: http::Uri) -> Response {
    if is_silent.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    match uri.path() {
        "/latest/api/token" => {
            let life = [("x-aws-ec2-metadata-token-ttl-seconds", "21600")];
            (life, "metadata-token").into_response()
        }
        "/latest/meta-data/iam/security-credentials/" => "datapulse".into_response(),
        "/latest/meta-data/iam/security-credentials/datapulse" => axum::Json(json!({
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z",
            "AccessKeyId": "ASIAINSTANCE", "SecretAccessKey": format!("{CANARY}-instance-key"),
            "Token": format!("{CANARY}-instance-session"), "Expiration": "2099-01-01T00:00:00Z",
        }))
        .into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}
