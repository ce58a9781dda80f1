//! `/oauth/authorize`: a person is asked, and the client gets a code (RFC 6749 §4.1.1 and §4.1.2,
//! RFC 7636, RFC 9207).
//!
//! A browser is sent only where the client has registered: whatever is wrong with the client or the
//! address is told to the person, on a page.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use tokio::time::Instant;
use url::Url;

use super::{
    super::{control::State, resources::answer},
    clients::{Fields, form, level_for, may_be_answered_at},
    grants::Approved,
    no_randomness, pages, random,
};

/// How long a person may think.
const PENDING_LIFE: Duration = Duration::from_secs(600);
const MAX_PENDING: usize = 256;

/// A question to a person.
pub(in super::super) struct Pending {
    id: String,
    approved: Approved,
    back: Back,
    expires: Instant,
}

/// The way back to the client.
#[derive(Debug, Clone)]
struct Back {
    to: Url,
    state: Option<String>,
}

/// Why a person is not asked.
enum Problem {
    /// It is not safe to send the browser back.
    Here(&'static str),
    /// The client is told, with a code of RFC 6749 §4.1.2.1.
    Back(Box<Back>, &'static str),
}

impl State {
    /// The page that asks.
    pub(in super::super) fn authorize(&mut self, query: &str, issuer: &str) -> Response {
        let (approved, back) = match self.asked(query) {
            Ok(asked) => asked,
            Err(Problem::Here(text)) => return pages::problem(text),
            Err(Problem::Back(back, error)) => return back.with("error", error, issuer),
        };
        let Some(id) = random("") else { return no_randomness() };
        let page = pages::consent(&approved, &back.to, &id);
        let now = Instant::now();
        self.pending.retain(|pending| pending.expires > now);
        if self.pending.len() >= MAX_PENDING {
            self.pending.pop_front();
        }
        self.pending.push_back(Pending { id, approved, back, expires: now + PENDING_LIFE });
        page
    }

    /// What the person said to it.
    pub(in super::super) fn decide(&mut self, body: &[u8], issuer: &str) -> Response {
        let fields = form(body).unwrap_or_default();
        let (id, decision) = (fields.get("request"), fields.get("decision").map(String::as_str));
        let at = self.pending.iter().position(|pending| Some(&pending.id) == id);
        let pending = at.and_then(|at| self.pending.remove(at));
        let Some(pending) = pending.filter(|pending| pending.expires > Instant::now()) else {
            return pages::problem("This question was answered, or it is too old. Start again.");
        };
        match decision {
            Some("approve") => {
                let Some(code) = random("dp_ac_") else { return no_randomness() };
                self.grants.approve(pending.approved, code.clone(), Instant::now());
                pending.back.with("code", &code, issuer)
            }
            _ => pending.back.with("error", "access_denied", issuer),
        }
    }

    fn asked(&self, query: &str) -> Result<(Approved, Back), Problem> {
        let fields = form(query.as_bytes())
            .ok_or(Problem::Here("A parameter is there twice; each may be there once."))?;
        let field = |name: &str| fields.get(name).map(String::as_str);
        let client =
            self.settings.clients.iter().find(|client| Some(&*client.id) == field("client_id"));
        let client = client.ok_or(Problem::Here("There is no client with this client_id."))?;
        let wrong = "This redirect_uri is not one that the client has registered.";
        let asked = field("redirect_uri").ok_or(Problem::Here(wrong))?;
        let to = Url::parse(asked).ok().filter(|url| may_be_answered_at(client, asked, url));
        let to = to.ok_or(Problem::Here(wrong))?;
        let back = Back { to, state: fields.get("state").cloned() };
        let problem = |error| Problem::Back(Box::new(back.clone()), error);
        match field("response_type") {
            Some("code") => {}
            Some(_) => return Err(problem("unsupported_response_type")),
            None => return Err(problem("invalid_request")),
        }
        let challenge = challenge(&fields).ok_or_else(|| problem("invalid_request"))?;
        let level = level_for(field("scope"), client.level);
        let level = level.ok_or_else(|| problem("invalid_scope"))?;
        let (client, redirect_uri) = (client.id.clone(), asked.to_owned());
        let challenge = challenge.to_owned();
        Ok((Approved { client, level, redirect_uri, challenge }, back))
    }
}

/// RFC 7636 §4.2 and §4.3: required, and S256 alone.
fn challenge(fields: &Fields) -> Option<&str> {
    let is_s256 = fields.get("code_challenge_method").is_some_and(|method| method == "S256");
    let is_hash = |text: &&String| {
        text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    fields.get("code_challenge").filter(is_hash).filter(|_| is_s256).map(String::as_str)
}

impl Back {
    /// The browser goes back with an answer, and with who gives it.
    fn with(mut self, name: &str, value: &str, issuer: &str) -> Response {
        {
            let mut query = self.to.query_pairs_mut();
            query.append_pair(name, value);
            if let Some(state) = &self.state {
                query.append_pair("state", state);
            }
            query.append_pair("iss", issuer);
        }
        let mut response = answer(StatusCode::SEE_OTHER, "text/plain", Body::empty());
        let headers = response.headers_mut();
        // A `Url` is ASCII without controls.
        if let Ok(to) = HeaderValue::from_str(self.to.as_str()) {
            headers.insert(header::LOCATION, to);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
    }
}
