//! `check --online`: reads each secret, obtains each token and asks the API whose it is, once each.
//!
//! Nothing is served, and no value is ever part of what is told.

use std::sync::Arc;

use super::build::StartError;
use super::clients::issuers;
use super::stores;
use crate::config::Config;
use crate::config::model::{Credential, CredentialKind};
use crate::credential::{Free, Issuers, Whose};
use crate::identity::IdentityKeeper;
use crate::secret::SecretRef;
use crate::store::{self, SecretStore, SecretVersion, Secrets, StoreError};
use crate::telemetry::{Metrics, error_chain};

/// What one look found, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub is_good: bool,
    /// Begins with the name of the credential or the endpoint.
    pub text: String,
}

/// Looks at each credential in turn, then at the secrets of webhooks, in the order of the
/// configuration.
///
/// # Errors
/// When a certificate that is configured cannot be used.
pub async fn check_online(config: &Config, metrics: &Metrics) -> Result<Vec<Finding>, StartError> {
    let stores = stores::open(config, metrics)?;
    let (secrets, _watcher) = store::watched(Arc::clone(&stores) as Arc<dyn SecretStore>);
    let (_keeper, identity) = IdentityKeeper::start(&config.upstream, &secrets, metrics).await?;
    // One call a credential, and no quota that is kept.
    let issuers = issuers(config, &identity, Arc::new(Free))?;
    let mut findings = Vec::new();
    for credential in &config.credentials {
        look_at(credential, &*stores, &issuers, &secrets, &mut findings).await;
    }
    for endpoint in config.webhooks.iter().flat_map(|webhooks| &webhooks.endpoints) {
        for at in &endpoint.secrets {
            let found = stores.read(at).await;
            findings.push(read(&endpoint.path, at, found));
        }
    }
    Ok(findings)
}

async fn look_at(
    credential: &Credential,
    stores: &dyn SecretStore,
    issuers: &Issuers,
    secrets: &Secrets,
    findings: &mut Vec<Finding>,
) {
    let mut is_there = false;
    for (at, is_document) in credential.secrets() {
        let found =
            if is_document { stores.read_document(at).await } else { stores.read(at).await };
        is_there |= found.is_ok();
        let is_absent = found.as_ref().is_err_and(StoreError::is_absence);
        let mut finding = read(&credential.name, at, found);
        if is_absent && is_for_a_login(credential, at) {
            let login = format!("; run `datapulse-sidecar login {}`", credential.name);
            finding.text.push_str(&login);
        }
        findings.push(finding);
    }
    if !is_there {
        return;
    }
    let (is_good, text) = match issuers.try_out(credential, secrets).await {
        Err(error) => (false, format!("no token: {}", error_chain(&error))),
        Ok(Whose::Organisation(name)) => (true, format!("its token is taken; it is {name}'s")),
        Ok(Whose::Unnamed) => (true, "its token is taken".to_owned()),
        Ok(Whose::Rejected(status)) => {
            (false, format!("its token is rejected with {status}; replace the secret"))
        }
        Ok(Whose::Unknown) => {
            (false, "a token was obtained, and the API did not say whose it is".to_owned())
        }
    };
    findings.push(Finding { is_good, text: format!("{}: {text}", credential.name) });
}

/// Whether a person puts this secret there by logging in.
fn is_for_a_login(credential: &Credential, at: &SecretRef) -> bool {
    matches!(credential.kind, CredentialKind::RefreshToken(_)) && credential.kind.secret() == at
}

/// How one secret was read, and what to grant where it was refused.
fn read(whose: &str, at: &SecretRef, found: Result<SecretVersion, StoreError>) -> Finding {
    match found {
        Ok(found) => {
            let version = found.version.map(|version| format!(", version {version}"));
            let text = format!("{whose}: {at} is there{}", version.unwrap_or_default());
            Finding { is_good: true, text }
        }
        Err(error) => {
            let grant = to_grant(&error).map(|grant| format!("; {grant}")).unwrap_or_default();
            Finding { is_good: false, text: format!("{whose}: {}{grant}", error_chain(&error)) }
        }
    }
}

/// What to do where a store refused.
fn to_grant(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Denied { at, reason } => to_allow(at, reason),
        StoreError::LoginRefused { at: SecretRef::Vault { .. }, .. } => Some(
            "see `stores.vault`: the namespace, the method of `auth`, its mount and role, and the \
             token, secret id or service account that proves who we are"
                .to_owned(),
        ),
        _ => None,
    }
}

fn to_allow(at: &SecretRef, reason: &str) -> Option<String> {
    match at {
        SecretRef::Aws { id, .. } if reason == "decryption_denied" => {
            Some(format!("allow the role kms:Decrypt on the key of {id}, and enable the key"))
        }
        SecretRef::Aws { id, .. } => {
            Some(format!("allow the role secretsmanager:GetSecretValue on {id}"))
        }
        SecretRef::Vault { path, .. } => {
            // Where a mount ends, Vault tells those alone who may read there.
            let (mount, rest) = path.split_once('/')?;
            Some(format!(
                "give the role a policy with path \"{mount}/data/{rest}\" {{ capabilities = \
                 [\"read\"] }}, if the mount is {mount} (KV v1: path \"{path}\")"
            ))
        }
        SecretRef::File { .. } | SecretRef::Env { .. } => None,
    }
}
