//! A store that is down for an hour: what its credentials' calls and the store notice of that.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;
use crate::store::StoreError;
use crate::store::polled::Polled;

const KEY: &str = "vault:secret/a#key";
const CLIENT: &str = "vault:secret/b#secret";
const HOUR: Duration = Duration::from_secs(3600);

fn down(at: SecretRef) -> StoreError {
    StoreError::Timeout { at }
}

fn watched(store: &Arc<Polled>) -> (Secrets, JoinSet<()>) {
    let (secrets, watcher) = store::watched(Arc::clone(store) as Arc<dyn SecretStore>);
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    (secrets, tasks)
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_store_fails_no_call_and_asks_it_a_bounded_number_of_times() {
    fastrand::seed(1);
    let store = Arc::new(Polled::default());
    let (secrets, _tasks) = watched(&store);
    store.put(KEY, CANARY);
    store.put(CLIENT, CANARY);
    // A static key, and a client whose tokens are renewed again and again meanwhile.
    let key = Bench::with_secrets(&[Answer::Same], None, &secrets, KEY);
    let client = Bench::with_secrets(&[Answer::New(120)], None, &secrets, CLIENT);
    for bench in [&key, &client] {
        bench.token().await.unwrap();
    }
    for at in [KEY, CLIENT] {
        store.fail(at, Some(down));
        store.asked(at);
    }
    let minted = client.asked();
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < HOUR {
        for bench in [&key, &client] {
            let begin = Instant::now();
            bench.token().await.unwrap();
            assert_eq!(begin.elapsed(), Duration::ZERO, "no call waits");
            calls += 1;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let asked = [KEY, CLIENT].map(|at| store.asked(at));
    let minted = client.asked() - minted;
    println!("{calls} calls, {minted} tokens; the store was asked {asked:?} times");
    assert!(asked.iter().all(|count| (60..=150).contains(count)), "{asked:?}");
    assert!(minted >= 3600 / 84, "{minted} tokens of two minutes");
    store.fail(KEY, None);
    store.fail(CLIENT, None);
    sleep(Duration::from_secs(60)).await;
    let ages = secrets.report().into_iter().map(|report| report.age_seconds.unwrap());
    assert!(ages.max().unwrap() <= 60, "one step of the backoff");
}

/// Its secret is good for once, and it needs something else for it, which may not be had.
#[derive(Debug, Default)]
struct Spending {
    is_unprepared: AtomicBool,
    prepared: AtomicU32,
}

#[derive(Debug)]
struct Grant(Arc<Spending>);

#[async_trait]
impl TokenSource for Grant {
    async fn prepare(&self) -> Result<(), MintError> {
        self.0.prepared.fetch_add(1, Ordering::SeqCst);
        if self.0.is_unprepared.load(Ordering::SeqCst) {
            return Err(StoreError::NoSuchKey { at: CLIENT.parse().unwrap() }.into());
        }
        Ok(())
    }

    async fn mint(&self, _secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        let length = Duration::from_secs(120);
        let life = Some(Life { length, is_clamped: false, is_of_unknown_age: false });
        Ok(Minted { value: SecretValue::new(CANARY.into()), life }.into())
    }

    fn effect(&self) -> Effect {
        Effect::Spends
    }
}

/// A credential of that kind, which has its first token.
async fn spending(store: &Arc<Polled>) -> (Arc<Spending>, CredentialHandle, JoinSet<()>) {
    let (secrets, mut tasks) = watched(store);
    store.put(KEY, "r0");
    let credential = credential("alice", CredentialKind::ApiKey(KEY.parse().unwrap()));
    let source = Arc::new(Spending::default());
    let stored = secrets.watch(credential.kind.secret());
    let supply = Supply::new(&credential.name, stored, Box::new(Grant(Arc::clone(&source))), None);
    let (refresher, handle) = Refresher::new(&credential, supply, &Metrics::new().unwrap());
    tasks.spawn(refresher.run());
    usable(&handle).await;
    (source, handle, tasks)
}

/// What is good for once is read anew before each renewal.
#[tokio::test(start_paused = true)]
async fn an_hour_without_the_store_of_a_refresh_token_asks_it_a_bounded_number_of_times() {
    fastrand::seed(1);
    let store = Arc::new(Polled::default());
    let (_source, handle, _tasks) = spending(&store).await;
    store.fail(KEY, Some(down));
    store.asked(KEY);
    sleep(HOUR).await;
    let asked = store.asked(KEY);
    println!("the store was asked {asked} times");
    assert!((60..=150).contains(&asked), "{asked}");
    store.fail(KEY, None);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.report().state, "fresh", "one step of the backoff");
}

#[tokio::test(start_paused = true)]
async fn a_new_secret_does_not_hurry_a_try_that_fails_for_another_reason() {
    fastrand::seed(1);
    let store = Arc::new(Polled::default());
    let (source, handle, _tasks) = spending(&store).await;
    source.is_unprepared.store(true, Ordering::SeqCst);
    until("its end", Duration::from_secs(1), || handle.report().state == "expired").await;
    store.put(KEY, "r1");
    source.prepared.store(0, Ordering::SeqCst);
    sleep(HOUR).await;
    let tries = source.prepared.load(Ordering::SeqCst);
    assert!((60..=150).contains(&tries), "{tries}");
    source.is_unprepared.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.report().state, "fresh");
}

/// The first secret is gone, its stand-in has changed, and goes before it is read.
#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_gone_once_it_changed_is_asked_for_a_bounded_number_of_times() {
    fastrand::seed(1);
    let store = Arc::new(Polled::default());
    let (secrets, _tasks) = watched(&store);
    store.put(CLIENT, "stand-in");
    let stored = secrets.watch(&KEY.parse().unwrap()).or(&CLIENT.parse().unwrap());
    let script = [Answer::New(120), Answer::Refuse(Duration::from_secs(600)), Answer::New(120)];
    let bench = Bench::with_watch(&script, None, stored);
    bench.token().await.unwrap();
    sleep(Duration::from_secs(120)).await;
    store.put(CLIENT, "changed");
    sleep(Duration::from_secs(120)).await;
    store.fail(KEY, Some(down));
    store.fail(CLIENT, Some(down));
    sleep(HOUR).await;
    let _before = (store.asked(KEY), store.asked(CLIENT));
    sleep(HOUR).await;
    let asked = [KEY, CLIENT].map(|at| store.asked(at));
    assert!(asked.iter().all(|count| (60..=150).contains(count)), "{asked:?}");
    store.fail(CLIENT, None);
    sleep(Duration::from_secs(60)).await;
    bench.token().await.unwrap();
}
