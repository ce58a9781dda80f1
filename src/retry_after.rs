//! `Retry-After`: how long another server wants to be left alone. Pure.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// The longest wait that is believed.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(15 * 60);

/// The header's wait, as seconds or as a date in any of the three forms of RFC 9110 section 5.6.7;
/// `None` where there is none or it cannot be read. A date that is over is no wait.
///
/// A date is one of the other server's clock: it is held against that server's own `Date`, and
/// against our `wall` clock only where there is none.
#[must_use]
pub fn parse(headers: &HeaderMap, wall: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // Too many digits for a number are a long time.
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        let theirs = headers.get(header::DATE).and_then(|date| date_of(date.to_str().ok()?));
        date_of(text)?.duration_since(theirs.unwrap_or(wall)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn date_of(text: &str) -> Option<SystemTime> {
    httpdate::parse_http_date(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn seconds_and_every_form_of_a_date_are_read_and_bounded() {
        // Sun, 06 Nov 1994 08:49:00 GMT
        let wall = UNIX_EPOCH + Duration::from_secs(784_111_740);
        for (text, want) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("99999999", Some(900)),
            ("99999999999999999999", Some(900)),
            ("+7", None),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(37)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(37)),
            ("Sun Nov  6 08:49:37 1994", Some(37)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(900)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            let got = parse(&headers, wall).map(|wait| wait.as_secs());
            assert_eq!(got, want, "{text:?}");
        }
        assert_eq!(parse(&HeaderMap::new(), wall), None);
    }

    #[test]
    fn a_date_is_read_by_the_clock_of_the_server_that_sent_it() {
        // Sun, 06 Nov 1994 08:49:00 GMT, by our clock
        let wall = UNIX_EPOCH + Duration::from_secs(784_111_740);
        for (date, want) in [
            ("Sun, 06 Nov 1994 07:49:00 GMT", 30),
            ("Sun, 06 Nov 1994 09:49:00 GMT", 30),
            ("Sunday, 06-Nov-94 07:49:00 GMT", 30),
            ("yesterday", 60),
        ] {
            let until = date_of(date).unwrap_or(wall + Duration::from_secs(30));
            let until = httpdate::fmt_http_date(until + Duration::from_secs(30));
            let headers = HeaderMap::from_iter([
                (header::RETRY_AFTER, until.parse().unwrap()),
                (header::DATE, date.parse().unwrap()),
            ]);
            assert_eq!(parse(&headers, wall).unwrap().as_secs(), want, "{date}: {until}");
        }
    }
}
