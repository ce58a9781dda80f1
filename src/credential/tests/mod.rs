//! The life of a token, under a paused clock and with one fake issuer.

mod rotation;
mod store_outage;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep, timeout};

use super::schedule::last_use_after;
use super::supply::Supply;
use super::*;
use crate::clock::{self, Moment};
use crate::config::model::{Credential, CredentialKind, Level};
use crate::secret::SecretRef;
use crate::store::{self, SecretStore, SecretVersion, SecretWatch, Secrets};
use crate::telemetry::Metrics;

const CANARY: &str = "dp_live_canary";

/// What the fake issuer does when it is asked.
#[derive(Debug, Clone)]
enum Answer {
    /// A new token of this life each time (seconds; 0: does not expire).
    New(u64),
    /// The same token each time, without an expiry.
    Same,
    Fail,
    Refuse(Duration),
}

/// An issuer that notes when it was asked. Each answer of the script is given once, the last for
/// ever.
#[derive(Debug)]
struct Issuer {
    script: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Instant>>,
    /// Where there is one, each answer takes a permit.
    gate: Option<Semaphore>,
}

#[derive(Debug)]
struct Source(Arc<Issuer>);

#[async_trait]
impl TokenSource for Source {
    async fn mint(&self, _secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        let count = {
            let mut asked = self.0.asked.lock();
            asked.push(Instant::now());
            asked.len()
        };
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        let answer = {
            let mut script = self.0.script.lock();
            let first = script.front().unwrap().clone();
            if script.len() > 1 {
                script.pop_front();
            }
            first
        };
        let token = |text: String, life: u64| Minted {
            value: SecretValue::new(text.into_bytes()),
            life: (life > 0).then(|| Life {
                length: Duration::from_secs(life),
                is_clamped: false,
                is_of_unknown_age: false,
            }),
        };
        match answer {
            Answer::New(life) => Ok(token(format!("{CANARY}{count}"), life).into()),
            Answer::Same => Ok(token(CANARY.to_owned(), 0).into()),
            Answer::Fail => Err(MintError::Timeout),
            Answer::Refuse(wait) => {
                Err(MintError::Refused { status: 429, code: None, retry_after: Some(wait) })
            }
        }
    }
}

pub(super) fn credential(name: &str, kind: CredentialKind) -> Credential {
    Credential {
        name: name.into(),
        level: Level::ReadOnly,
        quota: None,
        required: true,
        verify: true,
        fallback: None,
        kind,
    }
}

/// A credential with its task running.
struct Bench {
    issuer: Arc<Issuer>,
    handle: CredentialHandle,
    metrics: Metrics,
    tasks: JoinSet<()>,
}

impl Bench {
    fn new(script: &[Answer]) -> Self {
        Self::with_gate(script, None)
    }

    fn with_gate(script: &[Answer], gate: Option<Semaphore>) -> Self {
        let (secrets, _watcher) = store::watched(Arc::new(Text(Mutex::new("secret"))));
        Self::with_secrets(script, gate, &secrets, "file:/nowhere/key")
    }

    fn with_secrets(
        script: &[Answer],
        gate: Option<Semaphore>,
        secrets: &Secrets,
        at: &str,
    ) -> Self {
        Self::with_watch(script, gate, secrets.watch(&at.parse().unwrap()))
    }

    fn with_watch(script: &[Answer], gate: Option<Semaphore>, secret: SecretWatch) -> Self {
        let issuer = Arc::new(Issuer {
            script: Mutex::new(script.iter().cloned().collect()),
            asked: Mutex::new(Vec::new()),
            gate,
        });
        let credential = credential("reader", CredentialKind::ApiKey(secret.at().clone()));
        let metrics = Metrics::new().unwrap();
        let source = Box::new(Source(Arc::clone(&issuer)));
        let supply = Supply::new(&credential.name, secret, source, None);
        let (refresher, handle) = Refresher::new(&credential, supply, &metrics);
        let mut tasks = JoinSet::new();
        tasks.spawn(refresher.run());
        Self { issuer, handle, metrics, tasks }
    }

    fn asked(&self) -> usize {
        self.issuer.asked.lock().len()
    }

    fn answer(&self, script: &[Answer]) {
        *self.issuer.script.lock() = script.iter().cloned().collect();
    }

    fn open(&self, answers: usize) {
        self.issuer.gate.as_ref().unwrap().add_permits(answers);
    }

    async fn token(&self) -> Result<Arc<AccessToken>, Unavailable> {
        self.handle.token(Instant::now() + Duration::from_secs(30)).await
    }

