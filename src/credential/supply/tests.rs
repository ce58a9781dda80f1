//! Which secret is used, and what is written back, with a store and an issuer that do as they are told.

use async_trait::async_trait;
use axum::routing::get;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::*;
use crate::credential::Given;
use crate::credential::own_calls::Permits;
use crate::secret::SecretRef;
use crate::store::{self, FileStore, SecretStore, Secrets};

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.into())
}

/// A store that holds one text, and takes another one if it may.
struct One {
    text: Mutex<Option<String>>,
    writes: Mutex<Writes>,
}

impl std::fmt::Debug for One {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("One")
    }
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Writes {
    Work,
    Fail,
    Never,
}

#[async_trait]
impl SecretStore for One {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        match &*self.text.lock() {
            Some(text) => Ok(SecretVersion { value: value(text), version: None }),
            None => Err(StoreError::Missing { at: at.clone() }),
        }
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        match *self.writes.lock() {
            Writes::Work => {}
            Writes::Fail => {
                let source = std::io::ErrorKind::StorageFull.into();
                return Err(StoreError::Unwritable { at: at.clone(), source });
            }
            Writes::Never => return Err(StoreError::ReadOnly { at: at.clone() }),
        }
        let mut text = self.text.lock();
        if text.as_deref() != claim.held.value.expose_str() {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        *text = new.expose_str().map(str::to_owned);
        Ok(SecretVersion { value: new.clone(), version: None })
    }
}

/// The secret is the token; an issuer refuses what begins with `no`, and a session's token grows
/// by a letter.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fake {
    Key,
    Issuer,
    Session,
}

#[async_trait]
impl TokenSource for Fake {
    async fn mint(&self, secret: &SecretValue, is_new: bool) -> Result<Given, MintError> {
        let text = secret.expose_str().unwrap();
        if *self == Self::Issuer && text.starts_with("no") {
            return Err(MintError::Refused {
                status: 400,
                code: Some("invalid_client"),
                retry_after: None,
            });
        }
        let is_renewed = *self == Self::Session && !is_new;
        let text = if is_renewed { format!("{text}+") } else { text.to_owned() };
        let next_secret = is_renewed.then(|| value(&text));
        Ok(Given { token: Ok(Minted { value: value(&text), life: None }), next_secret })
    }

    fn asks_an_issuer(&self) -> bool {
        *self != Self::Key
    }

    fn gives_the_secret(&self) -> bool {
        *self != Self::Issuer
    }
}

/// With an API that rejects what begins with `bad`.
async fn supplied(fake: Fake, stored: SecretWatch) -> (Supply, JoinSet<()>) {
    crate::tls::install_provider();
    let verify = async |headers: HeaderMap| {
        let token = headers["authorization"].to_str().unwrap();
        let is_bad = token.starts_with("Bearer bad");
        if is_bad { StatusCode::UNAUTHORIZED } else { StatusCode::IM_A_TEAPOT }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v", listener.local_addr().unwrap()).parse().unwrap();
    let app = axum::Router::new().route("/v", get(verify));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let calls = Arc::new(crate::credential::Free);
    let permits = Permits { calls, credential: "reader".into() };
    let verifier = Verifier::new(http, url, permits);
    (Supply::new(&"reader".into(), stored, Box::new(fake), Some(verifier)), tasks)
}

async fn minted(supply: &mut Supply, reason: Reason) -> Result<String, &'static str> {
    match supply.mint(reason, true).await {
        Ok(minted) => Ok(minted.value.expose_str().unwrap().to_owned()),
        Err(error) => Err(error.kind()),
    }
}

struct Bench {
    store: Arc<One>,
    supply: Supply,
    _tasks: JoinSet<()>,
}

impl Bench {
    /// With an API that rejects what begins with `bad`.
    async fn new(fake: Fake, writes: Writes) -> Self {
        let text = Mutex::new(Some("one".to_owned()));
        let store = Arc::new(One { text, writes: Mutex::new(writes) });
        let (secrets, _watcher) = store::watched(Arc::clone(&store) as Arc<dyn SecretStore>);
        let stored = secrets.watch(&"file:/nowhere".parse().unwrap());
        let (supply, _tasks) = supplied(fake, stored).await;
        let mut bench = Self { store, supply, _tasks };
        assert_eq!(bench.mint(Reason::Initial).await, Ok("one".to_owned()));
        bench
    }

    fn store(&self, text: Option<&str>) {
        *self.store.text.lock() = text.map(str::to_owned);
    }

