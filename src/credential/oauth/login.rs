//! A person is asked in a browser, and what comes back is believed only if it is the answer to that
//! (RFC 6749 section 4.1, RFC 7636, RFC 9207).
//!
//! Listens to nothing and opens nothing: that is the command line's. Neither the verifier nor a code
//! can be printed.

use std::collections::BTreeMap;

use url::Url;

use super::super::MintError;
use super::pkce::{NoRandomness, challenge, random};
use super::{Shown, TokenEndpoint, asking};
use crate::config::model::{Auth, RefreshToken};
use crate::secret::SecretValue;

/// The `error` codes of RFC 6749 section 4.1.2.1: no other text of an issuer is repeated.
const ERROR_CODES: [&str; 7] = [
    "access_denied",
    "invalid_request",
    "unauthorized_client",
    "unsupported_response_type",
    "invalid_scope",
    "server_error",
    "temporarily_unavailable",
];

/// One question to a person, and what its answer is known by.
pub struct Question {
    url: Url,
    redirect_uri: Url,
    state: String,
    verifier: SecretValue,
    issuer: url::Origin,
}

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("redirect_uri", &self.redirect_uri.as_str())
            .finish_non_exhaustive()
    }
}

/// What a browser came back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Returned {
    /// The person approved: this is to be exchanged, once.
    Code(SecretValue),
    /// The person or the issuer said no, with a code of RFC 6749 section 4.1.2.1 or another one.
    Refused(Option<&'static str>),
    /// Another authorization server answers (RFC 9207): nothing of it is used.
    OtherIssuer,
    /// Not the answer to this question, whoever sent it.
    NotOurs,
}

impl Question {
    /// What to ask for a grant. The answer comes to `redirect_uri`.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new(grant: &RefreshToken, auth: &Auth, redirect_uri: Url) -> Result<Self, NoRandomness> {
        let (state, verifier) = (random()?, SecretValue::new(random()?.into_bytes()));
        let mut url = auth.authorize_url.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("response_type", "code");
            query.append_pair("client_id", &grant.client_id);
            query.append_pair("redirect_uri", redirect_uri.as_str());
            if !grant.asks_for.scopes.is_empty() {
                query.append_pair("scope", &grant.asks_for.scopes.join(" "));
            }
            if let Some(audience) = &grant.asks_for.audience {
                query.append_pair("audience", audience);
            }
            query.append_pair("state", &state);
            query.append_pair("code_challenge", &challenge(&verifier));
            query.append_pair("code_challenge_method", "S256");
        }
        Ok(Self { url, redirect_uri, state, verifier, issuer: auth.authorize_url.origin() })
    }

    /// What the person opens.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// What the address means that a browser was sent to.
    #[must_use]
    pub fn returned(&self, address: &Url) -> Returned {
        let mut fields = BTreeMap::new();
        for (name, value) in address.query_pairs() {
            if fields.insert(name, value).is_some() {
                return Returned::NotOurs;
            }
        }
        let field = |name: &str| fields.get(name).map(|value| &**value);
        if field("state") != Some(&self.state) {
            return Returned::NotOurs;
        }
        // An issuer's name is a URL; where it asks is on the same host.
        let is_other = |iss| Url::parse(iss).map_or(true, |iss: Url| iss.origin() != self.issuer);
        if field("iss").is_some_and(is_other) {
            return Returned::OtherIssuer;
        }
        match (field("error"), field("code")) {
            (Some(error), _) => Returned::Refused(ERROR_CODES.into_iter().find(|e| *e == error)),
            (None, Some(code)) if !code.is_empty() => {
                Returned::Code(SecretValue::new(code.as_bytes().to_vec()))
            }
            // The question itself has the state, too.
            (None, _) => Returned::NotOurs,
        }
    }
}

/// Where codes are exchanged.
#[derive(Debug, Clone)]
pub struct AuthorizationServer {
    /// Its addresses.
    pub auth: Auth,
    /// [`crate::tls::http_client`]'s, with its roots.
    pub client: reqwest::Client,
}

