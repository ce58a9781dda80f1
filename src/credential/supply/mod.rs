//! From the stored secret to a token, once: finds it, claims it where it is good for once, has it
//! minted, and tries it before it replaces one that works.
//!
//! A changed secret that its issuer or the API rejects is never used again until it changes once
//! more; the one before it stays in use, whatever the store holds by then. A secret that may be used
//! up is never sent again.

mod estate;
mod spend;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

pub(super) use estate::Estate;

use super::key::KeyPrint;
use super::schedule::Reason;
use super::spent::Spent;
use super::unanswered::is_marked;
use super::verify::Verifier;
use super::write_back::WriteBack;
use super::{Effect, MintError, Minted, NoLogin, TokenSource};
use crate::backoff::Backoff;
use crate::secret::{SecretRef, SecretValue};
use crate::store::{CLAIM_LAPSE, Claim, SecretVersion, SecretWatch, StoreError};

/// The longest that one question to a store or an issuer may take; their own time-outs end it sooner.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);
/// The longest wait for another process's claim: it lapses meanwhile if that process died.
const CLAIM_MAX: Duration = CLAIM_LAPSE.saturating_add(ATTEMPT_MAX);
/// Bounds the first wait for what another process writes, and every one.
const CLAIM_WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// A claim has to last as long when the secret is sent.
const SEND_MAX: Duration = Duration::from_secs(9);

/// Tries in a row that come to nothing and that follow each other as anywhere else, where each uses up
/// one of about a hundred versions a day,
const AWS_TRIES: u32 = 4;
/// and the wait between two of them afterwards.
const AWS_WAIT: Duration = Duration::from_secs(15 * 60);

/// Where one credential's tokens come from, and which of its secrets is trusted.
#[derive(Debug)]
pub(super) struct Supply {
    credential: Arc<str>,
    stored: SecretWatch,
    source: Box<dyn TokenSource>,
    /// `None`: a changed secret replaces the one before it unseen.
    verifier: Option<Verifier>,
    /// The secret that gave the last token, or came with it.
    accepted: Option<SecretValue>,
    /// What the store held last.
    held: Option<SecretVersion>,
    /// What the store holds and what is not used.
    rejected: Option<Rejected>,
    spent: Spent,
    /// Why the last secret cannot be used any more.
    no_login: Option<NoLogin>,
    /// What was renewed and is in use, on its way into the store.
    write_back: WriteBack,
    /// The issuer's last answer was about the secret: by now the store may hold another one.
    is_refused: bool,
    /// Tries in a row at which the issuer did nothing, and that were claims in the store all the same.
    in_vain: u32,
}

/// A stored secret that was turned down.
#[derive(Debug)]
struct Rejected {
    secret: SecretValue,
    /// The issuer's or the API's.
    status: u16,
}

