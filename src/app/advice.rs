//! The next step after a [`StoreError`], for whoever looks or logs in.

use crate::secret::SecretRef;
use crate::store::StoreError;

/// What is wrong, and what to do about it.
pub(super) fn advised(what: String, advice: Option<String>) -> String {
    match advice {
        Some(advice) => format!("{what}; {advice}"),
        None => what,
    }
}

/// What lets a secret be read.
pub(super) fn to_read(error: &StoreError) -> Option<String> {
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

/// What lets a store take a secret.
pub(super) fn to_write(error: &StoreError) -> Option<String> {
    match error {
        StoreError::Denied { at: SecretRef::Vault { path, .. }, .. } => {
            let (mount, rest) = path.split_once('/')?;
            Some(format!(
                "give the role a policy with path \"{mount}/data/{rest}\" {{ capabilities = \
                 [\"read\", \"create\", \"update\"] }}"
            ))
        }
        StoreError::Denied { at: SecretRef::Aws { id, .. }, .. } => Some(format!(
            "allow secretsmanager:GetSecretValue, DescribeSecret and PutSecretValue on {id}, and \
             its key"
        )),
        StoreError::Missing { at: SecretRef::Aws { id, .. } } => {
            Some(format!("create it first: aws secretsmanager create-secret --name {id}"))
        }
        StoreError::ReadOnly { at: SecretRef::Vault { .. } } => {
            Some("keep it in KV version 2, which knows check-and-set".to_owned())
        }
        StoreError::Unwritable { .. } => {
            Some("its folder has to be there, and to be writable for you".to_owned())
        }
        _ => to_read(error),
    }
}
