//! Logs in to Vault by one of its methods, and renews what a login gave.
//!
//! What proves who we are is read anew at each login: the kubelet replaces a service account's token
//! every hour.

use std::time::Duration;

use rustify_derive::Endpoint;
use serde::Deserialize;
use vaultrs::api::auth::approle::requests::LoginWithApproleRequest;
use vaultrs::api::auth::kubernetes::requests::LoginWithKubernetesRequest;
use vaultrs::api::auth::oidc::requests::JWTLoginRequest;

use super::super::{EnvStore, FileStore, SecretStore as _, StoreError};
use super::transport::{Answer, Transport};
use crate::config::model::{VaultAuth, VaultStore};
use crate::secret::{SecretRef, SecretValue};

/// `POST auth/token/renew-self`: asks for as long again as the token was given for.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/renew-self", method = "POST")]
struct RenewSelf {}

/// `GET auth/token/lookup-self`: what is left of a token that somebody else obtained.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/lookup-self")]
struct LookupSelf {}

/// A token, and for how long it is good.
pub(super) struct Granted {
    pub(super) token: SecretValue,
    /// `None`: for ever.
    pub(super) ttl: Option<Duration>,
    pub(super) is_renewable: bool,
}

/// The `auth` of an answer.
#[derive(Deserialize)]
struct Authenticated {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    client_token: String,
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct LookedUp {
    data: About,
}

#[derive(Deserialize)]
struct About {
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

/// Logs in anew.
pub(super) async fn log_in(
    transport: &Transport,
    spec: &VaultStore,
    at: &SecretRef,
) -> Result<Granted, StoreError> {
    let mount = spec.auth_mount.clone();
    let answer = match &spec.auth {
        VaultAuth::Kubernetes { role, token_file } => {
            let jwt = text(&in_file(token_file), at).await?;
            let request = LoginWithKubernetesRequest { mount, role: role.clone(), jwt };
            transport.call(at, request, None).await?
        }
        VaultAuth::Jwt { role, token_file } => {
            let jwt = text(&in_file(token_file), at).await?;
            let request = JWTLoginRequest { mount, jwt, role: Some(role.clone()) };
            transport.call(at, request, None).await?
        }
        VaultAuth::Approle { role_id, secret_id } => {
            let (role_id, secret_id) = (role_id.clone(), text(secret_id, at).await?);
            let request = LoginWithApproleRequest { mount, role_id, secret_id };
            transport.call(at, request, None).await?
        }
        VaultAuth::Token { token } => {
            let token = secret(token, at).await?;
            return look_up(transport, token, at).await;
        }
    };
    granted(&answer, at)
}

/// Prolongs a token. A refusal is one of the token alone: a login may well work.
pub(super) async fn renew(
    transport: &Transport,
    token: &SecretValue,
    at: &SecretRef,
) -> Result<Granted, StoreError> {
    let answer = transport.call(at, RenewSelf {}, Some(token)).await?;
    // Nothing is left to be given; Vault says so with 500.
    if answer.says("past the max TTL") {
        return Err(refused(at));
    }
    let renewed = granted(&answer, at)?;
    Ok(Granted { token: token.clone(), ..renewed })
}

async fn look_up(
    transport: &Transport,
    token: SecretValue,
    at: &SecretRef,
) -> Result<Granted, StoreError> {
    let answer = transport.call(at, LookupSelf {}, Some(&token)).await?;
    if is_refused(&answer) {
        return Err(refused(at));
    }
    let about: LookedUp = answer.json(at)?;
    let ttl = Some(about.data.ttl).filter(|ttl| *ttl > 0).map(Duration::from_secs);
    Ok(Granted { token, ttl, is_renewable: about.data.renewable })
}

fn granted(answer: &Answer, at: &SecretRef) -> Result<Granted, StoreError> {
    if is_refused(answer) {
        return Err(refused(at));
    }
    let Auth { client_token, lease_duration, renewable } = answer.json::<Authenticated>(at)?.auth;
    let Ok(token) = SecretValue::for_header(client_token.into_bytes()) else {
        return Err(StoreError::NotAnAnswer { at: at.clone() });
    };
    let ttl = Some(lease_duration).filter(|ttl| *ttl > 0).map(Duration::from_secs);
    Ok(Granted { token, ttl, is_renewable: renewable })
}

/// A wrong role, secret id, audience or account: 400 or 403, by the method; 404 where the namespace or
/// the mount is wrong.
fn is_refused(answer: &Answer) -> bool {
    match answer.status.as_u16() {
        404 => answer.is_vaults(),
        status => matches!(status, 400..=403),
    }
}

fn refused(at: &SecretRef) -> StoreError {
    StoreError::LoginRefused { at: at.clone(), reason: "login_refused" }
}

fn in_file(path: &std::path::Path) -> SecretRef {
    SecretRef::File { path: path.to_owned(), key: None }
}

async fn text(from: &SecretRef, at: &SecretRef) -> Result<String, StoreError> {
    Ok(secret(from, at).await?.expose_str().unwrap_or_default().to_owned())
}

/// What proves who we are.
async fn secret(from: &SecretRef, at: &SecretRef) -> Result<SecretValue, StoreError> {
    let found = match from {
        SecretRef::Env { .. } => EnvStore.read(from).await,
        _ => FileStore.read(from).await,
    };
    match found {
        Ok(found) => Ok(found.value),
        Err(error) => Err(StoreError::NoIdentity { at: at.clone(), source: Box::new(error) }),
    }
}
