//! Identifiers that join a call's traces: W3C `traceparent`, and request ids.
//!
//! They are no secrets and guard nothing: unique is enough, unguessable is not needed.

/// The longest request id that is passed on.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Whether a caller's `traceparent` may be passed on as it is: version 00, lower-case, neither id
/// all zero (W3C Trace Context, section 3.2.2).
#[must_use]
pub fn is_traceparent(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'-');
    let mut next = |length| parts.next().filter(|part| is_hex(part, length));
    let (version, trace, parent, flags) = (next(2), next(32), next(16), next(2));
    let is_id = |part: Option<&[u8]>| part.is_some_and(|id| id.iter().any(|&byte| byte != b'0'));
    version == Some(b"00")
        && is_id(trace)
        && is_id(parent)
        && flags.is_some()
        && parts.next().is_none()
}

fn is_hex(part: &[u8], length: usize) -> bool {
    part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A new trace, not sampled.
#[must_use]
pub fn new_traceparent() -> String {
    let (trace, parent) = (fastrand::u128(1..), fastrand::u64(1..));
    format!("00-{trace:032x}-{parent:016x}-00")
}

/// Whether a caller's request id may be passed on and logged: 1 to 128 letters, digits, `.`, `_`, `-`.
#[must_use]
pub fn is_request_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES_MAX).contains(&value.len())
        && value.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

/// A new request id: 32 lower-case hex digits.
#[must_use]
pub fn new_request_id() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_strictly_formed_traceparent_is_passed_on() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(good.as_bytes()));
        assert!(is_traceparent(new_traceparent().as_bytes()));
        for bad in [
            good.to_ascii_uppercase(),
            good.replacen("00", "01", 1),
            format!("{good}-"),
            format!(" {good}"),
            good.replace("b7ad6b7169203331", "0000000000000000"),
            good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            String::new(),
        ] {
            assert!(!is_traceparent(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn request_ids_differ_and_are_well_formed() {
        let (one, other) = (new_request_id(), new_request_id());
        assert_ne!(one, other);
        assert!(is_hex(one.as_bytes(), 32));
    }
}
