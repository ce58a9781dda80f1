//! From the stored secret to a token, once: reads it, has it minted, and tries it before it replaces
//! one that works.
//!
//! A changed secret that its issuer or the API rejects is never used again until it changes once
//! more; the one before it stays in use, whatever the store holds by then.

use std::sync::Arc;

use super::key::KeyPrint;
use super::schedule::Reason;
use super::verify::Verifier;
use super::write_back::WriteBack;
use super::{Given, MintError, Minted, TokenSource};
use crate::clock::Moment;
use crate::secret::SecretValue;
use crate::store::{Claim, SecretVersion, SecretWatch, StoreError};

/// Where one credential's tokens come from, and which of its secrets is trusted.
#[derive(Debug)]
pub(super) struct Supply {
    credential: Arc<str>,
    stored: SecretWatch,
    source: Box<dyn TokenSource>,
    /// `None`: a changed secret replaces the one before it unseen.
    verifier: Option<Verifier>,
    /// The secret that gave the last token.
    accepted: Option<SecretValue>,
    /// What the store held last.
    held: Option<SecretVersion>,
    /// What the store holds and what is not used.
    rejected: Option<Rejected>,
    /// What was renewed and is in use, on its way into the store.
    write_back: WriteBack,
    /// The issuer's last answer was about the secret: by now the store may hold another one.
    is_refused: bool,
}

/// A stored secret that was turned down.
#[derive(Debug)]
struct Rejected {
    secret: SecretValue,
    /// The issuer's or the API's.
    status: u16,
}

impl Supply {
    pub(super) fn new(
        credential: &Arc<str>,
        stored: SecretWatch,
        source: Box<dyn TokenSource>,
        verifier: Option<Verifier>,
    ) -> Self {
        Self {
            credential: Arc::clone(credential),
            stored,
            source,
            verifier,
            accepted: None,
            held: None,
            rejected: None,
            write_back: WriteBack::new(Arc::clone(credential)),
            is_refused: false,
        }
    }

    /// Waits until the store holds another secret than was read last. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.stored.changed().await;
    }

    /// Whether a token costs a call to somebody else.
    pub(super) fn asks_an_issuer(&self) -> bool {
        self.source.asks_an_issuer()
    }

    /// Why what the store holds is not used; `None` when it is.
    pub(super) fn rejection(&self) -> Option<MintError> {
        let rejected = self.rejected.as_ref();
        rejected.map(|rejected| MintError::RejectedSecret { status: rejected.status })
    }

    /// Whether the store lacks a renewed secret that is in use.
    pub(super) const fn is_unpersisted(&self) -> bool {
        self.write_back.is_pending()
    }

    /// When that is tried to be written again.
    pub(super) fn write_due(&self) -> Option<Moment> {
        self.write_back.due()
    }

    /// Tries to write it now. Cancel-safe.
    pub(super) async fn write(&mut self) {
        self.write_back.retry(&self.stored).await;
    }

    /// Which key the last token came from.
    pub(super) fn key(&self) -> Option<KeyPrint> {
        KeyPrint::new(self.source.client(), self.accepted.as_ref()?)
    }

    /// One try. `works`: a token is in use, which a new secret must not replace untried.
    ///
    /// Cancel-safe but for what was renewed and not yet given back.
    pub(super) async fn mint(&mut self, reason: Reason, works: bool) -> Result<Minted, MintError> {
        let is_doubted = matches!(reason, Reason::Rejected | Reason::Asked);
        let found = if std::mem::take(&mut self.is_refused) || is_doubted {
            self.stored.read().await
        } else {
            self.stored.recall().await
        };
        if let Ok(found) = &found {
            self.held = Some(found.clone());
        }
        let secret = self.choose(found.as_ref().map(|found| &found.value), reason);
        let Some(secret) = secret else {
            return Err(found.err().map_or(MintError::Timeout, MintError::Store));
        };
        let is_new = self.accepted.as_ref() != Some(&secret);
        let replaces = is_new && self.accepted.is_some();
        let given = match self.source.mint(&secret, is_new).await {
            Err(MintError::Refused { status, code, .. })
                if replaces && is_about_the_secret(status, code) =>
            {
                return Err(self.turn_down(secret, status));
            }
            Err(error) => {
                self.is_refused = matches!(&error, MintError::Refused { status, code, .. }
                    if is_about_the_secret(*status, *code));
                return Err(error);
            }
            Ok(given) => given,
        };
        let Given { token, next_secret } = given;
        let minted = token?;
        if replaces
            && works
            && let Some(verifier) = &self.verifier
            && let Some(status) = verifier.rejection(&minted.value).await?
        {
            return Err(self.turn_down(secret, status));
        }
        if self.is_rejected(&secret) {
            // It works by now.
            self.rejected = None;
        }
        match next_secret {
            Some(next) => self.keep(&next).await,
            None => self.accepted = Some(secret),
        }
        Ok(minted)
    }

    /// The secret to use, out of what is stored and what was accepted before.
    fn choose(
        &mut self,
        found: Result<&SecretValue, &StoreError>,
        reason: Reason,
    ) -> Option<SecretValue> {
        let Ok(found) = found else {
            // A store that is down takes nothing away from who can go on without it.
            return self.accepted.clone().filter(|_| self.source.asks_an_issuer());
        };
        if self.is_rejected(found) {
            // The API rejects the one in use: by now the stored one may be the better of the two. Or
            // an operator thinks so.
            let is_worth_a_try = match reason {
                Reason::Rejected => self.source.gives_the_secret(),
                Reason::Asked => true,
                Reason::Initial | Reason::Scheduled | Reason::Retry | Reason::Changed => false,
            };
            return if is_worth_a_try { Some(found.clone()) } else { self.accepted.clone() };
        }
        if self.write_back.outdated().is_some_and(|outdated| outdated.value == *found) {
            return self.accepted.clone();
        }
        self.rejected = None;
        self.write_back.give_up();
        Some(found.clone())
    }

    fn is_rejected(&self, secret: &SecretValue) -> bool {
        self.rejected.as_ref().is_some_and(|rejected| rejected.secret == *secret)
    }

    fn turn_down(&mut self, secret: SecretValue, status: u16) -> MintError {
        tracing::warn!(
            credential = %self.credential,
            secret = %self.stored.at(),
            status,
            "the changed secret was rejected and is not used; the one before it stays in use"
        );
        self.rejected = Some(Rejected { secret, status });
        MintError::RejectedSecret { status }
    }

    /// Has a renewed secret in the place of the one that it came from, also in the store if that can
    /// be written to.
    async fn keep(&mut self, renewed: &SecretValue) {
        self.accepted = Some(renewed.clone());
        // What was rejected is the operator's; it is not ours to write over.
        if self.rejected.is_none()
            && let Some(held) = self.held.clone()
        {
            self.write_back.put(&self.stored, Claim::by_version(held), renewed).await;
        }
    }
}

