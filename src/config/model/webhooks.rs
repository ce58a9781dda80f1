//! Deliveries from DataPulse: who may send them, and where they go.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use crate::secret::SecretRef;

/// Where DataPulse delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhooks {
    /// A listener of its own.
    pub listen: SocketAddr,
    /// At least one; paths are unique.
    pub endpoints: Vec<Endpoint>,
}

/// Where deliveries arrive, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Compared with the path of a request byte for byte; a metric label.
    pub path: Arc<str>,
    /// What a delivery may be signed with: 1 to 8, no two the same.
    pub secrets: Vec<SecretRef>,
    /// The app, http or https, without user name and fragment.
    pub forward_to: url::Url,
    /// The largest delivery, in bytes: at most 16 MiB.
    pub body_bytes_max: usize,
    /// How long the app may take, from the connection to the end of its answer.
    pub timeout: Duration,
    /// How repeats are known; `None`: each delivery goes to the app.
    pub dedupe: Option<Dedupe>,
}

/// How repeated deliveries are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dedupe {
    /// Told apart by this header and the signature; `None`: by the signature alone.
    pub header: Option<HeaderName>,
    /// How many are remembered, 1 to 1,000,000.
    pub entries: usize,
    /// For how long.
    pub keep: Duration,
}
