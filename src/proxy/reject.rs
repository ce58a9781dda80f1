//! Every reason for which the sidecar itself answers, and the answer: the only maker of such answers.
//!
//! Text is fixed: no upstream's text, no path, no secret can be in it, because nothing here takes a
//! text that is not `&'static`.

use std::time::Duration;

use http::StatusCode;

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
    /// The token expired and could not be renewed.
    CredentialExpired {
        /// When it is worth coming back.
        retry_after: Duration,
    },
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
            Self::CredentialUnavailable { .. }
            | Self::CredentialExpired { .. }
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
            Self::CredentialUnavailable { .. } => "credential_unavailable",
            Self::CredentialExpired { .. } => "credential_expired",
            Self::UpstreamUnreachable => "upstream_unreachable",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamInvalid => "upstream_invalid",
            Self::TooManyConnections => "too_many_connections",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
