//! Where secrets are kept: how Vault and AWS Secrets Manager are reached.

use std::path::PathBuf;

use url::Url;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{AwsStore, Stores, VaultAuth, VaultStore};
use crate::config::raw::{self, Raw, VaultMethod};
use crate::secret::SecretRef;

const VAULT: &str = "stores.vault";
const AWS: &str = "stores.aws";
/// Where the kubelet puts a pod's own token.
const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
const VAULT_POLL_S: u64 = 60;
const AWS_POLL_S: u64 = 300;

impl Checker<'_> {
    /// The stores that references can name, beside files and the environment.
    pub(super) fn stores(&mut self, raw: &Raw) -> Option<Stores> {
        let plaintext = self.takes_plaintext(raw.upstream.as_ref());
        let stores = raw.stores.as_ref();
        let vault = stores.and_then(|stores| stores.vault.as_ref());
        let vault = vault.map(|vault| self.vault(vault, plaintext));
        let aws = stores.and_then(|stores| stores.aws.as_ref());
        let aws = aws.map(|aws| self.aws(aws, plaintext));
        Some(Stores { vault: transposed(vault)?, aws: transposed(aws)? })
    }

    fn vault(&mut self, written: &raw::StoreVault, plaintext: bool) -> Option<VaultStore> {
        let address = self.required(VAULT, "address", written.address.as_deref());
        let address =
            address.and_then(|text| self.store_url(&join(VAULT, "address"), text, plaintext));
        if address.as_ref().is_some_and(|url| url.path().trim_end_matches('/').ends_with("/v1")) {
            self.error(&join(VAULT, "address"), "leave out `/v1`: it is added");
        }
        let namespace = written.namespace.as_deref().filter(|text| !text.is_empty());
        let namespace = namespace.map(|text| self.mount(&join(VAULT, "namespace"), text));
        let auth = self.required(VAULT, "auth", written.auth.as_ref());
        let auth = auth.and_then(|auth| self.vault_auth(auth));
        let poll = self.timeout(&join(VAULT, "poll"), written.poll, VAULT_POLL_S);
        let ca_file = self.file(&join(VAULT, "ca_file"), written.ca_file.as_deref());
        let (auth, auth_mount) = auth?;
        Some(VaultStore {
            address: address?,
            namespace: transposed(namespace)?,
            ca_file,
            auth,
            auth_mount,
            poll: poll?,
        })
    }

    /// The method with what it needs, and where it is mounted.
    fn vault_auth(&mut self, written: &raw::VaultAuth) -> Option<(VaultAuth, String)> {
        let at = join(VAULT, "auth");
        let method = self.required(&at, "method", written.method)?;
        self.only_its_own_keys(&at, method, written);
        let mount = written.mount.as_deref().filter(|mount| !mount.is_empty());
        let mount = match mount {
            Some(text) => self.mount(&join(&at, "mount"), text),
            None => Some(method.as_str().to_owned()),
        };
        let auth = match method {
            VaultMethod::Kubernetes => {
                let default = Some(SERVICE_ACCOUNT_TOKEN);
                let token_file = self.token_file(&at, written.token_file.as_deref(), default);
                let role = self.word(&at, "role", written.role.as_deref());
                VaultAuth::Kubernetes { role: role?, token_file: token_file? }
            }
            VaultMethod::Jwt => {
                let token_file = self.token_file(&at, written.token_file.as_deref(), None);
                let role = self.word(&at, "role", written.role.as_deref());
                VaultAuth::Jwt { role: role?, token_file: token_file? }
            }
            VaultMethod::Approle => {
                let secret_id = self.own_secret(&at, "secret_id", written.secret_id.as_deref());
                let role_id = self.word(&at, "role_id", written.role_id.as_deref());
                VaultAuth::Approle { role_id: role_id?, secret_id: secret_id? }
            }
            VaultMethod::Token => {
                let token = self.own_secret(&at, "token", written.token.as_deref());
                VaultAuth::Token { token: token? }
            }
        };
        Some((auth, mount?))
    }

    /// A key of another method would do nothing.
    fn only_its_own_keys(&mut self, at: &str, method: VaultMethod, written: &raw::VaultAuth) {
        let keys = [
            ("role", written.role.is_some()),
            ("mount", written.mount.is_some()),
            ("token_file", written.token_file.is_some()),
            ("role_id", written.role_id.is_some()),
            ("secret_id", written.secret_id.is_some()),
            ("token", written.token.is_some()),
        ];
        for (key, _) in keys.iter().filter(|(key, is_there)| *is_there && !method.takes(key)) {
            let text = format!("does nothing with method `{}`; take it out", method.as_str());
            self.error(&join(at, key), text);
        }
    }

    fn aws(&mut self, written: &raw::StoreAws, plaintext: bool) -> Option<AwsStore> {
        let region = written.region.as_deref().filter(|text| !text.is_empty());
        let region = region.map(|_| self.word(AWS, "region", written.region.as_deref()));
        let mut url = |key: &str, text: Option<&str>| {
            let text = text.filter(|text| !text.is_empty());
            transposed(text.map(|text| self.store_url(&join(AWS, key), text, plaintext)))
        };
        let endpoint = url("endpoint", written.endpoint.as_deref());
        let sts_endpoint = url("sts_endpoint", written.sts_endpoint.as_deref());
        let poll = self.timeout(&join(AWS, "poll"), written.poll, AWS_POLL_S);
        let ca_file = self.file(&join(AWS, "ca_file"), written.ca_file.as_deref());
        Some(AwsStore {
            region: transposed(region)?,
            endpoint: endpoint?,
            sts_endpoint: sts_endpoint?,
            ca_file,
            poll: poll?,
        })
    }

    fn store_url(&mut self, path: &str, text: &str, plaintext: bool) -> Option<Url> {
        let url = self.url(path, Some(text), text, plaintext)?;
        if url.query().is_some() {
            self.error(path, "a query (`?`) is never sent");
            return None;
        }
        Some(url)
    }

    /// A word of visible ASCII that has to be there, with its variables replaced.
    fn word(&mut self, at: &str, key: &str, written: Option<&str>) -> Option<String> {
        let path = join(at, key);
        let text = self.required(at, key, written)?;
        let text = self.expand(&path, text)?;
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            self.error(&path, "expected a word of visible ASCII");
            return None;
        }
        Some(text)
    }

    /// A place in Vault: segments between slashes.
    fn mount(&mut self, path: &str, text: &str) -> Option<String> {
        let text = self.expand(path, text)?;
        let text = text.trim_matches('/');
        let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'?' | b'%' | b'#' | b'*');
        let usable = |one: &str| !matches!(one, "" | "." | "..") && one.bytes().all(plain);
        if !text.split('/').all(usable) {
            self.error(path, "expected a name such as `kubernetes`, or several between slashes");
            return None;
        }
        Some(text.to_owned())
    }

    fn token_file(
        &mut self,
        at: &str,
        written: Option<&str>,
        default: Option<&str>,
    ) -> Option<PathBuf> {
        let written = written.filter(|text| !text.is_empty()).or(default);
        let text = self.required(at, "token_file", written)?;
        self.file(&join(at, "token_file"), Some(text))
    }

    /// What opens a store cannot be kept in one.
    fn own_secret(&mut self, at: &str, key: &str, written: Option<&str>) -> Option<SecretRef> {
        let path = join(at, key);
        let text = self.required(at, key, written)?;
        let reference = self.secret(&path, text)?;
        if matches!(reference, SecretRef::Vault { .. } | SecretRef::Aws { .. }) {
            self.error(&path, "is needed to open a store; keep it in a file (file:PATH)");
            return None;
        }
        Some(reference)
    }
}

/// What was written and is wrong is `None`; what was not written is `Some(None)`.
#[expect(clippy::option_option, reason = "absent and wrong are two things")]
fn transposed<T>(written: Option<Option<T>>) -> Option<Option<T>> {
    match written {
        None => Some(None),
        Some(None) => None,
        Some(read) => Some(read),
    }
}
