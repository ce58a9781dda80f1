//! Refresh tokens that are good once, under a paused clock: an issuer that ends everything when it
//! sees one twice, stores that let one claim at a time, and whatever goes wrong between the two.

mod claims;
mod lost_answers;
mod successions;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::credential::succession::Keepers;
use crate::store::{CLAIM_LAPSE, Claim, FileStore, Version};

const LIFE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(100);

fn value(text: &str) -> SecretValue {
    SecretValue::new(text.as_bytes().to_vec())
}

/// What becomes of a token request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mishap {
    /// All is done, and the answer lost.
    Lost,
    /// All is done, and the gateway before the issuer gives up.
    Gateway,
    /// Nothing is done, and nobody knows.
    Vanished,
    /// Nothing is done.
    Down,
    /// The client is not known.
    Client,
    /// What was granted is over.
    Revoked,
    /// A successor comes, and a token of no use.
    NotBearer,
}

/// An issuer whose refresh tokens are good once. One that comes again ends everything.
#[derive(Debug)]
struct Strict {
    state: Mutex<Granted>,
    mishaps: Mutex<VecDeque<Mishap>>,
    rotates: bool,
    /// Where there is one, each answer takes a permit, after all is done.
    gate: Option<Semaphore>,
}

#[derive(Debug, Default)]
struct Granted {
    good: Option<String>,
    used: BTreeSet<String>,
    count: usize,
    /// Everything ended because a used one came again.
    revocations: usize,
    sent: Vec<String>,
}

impl Strict {
    fn new(rotates: bool, gate: Option<Semaphore>) -> Arc<Self> {
        let state = Mutex::new(Granted { good: Some("r0".to_owned()), ..Granted::default() });
        Arc::new(Self { state, mishaps: Mutex::default(), rotates, gate })
    }

    fn spend(&self, token: &str) -> Result<(String, Option<String>), MintError> {
        let refused =
            |code| Err(MintError::Refused { status: 400, code: Some(code), retry_after: None });
        let state = &mut *self.state.lock();
        state.sent.push(token.to_owned());
        if state.used.contains(token) {
            state.revocations += usize::from(state.good.take().is_some());
            return refused("invalid_grant");
        }
        if state.good.as_deref() != Some(token) {
            return refused("invalid_grant");
        }
        state.count += 1;
        let next = self.rotates.then(|| format!("r{}", state.count));
        if let Some(next) = &next {
            state.used.insert(token.to_owned());
            state.good = Some(next.clone());
        }
        Ok((format!("{CANARY}{}", state.count), next))
    }

    fn goes_wrong(&self, mishap: Mishap) {
        self.mishaps.lock().push_back(mishap);
    }

    /// Somebody logs in: a new first token.
    fn login(&self, token: &str) {
        let state = &mut *self.state.lock();
        state.good = Some(token.to_owned());
    }

    fn sent(&self, token: &str) -> usize {
        self.state.lock().sent.iter().filter(|sent| *sent == token).count()
    }

    fn revocations(&self) -> usize {
        self.state.lock().revocations
    }
}

#[derive(Debug)]
struct Grant(Arc<Strict>);

#[async_trait]
impl TokenSource for Grant {
    async fn mint(&self, secret: &SecretValue, _is_new: bool) -> Result<Given, MintError> {
        // Never so short that a look each millisecond misses the claim meanwhile.
        let travels = async || sleep(Duration::from_millis(fastrand::u64(5..200))).await;
        let refused = |status, code| MintError::Refused { status, code, retry_after: None };
        travels().await;
        let mishap = self.0.mishaps.lock().pop_front();
        match mishap {
            Some(Mishap::Vanished) => return Err(MintError::Timeout),
            Some(Mishap::Down) => return Err(refused(503, None)),
            Some(Mishap::Client) => return Err(refused(401, Some("invalid_client"))),
            Some(Mishap::Revoked) => return Err(refused(400, Some("invalid_grant"))),
            _ => {}
        }
        let (token, next) = self.0.spend(secret.expose_str().unwrap())?;
        if let Some(gate) = &self.0.gate {
            gate.acquire().await.unwrap().forget();
        }
        travels().await;
        match mishap {
            Some(Mishap::Lost) => return Err(MintError::Timeout),
            Some(Mishap::Gateway) => return Err(refused(504, None)),
            _ => {}
        }
        let life = Life { length: LIFE, is_clamped: false, is_of_unknown_age: false };
        let token = match mishap {
            Some(Mishap::NotBearer) => Err(MintError::NotBearer),
            _ => Ok(Minted { value: value(&token), life: Some(life) }),
        };
        Ok(Given { token, next_secret: next.as_deref().map(value) })
    }

