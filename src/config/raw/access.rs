//! Who may do what with which credential, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AutoOrNumber, ClientCredentials, Fleet, Limit, REFERENCE, RefreshToken, ServiceAccount, Share,
    Span,
};
use crate::config::model::Level;

/// One credential; exactly one of its kinds is given.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Unique.
    #[schemars(required)]
    pub name: Option<String>,
    /// What it may do.
    #[schemars(required)]
    pub level: Option<Level>,
    /// A name under `quotas`; without one its calls are not spaced.
    pub quota: Option<String>,
    /// Whether start-up waits for it. Default: true.
    pub required: Option<bool>,
    /// Whether a changed secret is tried at `auth.verify_path` before it replaces one that works.
    /// Default: true.
    pub verify: Option<bool>,
    /// A reference to another secret, used while the first cannot be read.
    #[schemars(regex(pattern = REFERENCE))]
    pub fallback: Option<String>,
    /// A reference to an API key, which is itself the bearer token.
    #[schemars(regex(pattern = REFERENCE))]
    pub api_key: Option<String>,
    /// OAuth 2.0 client credentials.
    pub client_credentials: Option<ClientCredentials>,
    /// A token of 24 hours that is renewed at `auth.refresh_path`.
    pub session_token: Option<SessionToken>,
    /// An OAuth refresh token of a person.
    pub refresh_token: Option<RefreshToken>,
    /// A service account's key.
    pub service_account: Option<ServiceAccount>,
}

/// A token of 24 hours.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SessionToken {
    /// A reference to the token; where it can be written, the renewed one takes its place.
    #[schemars(required, regex(pattern = REFERENCE))]
    pub token: Option<String>,
}

/// A limit that belongs to an API key.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// The plan's limit.
    #[schemars(required)]
    pub limit: Option<Limit>,
    /// This process's part of it. Default: all of it.
    pub share: Option<Share>,
    /// A second limit.
    pub also: Option<Limit>,
    /// The jitter of the vendor's limiter that is reckoned with.
    pub spread: Option<Span>,
    /// What is assumed of calls before this process began. Default: auto.
    pub cold_start: Option<ColdStart>,
    /// How often the vendor's limiter counts.
    pub tick: Option<Span>,
    /// How many calls the vendor's limiter takes at once.
    pub burst: Option<u32>,
}

/// What is assumed of calls before this process began.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ColdStart {
    /// What the kept schedule says; where there is none yet, that nothing was sent.
    Auto,
    /// The same; where there is none yet, nobody knows: no bursts for a window.
    Paced,
    /// That the quota was used up.
    Cautious,
}

/// How calls are spaced.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shaping {
    /// The longest wait of a call. Default: 25s.
    pub max_wait: Option<Span>,
    /// Waiting calls a quota: auto, what can leave within `max_wait`; or a number. Default: auto.
    pub queue: Option<AutoOrNumber>,
    /// Where the schedule is kept over a restart: auto (a file in `$STATE_DIRECTORY` or
    /// /var/lib/datapulse-sidecar, where there is such a folder), none, or a path. Default: auto.
    pub state_file: Option<String>,
    /// Hold no call back: what would have become of each is counted. Default: false.
    pub shadow: Option<bool>,
    /// Replicas that share a quota.
    pub fleet: Option<Fleet>,
}

/// Whose credentials callers may use.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Unique.
    #[schemars(required)]
    pub name: Option<String>,
    /// How its callers are known.
    #[schemars(length(min = 1))]
    pub callers: Option<Vec<Caller>>,
    /// Names under `credentials`.
    #[schemars(required, length(min = 1))]
    pub credentials: Option<Vec<String>>,
    /// Its part of a quota, against other tenants', while both have calls waiting. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub weight: Option<u32>,
    /// A smaller limit of its own inside each quota. Default: none.
    pub limit: Option<Limit>,
}

/// How a tenant's callers are known.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caller {
    /// They call here: a `listen` of `listeners`.
    pub listener: Option<String>,
    /// They send this secret, a reference, in `X-DataPulse-Sidecar-Token`.
    #[schemars(regex(pattern = REFERENCE))]
    pub caller_token: Option<String>,
    /// They run as this user, on a unix socket.
    pub uid: Option<u32>,
    /// They send this header, and the listener's `caller_token`, without which it is not believed.
    pub header: Option<CallerHeader>,
}

/// A header that tells tenants apart.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CallerHeader {
    /// Its name, the same one for all tenants.
    #[schemars(required)]
    pub name: Option<String>,
    /// Its value, to the letter.
    #[schemars(required)]
    pub value: Option<String>,
}

/// Which level a call needs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Method names, or `ANY`.
    #[schemars(required, length(min = 1))]
    pub methods: Option<Vec<String>>,
    /// `*` stands for one segment, `**` for any number of them.
    #[schemars(required)]
    pub path: Option<String>,
    /// The level that is needed; or `deny`.
    pub level: Option<Level>,
    /// true: the call is refused.
    pub deny: Option<bool>,
    /// In place of `upstream.request_timeout`.
    pub request_timeout: Option<Span>,
    /// Whether a call may be sent again. Default: as far as its body was kept.
    pub replay: Option<Replay>,
}

/// Whether a call may be sent again.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Replay {
    /// Not for any reason.
    Never,
}
