//! Which headers are taken off, either way. Runs before the credential is set, which comes last.
//!
//! Only lists names: it changes nothing, and never logs a value.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::HeaderMap;
use http::header::{CONNECTION, HeaderName};

use crate::config::header_names::{CREDENTIALS, FRAMING, HOP_BY_HOP, OURS, OVERRIDES};

const RESPONSE_ONLY: [&str; 12] = [
    "set-cookie",
    "set-cookie2",
    "server",
    "via",
    "alt-svc",
    "nel",
    "report-to",
    "refresh",
    "strict-transport-security",
    "public-key-pins",
    "public-key-pins-report-only",
    "reporting-endpoints",
];

/// The names to take off a caller's request.
#[must_use]
pub fn request_drop_list(headers: &HeaderMap) -> Vec<HeaderName> {
    drop_list(headers, |name| is_override(name) || CREDENTIALS.contains(&name))
}

/// The names to take off a delivery before the app gets it: what is not the sender's, or says that
/// somebody has verified it.
#[must_use]
pub fn delivery_drop_list(headers: &HeaderMap) -> Vec<HeaderName> {
    let framing = |name: &str| FRAMING.contains(&name) || name == "host";
    drop_list(headers, |name| {
        is_override(name)
            || framing(name)
            || (name.starts_with("x-") && name.ends_with("-verified"))
    })
}

/// The names to take off the app's answer to a delivery.
#[must_use]
pub fn connection_drop_list(headers: &HeaderMap) -> Vec<HeaderName> {
    drop_list(headers, |name| FRAMING.contains(&name))
}

fn is_override(name: &str) -> bool {
    // Some servers read `_` as `-`, so that such a name could be a credential's twin.
    name.contains('_') || name.starts_with("x-forwarded-") || OVERRIDES.contains(&name)
}

/// The names to take off an upstream's response.
#[must_use]
pub fn response_drop_list(headers: &HeaderMap) -> Vec<HeaderName> {
    drop_list(headers, |name| RESPONSE_ONLY.contains(&name))
}

fn drop_list(headers: &HeaderMap, also: impl Fn(&str) -> bool) -> Vec<HeaderName> {
    let dropped = |name: &&HeaderName| {
        let name = name.as_str();
        HOP_BY_HOP.contains(&name)
            || name.starts_with("proxy-")
            || name.starts_with(OURS)
            || also(name)
            // Framing is never dropped because somebody nominated it.
            || (!FRAMING.contains(&name) && nominates(headers, name))
    };
    headers.keys().filter(dropped).cloned().collect()
}

/// Whether the caller wants its connection closed after the answer (RFC 9110 section 7.6.1), in
/// whichever of its `Connection` lines it says so.
#[must_use]
pub fn asks_to_close(headers: &HeaderMap) -> bool {
    nominates(headers, "close")
}

