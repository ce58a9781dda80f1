//! Credentials, and the quotas that they name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{Credential, CredentialKind};
use crate::config::raw;
use crate::secret::{SecretRef, region_of};

impl Checker<'_> {
    /// The credentials; at least one.
    pub(super) fn credentials(
        &mut self,
        list: Option<&[raw::Credential]>,
        quotas: Option<&BTreeMap<String, raw::Quota>>,
    ) -> Option<Vec<Credential>> {
        let list = self.required("", "credentials", list)?;
        let empty = "lists no credential, so every call would be denied";
        let list = self.filled("credentials", Some(list), empty)?;
        let mut credentials = Vec::with_capacity(list.len());
        let mut names = Vec::new();
        for (at, written) in self.places.items("credentials").zip(list) {
            let name = self.required(&at, "name", written.name.as_deref());
            if let Some(name) = name
                && self.is_name(&join(&at, "name"), name)
            {
                names.push((join(&at, "name"), name));
            }
            let level = self.required(&at, "level", written.level);
            self.quota_of(&at, written, quotas);
            let kind = self.kind(&at, written);
            let fallback = self.fallback(&at, written, kind.as_ref());
            if let (Some(name), Some(level), Some(kind)) = (name, level, kind) {
                credentials.push(Credential {
                    name: Arc::from(name),
                    level,
                    quota: written.quota.as_deref().map(Arc::from),
                    required: written.required.unwrap_or(true),
                    verify: written.verify.unwrap_or(true),
                    fallback,
                    kind,
                });
            }
        }
        self.unique(&names);
        Some(credentials)
    }

    /// Another reference, for a secret that is only read.
    fn fallback(
        &mut self,
        at: &str,
        written: &raw::Credential,
        kind: Option<&CredentialKind>,
    ) -> Option<SecretRef> {
        let text = written.fallback.as_deref().filter(|text| !text.is_empty())?;
        let path = join(at, "fallback");
        let reference = self.secret(&path, text)?;
        let problem = match kind {
            Some(kind) if kind.is_written_back() => {
                "what is renewed and written back has one place; take it out"
            }
            Some(kind) if *kind.secret() == reference => {
                "is the same secret; name another one, such as the version before (@AWSPREVIOUS)"
            }
            _ => return Some(reference),
        };
        self.error(&path, problem);
        None
    }

    fn quota_of(
        &mut self,
        at: &str,
        written: &raw::Credential,
        quotas: Option<&BTreeMap<String, raw::Quota>>,
    ) {
        let Some(quota) = written.quota.as_deref() else { return };
        let known: Vec<&str> = self.places.keys("quotas").collect();
        let there = quotas.is_some_and(|quotas| quotas.contains_key(quota));
        if !there && !known.contains(&quota) && !self.places.is_hole("quotas") {
            self.unknown(&join(at, "quota"), "quota", quota, known);
        }
    }

    /// Exactly one kind.
    fn kind(&mut self, at: &str, written: &raw::Credential) -> Option<CredentialKind> {
        let given: Vec<&str> = [
            ("api_key", written.api_key.is_some()),
            ("client_credentials", written.client_credentials.is_some()),
            ("session_token", written.session_token.is_some()),
            ("refresh_token", written.refresh_token.is_some()),
            ("service_account", written.service_account.is_some()),
        ]
        .into_iter()
        .filter(|(key, usable)| *usable || self.places.is_hole(&join(at, key)))
        .map(|(key, _)| key)
        .collect();
        match given.as_slice() {
            [] => {
                self.error(
                    at,
                    "has no secret: give it `api_key`, `client_credentials`, `session_token`, \
                     `refresh_token` or `service_account`",
                );
                return None;
            }
            [_] => {}
            several => {
                let several = several.join("`, `");
                self.error(at, format!("has several kinds (`{several}`): a credential is one"));
                return None;
            }
        }
        if let Some(reference) = written.api_key.as_deref() {
            return self.secret(&join(at, "api_key"), reference).map(CredentialKind::ApiKey);
        }
        if let Some(session) = &written.session_token {
            let at = join(at, "session_token");
            let token = self.required(&at, "token", session.token.as_deref())?;
            return self.secret(&join(&at, "token"), token).map(CredentialKind::SessionToken);
        }
        if let Some(account) = &written.service_account {
            let account = self.service_account(&join(at, "service_account"), account);
            return account.map(CredentialKind::ServiceAccount);
        }
        if let Some(grant) = &written.refresh_token {
            let grant = self.refresh_token(&join(at, "refresh_token"), grant);
            return grant.map(CredentialKind::RefreshToken);
        }
        let client = written.client_credentials.as_ref()?;
        self.client_credentials(&join(at, "client_credentials"), client)
            .map(CredentialKind::ClientCredentials)
    }

    /// A reference to a secret; `${NAME}` is replaced in its path alone.
    pub(super) fn secret(&mut self, path: &str, text: &str) -> Option<SecretRef> {
        let reference = match SecretRef::parse(text, |text| self.expand(path, text)) {
            Ok(reference) => reference?,
            Err(error) => {
                self.error(path, error.to_string());
                return None;
            }
        };
        if let SecretRef::Aws { id, .. } = &reference
            && let (Some(there), Some(asked)) = (region_of(id), &self.aws_region)
            && there != asked
        {
            let text = "the ARN is of another region than `stores.aws.region`, the only one that is \
                        asked; replicate the secret there, or change the region";
            self.error(path, text);
            return None;
        }
        let section = match reference {
            SecretRef::File { .. } => None,
            SecretRef::Env { .. } => {
                let text = "a secret in the environment is for local development; elsewhere use a \
                            file";
                self.warn(path, text);
                None
            }
            SecretRef::Vault { .. } => Some(("stores.vault", "Vault")),
            SecretRef::Aws { .. } => Some(("stores.aws", "AWS Secrets Manager")),
        };
        if let Some((section, store)) = section
            && !self.places.is_written(section)
        {
            let text = format!("needs `{section}`: where {store} is, and how to log in");
            self.error(path, text);
            return None;
        }
        Some(reference)
    }
}
