//! A claim goes by a clock that counts while the machine sleeps: whoever slept for too long after it has
//! none any more, and sends nothing.

use super::*;

/// A store after whose next claim the machine sleeps.
#[derive(Debug)]
struct Sleepy {
    store: Arc<Versioned>,
    sleep: Mutex<Option<Duration>>,
}

#[async_trait]
impl SecretStore for Sleepy {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.store.read(at).await
    }

    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        self.store.poll(at)
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let claim = self.store.claim(at, old).await?;
        if let Some(time) = self.sleep.lock().take() {
            clock::pretend_to_sleep(time);
        }
        Ok(claim)
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        self.store.replace(at, claim, new).await
    }
}

#[tokio::test(start_paused = true)]
async fn who_slept_after_the_claim_sends_nothing_unless_it_lasts_for_the_answer() {
    // What is left of 15 s has to be 9 s at least.
    for (seconds, is_sent) in [(5, true), (7, false), (20, false), (8 * 3600, false)] {
        let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
        let sleepy = Arc::new(Sleepy { store: Arc::clone(&store), sleep: Mutex::default() });
        let sidecar = Sidecar::new(&sleepy, VAULT, &issuer);
        sidecar.gets("fresh").await;
        *sleepy.sleep.lock() = Some(Duration::from_secs(seconds));
        sidecar.handle.refresh(far()).await;
        assert_eq!(sleepy.sleep.lock().take(), None, "it was claimed");
        assert_eq!(issuer.sent("r1"), usize::from(is_sent), "{seconds} s");
        let told = sidecar.handle.report().last_error.unwrap_or_default();
        assert_eq!(told.contains("is being replaced by another process"), !is_sent, "{told}");
        // By a claim anew.
        sidecar.gets("fresh").await;
        assert_eq!((issuer.sent("r1"), issuer.revocations()), (1, 0));
        assert_eq!(store.text(), issuer.state.lock().good);
    }
}
