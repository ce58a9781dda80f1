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
use crate::clock::Moment;
use crate::credential::{AccessToken, CredentialHandle, Unavailable, UnavailableReason};
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
    take_place(call)?;
    let Some(handle) = &call.handle else { return Err(Rejection::LevelNotGranted) };
    let began = Instant::now();
    let token = match handle.current() {
        Some(token) => Ok(token),
        None => handle.token(call.deadline).await,
    };
    call.token_wait = began.elapsed();
    call.token = Some(token.map_err(rejection_of)?);
    keep_place(call)
}

/// Another credential may hold the key that a token comes from: one quota for both.
pub(super) fn keep_place(call: &mut Call) -> Result<(), Rejection> {
    let key = call.handle.as_ref().and_then(CredentialHandle::key);
    if key == call.key { Ok(()) } else { take_place(call) }
}

/// A place in the queue of the quota that the credential draws from: the one that the call has, if it
/// is there.
fn take_place(call: &mut Call) -> Result<(), Rejection> {
    let (Some(grant), Some(handle)) = (&call.grant, &call.handle) else {
        return Err(Rejection::LevelNotGranted);
    };
    let snapshot = &call.snapshot;
    let mut tenants = snapshot.config.tenants.iter();
    let Some(tenant) = tenants.position(|tenant| *tenant.name == *grant.tenant) else {
        return Err(Rejection::LevelNotGranted);
    };
    call.key = handle.key();
    let (shaper, credentials) = (&snapshot.shaper, &snapshot.credentials);
    let held = call.place.take();
    let place = shaper.enter(credentials, (grant.credential, tenant), call.deadline, held)?;
    call.place = Some(place);
    Ok(())
}

/// Waits for the call's turn, before a connection is taken.
pub(super) async fn wait_for_turn(call: &mut Call) -> Result<(), Rejection> {
    let Some(place) = &mut call.place else { return Err(Rejection::LevelNotGranted) };
    Ok(place.ready(call.deadline).await?)
}

/// The head is about to be written: the permit for it, and the token to send. Never anonymous: where
/// no token can be used any more, no permit is spent.
pub(super) async fn depart(call: &mut Call) -> Result<(Permit, Arc<AccessToken>), Rejection> {
    let (handle, taken) = (&call.handle, &call.token);
    let token = || match handle {
        Some(handle) => usable_token(handle, taken.as_ref())
            .ok_or_else(|| rejection_of(handle.unavailable(Moment::now()))),
        None => Err(Rejection::LevelNotGranted),
    };
    // One that is over before the turn comes waits for no turn.
    token()?;
    let Some(place) = &mut call.place else { return Err(Rejection::LevelNotGranted) };
    place.depart(call.deadline, token).await
}

/// The token to send now: the one that was taken, or the credential's newest. None where an operator
/// has paused the credential meanwhile.
fn usable_token(
    handle: &CredentialHandle,
    taken: Option<&Arc<AccessToken>>,
) -> Option<Arc<AccessToken>> {
    if handle.is_paused() {
        return None;
    }
    let taken = taken.filter(|token| token.is_usable_at(Moment::now())).cloned();
    taken.or_else(|| handle.current())
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
