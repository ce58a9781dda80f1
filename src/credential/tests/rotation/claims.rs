//! A claim goes by a clock that counts while the machine sleeps: whoever slept for too long after it has
//! none any more, and sends nothing.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_slept_after_the_claim_sends_nothing_unless_it_lasts_for_the_answer() {
    // What is left of 15 s has to be 9 s at least.
    for (seconds, is_sent) in [(5, true), (7, false), (20, false), (8 * 3600, false)] {
        let (issuer, store, sidecar) = bench(true).await;
        *store.sleeps.lock() = Some(Duration::from_secs(seconds));
        sidecar.handle.refresh(far()).await;
        assert_eq!(*store.sleeps.lock(), None, "it was claimed");
        assert_eq!(issuer.sent("r1"), usize::from(is_sent), "{seconds} s");
        let told = sidecar.handle.report().last_error.unwrap_or_default();
        assert_eq!(told.contains("is being replaced by another process"), !is_sent, "{told}");
        // By a claim anew.
        sidecar.gets("fresh").await;
        assert_eq!((issuer.sent("r1"), issuer.revocations()), (1, 0));
        assert_eq!(store.text(), issuer.state.lock().good);
    }
}
