//! What arrived, for tests to ask. Names of credentials only, never their values.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use tokio::time::Instant;

const MAX_RECORDS: usize = 256;
const MAX_KEYS: usize = 256;

/// One request as it arrived.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Record {
    /// The method.
    pub method: String,
    /// The path without its query, which might carry a secret.
    pub path: String,
    /// Header names in order.
    pub headers: Vec<String>,
    /// How many `Authorization` headers; exactly one is right.
    pub authorizations: usize,
    /// The credential's name, and its generation for a token.
    pub credential: Option<String>,
}

/// Everything counted since the start or the last reset.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counters {
    /// All requests but the control surface's.
    pub requests: u64,
    /// Requests that are not answered yet.
    pub in_flight: u64,
    /// Bytes of uploads so far, those that are under way included.
    pub uploaded_bytes: u64,
    /// API requests, whatever their answer.
    pub api_requests: u64,
    /// API requests without `Authorization`.
    pub anonymous: u64,
    /// API requests with more than one `Authorization`.
    pub several_authorizations: u64,
    /// By the path's first two segments.
    pub by_path: BTreeMap<String, u64>,
    /// By status sent.
    pub by_status: BTreeMap<u16, u64>,
    /// Tokens minted by client.
    pub minted: BTreeMap<String, u64>,
    /// Grants by client: codes that were exchanged, and those made without a browser.
    pub grants: BTreeMap<String, u64>,
    /// Refresh tokens that were taken, by client.
    pub refreshes: BTreeMap<String, u64>,
    /// Codes and refresh tokens that came once more after their use, by client.
    pub reuses: BTreeMap<String, u64>,
    /// Grants that ended with all their tokens, by client: of a reuse, or on demand.
    pub families_revoked: BTreeMap<String, u64>,
    /// API requests by credential and generation: each key is a distinct token seen.
    pub by_credential: BTreeMap<String, u64>,
    /// When the last of them came: for tests in the same process.
    #[serde(skip)]
    pub last_used: BTreeMap<String, Instant>,
    /// The last 256 requests.
    pub records: VecDeque<Record>,
}

impl Counters {
    pub(super) fn arrived(&mut self, record: Record, api: bool) {
        self.requests += 1;
        let class: Vec<_> = record.path.splitn(4, '/').take(3).collect();
        add(&mut self.by_path, class.join("/"));
        if api {
            self.api_requests += 1;
            self.anonymous += u64::from(record.authorizations == 0);
            self.several_authorizations += u64::from(record.authorizations > 1);
            if let Some(name) = &record.credential {
                add(&mut self.by_credential, name.clone());
                if self.by_credential.contains_key(name) {
                    self.last_used.insert(name.clone(), Instant::now());
                }
            }
        }
        if self.records.len() >= MAX_RECORDS {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    pub(super) fn answered(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }

    pub(super) fn minted(&mut self, client: &str) {
        add(&mut self.minted, client.to_owned());
    }

    pub(super) fn granted(&mut self, client: &str) {
        add(&mut self.grants, client.to_owned());
    }

    pub(super) fn refreshed(&mut self, client: &str) {
        add(&mut self.refreshes, client.to_owned());
    }

    pub(super) fn reused(&mut self, client: &str) {
        add(&mut self.reuses, client.to_owned());
    }

    pub(super) fn family_revoked(&mut self, client: &str) {
        add(&mut self.families_revoked, client.to_owned());
    }
}

/// Counts under `key`, or under `other` once there are too many keys.
fn add(map: &mut BTreeMap<String, u64>, key: String) {
    let full = map.len() >= MAX_KEYS && !map.contains_key(&key);
    *map.entry(if full { "other".to_owned() } else { key }).or_default() += 1;
}
