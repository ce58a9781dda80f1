//! The configuration as it is meant: every value here is usable, because only `config::parse` makes
//! them. Later parts take these specs as constructor arguments.
//!
//! Nothing here can be wrong, and nothing here reads a file: that is `raw/` and `parse/`.

mod callers;
mod upstream;
mod credential;
mod process;
mod stores;
mod shaping;
mod webhooks;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

pub use callers::{
    Action, CallerHeader, Choice, ForwardedFor, FrontDoor, KnownBy, Listener, ListenerTls, Methods,
    Rule, Socket, Tenant,
};
pub use credential::{
    AsksFor, ClientAuth, ClientCredentials, Credential, CredentialKind, Level, RefreshToken,
    ServiceAccount,
};
pub use process::{AuditSink, Drain, Log, LogFormat, LogLevel};
pub use shaping::{ColdStart, Quota, Rate, Shaping, StateFile};
pub use stores::{AwsStore, Stores, VaultAuth, VaultStore};
pub use upstream::{Auth, ClientCert, Http2, Origin, TokenRequest, Upstream};
pub use webhooks::{Dedupe, Endpoint, Webhooks};

use crate::secret::SecretRef;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Where apps call; at least one.
    pub listeners: Vec<Listener>,
    /// What the front door lets pass.
    pub front_door: FrontDoor,
    /// DataPulse's API.
    pub upstream: Upstream,
    /// DataPulse's authorization server.
    pub auth: Auth,
    /// Where secrets are kept.
    pub stores: Stores,
    /// At least one; names are unique.
    pub credentials: Vec<Credential>,
    /// By name. Credentials name them.
    pub quotas: BTreeMap<String, Quota>,
    /// How calls wait for them.
    pub shaping: Shaping,
    /// At least one; names are unique.
    pub tenants: Vec<Tenant>,
    /// First match wins; the default policy is at the end, so that every path matches a rule.
    pub policy: Vec<Rule>,
    /// `None`: no deliveries are taken.
    pub webhooks: Option<Webhooks>,
    /// Where the kubelet and Prometheus look.
    pub health_listen: SocketAddr,
    /// Where operators look; loopback only.
    pub admin_listen: SocketAddr,
    /// What operators send to change something; without it nobody can.
    pub admin_token: Option<SecretRef>,
    /// What is written where.
    pub log: Log,
    /// How long `/startupz` waits for the `required` credentials.
    pub startup_timeout: Duration,
    /// What happens between SIGTERM and the end.
    pub drain: Drain,
}

impl Config {
    /// The longest that any call may take until the head of its answer.
    #[must_use]
    pub fn answer_time(&self) -> Duration {
        let rules = self.policy.iter().filter_map(|rule| rule.request_timeout);
        rules.fold(self.upstream.request_timeout, Duration::max)
    }
}
