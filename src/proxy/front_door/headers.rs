//! Header lines, one at a time: their shape, and the fields that have a rule.
//!
//! Refuses; which harmless headers are taken off later is `proxy::headers`.

use super::browser;
use super::framing::FramingFields;
use crate::config::model::{ForwardedFor, FrontDoor};
use crate::proxy::reject::Rejection;
use crate::secret::SecretValue;
use crate::telemetry::trace;

/// As many names as the HTTP library takes in `Connection`; it refuses more.
const NOMINATIONS_MAX: usize = 9;

const HOST: Rejection =
    Rejection::BadRequest("Host must be given exactly once, as a name and at most a port");

/// A line without its CR. The caller cut the last line's CR LF off already, so only a line that
/// another one follows has its CR still.
pub(super) fn without_cr<'a>(
    line: &'a [u8],
    following: Option<&[u8]>,
) -> Result<&'a [u8], Rejection> {
    let line = if following.is_some() { line.strip_suffix(b"\r") } else { Some(line) };
    match line {
        Some(line) if !line.contains(&b'\r') => Ok(line),
        _ => Err(Rejection::BadRequest("each line of a request head must end with CR LF")),
    }
}

/// Whether `text` is a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// The name as it stands and the value without the white space around it.
pub(super) fn name_and_value(line: &[u8]) -> Result<(&[u8], &[u8]), Rejection> {
    const SHAPE: Rejection = Rejection::BadRequest(
        "a header line must be a name, a colon without white space before it, and a value \
         without control characters; a line must not be continued on the next",
    );
    let colon = line.iter().position(|&byte| byte == b':').ok_or(SHAPE)?;
    let (name, rest) = line.split_at_checked(colon).ok_or(SHAPE)?;
    let value = trim(rest.strip_prefix(b":").ok_or(SHAPE)?);
    let clean = value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f));
    if is_token(name) && clean { Ok((name, value)) } else { Err(SHAPE) }
}

/// Without optional white space: SP and HTAB, and no other (RFC 9110 section 5.6.3).
fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What was read of the fields that have a rule.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    pub(super) framing: FramingFields,
    pub(super) expects_continue: bool,
    host: Option<&'a [u8]>,
    nominations: usize,
    request_id: Option<&'a [u8]>,
    request_ids: usize,
    caller_token: Option<&'a [u8]>,
    pub(super) tenant: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub(super) fn take(
        &mut self,
        name: &'a [u8],
        value: &'a [u8],
        rules: &FrontDoor,
    ) -> Result<(), Rejection> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            return if self.host.replace(value).is_some() { Err(HOST) } else { Ok(()) };
        }
        if is("content-length") {
            return self.framing.content_length(value);
        }
        if is("transfer-encoding") {
            return self.framing.transfer_encoding(value);
        }
        if is("connection") {
            return self.connection(value);
        }
        if is("expect") {
            return self.expect(value);
        }
        if is("x-request-id") {
            self.request_id = Some(value);
            self.request_ids += 1;
            return Ok(());
        }
        if is("x-datapulse-sidecar-token") {
            return match self.caller_token.replace(value) {
                None => Ok(()),
                Some(_) => Err(Rejection::BadRequest("send X-DataPulse-Sidecar-Token once")),
            };
        }
        unusual(name, value, rules)
    }

    /// The header that tells tenants apart, or what others may take for it.
    pub(super) fn tenant(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Rejection> {
        if name.contains(&b'_') || self.tenant.replace(value).is_some() {
            return Err(Rejection::BadRequest(
                "send the header that names the tenant once, and by its own name",
            ));
        }
        Ok(())
    }

    /// What the caller shows to be known by; empty is wrong, not absent.
    pub(super) fn caller_token(&self) -> Option<SecretValue> {
        self.caller_token.map(|value| SecretValue::new(value.to_vec()))
    }

    fn expect(&mut self, value: &[u8]) -> Result<(), Rejection> {
        if self.expects_continue || !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Rejection::ExpectationFailed);
        }
        self.expects_continue = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Rejection> {
        for name in value.split(|&byte| byte == b',').map(trim).filter(|name| !name.is_empty()) {
            self.nominations += 1;
            let fixed: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"host", b"expect"];
            if self.nominations > NOMINATIONS_MAX
                || !is_token(name)
                || fixed.iter().any(|known| name.eq_ignore_ascii_case(known))
                || starts_with_ignore_case(name, b"x-forwarded-")
            {
                return Err(Rejection::BadRequest(
                    "Connection must list at most 9 names, and none that says where a message \
                     ends or where it goes",
                ));
            }
        }
        Ok(())
    }

    /// The caller's request id, where there is one only and it is well-formed.
    pub(super) fn request_id(&self) -> Option<String> {
        let value = self.request_id.filter(|_| self.request_ids == 1)?;
        if trace::is_request_id(value) { String::from_utf8(value.to_vec()).ok() } else { None }
    }

    /// `Host` is asked for under HTTP/1.0 too: without it a page's request cannot be told apart.
    pub(super) fn check_host(&self, allowed: &[String]) -> Result<(), Rejection> {
        let name = host_name(self.host.ok_or(HOST)?).ok_or(HOST)?;
        let known = ["localhost", "127.0.0.1", "[::1]"];
        let names = known.into_iter().chain(allowed.iter().map(String::as_str));
        if names.into_iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes())) {
            return Ok(());
        }
        Err(Rejection::Misdirected)
    }
}

/// The fields that most requests do not have.
fn unusual(name: &[u8], value: &[u8], rules: &FrontDoor) -> Result<(), Rejection> {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("upgrade") && !value.eq_ignore_ascii_case(b"h2c") {
        return Err(Rejection::BadRequest(
            "Upgrade is refused (front_door.websocket); only h2c is ignored",
        ));
    }
    if is("origin") {
        return browser::origin(rules.browser_origin);
    }
    if is("sec-fetch-site") {
        return browser::fetch_site(value, rules.browser_origin);
    }
    let forwarded = is("forwarded") || starts_with_ignore_case(name, b"x-forwarded-");
    if forwarded && rules.forwarded_for == ForwardedFor::Refuse {
        return Err(Rejection::BadRequest(
            "Forwarded and X-Forwarded-* are refused (front_door.forwarded_for)",
        ));
    }
    Ok(())
}

/// The name in `name[:port]`, an IPv6 address with its brackets.
fn host_name(value: &[u8]) -> Option<&[u8]> {
    let end = match value.first()? {
        b'[' => value.iter().position(|&byte| byte == b']')? + 1,
        _ => value.iter().position(|&byte| byte == b':').unwrap_or(value.len()),
    };
    let (name, port) = value.split_at_checked(end)?;
    let well_formed = match name {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).ok()?.parse::<std::net::Ipv6Addr>().is_ok()
        }
        _ => {
            !name.is_empty() && name.iter().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(b))
        }
    };
    let port_fits = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).ok()?.parse::<u16>().is_ok()
        }
        _ => false,
    };
    (well_formed && port_fits).then_some(name)
}
