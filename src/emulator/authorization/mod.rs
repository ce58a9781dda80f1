//! Who calls, and the endpoints that mint tokens: `/oauth/authorize`, `/oauth/token` and `/auth`.
//!
//! As strict as a good authorization server, so that a client that works here works there.

mod clients;
mod consent;
mod grants;
mod pages;
mod token;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::time::Instant;

pub(super) use self::{consent::Pending, grants::Grants};
use super::{
    control::State,
    faults::Effect,
    resources::{answer, json_answer},
};
use crate::config::model::Level;

const MAX_TOKENS: usize = 4096;

/// A minted token.
pub(super) struct Token {
    value: String,
    client: String,
    level: Level,
    /// The grant that it hangs on.
    family: Option<u64>,
    expires: Instant,
    generation: u64,
}

/// What a token is minted for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    client: String,
    level: Level,
    /// The grant that it hangs on: it ends with it.
    family: Option<u64>,
}

/// Who a request's credential stands for.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) level: Level,
    /// The grant that its token hangs on.
    family: Option<u64>,
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(value)
}

impl State {
    pub(super) fn identify(&self, headers: &HeaderMap, now: Instant) -> Option<Identity> {
        let value = bearer(headers)?;
        if let Some(key) = self.settings.keys.iter().find(|key| key.key == value) {
            let (name, level) = (key.name.clone(), key.level);
            return Some(Identity { label: name.clone(), name, level, family: None });
        }
        let token =
            self.tokens.iter().rev().find(|token| token.value == value && token.expires > now)?;
        let label = format!("{}/{}", token.client, token.generation);
        let (name, level, family) = (token.client.clone(), token.level, token.family);
        Some(Identity { name, label, level, family })
    }

    fn mint(&mut self, right: Right) -> Option<(String, Duration)> {
        let Right { client, level, family } = right;
        let value = random("dp_at_")?;
        let life = self.settings.token_life;
        self.counters.minted(&client);
        let generation = self.counters.minted.get(&client).copied().unwrap_or_default();
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.pop_front();
        }
        let expires = Instant::now() + life;
        let token = Token { value: value.clone(), client, level, family, expires, generation };
        self.tokens.push_back(token);
        Some((value, life))
    }

    /// Ends all tokens, or those of one client; how many.
    pub(super) fn revoke(&mut self, client: Option<&str>) -> usize {
        let before = self.tokens.len();
        self.tokens.retain(|token| client.is_some_and(|client| client != token.client));
        before - self.tokens.len()
    }

    /// Ends the tokens that hang on a grant which is no more.
    pub(super) fn end_family(&mut self, family: u64, client: &str) {
        self.counters.family_revoked(client);
        self.tokens.retain(|token| token.family != Some(family));
    }

    /// The answer of RFC 6749 §5.1. `refresh_token`: one that is new to the client.
    fn minted(
        &mut self,
        right: Right,
        refresh_token: Option<&str>,
        effect: Option<Effect>,
    ) -> Response {
        let (level, is_granted) = (right.level, right.family.is_some());
        let Some((token, life)) = self.mint(right) else { return no_randomness() };
        let mut body =
            json!({"access_token": token, "token_type": "Bearer", "expires_in": life.as_secs()});
        if let Some(fields) = body.as_object_mut() {
            if is_granted {
                fields.insert("scope".into(), json!(clients::scopes(level)));
            }
            if let Some(token) = refresh_token {
                fields.insert("refresh_token".into(), json!(token));
            }
            match effect {
                Some(Effect::NoToken) => drop(fields.remove("access_token")),
                Some(Effect::NotBearer) => drop(fields.insert("token_type".into(), json!("mac"))),
                Some(Effect::ExpiresIn(Value::Null)) => drop(fields.remove("expires_in")),
                Some(Effect::ExpiresIn(value)) => drop(fields.insert("expires_in".into(), value)),
                Some(Effect::LineBreakInToken) => {
                    drop(fields.insert("access_token".into(), json!("dp_at_a\r\nx: y")));
                }
                _ => {}
            }
        }
        let mut response = json_answer(StatusCode::OK, &body);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    pub(super) fn refresh(&mut self, headers: &HeaderMap, effect: Option<Effect>) -> Response {
        match self.identify(headers, Instant::now()) {
            Some(who) => {
                let right = Right { client: who.name, level: who.level, family: who.family };
                self.minted(right, None, effect)
            }
            None => invalid_token(),
        }
    }
}

/// 192 random bits after a prefix; `None`: the system gives no randomness.
fn random(prefix: &str) -> Option<String> {
    let mut random = [0; 24];
    let source = ring::rand::SystemRandom::new();
    ring::rand::SecureRandom::fill(&source, &mut random).ok()?;
    Some(format!("{prefix}{}", base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(random)))
}

fn no_randomness() -> Response {
    json_answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "server_error"}))
}

fn refused(error: &str) -> Response {
    let client = error == "invalid_client";
    let status = if client { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    let mut response = json_answer(status, &json!({"error": error}));
    if client {
        let value = HeaderValue::from_static("Basic realm=\"emulator\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

pub(super) fn invalid_token() -> Response {
    let mut response = json_answer(StatusCode::UNAUTHORIZED, &json!({"error": "invalid_token"}));
    let value = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    response
}

/// The effects that replace a whole answer.
pub(super) fn page(effect: &Effect) -> Option<Response> {
    let (status, kind, body): (_, _, Body) = match effect {
        Effect::Html => (StatusCode::OK, "text/html", "<html>Sign in</html>".into()),
        Effect::Huge => {
            let body = json!({"access_token": "x".repeat(5_000_000), "expires_in": 60});
            (StatusCode::OK, "application/json", Value::to_string(&body).into())
        }
        Effect::Redirect(to) => {
            let mut response = answer(StatusCode::FOUND, "text/plain", Body::empty());
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).ok()?);
            return Some(response);
        }
        _ => return None,
    };
    Some(answer(status, kind, body))
}
