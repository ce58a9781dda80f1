//! The file as it is written: the whole shape, with what is not built yet.
//!
//! Every key is optional here, so that one mistake never hides another: `parse/` says what is
//! missing. The doc comments are the descriptions in the JSON Schema. No value is checked here but
//! by its type.
//!
//! Nothing here prints: a secret may have been pasted into any text.

#![expect(missing_debug_implementations, reason = "a secret may have been pasted into any text")]

mod access;
mod later;
mod oauth;
mod stores;
mod tls;
mod values;
mod webhooks;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::model::{Choice, ForwardedFor, Http2, LogFormat, LogLevel, TokenRequest};
pub use access::{
    Caller, CallerHeader, ColdStart, Credential, Quota, Replay, Rule, SessionToken, Shaping, Tenant,
};
pub use later::Fleet;
pub use oauth::{ClientCredentials, PrivateKeyJwt, RefreshToken, ServiceAccount};
pub use stores::{StoreAws, StoreVault, Stores, VaultAuth, VaultMethod};
pub use tls::{ClientCert, ListenerTls};
use values::REFERENCE;
pub use values::{AutoOrNumber, Limit, Share, Size, Span};
pub use webhooks::{Dedupe, Endpoint, Webhooks};

/// What is part of the format and not built yet: refused by name, left out of `example.yaml`.
///
/// `[]` stands for any item of a list.
pub const NOT_YET: &[&str] = &["shaping.fleet"];

/// The configuration of datapulse-sidecar.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    /// The version of this format: 1.
    #[schemars(required, range(min = 1, max = 1))]
    pub version: Option<u32>,
    /// Where apps call.
    #[schemars(required, length(min = 1))]
    pub listeners: Option<Vec<Listener>>,
    /// What may be loosened or tightened about requests; ambiguity is always refused.
    pub front_door: Option<FrontDoor>,
    /// DataPulse's API.
    pub upstream: Option<Upstream>,
    /// DataPulse's authorization server.
    pub auth: Option<Auth>,
    /// Where secrets are kept, beside files and the environment.
    pub stores: Option<Stores>,
    /// What the sidecar may use for calls.
    #[schemars(required, length(min = 1))]
    pub credentials: Option<Vec<Credential>>,
    /// The plans' limits, by a name that credentials refer to.
    pub quotas: Option<BTreeMap<String, Quota>>,
    /// How calls are spaced.
    pub shaping: Option<Shaping>,
    /// Who calls, and with which credentials. Default: one, with every credential.
    #[schemars(length(min = 1))]
    pub tenants: Option<Vec<Tenant>>,
    /// Which level a call needs; the first match wins, and a default policy comes after these.
    pub policy: Option<Vec<Rule>>,
    /// Deliveries from DataPulse.
    pub webhooks: Option<Webhooks>,
    /// The health listener: probes and metrics, and nothing else.
    pub health: Option<Health>,
    /// The admin listener, for operators on this machine.
    pub admin: Option<Admin>,
    /// What is written where.
    pub log: Option<Log>,
    /// How long start-up waits for the required credentials. Default: 30s.
    pub startup_timeout: Option<Span>,
    /// What happens between SIGTERM and the end.
    pub drain: Option<Drain>,
}

/// One address where apps call.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `localhost:PORT` (both loopback addresses), `127.0.0.1:PORT`, `[::1]:PORT` or `unix:/PATH`;
    /// another address needs caller authentication and `tls`.
    #[schemars(required)]
    pub listen: Option<String>,
    /// Whose credentials callers here may use; else `tenants[].callers` says so.
    pub tenant: Option<String>,
    /// Host names that callers may use beside localhost, 127.0.0.1 and `[::1]`; without a port.
    pub allowed_hosts: Option<Vec<String>>,
    /// A reference to a secret that callers have to send in `X-DataPulse-Sidecar-Token`.
    #[schemars(regex(pattern = REFERENCE))]
    pub caller_token: Option<String>,
    /// User ids that may call, on a unix socket. Default: whoever can open it.
    pub allowed_uids: Option<Vec<u32>>,
    /// The mode of a unix socket. Default: "0660".
    pub socket_mode: Option<String>,
    /// A certificate, for use as a gateway.
    pub tls: Option<ListenerTls>,
}