/// Whether a `Connection` line names this header, so that it ends here (RFC 9110 section 7.6.1).
#[must_use]
pub fn nominates(headers: &HeaderMap, name: &str) -> bool {
    let lines = headers.get_all(CONNECTION).iter();
    let mut names = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    names.any(|one| one.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
}

/// Whether `value` holds one of `secrets`: as it is, percent-encoded or in base64 (also behind
/// `user:`, at each of the three alignments). Empty secrets are in nothing.
#[must_use]
pub fn contains_secret(value: &[u8], secrets: &[&[u8]]) -> bool {
    // Every form is at least as long as the secret, and most values are shorter.
    let shortest = secrets.iter().map(|secret| secret.len()).filter(|&length| length > 0).min();
    if shortest.is_none_or(|shortest| value.len() < shortest) {
        return false;
    }
    let decoded = percent_decoded(value);
    secrets.iter().filter(|secret| !secret.is_empty()).any(|secret| {
        holds(value, secret) || holds(&decoded, secret) || base64_forms(secret, value, &decoded)
    })
}

fn holds(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// The characters of base64 that depend on the secret alone, whatever stands before and after it.
fn base64_forms(secret: &[u8], value: &[u8], decoded: &[u8]) -> bool {
    (0..3_usize).any(|before| {
        let mut padded = vec![0; before];
        padded.extend_from_slice(secret);
        let first = (before * 8).div_ceil(6);
        let last = padded.len() * 8 / 6;
        [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)].iter().any(|text| {
            let own = text.as_bytes().get(first..last).unwrap_or_default();
            // Fewer characters would be found by chance.
            own.len() >= 8 && (holds(value, own) || holds(decoded, own))
        })
    })
}

fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        let pair =
            tail.get(..2).filter(|pair| byte == b'%' && pair.iter().all(u8::is_ascii_hexdigit));
        let number = pair
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        decoded.push(number.unwrap_or(byte));
        rest = if number.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    decoded
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;

    use super::*;

    #[track_caller]
    fn check(list: fn(&HeaderMap) -> Vec<HeaderName>, lines: &[(&str, &str)], want: &[&str]) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: HeaderName = name.parse().unwrap();
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        let mut got: Vec<String> = list(&headers).iter().map(|name| name.to_string()).collect();
        got.sort_unstable();
        assert_eq!(got, want);
    }

    #[test]
    fn credentials_overrides_and_nominated_names_are_taken_off_requests() {
        for name in [
            "Authorization",
            "Authorization_",
            "X_Api_Key",
            "x-api-key",
            "Cookie",
            "Via",
            "Proxy",
            "X-Forwarded-Host",
            "Transfer_Encoding",
            "Proxy-Authorization",
            "TE",
            "Expect",
            "X-DataPulse-Sidecar-Token",
            "X-HTTP-Method-Override",
            "X-Original-URL",
            "Upgrade",
        ] {
            check(request_drop_list, &[(name, "a")], &[&name.to_ascii_lowercase()]);
        }
        let lines = [("Connection", ""), ("Connection", "close, X-A"), ("x-a", "1"), ("x-b", "2")];
        check(request_drop_list, &lines, &["connection", "x-a"]);
        let kept = [("traceparent", "a"), ("accept", "b"), ("host", "c"), ("content-length", "1")];
        check(request_drop_list, &kept, &[]);
    }

    #[test]
    fn a_delivery_loses_what_is_of_the_way_and_whatever_claims_that_it_is_verified() {
        for name in ["Host", "Content-Length", "X-Datapulse-Verified", "Via", "X_A", "Expect"] {
            check(delivery_drop_list, &[(name, "a")], &[&name.to_ascii_lowercase()]);
        }
        let kept = [("authorization", "a"), ("x-datapulse-signature", "b"), ("user-agent", "c")];
        check(delivery_drop_list, &kept, &[]);
        check(connection_drop_list, &[("set-cookie", "a"), ("te", "b")], &["te"]);
    }

    #[test]
    fn what_is_the_upstreams_own_is_taken_off_responses() {
        let lines =
            [("Connection", "X-Secret"), ("X-Secret", "1"), ("Set-Cookie", "a"), ("etag", "b")];
        check(response_drop_list, &lines, &["connection", "set-cookie", "x-secret"]);
        check(response_drop_list, &[("Proxy-Authenticate", "a")], &["proxy-authenticate"]);
    }

    #[test]
    fn a_secret_is_found_in_each_form_it_is_written_in() {
        let secret: &[u8] = b"tok+en/value-1234567";
        for value in [
            "Bearer tok+en/value-1234567!".to_owned(),
            "e=tok%2Ben%2fvalue-1234567".to_owned(),
            STANDARD.encode("tok+en/value-1234567"),
            format!("Basic {}", STANDARD.encode("u:tok+en/value-1234567")),
            format!("Basic {}", STANDARD.encode("u2:xtok+en/value-1234567zz")),
        ] {
            assert!(contains_secret(value.as_bytes(), &[b"other", secret]), "{value}");
        }
        assert!(!contains_secret(b"tok+en/value-123456", &[secret, b""]));
    }
}
