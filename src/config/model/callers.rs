//! Who calls, where, and what the policy says of it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Level, Rate};
use crate::config::path_pattern::PathPattern;
use crate::secret::SecretRef;

/// One address where apps call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// As written in the file: `localhost:8080`.
    pub name: Arc<str>,
    /// What to bind.
    pub socket: Socket,
    /// The index in `Config::tenants` of the tenant that calls here, but
    /// for callers that are known as another one's. `None`: each caller has to be known.
    pub tenant: Option<usize>,
    /// Callers have to send this secret, or one that a tenant's callers are known by.
    pub caller_token: Option<SecretRef>,
    /// Who may call on a unix socket, beside a tenant's uids. `None`: whoever can open it.
    pub allowed_uids: Option<Vec<u32>>,
    /// Callers speak TLS with this certificate; `None`: plain HTTP, on loopback and unix sockets.
    pub tls: Option<ListenerTls>,
    /// Lower-case `Host` names beside localhost, 127.0.0.1 and `[::1]`.
    pub allowed_hosts: Vec<String>,
}

/// A listener's certificate, read at the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// PEM: the chain, ours first.
    pub cert_file: PathBuf,
    /// PEM: its key.
    pub key_file: PathBuf,
}

/// What a listener binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Socket {
    /// Loopback addresses, and others where callers are known and speak TLS. `localhost` gives 127.0.0.1 and, where the machine has it,
    /// `::1`.
    Tcp(Vec<SocketAddr>),
    /// A file that only this machine can open.
    Unix {
        /// Absolute, at most 103 bytes.
        path: PathBuf,
        /// Who may open it: permission bits, such as 0o660.
        mode: u32,
    },
}

/// What may be loosened or tightened about requests. Ambiguity is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrontDoor {
    /// A request with `Origin` or a cross-site `Sec-Fetch-Site`.
    pub browser_origin: Choice,
    /// `X-Forwarded-*` on the way in: stripped, or refused.
    pub forwarded_for: ForwardedFor,
    /// A GET or HEAD with a body.
    pub body_on_get: Choice,
    /// For a whole request head, from its first byte.
    pub header_timeout: Duration,
    /// Callers' connections at once, all listeners together.
    pub max_connections: usize,
}

/// Whether something that is not ambiguous, but unusual, passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// Answered with an error; nothing leaves.
    Refuse,
    /// Passed on.
    Allow,
}

/// What happens to `X-Forwarded-*` headers of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ForwardedFor {
    /// The headers are dropped.
    Strip,
    /// The request is answered with 400: somebody proxies into the sidecar.
    Refuse,
}

/// Whose credentials a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Unique; a metric label.
    pub name: Arc<str>,
    /// Indices in `Config::credentials`, least privileged first; at least one.
    pub credentials: Vec<usize>,
    /// How its callers are known, beside by the listener where they call. No two tenants have the
    /// same.
    pub callers: Vec<KnownBy>,
    /// Its turns in a quota's queue against those of others, from 1 to 1,000.
    pub weight: u32,
    /// Its own bound inside each quota.
    pub limit: Option<Rate>,
}

/// How a caller is known, wherever it calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KnownBy {
    /// It sends this secret.
    Token(SecretRef),
    /// It runs as this user, on a unix socket.
    Uid(u32),
    /// It sends this header, behind a listener's `caller_token`.
    Header(CallerHeader),
}

/// A header that tells tenants apart, for callers that one listener's token vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerHeader {
    /// Lower-case; one name for the whole configuration, with no meaning of its own.
    pub name: Arc<str>,
    /// Compared byte for byte; visible ASCII without a comma.
    pub value: Box<str>,
}

/// One line of the policy: which level a call needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// How audit lines call it: `policy[0]`, or `default:users`.
    pub name: Arc<str>,
    /// Which methods it is about.
    pub methods: Methods,
    /// Which paths it is about.
    pub path: PathPattern,
    /// What it says.
    pub action: Action,
    /// In place of `Upstream::request_timeout`.
    pub request_timeout: Option<Duration>,
    /// Whether a call may be sent again after a 401.
    pub replay: bool,
}

/// The methods that a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// `ANY`.
    Any,
    /// Upper-case method names; at least one.
    These(Vec<String>),
}

/// What a rule says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The call needs a credential of at least this level.
    Require(Level),
    /// The call is refused.
    Deny,
}