    async fn mint(&mut self, reason: Reason) -> Result<String, &'static str> {
        minted(&mut self.supply, reason).await
    }

    async fn check(&mut self, reason: Reason, want: Result<&str, &'static str>) {
        assert_eq!(self.mint(reason).await, want.map(str::to_owned), "{reason:?}");
    }
}

#[tokio::test]
async fn a_rejected_secret_never_replaces_one_that_works() {
    for (fake, bad) in [(Fake::Key, "bad"), (Fake::Issuer, "bad"), (Fake::Issuer, "no")] {
        let mut bench = Bench::new(fake, Writes::Never).await;
        bench.store(Some(bad));
        bench.check(Reason::Changed, Err("rejected_secret")).await;
        bench.check(Reason::Retry, Ok("one")).await;
        assert!(bench.supply.rejection().is_some(), "it is still told");
        // When the old one is rejected too, the new one is worth another try.
        let again = if fake == Fake::Key { Err("rejected_secret") } else { Ok("one") };
        bench.check(Reason::Rejected, again).await;
        bench.store(Some("two"));
        bench.check(Reason::Changed, Ok("two")).await;
        assert!(bench.supply.rejection().is_none());
        bench.store(Some(bad));
        bench.check(Reason::Changed, Err("rejected_secret")).await;
        bench.store(Some("two"));
        bench.check(Reason::Changed, Ok("two")).await;
        assert!(bench.supply.rejection().is_none(), "it was taken back");
    }
}

#[tokio::test]
async fn a_rejected_secret_is_tried_again_when_an_operator_asks() {
    let mut bench = Bench::new(Fake::Issuer, Writes::Never).await;
    bench.store(Some("bad"));
    bench.check(Reason::Changed, Err("rejected_secret")).await;
    bench.check(Reason::Scheduled, Ok("one")).await;
    bench.check(Reason::Asked, Err("rejected_secret")).await;
    // By now the API takes it.
    bench.supply.verifier = None;
    bench.check(Reason::Asked, Ok("bad")).await;
    assert!(bench.supply.rejection().is_none());
    bench.check(Reason::Scheduled, Ok("bad")).await;
}

#[tokio::test]
async fn only_a_plain_no_rejects() {
    let mut bench = Bench::new(Fake::Key, Writes::Never).await;
    bench._tasks.shutdown().await;
    bench.store(Some("bad"));
    bench.check(Reason::Changed, Ok("bad")).await;
}

#[tokio::test]
async fn a_store_that_is_down_takes_nothing_from_who_can_go_on() {
    for (fake, want) in [(Fake::Key, Err("missing")), (Fake::Issuer, Ok("one"))] {
        let mut bench = Bench::new(fake, Writes::Never).await;
        bench.store(None);
        bench.check(Reason::Scheduled, want).await;
    }
}

#[tokio::test]
async fn a_renewed_token_is_the_next_secret_whether_or_not_it_can_be_written() {
    for writes in [Writes::Work, Writes::Fail, Writes::Never] {
        let mut bench = Bench::new(Fake::Session, writes).await;
        bench.check(Reason::Scheduled, Ok("one+")).await;
        bench.check(Reason::Scheduled, Ok("one++")).await;
        let kept = bench.store.text.lock().clone();
        let is_kept = writes == Writes::Work;
        assert_eq!(kept.as_deref(), Some(if is_kept { "one++" } else { "one" }));
        assert_eq!(bench.supply.is_unpersisted(), !is_kept);
        assert_eq!(bench.supply.write_due().is_some(), writes == Writes::Fail);
        bench.store(Some("other"));
        bench.check(Reason::Changed, Ok("other")).await;
        assert!(!bench.supply.is_unpersisted(), "what somebody else put there stays");
        bench.check(Reason::Scheduled, Ok("other+")).await;
    }
}

#[tokio::test]
async fn a_write_that_failed_is_made_later_whatever_the_store_did_meanwhile() {
    // The store is well again; it was down at the renewal; the write came through after all.
    for case in 0..3 {
        let mut bench = Bench::new(Fake::Session, Writes::Fail).await;
        if case == 1 {
            bench.store(None);
        }
        bench.check(Reason::Scheduled, Ok("one+")).await;
        assert!(bench.supply.write_due().is_some());
        bench.store(Some(if case == 2 { "one+" } else { "one" }));
        *bench.store.writes.lock() = Writes::Work;
        bench.supply.write().await;
        assert_eq!(bench.store.text.lock().as_deref(), Some("one+"), "{case}");
        assert!(!bench.supply.is_unpersisted());
        bench.check(Reason::Scheduled, Ok("one++")).await;
        assert_eq!(bench.store.text.lock().as_deref(), Some("one++"), "{case}");
    }
}