/// Whether an issuer's refusal says that the secret is wrong, and not the request or the moment.
fn is_about_the_secret(status: u16, code: Option<&str>) -> bool {
    match code {
        Some(code) => matches!(code, "invalid_client" | "unauthorized_client" | "invalid_grant"),
        None => matches!(status, 401 | 403),
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use axum::routing::get;
    use http::{HeaderMap, StatusCode};
    use parking_lot::Mutex;
    use tokio::task::JoinSet;

    use super::*;
    use crate::credential::own_calls::Permits;
    use crate::secret::SecretRef;
    use crate::store::{self, SecretStore};

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.into())
    }

    /// A store that holds one text, and takes another one if it may.
    #[derive(Debug)]
    struct One {
        text: Mutex<Option<String>>,
        writes: Mutex<Writes>,
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

    struct Bench {
        store: Arc<One>,
        supply: Supply,
        _tasks: JoinSet<()>,
    }

    impl Bench {
        /// With an API that rejects what begins with `bad`.
        async fn new(fake: Fake, writes: Writes) -> Self {
            crate::tls::install_provider();
            let text = Mutex::new(Some("one".to_owned()));
            let store = Arc::new(One { text, writes: Mutex::new(writes) });
            let (secrets, _watcher) = store::watched(Arc::clone(&store) as Arc<dyn SecretStore>);
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
            let supply = Supply::new(
                &"reader".into(),
                secrets.watch(&"file:/nowhere".parse().unwrap()),
                Box::new(fake),
                Some(Verifier::new(http, url, permits)),
            );
            let mut bench = Self { store, supply, _tasks: tasks };
            assert_eq!(bench.mint(Reason::Initial).await, Ok("one".to_owned()));
            bench
        }

        fn store(&self, text: Option<&str>) {
            *self.store.text.lock() = text.map(str::to_owned);
        }

        async fn mint(&mut self, reason: Reason) -> Result<String, &'static str> {
            match self.supply.mint(reason, true).await {
                Ok(minted) => Ok(minted.value.expose_str().unwrap().to_owned()),
                Err(error) => Err(error.kind()),
            }
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
}
