//! Asking an issuer with what was taken, and what becomes of the secret then.
//!
//! Nothing here is given up half-way: an answer that is missed may hold the only secret that works.

use std::sync::Arc;

use tokio::time::timeout;

use super::super::unanswered::is_marked;
use super::super::write_back::WRITE_MAX;
use super::super::{Given, MintError, Minted, NoLogin};
use super::{ATTEMPT_MAX, Rejected, SEND_MAX, Supply, Taken};
use crate::secret::SecretValue;
use crate::store::Claim;

impl Supply {
    /// Asks once. `works`: a token is in use, which a new secret must not replace untried.
    ///
    /// Not cancel-safe, and ends by itself, where [`Self::must_finish`].
    pub(in super::super) async fn spend(
        &mut self,
        taken: Taken,
        works: bool,
    ) -> Result<Minted, MintError> {
        let Taken { secret, claim } = taken;
        if claim.as_ref().is_some_and(|claim| !claim.lasts(SEND_MAX)) {
            // We stood still for so long that others may have it by now.
            return Err(self.claimed());
        }
        let is_new = self.accepted.as_ref() != Some(&secret);
        let replaces = is_new && self.accepted.is_some();
        if self.spends() {
            self.spent.mark(&secret);
        }
        let asked = timeout(ATTEMPT_MAX, self.source.mint(&secret, is_new)).await;
        let given = match asked.unwrap_or(Err(MintError::Timeout)) {
            Ok(given) => given,
            Err(error) if self.spends() => {
                return Err(self.unspent(error, secret, claim).await);
            }
            Err(error) => return Err(self.unanswered(error, secret, replaces)),
        };
        if self.spends() {
            self.spent(given, secret, claim).await
        } else {
            self.used(given, secret, replaces && works).await
        }
    }

    /// What came of a secret that is as good as before, or that is renewed.
    async fn used(
        &mut self,
        given: Given,
        secret: SecretValue,
        is_to_try: bool,
    ) -> Result<Minted, MintError> {
        let minted = given.token?;
        if is_to_try
            && let Some(verifier) = &self.verifier
            && let Some(status) = verifier.rejection(&minted.value).await?
        {
            return Err(self.turn_down(secret, status));
        }
        self.works_after_all(&secret);
        match given.next_secret {
            Some(next) => {
                let claim = self.held.clone().map(Claim::by_version);
                self.keep(claim, next).await;
            }
            None => {
                self.stored.accepted(&secret);
                self.accepted = Some(secret);
            }
        }
        Ok(minted)
    }

    /// What came of a secret that is good for once. Its successor is kept whatever else came.
    async fn spent(
        &mut self,
        given: Given,
        secret: SecretValue,
        claim: Option<Claim>,
    ) -> Result<Minted, MintError> {
        match (given.next_secret, given.token) {
            // Not even a token: what that is an answer to cannot be known.
            (None, Err(error @ MintError::NotAnAnswer)) => {
                Err(self.unspent(error, secret, claim).await)
            }
            (None, token) => {
                // The issuer has it stay as it is.
                self.spent.unmark(&secret);
                self.works_after_all(&secret);
                self.accepted = Some(secret);
                self.release(claim).await;
                token
            }
            (Some(next), token) => {
                self.works_after_all(&secret);
                self.keep(claim, next).await;
                token
            }
        }
    }

    fn works_after_all(&mut self, secret: &SecretValue) {
        (self.no_login, self.in_vain) = (None, 0);
        if self.is_rejected(secret) {
            self.rejected = None;
        }
    }

    /// Has a renewed secret in the place of the one that it came from, also in the store if that can
    /// be written to.
    async fn keep(&mut self, claim: Option<Claim>, renewed: SecretValue) {
        // In memory first: whatever becomes of the write, this is the one that works.
        self.accepted = Some(renewed.clone());
        // What was rejected is the operator's; it is not ours to write over.
        if self.rejected.is_none() {
            self.write_back.put(&self.stored, claim, &renewed).await;
        }
    }

    /// Why there is no token of a secret that is as good as before.
    fn unanswered(&mut self, error: MintError, secret: SecretValue, replaces: bool) -> MintError {
        if let MintError::Refused { status, code, .. } = error
            && is_about_the_secret(status, code)
        {
            if replaces {
                return self.turn_down(secret, status);
            }
            self.is_refused = true;
        }
        error
    }

    /// Why there is no token of a secret that is good for once, and whether it can be sent again.
    async fn unspent(
        &mut self,
        error: MintError,
        secret: SecretValue,
        claim: Option<Claim>,
    ) -> MintError {
        self.is_refused = true;
        let why = match &error {
            MintError::Refused { code: Some("invalid_grant"), .. } => NoLogin::Refused,
            error if error.may_have_acted() => NoLogin::Lost,
            _ => {
                self.in_vain = self.in_vain.saturating_add(u32::from(claim.is_some()));
                self.spent.unmark(&secret);
                self.release(claim).await;
                return error;
            }
        };
        if why == NoLogin::Lost {
            self.write_back.mark(&self.stored, claim, &secret).await;
        } else {
            self.spent.refuse(&secret);
            if claim.is_none() {
                // It was on its way into the store, and is of no use there any more.
                self.write_back.give_up();
            }
            self.release(claim).await;
        }
        self.no_login = Some(why);
        if self.write_due().is_some() || self.is_still_there().await {
            self.login_required(why)
        } else {
            error
        }
    }

    /// Whether nobody else has written another one meanwhile.
    async fn is_still_there(&self) -> bool {
        let found = timeout(WRITE_MAX, self.stored.peek()).await;
        found.is_ok_and(|found| {
            found.is_ok_and(|found| self.spent.has(&found.value) || is_marked(&found.value))
        })
    }

    /// Others need not wait until a claim lapses. Where that cannot be told, it does.
    async fn release(&self, claim: Option<Claim>) {
        let Some(claim) = claim else { return };
        if let Ok(Err(error)) = timeout(WRITE_MAX, self.stored.release(claim)).await {
            let reason = error.kind();
            tracing::debug!(credential = %self.credential, reason, "a claim is left to lapse");
        }
    }

    /// Nothing but a login helps.
    pub(super) fn without_login(&mut self, why: NoLogin) -> MintError {
        self.no_login = Some(why);
        self.login_required(why)
    }

    pub(super) fn login_required(&self, why: NoLogin) -> MintError {
        MintError::LoginRequired { credential: Arc::clone(&self.credential), why }
    }

    fn turn_down(&mut self, secret: SecretValue, status: u16) -> MintError {
        let at = self.stored.turned_down(&secret);
        tracing::warn!(
            credential = %self.credential,
            secret = %at,
            status,
            "the changed secret was rejected and is not used; the one before it stays in use"
        );
        self.rejected = Some(Rejected { secret, status });
        MintError::RejectedSecret { status }
    }
}

/// Whether an issuer's refusal says that the secret is wrong, and not the request or the moment.
fn is_about_the_secret(status: u16, code: Option<&str>) -> bool {
    match code {
        Some(code) => matches!(code, "invalid_client" | "unauthorized_client" | "invalid_grant"),
        None => matches!(status, 401 | 403),
    }
}
