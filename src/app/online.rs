//! `check --online`: reads each secret, obtains each token and asks the API whose it is, once each.
//!
//! Nothing is served, and no value is ever part of what is told.

use std::sync::Arc;

use super::build::StartError;
use super::clients::issuers;
use super::stores;
use crate::config::Config;
use crate::config::model::Credential;
use crate::credential::{Free, Issuers, Whose};
use crate::identity::IdentityKeeper;
use crate::secret::SecretRef;
use crate::store::{self, SecretStore, Secrets, StoreError};
use crate::telemetry::{Metrics, error_chain};

/// What one look found, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is as it should be.
    pub is_good: bool,
    /// Begins with the credential's name.
    pub text: String,
}

/// Looks at each credential in turn, in the order of the configuration.
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
    Ok(findings)
}

async fn look_at(
    credential: &Credential,
    stores: &dyn SecretStore,
    issuers: &Issuers,
    secrets: &Secrets,
    findings: &mut Vec<Finding>,
) {
    let mut find = |is_good, text: String| {
        findings.push(Finding { is_good, text: format!("{}: {text}", credential.name) });
    };
    let mut is_there = false;
    for (at, is_document) in credential.secrets() {
        let found =
            if is_document { stores.read_document(at).await } else { stores.read(at).await };
        match found {
            Ok(found) => {
                is_there = true;
                let version = found.version.map(|version| format!(", version {version}"));
                find(true, format!("{at} is there{}", version.unwrap_or_default()));
            }
            Err(error) => {
                let grant = to_grant(&error).map(|grant| format!("; {grant}"));
                find(false, format!("{}{}", error_chain(&error), grant.unwrap_or_default()));
            }
        }
    }
    if !is_there {
        return;
    }
    match issuers.try_out(credential, secrets).await {
        Err(error) => find(false, format!("no token: {}", error_chain(&error))),
        Ok(Whose::Organisation(name)) => find(true, format!("its token is taken; it is {name}'s")),
        Ok(Whose::Unnamed) => find(true, "its token is taken".to_owned()),
        Ok(Whose::Rejected(status)) => {
            find(false, format!("its token is rejected with {status}; replace the secret"));
        }
        Ok(Whose::Unknown) => {
            find(false, "a token was obtained, and the API did not say whose it is".to_owned());
        }
    }
}

/// What to grant, where a store refused for want of it.
fn to_grant(error: &StoreError) -> Option<String> {
    let StoreError::Denied { at, reason } = error else { return None };
    match at {
        SecretRef::Aws { id, .. } if *reason == "decryption_denied" => {
            Some(format!("allow the role kms:Decrypt on the key of {id}, and enable the key"))
        }
        SecretRef::Aws { id, .. } => {
            Some(format!("allow the role secretsmanager:GetSecretValue on {id}"))
        }
        SecretRef::Vault { path, .. } => {
            let (mount, rest) = path.split_once('/')?;
            Some(format!(
                "give the role a policy with path \"{mount}/data/{rest}\" {{ capabilities = \
                 [\"read\"] }} (KV v1: path \"{path}\")"
            ))
        }
        SecretRef::File { .. } | SecretRef::Env { .. } => None,
    }
}
