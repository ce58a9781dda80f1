//! The handle that tests steer the emulator with, in process or under `/_emulator/`.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use axum::{
    http::{Method, StatusCode},
    response::Response,
};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::{
    Client, ClientKey, Key, Limit, Settings, TOKEN_LIFE,
    authorization::{Grants, Pending, Token},
    counters::Counters,
    faults::Fault,
    limiter::{Kind, Limiter, Rate},
    limits::RateHeaders,
    resources::json_answer,
};

const MAX_FAULTS: usize = 64;

pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) tokens: VecDeque<Token>,
    /// Ids of assertions that were taken.
    pub(super) assertions: VecDeque<String>,
    /// Questions to people that are open.
    pub(super) pending: VecDeque<Pending>,
    pub(super) grants: Grants,
    pub(super) faults: Vec<Fault>,
    pub(super) limiters: HashMap<String, Limiter>,
    pub(super) counters: Counters,
}

/// A request that was not answered yet; it stops counting when it is dropped.
pub(super) struct InFlight<'a>(&'a Control);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.count(|counters| counters.in_flight -= 1);
    }
}

/// Steers a running emulator. Locks are never held across a wait.
pub struct Control {
    pub(super) state: Mutex<State>,
    /// Goes up with each count, for those who wait for one.
    counted: watch::Sender<u64>,
    /// Goes up whenever faults are forgotten, for the answers that one of them holds back.
    pub(super) healed: watch::Sender<u64>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    token_life_seconds: Option<u64>,
    limiter: Option<Kind>,
    limit: Option<String>,
    retry_after_date: Option<bool>,
    /// One of [`RateHeaders`], or `none`.
    rate_headers: Option<String>,
    rotate_refresh_tokens: Option<bool>,
}

/// A grant that is asked for without a browser.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    client: String,
    scope: Option<String>,
}

impl Control {
    pub(super) fn new(settings: Settings) -> Self {
        let state = State {
            settings,
            tokens: VecDeque::new(),
            assertions: VecDeque::new(),
            pending: VecDeque::new(),
            grants: Grants::default(),
            faults: Vec::new(),
            limiters: HashMap::new(),
            counters: Counters::default(),
        };
        Self {
            state: Mutex::new(state),
            counted: watch::Sender::new(0),
            healed: watch::Sender::new(0),
        }
    }