    /// No two calls nearer than a second.
    fn check_spacing(&self) {
        let asked = self.issuer.asked.lock();
        assert!(asked.windows(2).all(|two| two[1] - two[0] >= Duration::from_secs(1)));
    }
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

/// Waits for what has to come, looking once a `step` of the paused clock: while there are timers that
/// clock never stands still, and a test that waits for ever never ends. What comes and goes may be missed
/// between two looks.
async fn until(what: &str, step: Duration, is_so: impl Fn() -> bool) {
    for _ in 0..100_000 {
        if is_so() {
            return;
        }
        sleep(step).await;
    }
    panic!("{what}: not after {:?}", step * 100_000);
}

/// Waits for a token that calls can use.
async fn usable(handle: &CredentialHandle) -> Arc<AccessToken> {
    let token = timeout(Duration::from_secs(3600), handle.wait_usable()).await;
    token.unwrap_or_else(|_elapsed| panic!("no token after an hour: {:?}", handle.report()))
}

/// Waits for the end of a credential's task.
async fn task_ends(tasks: &mut JoinSet<()>) {
    let ended = timeout(Duration::from_secs(3600), tasks.join_next()).await;
    ended.expect("the task ends within an hour").unwrap().unwrap();
}

/// Lets every other task run until it waits.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_concurrent_cold_start_mints_once_and_a_cancelled_waiter_changes_nothing() {
    let bench = Bench::with_gate(&[Answer::New(300)], Some(Semaphore::new(0)));
    let mut waiters = JoinSet::new();
    for _ in 0..100 {
        let handle = bench.handle.clone();
        waiters.spawn(async move { handle.token(far()).await });
    }
    let cancelled = {
        let handle = bench.handle.clone();
        waiters.spawn(async move { handle.token(far()).await })
    };
    settle().await;
    cancelled.abort();
    bench.open(1);
    let (mut served, mut gone) = (0, 0);
    while let Some(ended) = waiters.join_next().await {
        match ended {
            Ok(token) => {
                assert_eq!(token.unwrap().generation(), Generation(1));
                served += 1;
            }
            Err(_) => gone += 1,
        }
    }
    assert_eq!((served, gone, bench.asked()), (100, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn waiters_share_the_failure_and_are_told_when_to_come_back() {
    let bench = Bench::new(&[Answer::Fail]);
    let begin = Instant::now();
    let (one, two) = tokio::join!(bench.token(), bench.token());
    for unavailable in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(unavailable.reason, UnavailableReason::Pending);
        assert!(unavailable.retry_after >= Duration::from_secs(1));
    }
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
    bench.check_spacing();
    let short = bench.handle.token(Instant::now() + Duration::from_millis(100)).await;
    assert!(short.is_err());
    assert_eq!(begin.elapsed(), Duration::from_millis(2100));
}

#[tokio::test(start_paused = true)]
async fn a_cold_start_without_an_issuer_recovers_when_it_comes_back() {
    let bench = Bench::new(&[Answer::Fail]);
    sleep(Duration::from_secs(1000)).await;
    assert_eq!(bench.handle.report().state, "pending");
    bench.answer(&[Answer::New(300)]);
    let begin = Instant::now();
    // A waiting call does not have to sit out the backoff.
    assert!(bench.token().await.is_ok());
    assert!(begin.elapsed() <= Duration::from_secs(2));
    assert_eq!(bench.handle.report().state, "fresh");
    assert_eq!(bench.handle.report().last_error, None);
}

#[tokio::test(start_paused = true)]
async fn without_calls_the_backoff_alone_finds_the_issuer_again() {
    let bench = Bench::new(&[Answer::Fail]);
    sleep(Duration::from_secs(1000)).await;
    bench.answer(&[Answer::New(300)]);
    let begin = Instant::now();
    usable(&bench.handle).await;
    assert!(begin.elapsed() <= Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_stale_token_is_served_while_the_issuer_is_down_and_until_its_last_use() {
    let bench = Bench::new(&[Answer::New(300), Answer::Fail]);
    let token = bench.token().await.unwrap();
    let begin = Instant::now();
    let last_use = last_use_after(Duration::from_secs(300));
    sleep(last_use - Duration::from_secs(1)).await;
    assert_eq!(bench.handle.report().state, "stale");
    assert_eq!(bench.token().await.unwrap().generation(), token.generation());
    sleep(Duration::from_secs(1)).await;
    assert!(bench.handle.current().is_none());
    settle().await;
    assert_eq!(bench.handle.report().state, "expired");
    let refused = bench.token().await.unwrap_err();
    assert_eq!(refused.reason, UnavailableReason::Expired);
    assert!(begin.elapsed() >= last_use);
    bench.answer(&[Answer::New(300)]);
    assert_eq!(bench.token().await.unwrap().generation(), Generation(2));
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_the_issuer_fails_no_call_and_asks_it_a_bounded_number_of_times() {
    fastrand::seed(1);
    let bench = Bench::new(&[Answer::New(86_400), Answer::Fail]);
    bench.token().await.unwrap();
    let ten_seconds = Duration::from_secs(10);
    until("a refresh", ten_seconds, || bench.handle.report().state != "fresh").await;
    let before = bench.asked();
    for _ in 0..3600 {
        sleep(Duration::from_secs(1)).await;
        assert!(bench.handle.current().is_some());
    }
    let asked = bench.asked() - before;
    assert!((60..=160).contains(&asked), "{asked}");
    bench.check_spacing();
    bench.answer(&[Answer::New(86_400)]);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(bench.handle.report().state, "fresh");
}

/// tokio's clock, and with it every timer, stands still meanwhile.
#[tokio::test(start_paused = true)]
async fn after_eight_hours_of_sleep_the_first_call_gets_a_new_token() {
    let bench = Bench::new(&[Answer::New(3600)]);
    let old = bench.token().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let begin = Instant::now();
    clock::pretend_to_sleep(Duration::from_secs(8 * 3600));
    assert_eq!(bench.handle.report().state, "expired");
    assert!(!old.is_usable_at(Moment::now()), "whoever took it before looks again");
    assert_eq!(bench.token().await.unwrap().generation(), Generation(2));
    assert_eq!((begin.elapsed(), bench.asked()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_that_was_due_in_a_sleep_is_made_soon_after_it() {
    let bench = Bench::new(&[Answer::New(86_400)]);
    bench.token().await.unwrap();
    sleep(Duration::from_secs(60)).await;
    // Past the point of refresh and before the last use.
    clock::pretend_to_sleep(Duration::from_secs(18 * 3600));
    sleep(Duration::from_secs(16)).await;
    assert_eq!(bench.asked(), 2);
    assert_eq!(bench.handle.current().unwrap().generation(), Generation(2));
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_401_refreshes_once_and_everybody_gets_the_new_token() {
    let bench = Bench::new(&[Answer::New(300)]);
    let old = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(20)).await;
    let mut callers = JoinSet::new();
    for _ in 0..100 {
        let handle = bench.handle.clone();
        callers.spawn(async move { handle.renewed(old, far()).await });
    }
    while let Some(renewed) = callers.join_next().await {
        assert_eq!(renewed.unwrap().unwrap().generation(), Generation(2));
    }
    assert_eq!(bench.asked(), 2);
    // A late one of the old generation causes none, and has the new token at once.
    assert_eq!(bench.handle.renewed(old, far()).await.unwrap().generation(), Generation(2));
    // Past the cool-down, so that nothing but the generation stands against a refresh.
    sleep(Duration::from_secs(20)).await;
    bench.handle.reject(old);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_in_the_cool_down_is_answered_at_once() {
    let bench = Bench::new(&[Answer::New(3600)]);
    let first = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(5)).await;
    let second = bench.handle.renewed(first, far()).await.unwrap().generation();
    let begin = Instant::now();
    assert!(bench.handle.renewed(second, far()).await.is_none());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    advance(Duration::from_secs(10)).await;
    assert!(bench.handle.renewed(second, far()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn who_is_rejected_while_the_refresh_is_under_way_waits_for_it() {
    let bench = Bench::with_gate(&[Answer::New(3600)], Some(Semaphore::new(1)));
    let old = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(5)).await;
    let mut callers = JoinSet::new();
    for _ in 0..2 {
        let handle = bench.handle.clone();
        callers.spawn(async move { handle.renewed(old, far()).await });
        settle().await;
    }
    bench.open(1);
    while let Some(renewed) = callers.join_next().await {
        assert_eq!(renewed.unwrap().unwrap().generation(), Generation(2));
    }
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_while_the_issuer_wants_no_call_is_answered_at_once() {
    let wait = Duration::from_secs(600);
    let bench = Bench::new(&[Answer::New(3600), Answer::Refuse(wait)]);
    let token = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(5)).await;
    assert!(bench.handle.renewed(token, far()).await.is_none());
    sleep(Duration::from_secs(30)).await;
    let begin = Instant::now();
    assert!(bench.handle.renewed(token, far()).await.is_none());
    assert_eq!((begin.elapsed(), bench.asked()), (Duration::ZERO, 2));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_401_asks_the_issuer_at_most_once_in_ten_seconds() {
    let bench = Bench::new(&[Answer::New(86_400)]);
    bench.token().await.unwrap();
    for _ in 0..6000 {
        let generation = bench.handle.current().unwrap().generation();
        bench.handle.renewed(generation, far()).await;
        bench.handle.reject(bench.handle.current().unwrap().generation());
        sleep(Duration::from_millis(100)).await;
    }
    assert!(bench.asked() <= 62, "{}", bench.asked());
}

#[tokio::test(start_paused = true)]
async fn a_static_key_that_reads_the_same_is_no_renewed_token() {
    let bench = Bench::new(&[Answer::Same]);
    let key = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(100_000)).await;
    assert_eq!(bench.asked(), 1);
    let begin = Instant::now();
    assert!(bench.handle.renewed(key, far()).await.is_none());
    assert_eq!((bench.asked(), begin.elapsed()), (2, Duration::ZERO));
    bench.answer(&[Answer::New(0)]);
    sleep(Duration::from_secs(10)).await;
    assert_eq!(bench.handle.renewed(key, far()).await.unwrap().generation(), Generation(2));
    let text = bench.metrics.render().unwrap();
    for (outcome, reason) in [("ok", "initial"), ("unchanged", "rejected"), ("ok", "rejected")] {
        let line = format!(r#"{{credential="reader",outcome="{outcome}",reason="{reason}"}} 1"#);
        assert!(text.contains(&line), "{line} not in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_keeps_the_token_and_says_none_without_waiting_out_the_hold() {
    let bench = Bench::new(&[Answer::New(3600), Answer::Fail]);
    let token = bench.token().await.unwrap().generation();
    sleep(Duration::from_secs(5)).await;
    let begin = Instant::now();
    assert!(bench.handle.renewed(token, far()).await.is_none());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(bench.handle.current().unwrap().generation(), token);
    assert_eq!(bench.handle.report().state, "stale");
}

#[tokio::test(start_paused = true)]
async fn the_issuers_retry_after_is_obeyed_whatever_callers_do() {
    let bench = Bench::new(&[Answer::Refuse(Duration::from_secs(120)), Answer::New(300)]);
    let begin = Instant::now();
    let refused = bench.token().await.unwrap_err();
    assert_eq!(refused.retry_after, Duration::from_secs(118));
    while bench.token().await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(122));
    }
    assert!(begin.elapsed() >= Duration::from_secs(120));
    assert_eq!(bench.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_operators_refresh_is_one_try_that_keeps_its_distance() {
    let bench = Bench::new(&[Answer::New(300)]);
    bench.token().await.unwrap();
    let begin = Instant::now();
    let both = tokio::join!(bench.handle.refresh(far()), bench.handle.refresh(far()));
    assert_eq!((both, bench.asked()), ((true, true), 2));
    assert_eq!(bench.handle.report().generation, 2);
    assert!(begin.elapsed() >= Duration::from_secs(1));
    bench.answer(&[Answer::Refuse(Duration::from_secs(120))]);
    assert!(bench.handle.refresh(far()).await);
    let soon = Instant::now() + Duration::from_secs(60);
    assert!(!bench.handle.refresh(soon).await, "the issuer wants to be left alone");
    assert!(bench.handle.current().is_some(), "the token stays");
    bench.check_spacing();
}

#[tokio::test(start_paused = true)]
async fn a_paused_credential_gives_no_token_at_once_and_is_kept_fresh_meanwhile() {
    let bench = Bench::new(&[Answer::New(300)]);
    bench.token().await.unwrap();
    bench.handle.clone().set_paused(true);
    let begin = Instant::now();
    assert!(bench.handle.current().is_none());
    let refused = bench.token().await.unwrap_err();
    assert_eq!((refused.reason, begin.elapsed()), (UnavailableReason::Paused, Duration::ZERO));
    advance(Duration::from_secs(250)).await;
    settle().await;
    assert_eq!(bench.asked(), 2);
    bench.handle.set_paused(false);
    assert_eq!(bench.handle.current().unwrap().generation(), Generation(2));
}

#[tokio::test(start_paused = true)]
async fn every_life_keeps_calls_served_and_the_issuer_unhurried() {
    for life in [1, 2, 30, 300, 3600] {
        let bench = Bench::new(&[Answer::New(life)]);
        for _ in 0..600 {
            assert!(bench.token().await.is_ok(), "{life}");
            sleep(Duration::from_millis(250)).await;
        }
        bench.check_spacing();
        let bound = 150.0 / (Duration::from_secs(life).as_secs_f64() * 0.5).max(1.0);
        assert!(bench.asked() as f64 <= bound + 2.0, "{life}: {}", bench.asked());
    }
}

#[tokio::test(start_paused = true)]
async fn every_order_of_three_callers_is_served_by_one_mint() {
    // Each caller comes before, during or after the mint; each may be gone before it ends.
    for case in 0..(6 * 6 * 6) {
        let bench = Bench::with_gate(&[Answer::New(300)], Some(Semaphore::new(0)));
        let mut callers = JoinSet::new();
        let kinds = [case % 6, case / 6 % 6, case / 36];
        let mut kept = 0;
        for moment in 0..3 {
            for kind in kinds.iter().filter(|kind| **kind / 2 == moment) {
                let handle = bench.handle.clone();
                let caller = callers.spawn(async move { handle.token(far()).await });
                if kind % 2 == 1 {
                    caller.abort();
                } else {
                    kept += 1;
                }
            }
            if moment == 1 {
                bench.open(1);
            }
            settle().await;
        }
        let mut served = 0;
        while let Some(ended) = callers.join_next().await {
            served += usize::from(ended.is_ok_and(|token| token.is_ok()));
        }
        assert_eq!((served, bench.asked()), (kept, 1), "{kinds:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_credentials_do_not_block_each_other() {
    let stuck = Bench::with_gate(&[Answer::New(300)], Some(Semaphore::new(0)));
    let good = Bench::new(&[Answer::New(300)]);
    let begin = Instant::now();
    assert!(good.token().await.is_ok());
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert!(stuck.handle.current().is_none());
    // A source that never answers is given up, and asked again.
    sleep(Duration::from_secs(12)).await;
    assert_eq!(stuck.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_task_ends_with_its_last_handle_even_in_the_middle_of_a_mint() {
    for gate in [None, Some(Semaphore::new(0))] {
        let Bench { handle, mut tasks, .. } = Bench::with_gate(&[Answer::New(300)], gate);
        let other = handle.clone();
        settle().await;
        drop(handle);
        settle().await;
        assert!(tasks.try_join_next().is_none());
        drop(other);
        task_ends(&mut tasks).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_token_is_in_what_people_read() {
    let bench = Bench::new(&[Answer::New(300), Answer::Fail]);
    let token = bench.token().await.unwrap();
    assert_eq!(token.header().to_str().unwrap(), format!("Bearer {CANARY}1"));
    assert!(token.header().is_sensitive());
    assert_eq!(token.fingerprint().len(), 8);
    sleep(Duration::from_secs(220)).await;
    bench.handle.observe(&bench.metrics);
    let report = serde_json::to_string(&bench.handle.report()).unwrap();
    let page = bench.metrics.render().unwrap();
    let debug = format!("{token:?} {:?} {:?}", bench.handle, bench.issuer);
    for text in [&report, &page, &debug, &format!("{:?}", token.header())] {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert!(report.contains(r#""state":"stale","generation":1"#), "{report}");
    assert!(report.contains("did not answer in time"), "{report}");
    assert!(page.contains(r#"credential_state{credential="reader",state="stale"} 1"#), "{page}");
}

/// A store whose secrets are all this text.
#[derive(Debug)]
struct Text(Mutex<&'static str>);

#[async_trait]
impl SecretStore for Text {
    async fn read(&self, _at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let value = SecretValue::new(self.0.lock().as_bytes().to_vec());
        Ok(SecretVersion { value, version: None })
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_secret_mints_once_and_the_old_token_stays_until_the_new_one_is_there() {
    let store = Arc::new(Text(Mutex::new("one")));
    let (secrets, watcher) = store::watched(Arc::clone(&store) as Arc<dyn SecretStore>);
    let gate = Some(Semaphore::new(1));
    let bench = Bench::with_secrets(&[Answer::New(86_400)], gate, &secrets, "file:/nowhere/key");
    let other = Bench::new(&[Answer::New(86_400)]);
    let mut watching = JoinSet::new();
    watching.spawn(watcher.run());
    let old = bench.token().await.unwrap().generation();
    other.token().await.unwrap();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(bench.asked(), 1, "looking alone asks nobody");
    *store.0.lock() = "two";
    // The poll's longest, and not the ten seconds after which an attempt is given up.
    until("another mint", Duration::from_secs(1), || bench.asked() > 1).await;
    assert_eq!(bench.handle.current().unwrap().generation(), old);
    bench.open(1);
    settle().await;
    assert_eq!(bench.handle.current().unwrap().generation(), Generation(2));
    assert_eq!(bench.handle.report().state, "fresh");
    sleep(Duration::from_secs(300)).await;
    assert_eq!((bench.asked(), other.asked()), (2, 1));
}
