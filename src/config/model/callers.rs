//! Who calls, where, and what the policy says of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Level;
use crate::config::path_pattern::PathPattern;

/// One address where apps call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// As written in the file: `localhost:8080`.
    pub name: Arc<str>,
    /// What to bind: loopback addresses only, so far. `localhost` gives 127.0.0.1 and, where the
    /// machine has it, `::1`.
    pub addresses: Vec<SocketAddr>,
    /// The index in `Config::tenants` of the tenant that calls here.
    pub tenant: usize,
    /// Lower-case `Host` names beside localhost, 127.0.0.1 and `[::1]`.
    pub allowed_hosts: Vec<String>,
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
