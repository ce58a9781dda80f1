use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use http::{HeaderMap, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::*;
use crate::config::model::VaultAuth;
use crate::store::{Remote, Stores, watched};

/// A Vault that answers each login and each read of the secret in one way, and everything else as it
/// should. It runs on its test's one thread: nothing is answered before all who ask have begun.
struct Fake {
    stores: Arc<Stores>,
    metrics: Metrics,
    asked: Asked,
    dir: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

type Reply = (u16, &'static [(&'static str, &'static str)], String);

/// The paths of the requests, in their order.
type Asked = Arc<Mutex<Vec<String>>>;

const AT: &str = "vault:secret/a#k";

impl Fake {
    async fn new(reply: Reply) -> Self {
        let good = r#"{"data": {"ttl": 3600, "renewable": true}}"#;
        Self::with_login((200, &[], good.to_owned()), reply).await
    }

    async fn with_login(login: Reply, reply: Reply) -> Self {
        tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s.canary\n").unwrap();
        let asked = Asked::default();
        let app = Router::new().fallback(answer).with_state((login, reply, Arc::clone(&asked)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let spec = VaultStore {
            address,
            namespace: Some("team".to_owned()),
            ca_file: None,
            auth: VaultAuth::Token { token: format!("file:{}", file.display()).parse().unwrap() },
            auth_mount: "token".to_owned(),
            poll: Duration::from_secs(60),
        };
        let metrics = Metrics::new().unwrap();
        let stores = Arc::new(Stores::new(&metrics));
        let store = Vault::new(&spec, &metrics).unwrap();
        stores.set(Remote::Vault, Some(Arc::new(store)));
        Self { stores, metrics, asked, dir, _tasks: tasks }
    }

    /// What was counted: reads with this outcome, and whether the store can be used.
    fn counted(&self, outcome: &str) -> (u64, i64) {
        let reads = self.metrics.store_reads.with_label_values(&["vault", outcome]).get();
        (reads, self.metrics.store_up.with_label_values(&["vault"]).get())
    }
}

async fn answer(
    State((login, reply, asked)): State<(Reply, Reply, Asked)>,
    uri: Uri,
    headers: HeaderMap,
) -> http::Response<Body> {
    asked.lock().push(uri.path().to_owned());
    assert_eq!(headers["x-vault-namespace"], "team");
    assert_eq!(headers["x-vault-token"], "s.canary");
    let (status, extra, body) = match uri.path() {
        "/v1/auth/token/lookup-self" => login,
        "/v1/sys/internal/ui/mounts/secret/a" => {
            let body =
                r#"{"data": {"path": "secret/", "type": "kv", "options": {"version": "2"}}}"#;
            (200, &[][..], body.to_owned())
        }
        "/v1/secret/data/a" | "/v1/secret/metadata/a" => reply,
        other => panic!("{other}"),
    };
    let mut response = http::Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in extra {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

/// An answer, the version or the kind of error that it means, and whether it may go away by itself.
fn answers() -> Vec<(Reply, Result<u64, &'static str>, bool)> {
    let good =
        r#"{"data": {"data": {"k": "s3cr3t", "other": "s3cr3t"}, "metadata": {"version": 7}}}"#;
    let sealed = r#"{"errors": ["Vault is sealed"]}"#;
    let gone = r#"{"data": {"data": null, "metadata": {"version": 7}}}"#;
    let warned = r#"{"request_id": "", "lease_id": "", "data": null, "warnings": ["s3cr3t"]}"#;
    let routeless = r#"{"message": "no Route matched", "request_id": "1"}"#;
    let huge = format!("{{\"data\": \"{}\"}}", "s3cr3t".repeat(300_000));
    vec![
        ((200, &[], good.to_owned()), Ok(7), false),
        ((200, &[], "<html>s3cr3t</html>".to_owned()), Err("not_an_answer"), true),
        ((200, &[], good[..40].to_owned()), Err("not_an_answer"), true),
        ((200, &[], r#"{"data": {"k": "s3cr3t"}}"#.to_owned()), Err("not_an_answer"), true),
        ((200, &[], huge), Err("too_large"), true),
        (
            (307, &[("location", "http://127.0.0.1:1/stolen")], String::new()),
            Err("redirected"),
            true,
        ),
        ((403, &[], r#"{"errors": ["permission denied"]}"#.to_owned()), Err("denied"), false),
        ((404, &[], r#"{"errors": []}"#.to_owned()), Err("missing"), false),
        ((404, &[], gone.to_owned()), Err("deleted"), false),
        ((404, &[], warned.to_owned()), Err("missing"), false),
        ((404, &[], "<html>default backend - 404</html>".to_owned()), Err("not_an_answer"), true),
        ((404, &[], routeless.to_owned()), Err("not_an_answer"), true),
        ((404, &[], String::new()), Err("not_an_answer"), true),
        ((412, &[], String::new()), Err("lagging"), true),
        ((429, &[("retry-after", "7")], String::new()), Err("throttled"), true),
        ((472, &[], String::new()), Err("dr_secondary"), true),
        ((473, &[], String::new()), Err("standby"), true),
        ((474, &[], String::new()), Err("standby"), true),
        ((501, &[], String::new()), Err("uninitialized"), true),
        ((503, &[], sealed.to_owned()), Err("sealed"), true),
        ((503, &[], String::new()), Err("internal"), true),
        ((530, &[], String::new()), Err("removed"), true),
        (
            (
                500,
                &[],
                r#"{"errors": ["local node not active but active cluster node not found"]}"#
                    .to_owned(),
            ),
            Err("standby"),
            true,
        ),
    ]
}

#[tokio::test]
async fn each_answer_of_vault_is_told_by_its_meaning() {
    let at = AT.parse().unwrap();
    for (reply, want, is_transient) in answers() {
        let said = format!("{} {:?}", reply.0, want);
        let fake = Fake::new(reply).await;
        match fake.stores.read(&at).await {
            Ok(found) => {
                assert_eq!(found.value.expose_str(), Some("s3cr3t"));
                assert_eq!(found.version, want.ok().map(Version::Number), "{said}");
                assert_eq!(fake.counted("ok"), (1, 1), "{said}");
            }
            Err(error) => {
                assert_eq!(
                    (Err(error.kind()), error.is_transient()),
                    (want, is_transient),
                    "{said}"
                );
                let is_up = matches!(error.kind(), "missing" | "deleted");
                assert_eq!(fake.counted(error.kind()), (1, i64::from(is_up)), "{said}");
                let wait = error.retry_after().map(|wait| wait.as_secs());
                let wanted = match error.kind() {
                    "denied" => Some(60),
                    "throttled" => Some(7),
                    _ => None,
                };
                assert_eq!(wait, wanted, "{said}");
                let told = format!("{error} {error:?} {:?}", fake.stores);
                assert!(!told.contains("s3cr3t") && !told.contains("canary"), "{told}");
            }
        }
    }
}

/// With `delete_version_after`, a version that is as good as any has a time at which it is deleted.
#[tokio::test]
async fn a_version_that_is_to_be_deleted_is_the_current_one_until_then() {
    let at = AT.parse().unwrap();
    for (deletion_time, is_destroyed, want) in [
        ("", false, Ok(Some(7))),
        ("2999-01-01T00:00:00.123456789Z", false, Ok(Some(7))),
        ("2018-03-22T02:24:06.945319214Z", false, Ok(None)),
        ("tomorrow", false, Ok(None)),
        ("2999-01-01T00:00:00Z", true, Err("deleted")),
    ] {
        let metadata = serde_json::json!({"data": {"current_version": 7, "versions": {
            "7": {"deletion_time": deletion_time, "destroyed": is_destroyed},
        }}});
        let fake = Fake::new((200, &[], metadata.to_string())).await;
        let found = fake.stores.version(&at).await;
        let found = found.as_ref().map_err(StoreError::kind);
        let want = want.map(|version| version.map(Version::Number));
        assert_eq!(
            found.map(Option::as_ref),
            want.as_ref().map(Option::as_ref).map_err(|kind| *kind)
        );
    }
}

#[tokio::test]
async fn denials_never_make_logins_in_a_loop() {
    let fake = Fake::new((403, &[], String::new())).await;
    let at = AT.parse().unwrap();
    for _ in 0..5 {
        assert_eq!(fake.stores.read(&at).await.unwrap_err().kind(), "denied");
    }
    let asked = fake.asked.lock();
    let logins = asked.iter().filter(|path| path.ends_with("lookup-self")).count();
    assert_eq!(logins, 2, "{asked:?}");
}

/// A 404 is Vault's own where the namespace or the mount is wrong, and else of what is in front of it.
#[tokio::test]
async fn a_login_that_leads_nowhere_is_refused_and_one_that_nobody_answers_is_not() {
    let at = AT.parse().unwrap();
    for (body, want) in [
        (r#"{"errors": []}"#, "login_refused"),
        ("<html>default backend - 404</html>", "not_an_answer"),
    ] {
        let fake = Fake::with_login((404, &[], body.to_owned()), (200, &[], String::new())).await;
        assert_eq!(fake.stores.read(&at).await.unwrap_err().kind(), want);
        assert_eq!(fake.counted(want), (1, 0));
        assert_eq!(fake.metrics.store_logins.with_label_values(&["vault", want]).get(), 1);
    }
}

#[tokio::test]
async fn what_is_in_front_of_vault_does_not_make_a_secret_a_new_one() {
    let fake = Fake::new((404, &[], "<html>default backend - 404</html>".to_owned())).await;
    let refused = fake.stores.put(&AT.parse().unwrap(), &SecretValue::new(b"x".to_vec())).await;
    assert_eq!(refused.unwrap_err().kind(), "not_an_answer");
}

#[tokio::test]
async fn those_who_wait_for_a_login_that_fails_share_it() {
    let fake = Fake::with_login((502, &[], String::new()), (200, &[], String::new())).await;
    let read = async |field: &str| {
        let at: SecretRef = format!("vault:secret/a#{field}").parse().unwrap();
        let error = fake.stores.read(&at).await.unwrap_err();
        assert!(error.to_string().starts_with(&at.to_string()), "{error}");
        error.kind()
    };
    for tries in [1, 2] {
        let kinds = tokio::join!(read("a"), read("b"), read("c"), read("d"));
        let want = "internal";
        assert_eq!(kinds, (want, want, want, want));
        let logins = fake.metrics.store_logins.with_label_values(&["vault", want]).get();
        assert_eq!(logins, tries, "one for all of them, and another one for who comes later");
    }
}

#[tokio::test]
async fn a_login_without_its_identity_tells_each_one_what_is_missing() {
    let fake = Fake::new((200, &[], String::new())).await;
    std::fs::remove_file(fake.dir.path().join("token")).unwrap();
    let read = async |field: &str| {
        let at: SecretRef = format!("vault:secret/a#{field}").parse().unwrap();
        let error = fake.stores.read(&at).await.unwrap_err();
        let told = crate::telemetry::error_chain(&error);
        assert!(told.starts_with(&at.to_string()) && told.contains("no such secret"), "{told}");
        error.kind()
    };
    assert_eq!(tokio::join!(read("a"), read("b")), ("no_identity", "no_identity"));
    assert!(fake.asked.lock().is_empty(), "nobody is asked without it");
}

#[tokio::test]
async fn nothing_that_holds_what_vault_said_shows_it() {
    let (good, ..) = answers().swap_remove(0);
    let fake = Fake::new(good).await;
    let (secrets, watcher) = watched(Arc::clone(&fake.stores) as Arc<dyn SecretStore>);
    let watch = secrets.watch(&AT.parse().unwrap()).or(&"env:PATH".parse().unwrap());
    let found = watch.read().await.unwrap();
    assert_eq!(found.value.expose_str(), Some("s3cr3t"));
    let claim = Claim::by_version(found.clone());
    let told = [
        format!("{found:?} {claim:?} {:?}", claim.held.value),
        format!("{watch:?} {secrets:?} {watcher:?} {:?}", secrets.report()),
        format!("{:?} {:?}", fake.stores, fake.stores.report()),
    ];
    for told in told {
        assert!(!told.contains("s3cr3t") && !told.contains("canary"), "{told}");
    }
}

#[test]
fn a_reference_of_another_store_is_refused() {
    assert!(parts(&"file:/k".parse().unwrap()).is_err());
}