    fn effect(&self) -> Effect {
        Effect::Spends
    }
}

/// A store that counts versions and lets one claim at a time, as Vault does; each call takes a while.
#[derive(Debug)]
struct Versioned {
    held: Mutex<Held>,
    is_full: Mutex<bool>,
    /// What is to be replaced is, and nobody hears of it in time.
    is_slow: Mutex<bool>,
    /// For so long the machine sleeps after the next claim.
    sleeps: Mutex<Option<Duration>>,
    writes: AtomicUsize,
}

#[derive(Debug, Clone)]
struct Held {
    text: Option<String>,
    version: u64,
    claimed: Option<Instant>,
}

impl Versioned {
    fn new(text: Option<&str>) -> Arc<Self> {
        let held = Held { text: text.map(str::to_owned), version: 1, claimed: None };
        Arc::new(Self {
            held: Mutex::new(held),
            is_full: Mutex::default(),
            is_slow: Mutex::default(),
            sleeps: Mutex::default(),
            writes: AtomicUsize::new(0),
        })
    }

    fn text(&self) -> Option<String> {
        self.held.lock().text.clone()
    }

    /// Waits for a claim.
    async fn is_claimed(&self) {
        let claimed = || self.held.lock().claimed.is_some();
        until("a claim", Duration::from_millis(1), claimed).await;
    }

    /// The next claim is written, and then the disk is full.
    async fn fills_up_after_a_claim(&self) {
        self.is_claimed().await;
        *self.is_full.lock() = true;
    }

    fn put(&self, text: &str) {
        let held = &mut *self.held.lock();
        *held = Held { text: Some(text.to_owned()), version: held.version + 1, claimed: None };
    }

    async fn reached(&self) {
        sleep(Duration::from_millis(fastrand::u64(0..50))).await;
    }

    /// The next version, unless it is full.
    fn write(&self, at: &SecretRef, change: impl FnOnce(&mut Held)) -> Result<Version, StoreError> {
        if *self.is_full.lock() {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Unwritable { at: at.clone(), source });
        }
        let held = &mut *self.held.lock();
        held.version += 1;
        change(held);
        self.writes.fetch_add(1, Ordering::SeqCst);
        Ok(Version::Number(held.version))
    }
}

#[async_trait]
impl SecretStore for Versioned {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.reached().await;
        let Held { text, version, .. } = self.held.lock().clone();
        let text = text.ok_or_else(|| StoreError::Missing { at: at.clone() })?;
        Ok(SecretVersion { value: value(&text), version: Some(Version::Number(version)) })
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        self.reached().await;
        let Held { text, claimed, .. } = self.held.lock().clone();
        if claimed.is_some_and(|since| since.elapsed() < CLAIM_LAPSE) {
            return Err(StoreError::Claimed { at: at.clone() });
        }
        if text.as_deref() != old.value.expose_str() {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        let asked_at = Moment::now();
        let version = self.write(at, |held| held.claimed = Some(Instant::now()))?;
        let held = SecretVersion { value: old.value.clone(), version: Some(version) };
        if let Some(time) = self.sleeps.lock().take() {
            clock::pretend_to_sleep(time);
        }
        Ok(Claim::since(asked_at, held))
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        self.reached().await;
        if claim.held.version != Some(Version::Number(self.held.lock().version)) {
            return Err(StoreError::Conflict { at: at.clone() });
        }
        let version = self.write(at, |held| {
            held.text = new.expose_str().map(str::to_owned);
            held.claimed = None;
        })?;
        if *self.is_slow.lock() {
            sleep(Duration::from_secs(60)).await;
        }
        Ok(SecretVersion { value: new.clone(), version: Some(version) })
    }
}

