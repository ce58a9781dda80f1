//! Which OAuth client asks, and for how much: RFC 6749 §2.3 and §3.3, RFC 7523 §2.2, RFC 8252 §7.3.

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use url::{Host, Url};

use super::super::{Client, assertions, control::State};
use crate::{clock, config::model::Level};

const CLIENT_ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The parameters of a request; none of them is empty.
pub(super) type Fields = BTreeMap<String, String>;

impl State {
    /// The client that shows who it is: by its secret, in either place, by an assertion, or, where it
    /// is a public one, by its name alone.
    pub(super) fn client(&mut self, headers: &HeaderMap, fields: &Fields) -> Option<Client> {
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
        let client = self.settings.clients.iter().find(|client| Some(&*client.id) == id)?;
        let shows = client.secret.as_deref() == secret;
        (shows && (secret.is_some() || self.is_public(client))).then(|| client.clone())
    }

    /// Whether a client has nothing to show but its name (RFC 6749 §2.1).
    pub(super) fn is_public(&self, client: &Client) -> bool {
        let has_key = self.settings.client_keys.iter().any(|key| key.client == client.id);
        client.secret.is_none() && !has_key
    }

    pub(super) fn signer(&mut self, assertion: &str) -> Option<Client> {
        let (keys, seen) = (&self.settings.client_keys, &mut self.assertions);
        let id = assertions::signer(assertion, keys, seen, clock::unix_seconds())?;
        self.settings.clients.iter().find(|client| client.id == id).cloned()
    }
}

/// Whether a client may be answered there: at an address it has registered, or, for one on loopback,
/// at any port of it. Anything else would be an open redirect.
pub(super) fn may_be_answered_at(client: &Client, asked: &str, url: &Url) -> bool {
    let bare = |url: &Url| {
        let mut url = url.clone();
        url.set_port(None).is_ok().then_some(url)
    };
    let is_loopback = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    client.redirect_uris.iter().any(|known| {
        let same_but_for_the_port = || {
            Url::parse(known).is_ok_and(|known| bare(&known).is_some_and(|k| bare(url) == Some(k)))
        };
        known == asked || (is_loopback && url.scheme() == "http" && same_but_for_the_port())
    })
}

/// The level that a client gets for what it asks; `None`: a scope is unknown, or too much.
pub(super) fn level_for(scope: Option<&str>, most: Level) -> Option<Level> {
    match scope {
        None => Some(most),
        Some(scope) => asked_level(scope).filter(|asked| *asked <= most),
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

/// The scopes that a level includes.
pub(super) const fn scopes(level: Level) -> &'static str {
    match level {
        Level::ReadOnly => "analytics:read",
        Level::ReadWrite => "analytics:read pipelines:write",
        Level::Admin => "analytics:read pipelines:write users:admin",
    }
}

/// The parameters of a token request, as JSON or as a form.
pub(super) fn fields(headers: &HeaderMap, body: &[u8]) -> Option<Fields> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    if kind.starts_with("application/json") {
        let mut fields: Fields = serde_json::from_slice(body).ok()?;
        fields.retain(|_, value| !value.is_empty());
        return Some(fields);
    }
    kind.starts_with("application/x-www-form-urlencoded").then(|| form(body))?
}

/// The parameters of a form or a query, without those that are empty; `None`: one is there twice
/// (RFC 6749 §3.1).
pub(super) fn form(text: &[u8]) -> Option<Fields> {
    let mut fields = Fields::new();
    for (name, value) in url::form_urlencoded::parse(text).into_owned() {
        if !value.is_empty() && fields.insert(name, value).is_some() {
            return None;
        }
    }
    Some(fields)
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
