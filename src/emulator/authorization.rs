//! Who calls, and the endpoints that mint tokens: `/oauth/token` (RFC 6749 §4.4, §5.2,
//! RFC 7523) and `/auth`.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use base64::Engine as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Client, assertions,
    control::State,
    faults::Effect,
    resources::{answer, json_answer},
};
use crate::{clock, config::model::Level};

const MAX_TOKENS: usize = 4096;
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A minted token.
pub(super) struct Token {
    value: String,
    client: String,
    level: Level,
    expires: Instant,
    generation: u64,
}

/// Who a request's credential stands for.
#[derive(Clone)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) level: Level,
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
            return Some(Identity { label: name.clone(), name, level });
        }
        let token =
            self.tokens.iter().rev().find(|token| token.value == value && token.expires > now)?;
        let label = format!("{}/{}", token.client, token.generation);
        Some(Identity { name: token.client.clone(), label, level: token.level })
    }

    fn mint(&mut self, client: &str, level: Level) -> Option<(String, Duration)> {
        let mut random = [0; 24];
        let source = ring::rand::SystemRandom::new();
        // Without randomness there is no token: the caller answers 500.
        ring::rand::SecureRandom::fill(&source, &mut random).ok()?;
        let random = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random);
        let value = format!("dp_at_{random}");
        let life = self.settings.token_life;
        let client = client.to_owned();
        self.counters.minted(&client);
        let generation = self.counters.minted.get(&client).copied().unwrap_or_default();
        if self.tokens.len() >= MAX_TOKENS {
            self.tokens.pop_front();
        }
        let expires = Instant::now() + life;
        self.tokens.push_back(Token { value: value.clone(), client, level, expires, generation });
        Some((value, life))
    }

    /// Ends all tokens, or those of one client; how many.
    pub(super) fn revoke(&mut self, client: Option<&str>) -> usize {
        let before = self.tokens.len();
        self.tokens.retain(|token| client.is_some_and(|client| client != token.client));
        before - self.tokens.len()
    }

    fn minted(&mut self, client: &str, level: Level, effect: Option<Effect>) -> Response {
        let Some((token, life)) = self.mint(client, level) else {
            return json_answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({"error": "server_error"}),
            );
        };
        let mut body =
            json!({"access_token": token, "token_type": "Bearer", "expires_in": life.as_secs()});
        if let Some(fields) = body.as_object_mut() {
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
            Some(who) => self.minted(&who.name, who.level, effect),
            None => invalid_token(),
        }
    }

    pub(super) fn token(
        &mut self,
        headers: &HeaderMap,
        body: &[u8],
        effect: Option<Effect>,
    ) -> Response {
        let Some(fields) = fields(headers, body) else { return refused("invalid_request") };
        let field = |name: &str| fields.get(name).map(String::as_str);
        let client = match field("grant_type") {
            Some("client_credentials") => self.client(headers, &fields).ok_or("invalid_client"),
            Some(JWT_BEARER) => {
                field("assertion").and_then(|it| self.signer(it)).ok_or("invalid_grant")
            }
            None => Err("invalid_request"),
            Some(_) => Err("unsupported_grant_type"),
        };
        let (id, mut level) = match client {
            Ok(client) => (client.id, client.level),
            Err(error) => return refused(error),
        };
        if let Some(scope) = field("scope") {
            match asked_level(scope) {
                Some(asked) if asked <= level => level = asked,
                _ => return refused("invalid_scope"),
            }
        }
        self.minted(&id, level, effect)
    }

    /// The client that shows who it is: by its secret, in either place, or by an assertion.
    fn client(&mut self, headers: &HeaderMap, fields: &BTreeMap<String, String>) -> Option<Client> {
        let field = |name: &str| fields.get(name).map(String::as_str);
        if let Some(assertion) = field("client_assertion") {
            let is_jwt = field("client_assertion_type") == Some(CLIENT_ASSERTION);
            let signer = self.signer(assertion).filter(|_| is_jwt)?;
            return Some(signer)
                .filter(|client| field("client_id").is_none_or(|id| id == client.id));
        }
        let basic = basic(headers);
        let (id, secret) = match &basic {
            Some((id, secret)) => (Some(id.as_str()), Some(secret.as_str())),
            None => (field("client_id"), field("client_secret")),
        };
        let client = self.settings.clients.iter().find(|client| Some(&*client.id) == id);
        client.filter(|client| Some(&*client.secret) == secret).cloned()
    }

    fn signer(&mut self, assertion: &str) -> Option<Client> {
        let (keys, seen) = (&self.settings.client_keys, &mut self.assertions);
        let id = assertions::signer(assertion, keys, seen, clock::unix_seconds())?;
        self.settings.clients.iter().find(|client| client.id == id).cloned()
    }
}

/// The least level that includes every scope; `None` when one is unknown.
fn asked_level(scope: &str) -> Option<Level> {
    let levels = scope.split_ascii_whitespace().map(|scope| match scope {
        "analytics:read" => Some(Level::ReadOnly),
        "pipelines:write" => Some(Level::ReadWrite),
        "users:admin" => Some(Level::Admin),
        _ => None,
    });
    levels.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn fields(headers: &HeaderMap, body: &[u8]) -> Option<BTreeMap<String, String>> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if kind.starts_with("application/json") {
        return serde_json::from_slice(body).ok();
    }
    kind.starts_with("application/x-www-form-urlencoded")
        .then(|| url::form_urlencoded::parse(body).into_owned().collect())
}

/// RFC 6749 §2.3.1: both halves are form-encoded before they are joined.
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let text = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let (id, secret) = std::str::from_utf8(&text).ok()?.split_once(':')?;
    let decode = |text: &str| {
        let mut pairs = url::form_urlencoded::parse(text.as_bytes());
        pairs.next().map_or_else(String::new, |(name, _)| name.into_owned())
    };
    Some((decode(id), decode(secret)))
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
