//! From a request's head to the right to send it: front door, access, shaping, token.
//!
//! Nothing here touches a secret before the policy has granted the call, and nothing is sent
//! upstream.

use std::sync::Arc;

use tokio::time::Instant;

use super::call::Call;
use super::front_door::{self, Head};
use super::reject::Rejection;
use crate::access::Shown;
use crate::credential::{Unavailable, UnavailableReason};
use crate::shaping::Permit;

/// Reads the head strictly.
pub(super) fn judge_head(head: &[u8], call: &Call) -> Result<Head, Rejection> {
    let Some(listener) = call.listener() else { return Err(Rejection::Misdirected) };
    let (rules, header) = (&call.snapshot.config.front_door, call.snapshot.callers.header());
    front_door::judge(head, rules, &listener.allowed_hosts, header)
}

/// Whose call it is. Nothing of the policy is told to a caller that is not known.
fn tenant_of(head: &Head, call: &mut Call) -> Result<usize, Rejection> {
    let Some(connection) = &call.connection else { return Err(Rejection::Misdirected) };
    let shown = Shown {
        uid: connection.uid,
        token: head.caller_token.as_ref(),
        header: head.tenant.as_deref(),
    };
    let known = call.snapshot.callers.tenant_of(connection.listener, shown);
    let (tenant, identity) = known.map_err(Rejection::from)?;
    call.identity = Some(identity);
    Ok(tenant)
}

/// Decides which credential the call gets.
pub(super) fn grant(head: &Head, call: &mut Call) -> Result<(), Rejection> {
    let snapshot = Arc::clone(&call.snapshot);
    let tenant = tenant_of(head, call)?;
    let decided = snapshot.access.decide(tenant, &head.method, head.target.segments());
    let grant = match decided {
        Ok(grant) => grant,
        Err(denial) => {
            let rejection = Rejection::from(&denial);
            call.denial = Some(denial);
            return Err(rejection);
        }
    };
    if let Some(timeout) = grant.rule.request_timeout {
        call.deadline = call.started_at + timeout;
    }
    call.handle = snapshot.credentials.get(grant.credential).cloned();
    call.grant = Some(grant);
    Ok(())
}

/// Refuses a call whose turn would come too late, and waits for a token to send it with.
pub(super) async fn prepare(call: &mut Call) -> Result<(), Rejection> {
    let (Some(grant), Some(handle)) = (&call.grant, &call.handle) else {
        return Err(Rejection::LevelNotGranted);
    };
    let mut tenants = call.snapshot.config.tenants.iter();
    let Some(tenant) = tenants.position(|tenant| *tenant.name == *grant.tenant) else {
        return Err(Rejection::LevelNotGranted);
    };
    let (snapshot, deadline) = (&call.snapshot, call.deadline);
    let admit = || {
        let (shaper, credentials) = (&snapshot.shaper, &snapshot.credentials);
        shaper.enter(credentials, grant.credential, tenant, deadline).map_err(Rejection::Refused)
    };
    let (key, mut place) = (handle.key(), admit()?);
    let began = Instant::now();
    let token = match handle.current() {
        Some(token) => Ok(token),
        None => handle.token(deadline).await,
    };
    let token_wait = began.elapsed();
    let token = token.map_err(rejection_of)?;
    if handle.key() != key {
        // Another credential may hold the same key: one quota for both.
        place = admit()?;
    }
    (call.token_wait, call.token, call.place) = (token_wait, Some(token), Some(place));
    Ok(())
}

/// Waits for the call's turn, before a connection is taken.
pub(super) async fn wait_for_turn(call: &mut Call) -> Result<(), Rejection> {
    let Some(place) = &mut call.place else { return Err(Rejection::LevelNotGranted) };
    place.ready(call.deadline).await.map_err(Rejection::Refused)
}

/// The head is about to be written: the permit for it.
pub(super) async fn depart(call: &mut Call) -> Result<Permit, Rejection> {
    let Some(place) = &mut call.place else { return Err(Rejection::LevelNotGranted) };
    place.depart(call.deadline).await.map_err(Rejection::Refused)
}

/// What a caller is told when there is no token.
pub(super) const fn rejection_of(unavailable: Unavailable) -> Rejection {
    let retry_after = unavailable.retry_after;
    match unavailable.reason {
        UnavailableReason::Pending => Rejection::CredentialUnavailable { retry_after },
        UnavailableReason::Paused => Rejection::CredentialPaused { retry_after },
        UnavailableReason::Expired => Rejection::CredentialExpired { retry_after },
        UnavailableReason::LoginRequired => Rejection::LoginRequired { retry_after },
    }
}
