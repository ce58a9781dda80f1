//! The configuration as it is meant: every value here is usable, because only `config::parse` makes
//! them. Later parts take these specs as constructor arguments.
//!
//! Nothing here can be wrong, and nothing here reads a file: that is `raw.rs` and `parse/`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::path_pattern::PathPattern;
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
    /// At least one; names are unique.
    pub credentials: Vec<Credential>,
    /// By name. Credentials name them.
    pub quotas: BTreeMap<String, Quota>,
    /// At least one; names are unique.
    pub tenants: Vec<Tenant>,
    /// First match wins; the default policy is at the end, so that every path matches a rule.
    pub policy: Vec<Rule>,
    /// Where the kubelet and Prometheus look.
    pub health_listen: SocketAddr,
    /// Where operators look; loopback only.
    pub admin_listen: SocketAddr,
    /// What is written where.
    pub log: Log,
    /// How long `/startupz` waits for the `required` credentials.
    pub startup_timeout: Duration,
    /// What happens between SIGTERM and the end.
    pub drain: Drain,
}

/// One address where apps call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// As written in the file: `localhost:8080`.
    pub name: Arc<str>,
    /// What to bind: loopback addresses only, so far. `localhost` gives 127.0.0.1 and, where the
    /// machine has it, `::1`.
    pub addresses: Vec<SocketAddr>,
    /// The index in [`Config::tenants`] of the tenant that calls here.
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

/// DataPulse's API: the one place that calls are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Scheme, host and port.
    pub origin: Origin,
    /// PEM certificates that replace the system's roots.
    pub ca_file: Option<PathBuf>,
    /// For TCP and TLS together, one attempt.
    pub connect_timeout: Duration,
    /// Until the head of the response, waiting included.
    pub request_timeout: Duration,
    /// Between two pieces of a body, either way.
    pub idle_timeout: Duration,
    /// Bodies with a `Content-Length` up to this many bytes are kept to be sent again.
    pub replay_body_bytes_max: usize,
    /// Which protocol is spoken upstream.
    pub http2: Http2,
}

/// Scheme, host and port of a server, from the configuration and from nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether TLS is spoken. Plain text only under `allow_plaintext`.
    pub tls: bool,
    /// Lower-case host name or IP address literal (IPv6 without brackets): SNI and peer.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl Origin {
    /// `host[:port]` as the `Host` header has it: the port only where it is not the scheme's own.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// `scheme://authority`, without a trailing slash.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Which HTTP version is spoken to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    /// HTTP/2 where the server offers it (ALPN), else HTTP/1.1.
    Auto,
    /// HTTP/1.1.
    Never,
    /// HTTP/2 or an error.
    Only,
}

/// DataPulse's authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Where tokens are asked for.
    pub token_url: url::Url,
    /// A path of the API host where a session token is renewed; apps may not call it.
    pub refresh_path: String,
    /// A path of the API host that says whose a token is.
    pub verify_path: String,
    /// How a token request is written.
    pub token_request: TokenRequest,
    /// PEM certificates; default: the upstream's, else the system's.
    pub ca_file: Option<PathBuf>,
}

/// The encoding of a token request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRequest {
    /// `application/json`, as DataPulse documents.
    Json,
    /// `application/x-www-form-urlencoded`, as RFC 6749 says.
    Form,
}

/// What a credential may do. Ordered: each level includes those below it.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Datasets, dashboards, reports.
    ReadOnly,
    /// All of `read_only`, and pipelines.
    ReadWrite,
    /// Everything, and user management.
    Admin,
}

impl Level {
    /// As the configuration writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read_only",
            Self::ReadWrite => "read_write",
            Self::Admin => "admin",
        }
    }
}

/// One DataPulse credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Unique; a metric label.
    pub name: Arc<str>,
    /// What it may do.
    pub level: Level,
    /// A name in [`Config::quotas`]; without one it is not shaped.
    pub quota: Option<Arc<str>>,
    /// Whether start-up waits for it.
    pub required: bool,
    /// Where its bearer token comes from.
    pub kind: CredentialKind,
}

/// Where a bearer token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialKind {
    /// The secret is itself the bearer token.
    ApiKey(SecretRef),
    /// OAuth 2.0 client credentials (RFC 6749 section 4.4).
    ClientCredentials(ClientCredentials),
}

/// An OAuth client that acts for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Public name of the client.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretRef,
    /// Sent as one `scope`, separated by spaces; none: not sent.
    pub scopes: Vec<String>,
    /// Sent as `audience` where given.
    pub audience: Option<String>,
    /// Further parameters of the token request.
    pub params: BTreeMap<String, String>,
}

/// A limit that belongs to an API key. Accepted, and not yet enforced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Calls in `per`; `None`: no shaping.
    pub limit: Option<Rate>,
}

/// So many calls in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub calls: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// Whose credentials a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Unique; a metric label.
    pub name: Arc<str>,
    /// Indices in [`Config::credentials`], least privileged first; at least one.
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
    /// In place of [`Upstream::request_timeout`].
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

/// What is written, how, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severe line that is written.
    pub level: LogLevel,
    /// How log lines look; `None`: text on a terminal, JSON elsewhere.
    pub format: Option<LogFormat>,
    /// Where audit lines go.
    pub audit: AuditSink,
}

/// The severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something an operator has to act on.
    Error,
    /// Something that may become so.
    Warn,
    /// Each change of state.
    Info,
    /// Each step.
    Debug,
    /// Everything of ours; still no secret.
    Trace,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where audit lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditSink {
    /// Standard output.
    Stdout,
    /// Standard error, among the log lines.
    Stderr,
    /// A file that is appended to.
    File(PathBuf),
    /// Nowhere.
    None,
}

/// What happens between SIGTERM and the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Calls are accepted for at least this long.
    pub min: Duration,
    /// After this long no new call is accepted, and what is in flight gets this long again.
    pub max: Duration,
}