#[tokio::test]
async fn a_rejected_session_token_is_not_written_over() {
    let mut bench = Bench::new(Fake::Session, Writes::Work).await;
    bench.store(Some("bad"));
    bench.check(Reason::Changed, Err("rejected_secret")).await;
    bench.check(Reason::Retry, Ok("one+")).await;
    assert_eq!(bench.store.text.lock().as_deref(), Some("bad"));
}

#[tokio::test]
async fn what_was_read_renewed_and_turned_down_is_in_no_debug_output() {
    let mut bench = Bench::new(Fake::Session, Writes::Fail).await;
    bench.store(Some("s3cr3t"));
    bench.check(Reason::Changed, Ok("s3cr3t")).await;
    bench.check(Reason::Scheduled, Ok("s3cr3t+")).await;
    assert!(bench.supply.is_unpersisted());
    let pending = format!("{:?}", bench.supply);
    bench.store(Some("bad-s3cr3t"));
    bench.check(Reason::Changed, Err("rejected_secret")).await;
    for told in [pending, format!("{:?}", bench.supply)] {
        assert!(told.contains("Supply"), "{told}");
        assert!(!told.contains("s3cr3t"), "{told}");
    }
}

/// Two files: a secret and its fallback.
struct Two {
    dir: tempfile::TempDir,
    secrets: Secrets,
    supply: Supply,
    _tasks: JoinSet<()>,
}

impl Two {
    async fn new(first: Option<&str>, other: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("file:{}", dir.path().join(name).display()).parse().unwrap();
        let (secrets, _watcher) = store::watched(Arc::new(FileStore));
        let stored = secrets.watch(&at("first")).or(&at("other"));
        let (supply, _tasks) = supplied(Fake::Key, stored).await;
        let two = Self { dir, secrets, supply, _tasks };
        two.write("first", first);
        two.write("other", Some(other));
        two
    }

    fn write(&self, name: &str, text: Option<&str>) {
        let path = self.dir.path().join(name);
        match text {
            Some(text) => std::fs::write(path, text).unwrap(),
            None => drop(std::fs::remove_file(path)),
        }
    }

    /// What is minted, whether the fallback is told to be used, and whether it is looked at.
    async fn check(&mut self, reason: Reason, want: Result<&str, &'static str>, is_used: bool) {
        let got = minted(&mut self.supply, reason).await;
        assert_eq!(got, want.map(str::to_owned), "{reason:?}");
        let reports = self.secrets.report();
        let of = |name: &str| reports.iter().find(|one| one.secret.ends_with(name)).unwrap();
        assert_eq!(of("first").fallback, Some(is_used), "{reason:?} {reports:?}");
        assert_eq!(of("other").age_seconds.is_some(), is_used, "{reason:?} {reports:?}");
    }
}

#[tokio::test]
async fn a_fallback_stays_in_use_and_is_followed_while_the_first_secret_is_rejected() {
    let mut two = Two::new(None, "two").await;
    two.check(Reason::Initial, Ok("two"), true).await;
    two.write("first", Some("bad"));
    two.check(Reason::Changed, Err("rejected_secret"), true).await;
    let told = two.secrets.report();
    assert!(told.iter().any(|one| one.problem.as_deref() == Some("rejected")), "{told:?}");
    two.check(Reason::Retry, Ok("two"), true).await;
    two.write("other", Some("three"));
    two.check(Reason::Changed, Ok("three"), true).await;
    two.write("other", Some("four"));
    two.check(Reason::Rejected, Ok("four"), true).await;
    // Nothing newer there: the one that was turned down is tried once more, and when somebody asks.
    two.check(Reason::Rejected, Err("rejected_secret"), true).await;
    two.check(Reason::Asked, Err("rejected_secret"), true).await;
    two.check(Reason::Scheduled, Ok("four"), true).await;
    two.write("first", Some("one"));
    two.check(Reason::Changed, Ok("one"), false).await;
}

#[tokio::test]
async fn a_fallback_that_is_rejected_never_replaces_a_first_secret_that_works() {
    let mut two = Two::new(Some("one"), "bad").await;
    two.check(Reason::Initial, Ok("one"), false).await;
    two.write("first", None);
    two.check(Reason::Rejected, Err("rejected_secret"), false).await;
    two.write("first", Some("one"));
    two.check(Reason::Retry, Ok("one"), false).await;
    two.write("first", None);
    two.write("other", Some("two"));
    two.check(Reason::Rejected, Ok("two"), true).await;
    two.write("first", Some("three"));
    two.check(Reason::Changed, Ok("three"), false).await;
}
