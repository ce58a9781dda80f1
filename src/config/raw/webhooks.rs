//! Deliveries from DataPulse, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{REFERENCE, Size, Span};

/// Deliveries from DataPulse.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// An address and a port.
    #[schemars(required)]
    pub listen: Option<String>,
    /// Where they arrive.
    #[schemars(required, length(min = 1))]
    pub endpoints: Option<Vec<Endpoint>>,
}

/// Where deliveries arrive, and where they go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The path that is called.
    #[schemars(required)]
    pub path: Option<String>,
    /// References to the secrets that sign them: the current one, and its predecessor beside it.
    #[schemars(required, length(min = 1, max = 8), inner(regex(pattern = REFERENCE)))]
    pub secrets: Option<Vec<String>>,
    /// The app's URL.
    #[schemars(required)]
    pub forward_to: Option<String>,
    /// The largest delivery. Default: 1MiB.
    pub max_body: Option<Size>,
    /// How long the app may take to answer. Default: 15s.
    pub timeout: Option<Span>,
    /// How repeats are known. Without it each delivery goes to the app.
    pub dedupe: Option<Dedupe>,
}

/// How repeated deliveries are known.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dedupe {
    /// The header that names a delivery. Default: by signature.
    pub header: Option<String>,
    /// How many are remembered. Default: 100000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub entries: Option<u32>,
    /// For how long. Default: 24h.
    #[serde(rename = "for")]
    pub duration: Option<Span>,
}
