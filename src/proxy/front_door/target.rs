//! The request target: judged decoded, sent byte for byte as it came.
//!
//! Refuses rather than normalises. The query is not judged.

use http::uri::PathAndQuery;

use crate::proxy::reject::Rejection;

const FORM: Rejection = Rejection::BadRequest(
    "the target must be a path that begins with one slash, of visible ASCII without # and \\",
);
const ENCODING: Rejection = Rejection::BadRequest(
    "the path must be percent-encoded UTF-8, and hold no control character and no backslash",
);
const DOTS: Rejection =
    Rejection::BadRequest("the path must have no dot segment, in whatever encoding");

/// Path and query of a request, in origin-form (RFC 9112 section 3.2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    raw: PathAndQuery,
    segments: Vec<String>,
}

impl Target {
    /// What must be sent: exactly what was received.
    #[must_use]
    pub const fn raw(&self) -> &PathAndQuery {
        &self.raw
    }

    /// The path as it was received.
    #[must_use]
    pub fn path(&self) -> &str {
        self.raw.path()
    }

    /// The query as it was received, without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.raw.query()
    }

    /// The path's segments, for judging: cut at each `/`, then decoded once.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.segments
    }

    pub(super) fn parse(target: &[u8]) -> Result<Self, Rejection> {
        let visible = target.iter().all(|byte| byte.is_ascii_graphic() && !b"#\\<>".contains(byte));
        if !visible || !target.starts_with(b"/") || target.starts_with(b"//") {
            return Err(FORM);
        }
        let raw = PathAndQuery::try_from(target).map_err(|_invalid| FORM)?;
        if raw.as_str().as_bytes() != target {
            return Err(FORM);
        }
        let path = raw.path().strip_prefix('/').ok_or(FORM)?;
        let segments = path.split('/').map(judge_segment).collect::<Result<_, _>>()?;
        Ok(Self { raw, segments })
    }
}

/// Decodes one segment once, and refuses what one or two decodings reveal.
fn judge_segment(raw: &str) -> Result<String, Rejection> {
    if !raw.contains('%') {
        return if has_dot_segment(raw) { Err(DOTS) } else { Ok(raw.to_owned()) };
    }
    let once = decode(raw, Stray::Refused).and_then(clean).ok_or(ENCODING)?;
    // A percent sign that is itself encoded is an ordinary character, so it may stand alone here.
    let twice = decode(&once, Stray::Kept).and_then(clean).ok_or(ENCODING)?;
    if has_dot_segment(&once) || has_dot_segment(&twice) {
        return Err(DOTS);
    }
    Ok(once)
}

/// What a percent sign without two hex digits behind it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stray {
    Refused,
    Kept,
}

fn decode(text: &str, stray: Stray) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let pair = match (byte, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        if let Some(((high, low), after)) = pair {
            decoded.push(high << 4 | low);
            rest = after;
        } else if byte == b'%' && stray == Stray::Refused {
            return None;
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Overlong forms are no UTF-8, and so refused here too.
fn clean(decoded: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(decoded).ok()?;
    if text.chars().any(|c| c.is_control() || c == '\\') { None } else { Some(text) }
}

/// Servers differ in what they take for a segment's end, and some drop white space at it.
fn has_dot_segment(text: &str) -> bool {
    text.split(['/', ';']).any(|part| matches!(part.trim(), "." | ".."))
}