/// What may be loosened or tightened about requests.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrontDoor {
    /// Requests that a browser makes for another site. Default: refuse.
    pub browser_origin: Option<Choice>,
    /// `X-Forwarded-*` of a caller. Default: strip.
    pub forwarded_for: Option<ForwardedFor>,
    /// A GET or HEAD with a body. Default: refuse.
    pub body_on_get: Option<Choice>,
    /// Upgrades to `WebSocket`. Default: refuse.
    pub websocket: Option<Choice>,
    /// For a whole request head. Default: 10s.
    pub header_timeout: Option<Span>,
    /// Callers' connections at once. Default: 1024.
    pub max_connections: Option<u32>,
}

/// DataPulse's API.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Scheme, host and port. Default: `https://api.datapulse.ai`.
    pub base_url: Option<String>,
    /// Whether http: URLs are taken, for tests. Default: false.
    pub allow_plaintext: Option<bool>,
    /// PEM certificates in place of the system's roots.
    pub ca_file: Option<String>,
    /// A certificate of our own, shown to the API host where it asks for one.
    pub client_cert: Option<ClientCert>,
    /// For one attempt, TLS included. Default: 5s.
    pub connect_timeout: Option<Span>,
    /// Until the head of the response, waiting in the queue included. Default: 30s.
    pub request_timeout: Option<Span>,
    /// Between two pieces of a body, either way. Default: 60s.
    pub idle_timeout: Option<Span>,
    /// How often a call is tried again after a connect error or a 429, these together: 0 to 10.
    /// Default: 3.
    pub retries: Option<u32>,
    /// Bodies up to this size are kept, to be sent again after a 401. Default: 1MiB.
    pub replay_body: Option<Size>,
    /// Which HTTP version is spoken. Default: auto.
    pub http2: Option<Http2>,
}

/// DataPulse's authorization server.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Where tokens are asked for. Default: `https://auth.datapulse.ai/oauth/token`.
    pub token_url: Option<String>,
    /// Where people log in. Default: `https://auth.datapulse.ai/oauth/authorize`.
    pub authorize_url: Option<String>,
    /// The API's path that renews a session token; apps may not call it. Default: /auth/refresh.
    pub refresh_path: Option<String>,
    /// The API's path that says whose a token is. Default: /auth/verify.
    pub verify_path: Option<String>,
    /// A redirect URI that is registered with the vendor, for `login`. Default: a free port of this
    /// machine.
    pub redirect_uri: Option<String>,
    /// How a token request is written. Default: json.
    pub token_request: Option<TokenRequest>,
    /// PEM certificates. Default: `upstream.ca_file`, else the system's.
    pub ca_file: Option<String>,
}

/// The health listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// An address and a port. Default: `[::]:9464`.
    pub listen: Option<String>,
}

/// The admin listener.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// A loopback address and a port. Default: `127.0.0.1:9465`.
    pub listen: Option<String>,
    /// A reference to the secret that allows changes.
    #[schemars(regex(pattern = REFERENCE))]
    pub token: Option<String>,
}

/// What is written where.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The least severe line that is written. Default: info.
    pub level: Option<LogLevel>,
    /// How lines look. Default: text on a terminal, json elsewhere.
    pub format: Option<LogFormat>,
    /// Where audit lines go: stdout, stderr, none or `file:PATH`. Default: stdout.
    pub audit: Option<String>,
}

/// What happens between SIGTERM and the end.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// Calls are accepted for at least this long. Default: 0s.
    pub min: Option<Span>,
    /// And at most for this long. Default: 5s.
    pub max: Option<Span>,
}