/// What the next token is asked for with, and by which right.
#[derive(Debug)]
pub(super) struct Taken {
    secret: SecretValue,
    /// `None`: nobody else has it, or it is as good afterwards.
    claim: Option<Claim>,
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
            spent: Spent::default(),
            no_login: None,
            write_back: WriteBack::new(Arc::clone(credential)),
            is_refused: false,
            in_vain: 0,
        }
    }

    /// How long to wait at least after a failure: AWS bounds how many versions are made in a day, and
    /// a claim is one.
    pub(super) fn least_wait(&self) -> Option<Duration> {
        let is_counted = matches!(self.stored.at(), SecretRef::Aws { .. });
        (is_counted && self.in_vain > AWS_TRIES).then_some(AWS_WAIT)
    }

    /// Waits until the store holds another secret than was read last. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.stored.changed().await;
    }

    /// Another secret in the store is no reason to ask for a token before one is due: whether that is
    /// so. Who shares a secret that is good for once would wake the others each time it is replaced.
    pub(super) fn heeds_changes_later(&self) -> bool {
        let later = self.spends();
        if later {
            self.stored.heed();
        }
        later
    }

    /// Whether a token costs a call to somebody else.
    pub(super) fn asks_an_issuer(&self) -> bool {
        self.source.asks_an_issuer()
    }

    /// Whether an answer of the issuer's is never to be missed: there may be a secret in it.
    pub(super) fn must_finish(&self) -> bool {
        self.effect() != Effect::Keeps
    }

    fn spends(&self) -> bool {
        self.effect() == Effect::Spends
    }

    /// What asking does to the secret.
    pub(super) fn effect(&self) -> Effect {
        self.source.effect()
    }

    /// Where the secret is.
    pub(super) fn at(&self) -> &SecretRef {
        self.stored.at()
    }

    /// Why what the store holds is not used; `None` when it is.
    pub(super) fn rejection(&self) -> Option<MintError> {
        let rejected = self.rejected.as_ref();
        rejected.map(|rejected| MintError::RejectedSecret { status: rejected.status })
    }

    /// Which key the last token came from: one that is replaced all the time is known by its place.
    pub(super) fn key(&self) -> Option<KeyPrint> {
        let accepted = self.accepted.as_ref()?;
        if self.spends() {
            let place = SecretValue::new(self.stored.at().to_string().into_bytes());
            return KeyPrint::new(self.source.client(), &place);
        }
        KeyPrint::new(self.source.client(), accepted)
    }

    /// Finds the secret that the next token is asked for with, and claims it where it is good for
    /// once; waits for others who have.
    ///
    /// Cancel-safe: a claim that is dropped lapses.
    pub(super) async fn take(&mut self, reason: Reason) -> Result<Taken, MintError> {
        let limit = if self.spends() { CLAIM_MAX } else { ATTEMPT_MAX };
        let taken = match timeout(limit, self.find(reason)).await {
            Ok(taken) => taken,
            Err(_elapsed) if self.spends() => Err(self.claimed()),
            Err(_elapsed) => Err(StoreError::Timeout { at: self.stored.at().clone() }.into()),
        };
        // The next try finds it.
        taken.inspect_err(|_| self.stored.heed())
    }

    async fn find(&mut self, reason: Reason) -> Result<Taken, MintError> {
        self.source.prepare().await?;
        let mut wait = Backoff::new(CLAIM_WAIT.0, CLAIM_WAIT.1);
        loop {
            let secret = self.look(reason).await?;
            let held = self.held.as_ref().filter(|held| self.spends() && held.value == secret);
            let Some(held) = held else { return Ok(Taken { secret, claim: None }) };
            match self.stored.claim(held).await {
                Ok(claim) => return Ok(Taken { secret, claim: Some(claim) }),
                // Another process is about to replace it, or has: what that writes is used.
                Err(StoreError::Claimed { .. } | StoreError::Conflict { .. }) => {
                    sleep(wait.next_wait()).await;
                }
                Err(error) => return Err(MintError::Claim(error)),
            }
        }
    }

    /// [`Self::take`] and [`Self::spend`].
    pub(super) async fn mint(&mut self, reason: Reason, works: bool) -> Result<Minted, MintError> {
        let taken = self.take(reason).await?;
        self.spend(taken, works).await
    }

    /// The secret to use, as the store and what is known of it say now.
    async fn look(&mut self, reason: Reason) -> Result<SecretValue, MintError> {
        let is_doubted = matches!(reason, Reason::Rejected | Reason::Asked);
        // Where others replace it, the last look says little, unless there is nothing but to wait.
        let is_shared = self.spends() && !(self.no_login.is_some() && reason == Reason::Retry);
        if reason == Reason::Asked {
            self.stored.reconsider();
        }
        let mut found = if std::mem::take(&mut self.is_refused) || is_doubted {
            self.stored.read().await
        } else if is_shared {
            self.stored.insist().await
        } else {
            self.stored.recall().await
        };
        // A fallback that is rejected, too: by now the one that was turned down may be the better one.
        let is_old = found.as_ref().is_ok_and(|found| Some(&found.value) == self.accepted.as_ref());
        if reason == Reason::Rejected && is_old && self.stored.reconsider() {
            found = self.stored.read().await;
        }
        if let Ok(found) = &found {
            self.held = Some(found.clone());
        }
        if self.spends() && found.as_ref().is_ok_and(|found| is_marked(&found.value)) {
            return Err(self.without_login(NoLogin::Lost));
        }
        match self.choose(found.as_ref().map(|found| &found.value), reason) {
            Some(secret) if self.spent.has(&secret) => {
                Err(self.login_required(self.no_login.unwrap_or(NoLogin::Lost)))
            }
            Some(secret) => Ok(secret),
            None => Err(match found {
                Err(error) if self.spends() && error.is_absence() => {
                    self.without_login(NoLogin::Absent)
                }
                Err(error) => error.into(),
                Ok(_unused) => MintError::Timeout,
            }),
        }
    }

    /// The secret to use, out of what is stored and what was accepted before.
    fn choose(
        &mut self,
        found: Result<&SecretValue, &StoreError>,
        reason: Reason,
    ) -> Option<SecretValue> {
        let Ok(found) = found else {
            // A store that is down takes nothing away from who can go on without it.
            return self
                .accepted
                .clone()
                .filter(|_| self.source.asks_an_issuer() && self.is_ours());
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
        let is_past = self.write_back.is_outdated(found) || self.spent.has(found);
        if is_past {
            return if self.is_ours() { self.accepted.clone() } else { Some(found.clone()) };
        }
        self.rejected = None;
        self.write_back.give_up();
        Some(found.clone())
    }

    /// Whether nobody else can have sent what was accepted last: what was in the store once, others may
    /// have claimed there.
    fn is_ours(&self) -> bool {
        !self.spends() || self.is_unpersisted()
    }

    fn is_rejected(&self, secret: &SecretValue) -> bool {
        self.rejected.as_ref().is_some_and(|rejected| rejected.secret == *secret)
    }

    fn claimed(&self) -> MintError {
        StoreError::Claimed { at: self.stored.at().clone() }.into()
    }
}

#[cfg(test)]
mod tests;
