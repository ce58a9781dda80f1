//! Where the answer to a refresh is lost, nobody who shares its token sends that one again.

use super::*;

/// How often each refresh token was sent.
fn sendings(issuer: &Strict) -> Vec<usize> {
    let sent = issuer.state.lock().sent.clone();
    let each: BTreeSet<_> = sent.iter().collect();
    each.into_iter().map(|one| issuer.sent(one)).collect()
}

async fn is_seen_by_everybody(
    store: &Arc<impl SecretStore + 'static>,
    at: &str,
    log_in: impl Fn(&str),
) {
    let issuer = Strict::new(true, None);
    let both = [Sidecar::new(store, at, &issuer), Sidecar::new(store, at, &issuer)];
    for one in &both {
        one.gets("fresh").await;
    }
    issuer.goes_wrong(Mishap::Lost);
    for one in &both {
        one.gets("login_required").await;
        let told = one.handle.report().last_error.unwrap();
        assert!(told.starts_with("the answer to the last refresh was lost"), "{told}");
    }
    sleep(Duration::from_secs(3600)).await;
    let begun_later = Sidecar::new(store, at, &issuer);
    begun_later.gets("login_required").await;
    begun_later.handle.refresh(far()).await;
    assert_eq!((sendings(&issuer), issuer.revocations()), (vec![1; 3], 0));
    issuer.login("fresh");
    log_in("fresh");
    for one in both.iter().chain([&begun_later]) {
        one.handle.refresh(far()).await;
        one.gets("fresh").await;
    }
    assert_eq!(issuer.revocations(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_seen_by_everybody_who_shares_the_token() {
    let store = Versioned::new(Some("r0"));
    is_seen_by_everybody(&store, VAULT, |token| store.put(token)).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_seen_by_everybody_who_shares_the_token_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("alice");
    std::fs::write(&path, "r0\n").unwrap();
    let at = format!("file:{}", path.display());
    let log_in = |token: &str| std::fs::write(&path, token).unwrap();
    is_seen_by_everybody(&Arc::new(FileStore), &at, log_in).await;
}

/// What was lost came of a token that the store could not take either.
#[tokio::test(start_paused = true)]
async fn of_a_successor_that_was_never_written_the_answer_is_lost_for_everybody_too() {
    let (issuer, store, sidecar) = bench(true).await;
    store.fills_up_after_a_claim().await;
    sidecar.fails_to_write().await;
    issuer.goes_wrong(Mishap::Lost);
    sidecar.handle.refresh(far()).await;
    assert!(issuer.mishaps.lock().is_empty());
    *store.is_full.lock() = false;
    let other = Sidecar::new(&store, VAULT, &issuer);
    other.gets("login_required").await;
    sidecar.gets("login_required").await;
    assert_eq!((sendings(&issuer), issuer.revocations()), (vec![1; 3], 0));
    assert!(!sidecar.handle.report().unpersisted);
}

/// A store that one of two cannot reach for a while.
#[derive(Debug)]
struct Far {
    store: Arc<Versioned>,
    is_cut: Mutex<bool>,
}

impl Far {
    fn reached(&self, at: &SecretRef) -> Result<&Versioned, StoreError> {
        if *self.is_cut.lock() {
            return Err(StoreError::Timeout { at: at.clone() });
        }
        Ok(&self.store)
    }
}

#[async_trait]
impl SecretStore for Far {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.reached(at)?.read(at).await
    }

    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        self.store.poll(at)
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        self.reached(at)?.claim(at, old).await
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        self.reached(at)?.replace(at, claim, new).await
    }
}

/// The issuer had done nothing; until the store can be reached again, somebody else has the claim.
#[tokio::test(start_paused = true)]
async fn a_late_mark_is_never_put_over_what_another_one_got_meanwhile() {
    let issuer = Strict::new(true, Some(Semaphore::new(1)));
    let store = Versioned::new(Some("r0"));
    let far_away = Arc::new(Far { store: Arc::clone(&store), is_cut: Mutex::default() });
    let cut_off = Sidecar::new(&far_away, VAULT, &issuer);
    cut_off.gets("fresh").await;
    issuer.goes_wrong(Mishap::Vanished);
    store.is_claimed().await;
    *far_away.is_cut.lock() = true;
    let other = Sidecar::new(&store, VAULT, &issuer);
    until("a refresh", Duration::from_millis(10), || issuer.sent("r1") > 0).await;
    *far_away.is_cut.lock() = false;
    // Tried again meanwhile, at the latest after 5 s and as long as two answers take.
    sleep(Duration::from_secs(8)).await;
    issuer.gate.as_ref().unwrap().add_permits(100);
    other.gets("fresh").await;
    cut_off.gets("fresh").await;
    for one in [&other, &cut_off] {
        one.handle.refresh(far()).await;
        assert_eq!(one.handle.report().state, "fresh");
    }
    assert_eq!(store.text(), issuer.state.lock().good);
    assert_eq!(issuer.revocations(), 0);
}

/// The claim is no longer needed, and the token as good as before.
#[tokio::test(start_paused = true)]
async fn what_was_certainly_not_sent_is_free_for_others_at_once() {
    let (issuer, store, sidecar) = bench(true).await;
    issuer.goes_wrong(Mishap::Down);
    sidecar.handle.refresh(far()).await;
    assert_eq!((store.text().as_deref(), store.held.lock().claimed), (Some("r1"), None));
    let begin = Instant::now();
    let other = Sidecar::new(&store, VAULT, &issuer);
    other.gets("fresh").await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

/// The answer came, and says that the refresh token stays as it is.
#[tokio::test(start_paused = true)]
async fn a_token_of_no_use_without_a_successor_is_no_lost_answer() {
    let (issuer, store, sidecar) = bench(false).await;
    issuer.goes_wrong(Mishap::NotBearer);
    sidecar.gets("stale").await;
    sidecar.gets("fresh").await;
    assert_eq!((store.text().as_deref(), issuer.revocations()), (Some("r0"), 0));
}
