//! What stands in a token request, whatever the grant: what is asked for, and who asks.

use std::collections::BTreeMap;

use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::json;

use super::super::MintError;
use super::jwt::{JwtKey, KeyProblem};
use crate::clock;
use crate::config::model::{AsksFor, ClientAuth};
use crate::secret::SecretValue;

/// An assertion is good for as long, in seconds: it is used at once.
const ASSERTION_LIFE: u64 = 300;
/// RFC 7523 section 2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A token request's parameters.
pub(in super::super) type Form<'a> = BTreeMap<&'a str, &'a str>;

/// What is asked for. Whoever adds more does so afterwards, so that no further parameter stands in
/// the place of one that matters.
pub(in super::super) fn asking<'a>(asks_for: &'a AsksFor, scope: &'a str) -> Form<'a> {
    let params = asks_for.params.iter();
    let mut form: Form<'a> = params.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if !scope.is_empty() {
        form.insert("scope", scope);
    }
    if let Some(audience) = &asks_for.audience {
        form.insert("audience", audience);
    }
    form
}

/// How a client shows who it is: its secret, or a token that its key signed just now.
#[derive(Debug)]
pub(in super::super) enum Shown<'a> {
    Secret(&'a SecretValue),
    Assertion(String),
}

impl<'a> Shown<'a> {
    /// `secret` is what `auth` refers to.
    pub(in super::super) fn new(
        auth: &ClientAuth,
        secret: &'a SecretValue,
        client_id: &str,
        token_url: &url::Url,
    ) -> Result<Self, MintError> {
        match auth {
            ClientAuth::Secret(_) => Ok(Self::Secret(secret)),
            ClientAuth::Key(_) => {
                let key = JwtKey::read(secret)?;
                Ok(Self::Assertion(assertion(&key, client_id, token_url.as_str())?))
            }
        }
    }

    pub(in super::super) fn add_to<'f>(&'f self, form: &mut Form<'f>) {
        match self {
            Self::Secret(secret) => {
                form.insert("client_secret", secret.expose_str().unwrap_or_default());
            }
            Self::Assertion(assertion) => {
                form.insert("client_assertion_type", ASSERTION_TYPE);
                form.insert("client_assertion", assertion);
            }
        }
    }
}

/// A token in which `client_id` says of itself who it is (RFC 7523 section 3). It has an id of its
/// own, so that an issuer can refuse it the second time.
pub(in super::super) fn assertion(
    key: &JwtKey,
    client_id: &str,
    audience: &str,
) -> Result<String, KeyProblem> {
    let mut id = [0; 16];
    SystemRandom::new().fill(&mut id).map_err(|_unspecified| KeyProblem::CannotSign)?;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let now = clock::unix_seconds();
    key.sign(&json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "iat": now,
        "exp": now + ASSERTION_LIFE,
        "jti": id,
    }))
}