/// One sidecar's credential.
struct Sidecar {
    handle: CredentialHandle,
    tasks: JoinSet<()>,
}

impl Sidecar {
    fn new(store: &Arc<impl SecretStore + 'static>, at: &str, issuer: &Arc<Strict>) -> Self {
        Self::after(store, at, issuer, None)
    }

    fn after(
        store: &Arc<impl SecretStore + 'static>,
        at: &str,
        issuer: &Arc<Strict>,
        keepers: Option<&Keepers>,
    ) -> Self {
        let (secrets, watcher) = store::watched(Arc::clone(store) as Arc<dyn SecretStore>);
        let at: SecretRef = at.parse().unwrap();
        let credential = credential("alice", CredentialKind::ApiKey(at.clone()));
        let source = Box::new(Grant(Arc::clone(issuer)));
        let supply = Supply::new(&credential.name, secrets.watch(&at), source, None);
        let (mut refresher, handle) = Refresher::new(&credential, supply, &Metrics::new().unwrap());
        if let Some(keepers) = keepers {
            refresher.succeed(keepers, &[]);
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(refresher.run());
        if matches!(at, SecretRef::Vault { .. }) {
            tasks.spawn(watcher.run());
        }
        Self { handle, tasks }
    }

    async fn serves(&self) -> bool {
        self.handle.token(far()).await.is_ok()
    }

    async fn gets(&self, state: &str) {
        let begin = Instant::now();
        while self.handle.report().state != state {
            assert!(begin.elapsed() < Duration::from_secs(600), "{:?}", self.handle.report());
            sleep(TICK).await;
        }
    }

    /// Three more tokens, and never none.
    async fn renews_thrice(&self) {
        let three = self.handle.report().generation + 3;
        while self.handle.report().generation < three {
            assert!(self.serves().await, "{:?}", self.handle.report());
            sleep(Duration::from_secs(5)).await;
        }
    }

    async fn fails_to_write(&self) {
        until("a write that fails", TICK, || self.handle.report().unpersisted).await;
    }

    async fn has_written(&self) {
        until("a write that comes through", TICK, || !self.handle.report().unpersisted).await;
    }
}

const VAULT: &str = "vault:secret/alice#token";

/// One that has its first token.
async fn bench(rotates: bool) -> (Arc<Strict>, Arc<Versioned>, Sidecar) {
    let (issuer, store) = (Strict::new(rotates, None), Versioned::new(Some("r0")));
    let sidecar = Sidecar::new(&store, VAULT, &issuer);
    assert!(sidecar.serves().await);
    (issuer, store, sidecar)
}

/// Two sidecars with one token, until each has had a thousand: no call without a token, no refresh
/// token sent twice, and none more often than their life asks for.
async fn a_thousand_expiries(store: &Arc<impl SecretStore + 'static>, at: &str) {
    let issuer = Strict::new(true, None);
    let both = [Sidecar::new(store, at, &issuer), Sidecar::new(store, at, &issuer)];
    for one in &both {
        usable(&one.handle).await;
    }
    let begin = Instant::now();
    while both.iter().any(|one| one.handle.report().generation < 1000) {
        assert!(begin.elapsed() < LIFE * 1000, "one token lives longer than it should");
        for one in &both {
            assert!(one.serves().await, "{:?}", one.handle.report());
        }
        assert_eq!(issuer.revocations(), 0);
        sleep(Duration::from_secs(5)).await;
    }
    let sent = issuer.state.lock().sent.clone();
    assert!(sent.len() >= 2000);
    assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "none was sent twice");
    let most = begin.elapsed().as_secs() / (LIFE.as_secs() / 2) + 2;
    assert!(sent.len() as u64 <= 2 * most, "{} in {:?}", sent.len(), begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_sidecars_share_a_rotating_token_for_a_thousand_expiries() {
    a_thousand_expiries(&Versioned::new(Some("r0")), VAULT).await;
}

#[tokio::test(start_paused = true)]
async fn two_sidecars_share_a_rotating_token_in_a_file_for_a_thousand_expiries() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "r0\n").unwrap();
    a_thousand_expiries(&Arc::new(FileStore), &format!("file:{}", path.display())).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_token_is_in_its_store_before_its_access_token_is_used() {
    let (issuer, store, sidecar) = bench(true).await;
    for _ in 0..100 {
        let before = sidecar.handle.report().generation;
        sidecar.handle.refresh(far()).await;
        assert_eq!(sidecar.handle.report().generation, before + 1);
        assert_eq!(store.text(), issuer.state.lock().good);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_never_asked_for_again_and_a_login_heals_it_without_a_restart() {
    for mishap in [Mishap::Lost, Mishap::Gateway] {
        let (issuer, store, sidecar) = bench(true).await;
        issuer.goes_wrong(mishap);
        sidecar.gets("stale").await;
        assert!(sidecar.serves().await, "the token in use is good to its end");
        sidecar.gets("login_required").await;
        let refused = sidecar.handle.token(far()).await.unwrap_err();
        assert_eq!(refused.reason, UnavailableReason::LoginRequired);
        let report = sidecar.handle.report();
        let told = report.last_error.unwrap();
        assert!(told.ends_with("run `datapulse-sidecar login alice`"), "{told}");
        sidecar.handle.refresh(far()).await;
        sleep(Duration::from_secs(3600)).await;
        assert_eq!((issuer.sent("r1"), issuer.revocations()), (1, 0), "{mishap:?}");
        issuer.login("fresh");
        store.put("fresh");
        sidecar.gets("fresh").await;
        assert_eq!(store.text().as_deref(), Some("r3"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_is_over_is_asked_for_once_and_a_login_heals_it() {
    let (issuer, store, sidecar) = bench(true).await;
    issuer.goes_wrong(Mishap::Revoked);
    sidecar.gets("login_required").await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(issuer.sent("r1"), 0, "the mishap took the one request that there was");
    assert!(issuer.mishaps.lock().is_empty());
    issuer.login("fresh");
    store.put("fresh");
    sidecar.gets("fresh").await;
}

#[tokio::test(start_paused = true)]
async fn what_the_issuer_did_not_do_is_asked_for_again_with_the_same_token() {
    for mishap in [Mishap::Down, Mishap::Client] {
        let (issuer, store, sidecar) = bench(true).await;
        (0..5).for_each(|_| issuer.goes_wrong(mishap));
        sidecar.gets("stale").await;
        sidecar.gets("fresh").await;
        assert_eq!(issuer.sent("r1"), 1, "{mishap:?}");
        assert_eq!(store.text(), issuer.state.lock().good);
        assert_eq!(issuer.revocations(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_successor_beside_a_token_of_no_use_is_kept() {
    let (issuer, store, sidecar) = bench(true).await;
    issuer.goes_wrong(Mishap::NotBearer);
    sidecar.gets("stale").await;
    assert_eq!(store.text().as_deref(), Some("r2"));
    sidecar.gets("fresh").await;
    assert_eq!(issuer.revocations(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_wrote_is_used_after_a_lost_answer() {
    let (issuer, store, sidecar) = bench(true).await;
    issuer.goes_wrong(Mishap::Lost);
    sidecar.gets("stale").await;
    issuer.login("theirs");
    store.put("theirs");
    sidecar.gets("fresh").await;
    assert!(sidecar.serves().await);
    assert_eq!(issuer.sent("theirs"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_cannot_be_written_is_used_and_written_once_that_works() {
    let (issuer, store, sidecar) = bench(true).await;
    store.fills_up_after_a_claim().await;
    sidecar.fails_to_write().await;
    assert_eq!(store.text().as_deref(), Some("r1"));
    sidecar.renews_thrice().await;
    assert_eq!(store.text().as_deref(), Some("r1"), "it is still full");
    *store.is_full.lock() = false;
    sidecar.has_written().await;
    assert_eq!(store.text(), issuer.state.lock().good);
    assert_eq!(issuer.revocations(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_has_the_token_stay_as_it_is_leaves_it_to_everybody() {
    let (issuer, store, first) = bench(false).await;
    let second = Sidecar::new(&store, VAULT, &issuer);
    for _ in 0..100 {
        assert!(first.serves().await && second.serves().await);
        sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(store.text().as_deref(), Some("r0"));
    assert!(issuer.sent("r0") >= 100);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "r0\n").unwrap();
    let written = std::fs::metadata(&path).unwrap().modified().unwrap();
    let third = Sidecar::new(&Arc::new(FileStore), &format!("file:{}", path.display()), &issuer);
    usable(&third.handle).await;
    for _ in 0..20 {
        assert!(third.serves().await);
        sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written, "never written");
}

/// Each has one that the other's came of.
#[tokio::test(start_paused = true)]
async fn after_a_mishap_of_one_of_two_nobody_goes_back_to_what_the_other_has_spent() {
    for mishap in [Mishap::Lost, Mishap::Revoked] {
        let (issuer, store, first) = bench(true).await;
        let second = Sidecar::new(&store, VAULT, &issuer);
        second.gets("fresh").await;
        first.handle.refresh(far()).await;
        let good = store.text();
        issuer.goes_wrong(mishap);
        second.handle.refresh(far()).await;
        assert!(issuer.mishaps.lock().is_empty());
        if mishap == Mishap::Revoked {
            // It is over for everybody.
            issuer.state.lock().good = None;
        }
        second.gets("login_required").await;
        first.gets("login_required").await;
        sleep(Duration::from_secs(600)).await;
        let sent = issuer.state.lock().sent.clone();
        let again: Vec<_> = sent.iter().filter(|one| Some(*one) != good.as_ref()).collect();
        let different: BTreeSet<_> = again.iter().collect();
        assert_eq!(different.len(), again.len(), "{mishap:?}: {sent:?}");
        issuer.login("fresh");
        store.put("fresh");
        first.gets("fresh").await;
        second.gets("fresh").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_goes_back_to_a_used_up_token_has_it_sent_by_nobody() {
    let (issuer, store, sidecar) = bench(true).await;
    sidecar.handle.refresh(far()).await;
    store.put("r0");
    sidecar.gets("login_required").await;
    assert_eq!((issuer.sent("r0"), issuer.sent("r2"), issuer.revocations()), (1, 0, 0));
    store.put("r2");
    sidecar.gets("fresh").await;
}

/// Its answer does not come in time, and the write comes through later.
#[tokio::test(start_paused = true)]
async fn a_write_of_our_own_that_came_late_is_not_taken_for_somebody_elses() {
    let (issuer, store, sidecar) = bench(true).await;
    *store.is_slow.lock() = true;
    sidecar.fails_to_write().await;
    sidecar.renews_thrice().await;
    *store.is_slow.lock() = false;
    sidecar.has_written().await;
    sidecar.handle.refresh(far()).await;
    assert_eq!(store.text(), issuer.state.lock().good);
    assert_eq!(issuer.revocations(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_is_down_uses_up_few_versions_of_a_secret_in_aws() {
    fastrand::seed(1);
    let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
    (0..1000).for_each(|_| issuer.goes_wrong(Mishap::Down));
    let (begin, sidecar) = (Instant::now(), Sidecar::new(&store, "aws:alice", &issuer));
    // A short outage costs little time.
    until("five tries", Duration::from_secs(1), || issuer.mishaps.lock().len() <= 995).await;
    assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", begin.elapsed());
    for _ in 0..24 * 60 {
        sidecar.serves().await;
        sleep(Duration::from_secs(60)).await;
    }
    // The store of this test ends a claim by a version; AWS itself does not.
    let claims = store.writes.load(Ordering::SeqCst) / 2;
    // A little more than a day passes.
    assert!((50..=105).contains(&claims), "{claims}");
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_the_claim_waits_and_uses_what_the_winner_wrote() {
    let (issuer, store) = (Strict::new(true, Some(Semaphore::new(0))), Versioned::new(Some("r0")));
    let both = [Sidecar::new(&store, VAULT, &issuer), Sidecar::new(&store, VAULT, &issuer)];
    sleep(Duration::from_secs(5)).await;
    assert_eq!(issuer.state.lock().sent.len(), 1, "one has the claim");
    issuer.gate.as_ref().unwrap().add_permits(2);
    for one in &both {
        one.gets("fresh").await;
    }
    assert_eq!(issuer.state.lock().sent, ["r0", "r1"]);
}

#[tokio::test(start_paused = true)]
async fn the_claim_of_a_process_that_died_lapses() {
    let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
    let at = VAULT.parse().unwrap();
    drop(store.claim(&at, &store.read(&at).await.unwrap()).await.unwrap());
    let begin = Instant::now();
    let sidecar = Sidecar::new(&store, VAULT, &issuer);
    sidecar.gets("fresh").await;
    let took = begin.elapsed();
    assert!(took >= CLAIM_LAPSE - Duration::from_secs(1) && took < CLAIM_LAPSE * 2, "{took:?}");
    assert_eq!(issuer.state.lock().sent, ["r0"]);
}

#[tokio::test(start_paused = true)]
async fn neither_a_reload_nor_the_end_drops_an_answer_that_is_on_its_way() {
    for is_the_end in [false, true] {
        let gate = Some(Semaphore::new(0));
        let (issuer, store) = (Strict::new(true, gate), Versioned::new(Some("r0")));
        let Sidecar { handle, mut tasks } = Sidecar::new(&store, VAULT, &issuer);
        until("a refresh", Duration::from_millis(10), || issuer.sent("r0") > 0).await;
        let ended = async {
            if is_the_end {
                handle.end();
                assert!(handle.ended().await, "the store lacks nothing");
                assert_eq!(store.text().as_deref(), Some("r1"), "it was waited for");
                sleep(Duration::from_secs(600)).await;
                assert_eq!(issuer.sent("r1"), 0, "nothing more is begun");
            }
        };
        let answers = async {
            sleep(Duration::from_secs(3)).await;
            issuer.gate.as_ref().unwrap().add_permits(1);
        };
        tokio::join!(ended, answers);
        drop(handle);
        task_ends(&mut tasks).await;
        assert_eq!(store.text().as_deref(), Some("r1"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_does_not_wait_for_somebody_elses_claim() {
    let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
    let at = VAULT.parse().unwrap();
    drop(store.claim(&at, &store.read(&at).await.unwrap()).await.unwrap());
    let sidecar = Sidecar::new(&store, VAULT, &issuer);
    sleep(Duration::from_secs(2)).await;
    let begin = Instant::now();
    sidecar.handle.end();
    assert!(sidecar.handle.ended().await);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(issuer.state.lock().sent.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_begins_with_a_used_up_token_sends_it_once_and_asks_for_a_login() {
    let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
    issuer.spend("r0").unwrap();
    let sidecar = Sidecar::new(&store, VAULT, &issuer);
    // The first ones come while it is sent: they hear it when that has failed.
    for step in 0..600 {
        sleep(Duration::from_millis(if step < 100 { 1 } else { 1000 })).await;
        let begin = Instant::now();
        let refused = sidecar.handle.token(far()).await.unwrap_err();
        assert_eq!(refused.reason, UnavailableReason::LoginRequired);
        assert!(begin.elapsed() < Duration::from_secs(1), "waiting is of no use");
    }
    assert_eq!(issuer.sent("r0"), 2);
    issuer.login("fresh");
    store.put("fresh");
    sidecar.gets("fresh").await;
}

#[tokio::test(start_paused = true)]
async fn before_the_first_login_a_login_is_required_and_heals() {
    let (issuer, store) = (Strict::new(true, None), Versioned::new(None));
    let sidecar = Sidecar::new(&store, VAULT, &issuer);
    sidecar.gets("login_required").await;
    assert!(sidecar.handle.report().last_error.unwrap().starts_with("nobody has logged in yet"));
    store.put("r0");
    sidecar.gets("fresh").await;
}