impl AuthorizationServer {
    /// Exchanges the code that answers a question for a refresh token (RFC 6749 section 4.1.3), as the
    /// client that asked; `shown` is what it shows, where it has something. `None`: the issuer gave a
    /// token and no refresh token.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn exchange(
        &self,
        grant: &RefreshToken,
        shown: Option<&SecretValue>,
        question: &Question,
        code: &SecretValue,
    ) -> Result<Option<SecretValue>, MintError> {
        let endpoint = TokenEndpoint::new(self.client.clone(), &self.auth);
        let shown = grant.auth.as_ref().zip(shown);
        let shown = shown
            .map(|(auth, secret)| Shown::new(auth, secret, &grant.client_id, endpoint.url()))
            .transpose()?;
        // The scope was asked for with the code.
        let mut form = asking(&grant.asks_for, "");
        form.insert("grant_type", "authorization_code");
        form.insert("client_id", &grant.client_id);
        form.insert("code", code.expose_str().unwrap_or_default());
        form.insert("redirect_uri", question.redirect_uri.as_str());
        form.insert("code_verifier", question.verifier.expose_str().unwrap_or_default());
        if let Some(shown) = &shown {
            shown.add_to(&mut form);
        }
        Ok(endpoint.ask(&form).await?.next_secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{AsksFor, TokenRequest};

    fn question() -> Question {
        let auth = Auth {
            token_url: "https://auth.example/token".parse().unwrap(),
            authorize_url: "https://auth.example/authorize?tenant=a".parse().unwrap(),
            redirect_uri: None,
            refresh_path: "/r".to_owned(),
            verify_path: "/v".to_owned(),
            token_request: TokenRequest::Json,
            ca_file: None,
        };
        let grant = RefreshToken {
            client_id: "a&b".to_owned(),
            auth: None,
            token: "file:/t".parse().unwrap(),
            asks_for: AsksFor {
                scopes: vec!["a:read".to_owned(), "b:write".to_owned()],
                audience: Some("api".to_owned()),
                params: BTreeMap::new(),
            },
        };
        let back = "http://127.0.0.1:4000/callback".parse().unwrap();
        Question::new(&grant, &auth, back).unwrap()
    }

    #[test]
    fn a_question_says_who_asks_for_what_and_shows_no_verifier() {
        let question = question();
        let text = question.url().as_str();
        let state = &question.state;
        let want = format!(
            "https://auth.example/authorize?tenant=a&response_type=code&client_id=a%26b\
             &redirect_uri=http%3A%2F%2F127.0.0.1%3A4000%2Fcallback&scope=a%3Aread+b%3Awrite\
             &audience=api&state={state}&code_challenge={}&code_challenge_method=S256",
            challenge(&question.verifier)
        );
        assert_eq!(text, want);
        let verifier = question.verifier.expose_str().unwrap();
        assert!(!text.contains(verifier) && !format!("{question:?}").contains(verifier));
    }

    #[test]
    fn only_the_answer_to_this_question_is_one() {
        let question = question();
        let state = question.state.clone();
        let returned = |query: &str| {
            let query = query.replace("STATE", &state);
            question.returned(&format!("http://127.0.0.1:4000/callback?{query}").parse().unwrap())
        };
        let code = Returned::Code(SecretValue::new(b"c".to_vec()));
        let denied = Returned::Refused(Some("access_denied"));
        for (query, want) in [
            ("code=c&state=STATE", code.clone()),
            ("code=c&state=STATE&iss=https%3A%2F%2Fauth.example", code.clone()),
            ("code=c&state=STATE&iss=https%3A%2F%2Fauth.example%2Ftenant", code),
            ("code=c&state=STATE&iss=https%3A%2F%2Fother.example", Returned::OtherIssuer),
            ("code=c&state=STATE&iss=http%3A%2F%2Fauth.example", Returned::OtherIssuer),
            ("code=c&state=STATE&iss=auth.example", Returned::OtherIssuer),
            ("error=access_denied&state=STATE&iss=", Returned::OtherIssuer),
            ("error=access_denied&state=STATE", denied.clone()),
            ("error=access_denied&code=c&state=STATE", denied),
            ("error=%3Cb%3E&state=STATE", Returned::Refused(None)),
            ("code=&state=STATE", Returned::NotOurs),
            ("state=STATE", Returned::NotOurs),
            ("code=c", Returned::NotOurs),
            ("code=c&state=", Returned::NotOurs),
            ("code=c&state=STATEx", Returned::NotOurs),
            ("code=c&state=x&state=STATE", Returned::NotOurs),
            ("code=c&code=d&state=STATE", Returned::NotOurs),
            ("", Returned::NotOurs),
        ] {
            assert_eq!(returned(query), want, "{query}");
        }
    }
}
