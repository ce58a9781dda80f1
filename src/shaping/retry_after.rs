//! How long an upstream asks to wait (RFC 9110 section 10.2.3): seconds, or one of three forms of a
//! date. Pure: the wall clock's time is an argument.

use std::time::{Duration, SystemTime};

/// Longer waits are cut to this.
pub const WAIT_MAX: Duration = Duration::from_secs(15 * 60);

/// What a `Retry-After` says; `None` where it says nothing that can be read.
///
/// A date that is over is no wait at all.
#[must_use]
pub fn parse(value: &[u8], wall: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are a long time too.
        text.parse().map_or(WAIT_MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(wall).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_three_forms_of_a_date_are_read() {
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_757); // 08:49:17 GMT
        for (text, want) in [
            ("0", Some(0)),
            ("30", Some(30)),
            (" 30\t", Some(30)),
            ("901", Some(900)),
            ("99999999999999999999999", Some(900)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(20)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(20)),
            ("Sun Nov  6 08:49:37 1994", Some(20)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("Tue, 08 Nov 1994 08:49:37 GMT", Some(900)),
            ("", None),
            ("-1", None),
            ("+5", None),
            ("1.5", None),
            ("soon", None),
            ("30, 40", None),
        ] {
            let read = parse(text.as_bytes(), wall).map(|wait| wait.as_secs());
            assert_eq!(read, want, "{text:?}");
        }
        assert_eq!(parse(b"\xff", wall), None);
    }
}