    /// Returns once the counters satisfy `wanted`.
    pub async fn until(&self, wanted: impl Fn(&Counters) -> bool) {
        let mut counted = self.counted.subscribe();
        // The sender lives as long as `self`.
        drop(counted.wait_for(|_| wanted(&self.state.lock().counters)).await);
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.state.lock().counters);
        self.counted.send_modify(|count| *count += 1);
    }

    pub(super) fn enter(&self) -> InFlight<'_> {
        self.count(|counters| counters.in_flight += 1);
        InFlight(self)
    }

    /// Gives the API key of this name another value; false when there is none of the name.
    pub fn set_key(&self, name: &str, key: &str) -> bool {
        let keys = &mut self.state.lock().settings.keys;
        let found = keys.iter_mut().find(|known| known.name == name);
        found.map(|known| key.clone_into(&mut known.key)).is_some()
    }

    /// Takes one more API key.
    pub fn add_key(&self, key: Key) {
        self.state.lock().settings.keys.push(key);
    }

    /// Knows one more OAuth client.
    pub fn add_client(&self, client: Client) {
        self.state.lock().settings.clients.push(client);
    }

    /// Takes what this key signs for its client.
    pub fn trust_key(&self, key: ClientKey) {
        self.state.lock().settings.client_keys.push(key);
    }

    /// Rejects the API keys of this name from now on.
    pub fn remove_key(&self, name: &str) {
        self.state.lock().settings.keys.retain(|key| key.name != name);
    }

    /// Forgets faults, also those that hold an answer back by now; counts, limiters, tokens and
    /// settings stay.
    pub fn heal(&self) {
        self.forget_faults(&mut self.state.lock());
    }

    fn forget_faults(&self, state: &mut State) {
        state.faults.clear();
        self.healed.send_modify(|times| *times += 1);
    }

    /// Everything counted so far.
    pub fn counters(&self) -> Counters {
        self.state.lock().counters.clone()
    }

    /// Tokens minted so far, for all clients.
    pub fn mints(&self) -> u64 {
        self.state.lock().counters.minted.values().sum()
    }

    /// Adds a fault after those that wait already; false when 64 do.
    pub fn fault(&self, fault: Fault) -> bool {
        let faults = &mut self.state.lock().faults;
        let room = faults.len() < MAX_FAULTS;
        if room {
            faults.push(fault);
        }
        room
    }

    /// Ends all tokens, or those of one client; how many that were.
    pub fn revoke(&self, client: Option<&str>) -> usize {
        self.state.lock().revoke(client)
    }

    /// A grant as if a person had approved it: its first refresh token. `None`: no such client, or a
    /// scope that it may not have.
    pub fn grant(&self, client: &str, scope: Option<&str>) -> Option<String> {
        let token = self.state.lock().grant(client, scope);
        self.count(|_| ());
        token
    }

    /// Ends all grants, or those of one client, with every token that hangs on them; how many.
    pub fn revoke_grants(&self, client: Option<&str>) -> usize {
        let ended = self.state.lock().revoke_grants(client);
        self.count(|_| ());
        ended
    }

    /// Whether a refresh token is good once only, from now on.
    pub fn set_rotation(&self, rotates: bool) {
        self.state.lock().settings.rotate_refresh_tokens = rotates;
    }

    /// How answers tell what is left of the limit from now on; `None`: not.
    pub fn set_rate_headers(&self, style: Option<RateHeaders>) {
        self.state.lock().settings.rate_headers = style;
    }

    /// The life of tokens minted from now on, cut to a second up to 24 hours.
    pub fn set_token_life(&self, life: Duration) {
        let life = life.clamp(*TOKEN_LIFE.start(), *TOKEN_LIFE.end());
        self.state.lock().settings.token_life = life;
    }

    /// The limit of each key, from now and from zero; `None` is no limit.
    pub fn set_limit(&self, limit: Option<Limit>) {
        let state = &mut *self.state.lock();
        state.settings.limit = limit;
        state.limiters.clear();
    }

    /// Forgets faults, counts and limiters; tokens and settings stay.
    pub fn reset(&self) {
        let state = &mut *self.state.lock();
        self.forget_faults(state);
        state.limiters.clear();
        state.counters = Counters::default();
    }

    pub(super) fn http(&self, method: &Method, what: &str, body: &[u8]) -> Response {
        let done = match (method.as_str(), what) {
            ("GET", "counters") => return json_answer(StatusCode::OK, &json!(self.counters())),
            ("POST" | "PUT", "faults") => {
                serde_json::from_slice(body).is_ok_and(|fault| self.fault(fault))
            }
            ("POST" | "PUT", "settings") => self.change(body),
            ("POST", "revoke" | "revoke-grants") => {
                let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                let client = body.get("client").and_then(|client| client.as_str());
                let revoked =
                    if what == "revoke" { self.revoke(client) } else { self.revoke_grants(client) };
                return json_answer(StatusCode::OK, &json!({"revoked": revoked}));
            }
            ("POST", "grants") => {
                let asked = serde_json::from_slice::<Grant>(body).ok();
                match asked.and_then(|asked| self.grant(&asked.client, asked.scope.as_deref())) {
                    Some(token) => {
                        return json_answer(StatusCode::OK, &json!({"refresh_token": token}));
                    }
                    None => false,
                }
            }
            ("POST", "reset") => {
                self.reset();
                true
            }
            _ => return json_answer(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
        };
        let status = if done { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        json_answer(status, &json!({"done": done}))
    }

    fn change(&self, body: &[u8]) -> bool {
        let Ok(change) = serde_json::from_slice::<Change>(body) else { return false };
        let style = match change.rate_headers.as_deref() {
            None => None,
            Some("none") => Some(None),
            Some(text) => match RateHeaders::parse(text) {
                None => return false,
                style => Some(style),
            },
        };
        if let Some(text) = &change.limit {
            let kind = change.limiter.unwrap_or(Kind::FixedWindow);
            match Rate::parse(text) {
                Some(rate) => self.set_limit(Some(Limit { kind, rate })),
                None if text == "off" => self.set_limit(None),
                None => return false,
            }
        }
        if let Some(seconds) = change.token_life_seconds {
            self.set_token_life(Duration::from_secs(seconds));
        }
        if let Some(rotates) = change.rotate_refresh_tokens {
            self.set_rotation(rotates);
        }
        if let Some(date) = change.retry_after_date {
            self.state.lock().settings.retry_after_date = date;
        }
        if let Some(style) = style {
            self.set_rate_headers(style);
        }
        true
    }
}
