//! `Location` and `Link` of the upstream, pointed back to the address that the app called.
//!
//! Only whole authorities are compared, never parts of a text; what is not surely the upstream's
//! stays as it came.

use http::HeaderValue;

use crate::config::model::Origin;

/// `Location` (RFC 9110 section 10.2.2) with `caller_base` (`http://localhost:8080`) in the
/// upstream's place; `None`: to be left alone.
#[must_use]
pub fn location(value: &HeaderValue, upstream: &Origin, caller_base: &str) -> Option<HeaderValue> {
    let text = rewritten(value.to_str().ok()?, upstream, caller_base)?;
    HeaderValue::try_from(text).ok()
}

/// `Link` (RFC 8288 section 3): each target of the list, no parameter; `None`: nothing to change.
#[must_use]
pub fn link(value: &HeaderValue, upstream: &Origin, caller_base: &str) -> Option<HeaderValue> {
    let mut rest = value.to_str().ok()?;
    let mut text = String::with_capacity(rest.len());
    let mut changed = false;
    while let Some(start) = target_start(rest) {
        let (before, after) = rest.split_at_checked(start)?;
        let (target, tail) = after.split_once('>')?;
        text.push_str(before);
        if let Some(new) = rewritten(target, upstream, caller_base) {
            text.push_str(&new);
            changed = true;
        } else {
            text.push_str(target);
        }
        text.push('>');
        rest = tail;
    }
    text.push_str(rest);
    if changed { HeaderValue::try_from(text).ok() } else { None }
}

/// Where the next target begins, behind its `<`; one inside a quoted string is none.
fn target_start(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'<' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn rewritten(reference: &str, upstream: &Origin, caller_base: &str) -> Option<String> {
    let (tls, rest) = match reference.split_once("//")? {
        ("", rest) => (upstream.tls, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("https:") => (true, rest),
        (scheme, rest) if scheme.eq_ignore_ascii_case("http:") => (false, rest),
        _ => return None,
    };
    // Browsers end an authority at a backslash too: then it is not a host name below.
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at_checked(end)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            (host, if digits { port.parse().ok()? } else { return None })
        }
        _ => (authority, if tls { 443 } else { 80 }),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let same = tls == upstream.tls && port == upstream.port;
    if !same || !host.eq_ignore_ascii_case(&upstream.host) {
        return None;
    }
    Some(format!("{}{tail}", caller_base.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rewrite = fn(&HeaderValue, &Origin, &str) -> Option<HeaderValue>;

    #[track_caller]
    fn check(rewrite: Rewrite, value: &str, want: Option<&str>) {
        let upstream = Origin { tls: true, host: "api.datapulse.ai".into(), port: 443 };
        let got = rewrite(&HeaderValue::from_str(value).unwrap(), &upstream, "http://localhost:1");
        assert_eq!(got.as_ref().map(|value| value.to_str().unwrap()), want, "{value}");
    }

    #[test]
    fn only_the_upstreams_own_authority_is_rewritten() {
        for (value, want) in [
            ("https://api.datapulse.ai/a?b#c", "http://localhost:1/a?b#c"),
            ("HTTPS://API.datapulse.ai:443?b", "http://localhost:1?b"),
            ("//api.datapulse.ai/x", "http://localhost:1/x"),
            ("https://api.datapulse.ai", "http://localhost:1"),
        ] {
            check(location, value, Some(want));
        }
        for value in [
            "https://api.datapulse.ai.evil.example/",
            "https://api.datapulse.ai@evil.example/",
            "https://evil.example/https://api.datapulse.ai/",
            "https://u@api.datapulse.ai/",
            "https://api.datapulse.ai:8443/",
            "http://api.datapulse.ai/",
            "/v1/x",
            "x",
            "",
            "https://api.datapulse.ai\\@evil.example/",
            "https:/api.datapulse.ai/",
            "ftp://api.datapulse.ai/",
            "https://api.datapulse.ai:x/",
            "/a?u=//api.datapulse.ai/",
        ] {
            check(location, value, None);
        }
    }

    #[test]
    fn each_target_of_a_link_is_rewritten_and_no_parameter() {
        check(
            link,
            "<https://api.datapulse.ai/a,b>; rel=\"next\", </x>; title=\"<https://api.datapulse.ai/>, \\\"\", <//api.datapulse.ai/c>; rel=last",
            Some(
                "<http://localhost:1/a,b>; rel=\"next\", </x>; title=\"<https://api.datapulse.ai/>, \\\"\", <http://localhost:1/c>; rel=last",
            ),
        );
        check(link, "</x>; rel=next", None);
        check(link, "<https://api.datapulse.ai/a", None);
    }
}
