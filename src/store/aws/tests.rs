//! Against an AWS of a few lines, with what the real one does about versions: made once by their
//! name, and a stage is at one version at a time.

use std::net::SocketAddr;
use std::sync::Arc;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::identity::Identity;
use super::*;
use crate::tls;

const SECRET: &str = "s3cr3t";

/// One secret, and what goes wrong.
#[derive(Debug, Default)]
struct Fake {
    state: Mutex<FakeState>,
}

#[derive(Debug, Default)]
struct FakeState {
    texts: BTreeMap<String, String>,
    stages: BTreeMap<String, String>,
    /// An operation, or all of them, and its answer.
    canned: Option<(&'static str, u16, String)>,
    calls: Vec<String>,
}

impl Fake {
    fn put(&self, version: &str, text: &str, stage: &str) {
        let mut state = self.state.lock();
        state.texts.insert(version.to_owned(), text.to_owned());
        if stage == "AWSCURRENT"
            && let Some(before) = state.stages.get(stage).cloned()
        {
            state.stages.insert("AWSPREVIOUS".to_owned(), before);
        }
        state.stages.insert(stage.to_owned(), version.to_owned());
    }

    fn current(&self) -> String {
        let state = self.state.lock();
        state.texts[&state.stages["AWSCURRENT"]].clone()
    }

    fn can(&self, operation: &'static str, status: u16, body: &Value) {
        self.state.lock().canned = Some((operation, status, body.to_string()));
    }

    fn refuse(&self, operation: &'static str, status: u16, code: &str, message: &str) {
        self.can(operation, status, &json!({"__type": code, "Message": message}));
    }

    fn heal(&self) {
        self.state.lock().canned = None;
    }

