//! What becomes of a delivery: the answer to its sender, the metric label, the line in the log.
//!
//! Every reason not to believe a signature gives one answer, the same to the byte but for the request
//! id. Text is fixed: nothing of a delivery is repeated.

use axum::body::Body;
use axum::response::Response;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use super::signature::SignatureError;
use crate::proxy::reject::{self, ERROR_HEADER, PROBLEM_JSON};

/// Why a delivery is answered here and not by the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No endpoint has this path.
    UnknownPath,
    /// Not a POST.
    WrongMethod,
    /// More than `max_body`.
    TooLarge,
    /// The body did not come in time.
    TooSlow,
    /// The body broke off.
    Broken,
    /// The memory for all deliveries is in use.
    Busy,
    /// None of the endpoint's secrets could be read yet.
    NoSecret,
    /// It is not the vendor's, as far as can be told.
    Unsigned(SignatureError),
    /// The app has it at this moment.
    InDelivery,
    /// No connection to the app, or one that broke before the answer.
    AppUnreachable,
    /// The app did not answer in time.
    AppTimeout,
}

impl Refusal {
    /// A metric label.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::UnknownPath => "unknown_path",
            Self::WrongMethod => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::TooSlow => "too_slow",
            Self::Broken => "broken",
            Self::Busy => "busy",
            Self::NoSecret => "secret_unavailable",
            Self::Unsigned(error) => error.kind(),
            Self::InDelivery => "in_delivery",
            Self::AppUnreachable => "app_unreachable",
            Self::AppTimeout => "app_timeout",
        }
    }

    /// What the sender is told: as the label, but one word for all signatures.
    const fn code(self) -> &'static str {
        match self {
            Self::Unsigned(_) => "signature_invalid",
            other => other.label(),
        }
    }

    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::UnknownPath => StatusCode::NOT_FOUND,
            Self::WrongMethod => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::Unsigned(_) => StatusCode::UNAUTHORIZED,
            Self::Busy | Self::NoSecret | Self::InDelivery => StatusCode::SERVICE_UNAVAILABLE,
            Self::AppUnreachable => StatusCode::BAD_GATEWAY,
            Self::AppTimeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    const fn detail(self) -> &'static str {
        match self {
            Self::UnknownPath => "no endpoint has this path (webhooks.endpoints[].path)",
            Self::WrongMethod => "a delivery is a POST",
            Self::TooLarge => "the delivery is larger than max_body",
            Self::TooSlow => "the body did not arrive in time",
            Self::Broken => "the body broke off",
            Self::Busy => "too many deliveries at once: try again",
            Self::NoSecret => "no secret could be read yet: try again",
            Self::Unsigned(_) => "the delivery is not signed with a secret of this endpoint",
            Self::InDelivery => "this delivery is with the app at this moment: try again",
            Self::AppUnreachable => "the app cannot be reached: try again",
            Self::AppTimeout => "the app did not answer in time: try again",
        }
    }

    /// The name and value of the one header that the status asks for.
    const fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::WrongMethod => Some((ALLOW, HeaderValue::from_static("POST"))),
            Self::Unsigned(_) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("X-Datapulse-Signature")))
            }
            Self::Busy | Self::InDelivery => Some((RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::NoSecret => Some((RETRY_AFTER, HeaderValue::from_static("5"))),
            _ => None,
        }
    }

    /// The whole answer; whoever sends it adds the request id.
    pub(super) fn response(self, request_id: &str) -> Response {
        let body = reject::problem(self.status(), self.code(), self.detail(), request_id);
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.code()));
        if let Some((name, value)) = self.header() {
            headers.insert(name, value);
        }
        response
    }
}
