//! A store that is down for an hour: what its credentials' calls and the store notice of that.

use std::collections::BTreeMap;

use super::*;
use crate::store::{StoreError, Version};

/// A store that is asked once a minute, and counts what it is asked for by secret.
#[derive(Debug, Default)]
struct Polled {
    is_down: Mutex<bool>,
    asked: Mutex<BTreeMap<String, u32>>,
}

impl Polled {
    fn answer(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        *self.asked.lock().entry(at.to_string()).or_default() += 1;
        if *self.is_down.lock() {
            return Err(StoreError::Timeout { at: at.clone() });
        }
        let value = SecretValue::new(CANARY.into());
        Ok(SecretVersion { value, version: Some(Version::Number(1)) })
    }
}

#[async_trait]
impl SecretStore for Polled {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.answer(at)
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        self.answer(at).map(|found| found.version)
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_store_fails_no_call_and_asks_it_a_bounded_number_of_times() {
    let store = Arc::new(Polled::default());
    let (secrets, watcher) = store::watched(Arc::clone(&store) as Arc<dyn SecretStore>);
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    // A static key, and a client whose tokens are renewed again and again meanwhile.
    let key = Bench::with_secrets(&[Answer::Same], None, &secrets, "vault:secret/a#key");
    let client = Bench::with_secrets(&[Answer::New(120)], None, &secrets, "vault:secret/b#secret");
    for bench in [&key, &client] {
        bench.token().await.unwrap();
    }
    *store.is_down.lock() = true;
    store.asked.lock().clear();
    let minted = client.asked();
    let began = Instant::now();
    let mut calls = 0;
    while began.elapsed() < Duration::from_secs(3600) {
        for bench in [&key, &client] {
            let begin = Instant::now();
            bench.token().await.unwrap();
            assert_eq!(begin.elapsed(), Duration::ZERO, "no call waits");
            calls += 1;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let asked = store.asked.lock().clone();
    let minted = client.asked() - minted;
    println!("{calls} calls, {minted} tokens; the store was asked {asked:?} times");
    assert_eq!(asked.len(), 2);
    assert!(asked.values().all(|count| (60..=150).contains(count)), "{asked:?}");
    assert!(minted >= 3600 / 84, "{minted} tokens of two minutes");
    *store.is_down.lock() = false;
    sleep(Duration::from_secs(60)).await;
    let ages = secrets.report().into_iter().map(|report| report.age_seconds.unwrap());
    assert!(ages.max().unwrap() <= 60, "one step of the backoff");
}
