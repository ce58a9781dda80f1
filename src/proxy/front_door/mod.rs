//! The front door: a strict second reading of a request's raw head, before anything acts on it.
//!
//! The HTTP library's own parser is lenient; what two readers could understand differently is
//! refused here and never repaired, so that what was judged is what is sent. Nothing here does I/O
//! or touches a credential.

mod browser;
mod framing;
mod headers;
mod target;
#[cfg(test)]
mod tests;

use http::{Method, Version};

pub use framing::Framing;
pub use target::Target;

use self::headers::Fields;
use super::reject::Rejection;
use crate::config::header_names::reads_as;
use crate::config::model::FrontDoor;
use crate::secret::SecretValue;

/// The longest request head in bytes, its empty line included.
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// The most header lines.
const HEADERS_MAX: usize = 100;

/// A request head with one meaning only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// One of the allow-list.
    pub method: Method,
    /// What is judged, and what is sent.
    pub target: Target,
    /// 1.0 or 1.1.
    pub version: Version,
    /// How the body ends.
    pub body: Framing,
    /// Whether the caller waits for `100 Continue`; never under HTTP/1.0 (RFC 9110 10.1.1).
    pub expects_continue: bool,
    /// The caller's `X-Request-Id`, where it is one of 1 to 128 characters of `[A-Za-z0-9._-]`.
    pub request_id: Option<String>,
    /// The caller's `X-DataPulse-Sidecar-Token`.
    pub caller_token: Option<SecretValue>,
    /// The value of the header that tells tenants apart.
    pub tenant: Option<Vec<u8>>,
}

/// Reads `head`, from the method to the end of the empty line. `allowed_hosts` are lower-case
/// names beside localhost, 127.0.0.1 and `[::1]`; `tenant_header` is a lower-case name, too.
///
/// # Errors
///
/// The answer to a request that is ambiguous, malformed or against `rules`.
pub fn judge(
    head: &[u8],
    rules: &FrontDoor,
    allowed_hosts: &[String],
    tenant_header: Option<&str>,
) -> Result<Head, Rejection> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(Rejection::HeaderTooLarge);
    }
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(Rejection::BadRequest(
        "a request head must end with an empty line, and each line with CR LF",
    ))?;
    let mut lines = text.split(|&byte| byte == b'\n');
    let request_line = headers::without_cr(lines.next().unwrap_or_default(), lines.clone().next())?;
    let (method, target, version) = request_line_parts(request_line)?;

    let mut fields = Fields::default();
    let mut count = 0;
    while let Some(line) = lines.next() {
        count += 1;
        if count > HEADERS_MAX {
            return Err(Rejection::HeaderTooLarge);
        }
        let line = headers::without_cr(line, lines.clone().next())?;
        let (name, value) = headers::name_and_value(line)?;
        fields.take(name, value, rules)?;
        if tenant_header.is_some_and(|known| reads_as(name, known)) {
            fields.tenant(name, value)?;
        }
    }
    fields.check_host(allowed_hosts)?;
    let body = fields.framing.judge(&method, version, rules.body_on_get)?;
    Ok(Head {
        method,
        target: Target::parse(target)?,
        version,
        body,
        expects_continue: fields.expects_continue && version == Version::HTTP_11,
        request_id: fields.request_id(),
        caller_token: fields.caller_token(),
        tenant: fields.tenant.map(<[u8]>::to_vec),
    })
}

/// What [`judge`] makes of a method and a target alone: for telling what would become of a call.
///
/// # Errors
///
/// As [`judge`].
pub fn judge_call(method: &str, target: &str) -> Result<(Method, Target), Rejection> {
    let method = known_method(method.as_bytes())?.ok_or(Rejection::MethodNotAllowed)?;
    Ok((method, Target::parse(target.as_bytes())?))
}

/// `method SP target SP version`, one space each (RFC 9112 section 3).
fn request_line_parts(line: &[u8]) -> Result<(Method, &[u8], Version), Rejection> {
    const SHAPE: Rejection = Rejection::BadRequest(
        "the request line must be a method, a target and HTTP/1.1 or HTTP/1.0, one space between",
    );
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SHAPE);
    };
    let version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return Err(SHAPE),
    };
    Ok((known_method(method)?.ok_or(SHAPE)?, target, version))
}

/// `None`: no token at all, so that the request line has another shape.
fn known_method(name: &[u8]) -> Result<Option<Method>, Rejection> {
    Ok(Some(match name {
        b"GET" => Method::GET,
        b"HEAD" => Method::HEAD,
        b"POST" => Method::POST,
        b"PUT" => Method::PUT,
        b"PATCH" => Method::PATCH,
        b"DELETE" => Method::DELETE,
        b"OPTIONS" => Method::OPTIONS,
        other if headers::is_token(other) => return Err(Rejection::MethodNotAllowed),
        _ => return Ok(None),
    }))
}