    fn count(&self, operation: &str) -> usize {
        self.state.lock().calls.iter().filter(|call| *call == operation).count()
    }
}

async fn serve(State(fake): State<Arc<Fake>>, headers: HeaderMap, body: Bytes) -> Response {
    let target = headers["x-amz-target"].to_str().unwrap();
    let operation = target.trim_start_matches("secretsmanager.").to_owned();
    assert!(headers["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256"));
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let mut state = fake.state.lock();
    state.calls.push(operation.clone());
    if let Some((_, status, body)) =
        state.canned.as_ref().filter(|(one, ..)| ["", &operation].contains(one))
    {
        return (StatusCode::from_u16(*status).unwrap(), body.clone()).into_response();
    }
    match operation.as_str() {
        "GetSecretValue" => {
            let stage = asked["VersionStage"].as_str().unwrap();
            let Some(version) = state.stages.get(stage) else {
                return (StatusCode::BAD_REQUEST, r#"{"__type":"ResourceNotFoundException"}"#)
                    .into_response();
            };
            json!({"VersionId": version, "SecretString": state.texts[version]}).to_string()
        }
        "DescribeSecret" => {
            let mut versions = Map::new();
            for (stage, version) in &state.stages {
                let stages = versions.entry(version).or_insert(json!([]));
                stages.as_array_mut().unwrap().push(json!(stage));
            }
            json!({"Name": "a", "VersionIdsToStages": versions}).to_string()
        }
        "PutSecretValue" => {
            let version = asked["ClientRequestToken"].as_str().unwrap().to_owned();
            assert!((32..=64).contains(&version.len()));
            let text = asked["SecretString"].as_str().unwrap().to_owned();
            if state.texts.get(&version).is_some_and(|there| *there != text) {
                return (StatusCode::BAD_REQUEST, r#"{"__type":"ResourceExistsException"}"#)
                    .into_response();
            }
            let is_new = !state.texts.contains_key(&version);
            drop(state);
            let stage = asked["VersionStages"][0].as_str().unwrap_or("AWSCURRENT");
            if is_new {
                fake.put(&version, &text, stage);
            }
            json!({"VersionId": version}).to_string()
        }
        other => panic!("{other} is not used"),
    }
    .into_response()
}

struct Bench {
    fake: Arc<Fake>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Bench {
    async fn new(text: &str) -> Self {
        tls::install_provider();
        let fake = Arc::new(Fake::default());
        fake.put("version-1", text, "AWSCURRENT");
        let router = axum::Router::new().fallback(serve).with_state(Arc::clone(&fake));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { fake, address, _tasks: tasks }
    }

    /// One process' view.
    fn store(&self) -> AwsStore {
        self.store_with("AKIDTEST")
    }

    fn store_with(&self, key_id: &str) -> AwsStore {
        let keys = Credentials::new(key_id, "K3Y-s3cr3t", None, None, "test");
        let identity = Identity::of(vec![("the test", SharedCredentialsProvider::new(keys))]);
        let spec = model::AwsStore {
            region: None,
            endpoint: Some(format!("http://{}", self.address).parse().unwrap()),
            sts_endpoint: None,
            ca_file: None,
            poll: Duration::from_secs(300),
        };
        AwsStore {
            client: Client::with_identity(&spec, identity),
            poll: spec.poll,
            undescribed: Mutex::default(),
            claims_seen: Mutex::default(),
        }
    }
}

fn at(reference: &str) -> SecretRef {
    reference.parse().unwrap()
}

fn secret(text: &str) -> SecretValue {
    SecretValue::new(text.into())
}

fn text(version: &SecretVersion) -> &str {
    version.value.expose_str().unwrap()
}

#[tokio::test]
async fn only_the_stage_that_a_reference_names_is_read() {
    let bench = Bench::new("one").await;
    let store = bench.store();
    let read = async |reference: &str| store.read(&at(reference)).await;
    assert!(matches!(read("aws:a@AWSPREVIOUS").await, Err(StoreError::Missing { .. })));
    bench.fake.put("version-2", "pending", "AWSPENDING");
    assert_eq!(text(&read("aws:a").await.unwrap()), "one");
    bench.fake.put("version-3", "three\n", "AWSCURRENT");
    let current = read("aws:a").await.unwrap();
    assert_eq!(text(&current), "three");
    assert_eq!(current.version, store.version(&at("aws:a")).await.unwrap());
    let previous = read("aws:a@AWSPREVIOUS").await.unwrap();
    assert_eq!(text(&previous), "one");
    assert_eq!(previous.version, store.version(&at("aws:a@AWSPREVIOUS")).await.unwrap());
}

#[tokio::test]
async fn of_an_arn_of_another_region_nobody_is_asked() {
    let bench = Bench::new("one").await;
    let arn = |region: &str| {
        at(&format!("aws:arn:aws:secretsmanager:{region}:123456789012:secret:a-AbCdEf"))
    };
    let refused = bench.store().read(&arn("us-east-1")).await.unwrap_err();
    assert_eq!((refused.kind(), refused.is_about_the_secret()), ("other_region", true));
    assert_eq!(bench.store().version(&arn("us-east-1")).await.unwrap_err().kind(), "other_region");
    assert!(bench.fake.state.lock().calls.is_empty());
    assert_eq!(text(&bench.store().read(&arn("eu-west-1")).await.unwrap()), "one");
}

#[tokio::test]
async fn a_document_is_read_with_its_lines() {
    let bench = Bench::new("-----BEGIN\nA\n").await;
    let store = bench.store();
    assert!(matches!(store.read(&at("aws:a")).await, Err(StoreError::Unusable { .. })));
    assert_eq!(text(&store.read_document(&at("aws:a")).await.unwrap()), "-----BEGIN\nA");
}

#[tokio::test]
async fn each_refusal_is_known_by_its_code_and_repeats_nothing() {
    let bench = Bench::new(r#"{"k": "s3cr3t", "n": 7}"#).await;
    let kms = "Access to KMS is not allowed";
    let canary = "User: arn:aws:sts::1:assumed-role/KMS/s3cr3t is not authorized to perform: x";
    for (status, code, message, kind, is_transient) in [
        (400, "AccessDeniedException", canary, "denied", false),
        (403, "AccessDeniedException", canary, "denied", false),
        (400, "AccessDeniedException", kms, "decryption_denied", false),
        (400, "DecryptionFailure", canary, "decryption_denied", false),
        (400, "ResourceNotFoundException", canary, "missing", false),
        (404, "ResourceNotFoundException", canary, "missing", false),
        (400, "InvalidRequestException", canary, "deleted", false),
        (400, "ThrottlingException", canary, "throttled", true),
        (500, "InternalServiceError", canary, "internal", true),
        (503, "ServiceUnavailable", canary, "internal", true),
        (400, "ExpiredTokenException", canary, "identity_rejected", false),
        (403, "InvalidSignatureException", canary, "identity_rejected", false),
        (418, "SomethingNewException", canary, "not_an_answer", true),
    ] {
        bench.fake.refuse("GetSecretValue", status, code, message);
        let error = bench.store().read(&at("aws:a#k")).await.unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (kind, is_transient), "{code}");
        let shown = format!("{error:?} {}", crate::telemetry::error_chain(&error));
        assert!(!shown.contains(SECRET), "{shown}");
    }
    bench.fake.heal();
    for (reference, kind) in [("aws:a#m", "no_such_key"), ("aws:a#n", "not_a_string")] {
        assert_eq!(bench.store().read(&at(reference)).await.unwrap_err().kind(), kind);
    }
}

#[tokio::test]
async fn what_is_no_answer_of_awss_is_refused_by_name() {
    let bench = Bench::new("one").await;
    for (status, body, kind) in [
        (200, json!("<html>s3cr3t</html>"), "not_an_answer"),
        (200, json!({"Name": "a"}), "not_an_answer"),
        (200, json!({"SecretString": "s3cr3t"}), "not_an_answer"),
        (200, json!({"SecretBinary": "czNjcjN0", "VersionId": "v"}), "unusable"),
        (200, json!({"SecretString": "x".repeat(tls::ANSWER_BYTES_MAX)}), "too_large"),
        (307, json!(""), "redirected"),
        (502, json!("<html>s3cr3t</html>"), "not_an_answer"),
    ] {
        bench.fake.can("GetSecretValue", status, &body);
        let error = bench.store().read(&at("aws:a")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}");
        let shown = format!("{error:?} {}", crate::telemetry::error_chain(&error));
        assert!(!shown.contains(SECRET), "{shown}");
    }
}

#[tokio::test]
async fn keys_that_aws_does_not_take_are_looked_for_once_more() {
    let bench = Bench::new("one").await;
    bench.fake.refuse("GetSecretValue", 400, "UnrecognizedClientException", "");
    assert!(bench.store().read(&at("aws:a")).await.is_err());
    assert_eq!(bench.fake.count("GetSecretValue"), 2);
}

#[tokio::test]
async fn a_secret_to_be_deleted_has_no_version_and_a_forbidden_look_is_told_once() {
    let bench = Bench::new("one").await;
    let store = bench.store();
    let deleted = json!({"DeletedDate": 1.0, "VersionIdsToStages": {"v": ["AWSCURRENT"]}});
    bench.fake.can("DescribeSecret", 200, &deleted);
    assert_eq!(store.version(&at("aws:a")).await.unwrap_err().kind(), "deleted");
    bench.fake.refuse("DescribeSecret", 400, "AccessDeniedException", "");
    for _ in 0..3 {
        assert_eq!(store.version(&at("aws:a")).await.unwrap(), None, "so it is read");
    }
    assert_eq!(bench.fake.count("DescribeSecret"), 2);
}

#[tokio::test]
async fn one_of_two_claims_and_what_it_writes_is_all_that_changes() {
    let json = r#"{"k": "one", "other": {"a": [1, null]}}"#;
    let bench = Bench::new(json).await;
    let (ours, theirs) = (bench.store(), bench.store());
    let at = at("aws:a#k");
    let read = ours.read(&at).await.unwrap();
    let claim = ours.claim(&at, &read).await.unwrap();
    assert_eq!(bench.fake.current(), json, "the current version stays current");
    assert_eq!(theirs.read(&at).await.unwrap().version, read.version);
    assert_eq!(theirs.claim(&at, &read).await.unwrap_err().kind(), "claimed");
    let written = ours.replace(&at, &claim, &secret("two")).await.unwrap();
    assert_eq!(bench.fake.current(), r#"{"k":"two","other":{"a":[1,null]}}"#);
    assert_eq!(written.version, ours.version(&at).await.unwrap());
    let again = ours.replace(&at, &claim, &secret("two")).await.unwrap();
    assert_eq!(again.version, written.version, "an answer that was lost costs nothing");
    assert_eq!(theirs.claim(&at, &read).await.unwrap_err().kind(), "conflict");
    let next = theirs.claim(&at, &theirs.read(&at).await.unwrap()).await.unwrap();
    theirs.replace(&at, &next, &secret("three")).await.unwrap();
    assert_eq!(ours.replace(&at, &claim, &secret("late")).await.unwrap_err().kind(), "conflict");
    assert!(bench.fake.current().contains("three"));
}

#[tokio::test]
async fn without_a_claim_one_of_two_writers_wins_as_well() {
    let bench = Bench::new("one").await;
    let (ours, theirs) = (bench.store(), bench.store());
    let at = at("aws:a");
    let read = ours.read(&at).await.unwrap();
    let (first, second) = (Claim::by_version(read.clone()), Claim::by_version(read.clone()));
    ours.replace(&at, &first, &secret("two")).await.unwrap();
    assert_eq!(theirs.replace(&at, &second, &secret("2")).await.unwrap_err().kind(), "conflict");
    let third = theirs.read(&at).await.unwrap();
    let claim = ours.claim(&at, &third).await.unwrap();
    let unclaimed = Claim::by_version(third);
    assert_eq!(theirs.replace(&at, &unclaimed, &secret("3")).await.unwrap_err().kind(), "conflict");
    ours.replace(&at, &claim, &secret("three")).await.unwrap();
    assert_eq!(bench.fake.current(), "three");
}

#[tokio::test]
async fn two_that_claim_at_the_same_moment_derive_one_name_and_aws_refuses_the_second() {
    let bench = Bench::new("one").await;
    let at = at("aws:a");
    let read = bench.store().read(&at).await.unwrap();
    let mut claims = JoinSet::new();
    for _ in 0..8 {
        let (store, at, read) = (bench.store(), at.clone(), read.clone());
        claims.spawn(async move { store.claim(&at, &read).await.map_err(|error| error.kind()) });
    }
    let outcomes = claims.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(outcomes.iter().flat_map(|outcome| outcome.as_ref().err()).all(|k| *k == "claimed"));
}

#[tokio::test]
async fn a_claim_of_a_dead_process_lapses_and_a_late_writer_loses() {
    let bench = Bench::new("one").await;
    let (dead, ours) = (bench.store(), bench.store());
    let at = at("aws:a");
    let read = ours.read(&at).await.unwrap();
    let lost = dead.claim(&at, &read).await.unwrap();
    assert_eq!(ours.claim(&at, &read).await.unwrap_err().kind(), "claimed");
    tokio::time::pause();
    tokio::time::advance(CLAIM_LAPSE).await;
    tokio::time::resume();
    let claim = ours.claim(&at, &read).await.unwrap();
    assert_eq!(dead.replace(&at, &lost, &secret("late")).await.unwrap_err().kind(), "conflict");
    ours.replace(&at, &claim, &secret("two")).await.unwrap();
    assert_eq!(bench.fake.current(), "two");
}

#[tokio::test]
async fn nothing_is_written_where_a_reference_names_the_previous_version() {
    let bench = Bench::new("one").await;
    bench.fake.put("version-2", "two", "AWSCURRENT");
    let at = at("aws:a@AWSPREVIOUS");
    let store = bench.store();
    let read = store.read(&at).await.unwrap();
    assert_eq!(store.claim(&at, &read).await.unwrap_err().kind(), "read_only");
}

#[tokio::test]
async fn no_key_and_no_secret_is_in_a_debug_output() {
    let bench = Bench::new(SECRET).await;
    let store = bench.store();
    let at = at("aws:a");
    let read = store.read(&at).await.unwrap();
    let claim = store.claim(&at, &read).await.unwrap();
    let shown = format!("{store:?} {read:?} {claim:?}");
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn a_refusal_to_describe_is_asked_for_again_once_it_may_be_over() {
    let bench = Bench::new(SECRET).await;
    let (store, at) = (bench.store(), "aws:a".parse().unwrap());
    let denied = "AccessDeniedException";
    // Everything is denied for a while: that says nothing of the versions.
    bench.fake.refuse("", 400, denied, "");
    assert_eq!(store.version(&at).await.unwrap(), None);
    assert_eq!(store.read(&at).await.unwrap_err().kind(), "denied");
    bench.fake.heal();
    assert!(store.version(&at).await.unwrap().is_some());
    // The value is given, and the versions are not.
    bench.fake.refuse("DescribeSecret", 400, denied, "");
    for _ in 0..3 {
        assert_eq!(store.version(&at).await.unwrap(), None);
        store.read(&at).await.unwrap();
    }
    assert_eq!(bench.fake.count("DescribeSecret"), 3);
    bench.fake.heal();
    tokio::time::pause();
    tokio::time::advance(UNDESCRIBED_FOR).await;
    tokio::time::resume();
    assert!(store.version(&at).await.unwrap().is_some());
}
