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
    let text = match error {
        StoreError::Denied { at, reason } => return to_allow(at, reason),
        StoreError::Missing { at } => match without_data(at) {
            Some(shorter) => return Some(format!("leave out `data/`: vault:{shorter}")),
            None => "write it, or correct the reference",
        },
        StoreError::Deleted { .. } => "restore it, or write a new one",
        StoreError::NoSuchKey { .. } => "write that key, or correct what stands behind `#`",
        StoreError::NotAString { .. } => "write it as a string",
        StoreError::Unreachable { at, reason: "tls", .. } => of(
            at,
            "check `stores.vault.address` and `ca_file`",
            "check `stores.aws.endpoint` and `ca_file`",
        )?,
        StoreError::Unreachable { at, .. }
        | StoreError::Timeout { at }
        | StoreError::Unavailable { at, reason: "unexpected", .. }
        | StoreError::NotAnAnswer { at }
        | StoreError::TooLarge { at }
        | StoreError::Redirected { at } => of(
            at,
            "check `stores.vault.address`, and what is in between",
            "check `stores.aws.region` and `endpoint`, and what is in between",
        )?,
        StoreError::Unavailable { reason: "sealed", .. } => "unseal it",
        StoreError::LoginRefused { at, .. } => of(
            at,
            "see `stores.vault`: the namespace, the method of `auth`, its mount and role, and the \
             token, secret id or service account that proves who we are",
            WHO,
        )?,
        StoreError::NoIdentity { at, .. } => of(at, "see `stores.vault.auth`", WHO)?,
        _ => return None,
    };
    Some(text.to_owned())
}

const WHO: &str = "see \"Who the sidecar is\" in docs/aws.md";

/// What is true of the store that a reference leads to.
const fn of<'t>(at: &SecretRef, vault: &'t str, aws: &'t str) -> Option<&'t str> {
    match at {
        SecretRef::Vault { .. } => Some(vault),
        SecretRef::Aws { .. } => Some(aws),
        SecretRef::File { .. } | SecretRef::Env { .. } => None,
    }
}

/// A path in Vault that was copied out of a URL of KV version 2, as it has to be written.
fn without_data(at: &SecretRef) -> Option<String> {
    let SecretRef::Vault { path, field } = at else { return None };
    let (mount, rest) = path.split_once("/data/")?;
    Some(format!("{mount}/{rest}#{field}"))
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
            if let Some(shorter) = without_data(at) {
                return Some(format!("in KV version 2, leave out `data/`: vault:{shorter}"));
            }
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
