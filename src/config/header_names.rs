//! Request headers that mean something already, by their lower-case names: what `proxy::headers`
//! takes off, and what an API reads. None of them can tell tenants apart.
//!
//! Names only; it never sees a value.

/// Hop-by-hop, RFC 9110 section 7.6.1 and its forebears. `transfer-encoding` is the framing's.
pub const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "te", "trailer", "upgrade", "http2-settings", "proxy-connection"];
/// What stands in a credential's place.
pub const CREDENTIALS: [&str; 12] = [
    "authorization",
    "api-key",
    "apikey",
    "x-api-key",
    "x-apikey",
    "x-auth-token",
    "x-access-token",
    "x-api-token",
    "x-authorization",
    "x-session-token",
    "cookie",
    "cookie2",
];
/// What changes the method, target or origin that was judged.
pub const OVERRIDES: [&str; 12] = [
    "forwarded",
    "via",
    "x-real-ip",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "proxy",
    "x-host",
    "expect",
];
/// Says where a message ends.
pub const FRAMING: [&str; 2] = ["content-length", "transfer-encoding"];
/// What begins so is between a caller and the sidecar.
pub const OURS: &str = "x-datapulse-sidecar-";

/// What an API reads of a call; taken off, the call would mean something else (RFC 9110, W3C Trace
/// Context).
const OF_A_CALL: [&str; 20] = [
    "host",
    "accept",
    "range",
    "user-agent",
    "origin",
    "referer",
    "from",
    "date",
    "max-forwards",
    "priority",
    "prefer",
    "cache-control",
    "pragma",
    "idempotency-key",
    "x-request-id",
    "x-requested-with",
    "traceparent",
    "tracestate",
    "baggage",
    "dnt",
];
const OF_A_CALL_BEGINNING: [&str; 4] = ["accept-", "content-", "if-", "sec-"];

/// Whether a header of this lower-case name has a meaning of its own.
#[must_use]
pub fn has_a_meaning(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
        || CREDENTIALS.contains(&name)
        || OVERRIDES.contains(&name)
        || FRAMING.contains(&name)
        || OF_A_CALL.contains(&name)
        || OF_A_CALL_BEGINNING.iter().any(|beginning| name.starts_with(beginning))
        || ["proxy-", "x-forwarded-", OURS].iter().any(|beginning| name.starts_with(beginning))
}

/// Whether `name`, in any case, is `known` (lower-case) or the spelling of it that some servers read
/// as the same: `_` for `-`.
#[must_use]
pub fn reads_as(name: &[u8], known: &str) -> bool {
    let folded = name.iter().map(|byte| match byte {
        b'_' => b'-',
        byte => byte.to_ascii_lowercase(),
    });
    folded.eq(known.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_that_means_something_is_told_from_one_that_does_not() {
        for name in [
            "connection",
            "authorization",
            "x-forwarded-for",
            "x-datapulse-sidecar-token",
            "host",
            "content-type",
            "if-none-match",
            "transfer-encoding",
            "proxy-authorization",
        ] {
            assert!(has_a_meaning(name), "{name}");
        }
        for name in ["x-tenant", "tenant", "x-scope-orgid", "iffy", "x-host-name"] {
            assert!(!has_a_meaning(name), "{name}");
        }
        assert!(reads_as(b"X_Tenant", "x-tenant") && reads_as(b"x-TENANT", "x-tenant"));
        assert!(!reads_as(b"x-tenants", "x-tenant") && !reads_as(b"xtenant", "x-tenant"));
    }
}
