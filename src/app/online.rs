//! `check --online`: reads each secret, obtains each token and asks the API whose it is, once each.
//!
//! Nothing is served, and no value is ever part of what is told.

use std::sync::Arc;

use super::advice::{advised, to_read, to_write};
use super::build::StartError;
use super::clients::issuers;
use super::stores;
use crate::config::Config;
use crate::config::model::{Credential, CredentialKind};
use crate::credential::{Free, Issuers, MintError, Whose};
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
    if let Some(finding) = unwritable(credential, stores).await {
        let is_bad = !finding.is_good;
        findings.push(finding);
        if is_bad {
            return;
        }
    }
    let (is_good, text) = match issuers.try_out(credential, secrets).await {
        Err(error) => (false, advised(format!("no token: {}", error_chain(&error)), next(&error))),
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

/// Why what comes of a credential could not be written back, where it is: a session token is used all the
/// same, and a refresh token is not. A secret of the environment cannot be, which the configuration's
/// warning says.
async fn unwritable(credential: &Credential, stores: &dyn SecretStore) -> Option<Finding> {
    let at = credential.kind.secret();
    if !credential.kind.is_written_back() || matches!(at, SecretRef::Env { .. }) {
        return None;
    }
    let error = stores.may_put(at).await.err()?;
    let text = advised(error_chain(&error), to_write(&error));
    let is_good = matches!(credential.kind, CredentialKind::SessionToken(_));
    let used = if is_good { "is used, and " } else { "" };
    let name = &credential.name;
    let text = format!("{name}: what is renewed {used}cannot be written back: {text}");
    Some(Finding { is_good, text })
}

/// What to do where there is no token.
fn next(error: &MintError) -> Option<String> {
    match error {
        MintError::Store(error) => to_read(error),
        MintError::Claim(error) => to_write(error),
        _ => None,
    }
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
            let text = advised(error_chain(&error), to_read(&error));
            Finding { is_good: false, text: format!("{whose}: {text}") }
        }
    }
}
