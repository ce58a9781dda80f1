//! A credential that is changed goes on where the one before it was: one task alone has its secret.

use super::*;

/// One after those before it, none of which is kept.
fn next(
    store: &Arc<Versioned>,
    issuer: &Arc<Strict>,
    keepers: &Keepers,
) -> (CredentialHandle, JoinSet<()>) {
    let Sidecar { handle, tasks } = Sidecar::after(store, VAULT, issuer, Some(keepers));
    (handle, tasks)
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_not_written_yet_is_handed_on_and_written_by_the_last_one_alone() {
    // While a handle of it is held still; after the last one is gone; with one more in between.
    for case in 0..3 {
        let issuer = Strict::new(true, Some(Semaphore::new(0)));
        let (store, keepers) = (Versioned::new(Some("r0")), Keepers::default());
        let (first, mut tasks) = next(&store, &issuer, &keepers);
        until("a refresh", TICK, || issuer.sent("r0") == 1).await;
        *store.is_full.lock() = true;
        issuer.gate.as_ref().unwrap().add_permits(1000);
        until("a write that fails", TICK, || first.report().unpersisted).await;
        let held = (case != 1).then_some(first);
        if case == 1 {
            sleep(Duration::from_secs(1)).await;
        }
        let between = (case == 2).then(|| next(&store, &issuer, &keepers));
        let second = next(&store, &issuer, &keepers);
        task_ends(&mut tasks).await;
        usable(&second.0).await;
        assert!(second.0.report().unpersisted, "{case}");
        assert!(held.as_ref().is_none_or(|first| first.current().is_some()), "it is used up");
        for _ in 0..20 {
            assert!(second.0.token(far()).await.is_ok());
            sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(store.text().as_deref(), Some("r0"));
        *store.is_full.lock() = false;
        until("a write that comes through", TICK, || !second.0.report().unpersisted).await;
        assert_eq!(store.text(), issuer.state.lock().good);
        let sent = issuer.state.lock().sent.clone();
        assert_eq!(sent.iter().collect::<BTreeSet<_>>().len(), sent.len(), "none was sent twice");
        drop(between);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_on_its_way_is_the_next_ones() {
    let issuer = Strict::new(true, Some(Semaphore::new(0)));
    let (store, keepers) = (Versioned::new(Some("r0")), Keepers::default());
    let (first, mut tasks) = next(&store, &issuer, &keepers);
    until("a refresh", TICK, || issuer.sent("r0") == 1).await;
    let second = next(&store, &issuer, &keepers);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(issuer.state.lock().sent.len(), 1, "the next one waits");
    issuer.gate.as_ref().unwrap().add_permits(100);
    usable(&second.0).await;
    task_ends(&mut tasks).await;
    assert_eq!(issuer.state.lock().sent, ["r0", "r1"]);
    drop(first);
}

#[tokio::test(start_paused = true)]
async fn a_mark_that_was_not_written_yet_and_what_was_sent_are_handed_on() {
    let issuer = Strict::new(true, Some(Semaphore::new(1)));
    let (store, keepers) = (Versioned::new(Some("r0")), Keepers::default());
    let (first, _tasks) = next(&store, &issuer, &keepers);
    usable(&first).await;
    issuer.goes_wrong(Mishap::Lost);
    until("a refresh", TICK, || issuer.sent("r1") == 1).await;
    *store.is_full.lock() = true;
    issuer.gate.as_ref().unwrap().add_permits(1000);
    let (second, _others) = next(&store, &issuer, &keepers);
    until("login_required", TICK, || second.report().state == "login_required").await;
    assert_eq!(store.text().as_deref(), Some("r1"));
    *store.is_full.lock() = false;
    until("the mark", TICK, || store.text().as_deref() == Some("datapulse-sidecar-answer-lost:r1"))
        .await;
    assert_eq!((issuer.sent("r1"), issuer.revocations()), (1, 0));
}

/// A reload that mends the client or the issuer: with those, it may be taken.
#[tokio::test(start_paused = true)]
async fn a_token_that_was_refused_is_sent_once_by_the_next_one_and_one_that_is_used_up_by_nobody() {
    let (issuer, store) = (Strict::new(true, None), Versioned::new(Some("r0")));
    let keepers = Keepers::default();
    issuer.goes_wrong(Mishap::Revoked);
    let (first, _tasks) = next(&store, &issuer, &keepers);
    until("login_required", TICK, || first.report().state == "login_required").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(issuer.sent("r0"), 0, "the one whose client it is not does not try again");
    let (second, _others) = next(&store, &issuer, &keepers);
    until("fresh", TICK, || second.report().state == "fresh").await;
    assert_eq!(issuer.sent("r0"), 1);
    // Once more, and with a store that goes back: what came of `r0` is not forgotten.
    issuer.goes_wrong(Mishap::Revoked);
    until("login_required", TICK, || second.report().state == "login_required").await;
    store.put("r0");
    let (third, _more) = next(&store, &issuer, &keepers);
    until("login_required", TICK, || third.report().state == "login_required").await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((issuer.sent("r0"), issuer.revocations()), (1, 0));
}
