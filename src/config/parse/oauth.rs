//! The OAuth kinds of credentials: who asks, how it shows who it is, and what it asks for.

use std::collections::BTreeMap;

use super::Checker;
use crate::config::collect::join;
use crate::config::model::{AsksFor, ClientAuth, ClientCredentials, RefreshToken, ServiceAccount};
use crate::config::raw;
use crate::secret::{AwsStage, SecretRef};

/// What a token request says by itself.
const RESERVED_PARAMS: [&str; 12] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "assertion",
    "refresh_token",
    "code",
    "code_verifier",
    "redirect_uri",
    "scope",
    "audience",
];

impl Checker<'_> {
    /// A client that acts for itself.
    pub(super) fn client_credentials(
        &mut self,
        at: &str,
        written: &raw::ClientCredentials,
    ) -> Option<ClientCredentials> {
        let client_id = self.client_id(at, written.client_id.as_deref());
        let (secret, key) = (written.client_secret.as_deref(), written.private_key_jwt.as_ref());
        let auth = self.client_auth(at, secret, key);
        if auth == Some(None) {
            self.required::<()>(at, "client_secret", None);
        }
        let scopes = written.scopes.as_deref();
        let asks_for =
            self.asks_for(at, scopes, written.audience.as_deref(), written.params.as_ref());
        Some(ClientCredentials { client_id: client_id?, auth: auth??, asks_for })
    }

    /// An account with a key of its own.
    pub(super) fn service_account(
        &mut self,
        at: &str,
        written: &raw::ServiceAccount,
    ) -> Option<ServiceAccount> {
        let key = self.required(at, "key", written.key.as_deref());
        let key = key.and_then(|text| self.secret(&join(at, "key"), text));
        let scopes = written.scopes.as_deref();
        let asks_for =
            self.asks_for(at, scopes, written.audience.as_deref(), written.params.as_ref());
        Some(ServiceAccount { key: key?, asks_for })
    }

    /// What a person let a client do.
    pub(super) fn refresh_token(
        &mut self,
        at: &str,
        written: &raw::RefreshToken,
    ) -> Option<RefreshToken> {
        let client_id = self.client_id(at, written.client_id.as_deref());
        let (secret, key) = (written.client_secret.as_deref(), written.private_key_jwt.as_ref());
        let auth = self.client_auth(at, secret, key);
        let token = self.required(at, "token", written.token.as_deref());
        let token = token.and_then(|text| self.writable(&join(at, "token"), text));
        let scopes = written.scopes.as_deref();
        let asks_for =
            self.asks_for(at, scopes, written.audience.as_deref(), written.params.as_ref());
        Some(RefreshToken { client_id: client_id?, auth: auth?, token: token?, asks_for })
    }

    /// A reference to a secret that another one will take the place of.
    fn writable(&mut self, path: &str, text: &str) -> Option<SecretRef> {
        let wrong = match SecretRef::parse(text, |text| Some(text.to_owned())) {
            Ok(Some(SecretRef::Env { .. })) => {
                "an issuer replaces a refresh token, and the environment cannot be written to; use \
                 a file, Vault or AWS Secrets Manager"
            }
            Ok(Some(SecretRef::Aws { stage: AwsStage::Previous, .. })) => {
                "an issuer replaces a refresh token, and only the current version can be replaced; \
                 leave out `@AWSPREVIOUS`"
            }
            _ => return self.secret(path, text),
        };
        self.error(path, wrong);
        None
    }

    fn client_id(&mut self, at: &str, written: Option<&str>) -> Option<String> {
        let client_id = self.required(at, "client_id", written);
        if client_id == Some("") {
            self.error(&join(at, "client_id"), "is empty");
        }
        client_id.map(str::to_owned)
    }

    /// A secret or a key. The outer `None`: what is written is a mistake; the inner: nothing is.
    #[expect(clippy::option_option, reason = "a mistake was told, and nothing may be missing too")]
    fn client_auth(
        &mut self,
        at: &str,
        secret: Option<&str>,
        key: Option<&raw::PrivateKeyJwt>,
    ) -> Option<Option<ClientAuth>> {
        let is_hole = |key| self.places.is_hole(&join(at, key));
        match (secret, key) {
            (Some(_), Some(_)) => {
                let text = "has a `client_secret` and a `private_key_jwt`: a client shows one";
                self.error(at, text);
                None
            }
            (Some(text), None) => {
                let secret = self.secret(&join(at, "client_secret"), text)?;
                Some(Some(ClientAuth::Secret(secret)))
            }
            (None, Some(key)) => {
                let at = join(at, "private_key_jwt");
                let key = self.required(&at, "key", key.key.as_deref())?;
                Some(Some(ClientAuth::Key(self.secret(&join(&at, "key"), key)?)))
            }
            (None, None) if is_hole("client_secret") || is_hole("private_key_jwt") => None,
            (None, None) => Some(None),
        }
    }

    fn asks_for(
        &mut self,
        at: &str,
        scopes: Option<&[String]>,
        audience: Option<&str>,
        params: Option<&BTreeMap<String, String>>,
    ) -> AsksFor {
        let scopes = scopes.unwrap_or_default();
        for (path, scope) in self.places.items(&join(at, "scopes")).zip(scopes) {
            let fits = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\');
            if scope.is_empty() || !scope.bytes().all(fits) {
                self.error(&path, "a scope is one word of visible ASCII without `\"` and `\\`");
            }
        }
        let params = params.cloned().unwrap_or_default();
        for name in params.keys().filter(|name| RESERVED_PARAMS.contains(&name.as_str())) {
            let path = join(&join(at, "params"), name);
            self.error(&path, "the token request sets this by itself");
        }
        let audience = audience.filter(|audience| !audience.is_empty()).map(str::to_owned);
        AsksFor { scopes: scopes.to_vec(), audience, params }
    }
}
