//! Every reason for which the sidecar itself answers, and the answer: the only maker of such answers.
//!
//! Text is fixed: no upstream's text, no path, no secret can be in it, because the texts
//! are `&'static`, but for the name of a configured credential and an escaped request id.

use std::time::Duration;

use http::StatusCode;

use crate::access::{Denial, Stranger};
use crate::config::model::Credential;
use crate::shaping::Refusal;

/// The media type of the answers (RFC 9457).
pub const PROBLEM_JSON: &str = "application/problem+json";
/// Marks an answer as the sidecar's own; its value is the code.
pub const ERROR_HEADER: &str = "X-DataPulse-Sidecar-Error";

/// Why the sidecar answers a call itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The front door refuses the request; the text names the rule and, where one exists, the
    /// setting.
    BadRequest(&'static str),
    /// A request head over the limits.
    HeaderTooLarge,
    /// A method that is not in the allow-list.
    MethodNotAllowed,
    /// An `Expect` other than `100-continue`.
    ExpectationFailed,
    /// A `Host` that is not in the allow-list.
    Misdirected,
    /// The caller may not call here; the text names the rule.
    CallerNotAllowed(&'static str),
    /// No credential of the tenant satisfies the level that the policy asks for.
    LevelNotGranted,
    /// The policy denies the call.
    DeniedByPolicy,
    /// No token yet.
    CredentialUnavailable {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// An operator has paused the credential.
    CredentialPaused {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// The token expired and could not be renewed.
    CredentialExpired {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// There is no token before somebody logs in.
    LoginRequired {
        /// When it is worth coming back.
        retry_after: Duration,
    },
    /// The quota's schedule has no room for the call.
    Refused(Refusal),
    /// No connection to the upstream.
    UpstreamUnreachable,
    /// No answer in time.
    UpstreamTimeout,
    /// An answer that is no HTTP, or one that must not be passed on.
    UpstreamInvalid,
    /// More callers' connections than `front_door.max_connections`.
    TooManyConnections,
    /// The sidecar is about to end.
    ShuttingDown,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stranger> for Rejection {
    fn from(stranger: Stranger) -> Self {
        Self::CallerNotAllowed(match stranger {
            Stranger::NoToken => {
                "send the caller token in X-DataPulse-Sidecar-Token (listeners[].caller_token)"
            }
            Stranger::WrongToken => "the token in X-DataPulse-Sidecar-Token is nobody's",
            Stranger::WrongHeader => {
                "the header that names the tenant names none (tenants[].callers[].header)"
            }
            Stranger::WrongUid => "this user may not call here (listeners[].allowed_uids)",
            Stranger::Unknown => "this caller is nobody's (tenants[].callers)",
        })
    }
}

impl From<&Denial> for Rejection {
    fn from(denial: &Denial) -> Self {
        match denial {
            Denial::Unconfigured | Denial::LevelNotGranted { .. } => Self::LevelNotGranted,
            Denial::DeniedByPolicy { .. } => Self::DeniedByPolicy,
        }
    }
}

impl Rejection {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::CallerNotAllowed(_) | Self::LevelNotGranted | Self::DeniedByPolicy => {
                StatusCode::FORBIDDEN
            }
            Self::UpstreamUnreachable | Self::UpstreamInvalid => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Refused(refusal) if refusal.tenants_fault => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused(_)
            | Self::CredentialUnavailable { .. }
            | Self::CredentialPaused { .. }
            | Self::CredentialExpired { .. }
            | Self::LoginRequired { .. }
            | Self::TooManyConnections
            | Self::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The machine-readable reason: `X-DataPulse-Sidecar-Error`, and a metric label.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::HeaderTooLarge => "header_too_large",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::ExpectationFailed => "expectation_failed",
            Self::Misdirected => "misdirected",
            Self::CallerNotAllowed(_) => "caller_not_allowed",
            Self::LevelNotGranted => "level_not_granted",
            Self::DeniedByPolicy => "denied_by_policy",
            Self::CredentialUnavailable { .. } | Self::CredentialPaused { .. } => {
                "credential_unavailable"
            }
            Self::CredentialExpired { .. } => "credential_expired",
            Self::LoginRequired { .. } => "login_required",
            Self::Refused(refusal) if refusal.full => "queue_full",
            Self::Refused(_) => "would_miss_deadline",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::TooManyConnections => "too_many_connections",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// What to do next, or the rule that was broken.
    #[must_use]
    pub const fn detail(self) -> &'static str {
        match self {
            Self::BadRequest(rule) | Self::CallerNotAllowed(rule) => rule,
            Self::HeaderTooLarge => "send at most 100 headers and 32 KiB of request head",
            Self::MethodNotAllowed => "use GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS",
            Self::ExpectationFailed => "send Expect: 100-continue once, or no Expect",
            Self::Misdirected => "call localhost, or add the name to listeners[].allowed_hosts",
            Self::LevelNotGranted => {
                "give the tenant a credential of the level the policy asks for"
            }
            Self::DeniedByPolicy => "the policy denies this call; see policy in the configuration",
            Self::CredentialUnavailable { .. } => {
                "the credential has no token yet: try again later; if it stays, check its secret"
            }
            Self::CredentialPaused { .. } => {
                "an operator has paused the credential, and can resume it at the admin listener"
            }
            Self::CredentialExpired { .. } => {
                "the credential's token expired and could not be renewed: try again later; if it \
                 stays, check its secret and the authorization server"
            }
            Self::LoginRequired { .. } => {
                "the credential needs a person to log in: run `datapulse-sidecar login` with its name"
            }
            Self::Refused(refusal) if refusal.tenants_fault => {
                "this tenant's share of the quota is used up: slow down, and try again later"
            }
            Self::Refused(_) => "the quota has no room in time: try again later",
            Self::UpstreamUnreachable => "no connection to the upstream: check network and TLS",
            Self::UpstreamTimeout => {
                "the upstream did not answer in time; the call may have arrived"
            }
            Self::UpstreamInvalid => "the upstream's answer cannot be passed on; try again later",
            Self::TooManyConnections => "reuse connections, or raise front_door.max_connections",
            Self::ShuttingDown => "the sidecar is about to end: try again on a new connection",
        }
    }

    /// When it is worth coming back, where that is known.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::CredentialUnavailable { retry_after }
            | Self::CredentialPaused { retry_after }
            | Self::CredentialExpired { retry_after }
            | Self::LoginRequired { retry_after }
            | Self::Refused(Refusal { retry_after, .. }) => Some(retry_after),
            Self::TooManyConnections | Self::ShuttingDown => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// `Retry-After` in whole seconds: rounded up, at least 1.
    #[must_use]
    pub fn retry_after_secs(self) -> Option<u64> {
        let wait = self.retry_after()?;
        Some(wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1))
    }

    /// The status in words.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.status().canonical_reason().unwrap_or("Error")
    }

    /// Whether the connection must be closed: where the next request begins is not certain.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::HeaderTooLarge
                | Self::MethodNotAllowed
                | Self::ExpectationFailed
                | Self::TooManyConnections
                | Self::ShuttingDown
        )
    }

    /// The answer's body: `application/problem+json` (RFC 9457).
    #[must_use]
    pub fn body(self, request_id: &str) -> String {
        self.json(request_id, None)
    }

    /// The same, naming the credential that it is about.
    #[must_use]
    pub fn body_naming(self, request_id: &str, credential: &Credential) -> String {
        self.json(request_id, Some(credential))
    }

    /// The whole answer as bytes on the wire, for a connection that pingora never sees.
    #[must_use]
    pub fn raw_response(self, request_id: &str) -> String {
        let (status, body) = (self.status(), self.body(request_id));
        let retry_after = self.retry_after_secs();
        let retry_after = retry_after.map_or_else(String::new, |s| format!("Retry-After: {s}\r\n"));
        format!(
            "HTTP/1.1 {} {}\r\nContent-Type: {PROBLEM_JSON}\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\n{ERROR_HEADER}: {}\r\nX-Request-Id: {request_id}\r\n\
             {retry_after}Connection: close\r\n\r\n{body}",
            status.as_u16(),
            self.title(),
            body.len(),
            self.code(),
        )
    }

    fn json(self, request_id: &str, credential: Option<&Credential>) -> String {
        let detail = credential.map_or_else(
            || self.detail().to_owned(),
            |credential| format!("credential {}: {}", credential.name, self.detail()),
        );
        problem(self.status(), self.code(), &detail, request_id)
    }
}

/// The body of an answer of our own (RFC 9457). `detail` is fixed text, or a configured name before
/// it.
#[must_use]
pub fn problem(status: StatusCode, code: &str, detail: &str, request_id: &str) -> String {
    serde_json::json!({
        "type": format!("urn:datapulse-sidecar:{code}"),
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": code,
        "detail": detail,
        "request_id": request_id,
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_told_in_whole_seconds_rounded_up() {
        for (millis, want) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (2500, 3)] {
            let retry_after = Duration::from_millis(millis);
            let rejection = Rejection::CredentialUnavailable { retry_after };
            assert_eq!(rejection.retry_after_secs(), Some(want), "{millis} ms");
        }
        assert_eq!(Rejection::Misdirected.retry_after_secs(), None);
    }

    #[test]
    fn a_body_is_json_whatever_the_request_id() {
        let body = Rejection::Misdirected.body("a\"b");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["request_id"], "a\"b");
        assert_eq!(body["type"], "urn:datapulse-sidecar:misdirected");
        assert_eq!(body["status"], 421);
    }
}
