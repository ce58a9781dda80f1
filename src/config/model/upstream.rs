//! Where calls and token requests go.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::secret::SecretRef;

/// DataPulse's API: the one place that calls are sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Scheme, host and port.
    pub origin: Origin,
    /// PEM certificates that replace the system's roots.
    pub ca_file: Option<PathBuf>,
    /// Shown where the API host asks for a certificate.
    pub client_cert: Option<ClientCert>,
    /// For TCP and TLS together, one attempt.
    pub connect_timeout: Duration,
    /// Until the head of the response, waiting included.
    pub request_timeout: Duration,
    /// Between two pieces of a body, either way.
    pub idle_timeout: Duration,
    /// How often a call is tried again after a connection could not be had, 0 to 10.
    pub retries: u32,
    /// Bodies with a `Content-Length` up to this many bytes are kept to be sent again.
    pub replay_body_bytes_max: usize,
    /// Which protocol is spoken upstream.
    pub http2: Http2,
}

/// A certificate of our own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCert {
    /// PEM: the chain, ours first.
    pub cert_file: PathBuf,
    /// PEM: its key.
    pub key: SecretRef,
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
    /// A path of this server, where the two make a URL.
    #[must_use]
    pub fn url(&self, path: &str) -> Option<url::Url> {
        url::Url::parse(&format!("{}{path}", self.base_url())).ok()
    }

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
    /// Where people log in.
    pub authorize_url: url::Url,
    /// Where they come back to, if that is fixed; `None`: a free port of this machine.
    pub redirect_uri: Option<url::Url>,
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
