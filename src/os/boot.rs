//! Which run of the machine this is, and for how long it has been running: what makes a moment that
//! another process wrote down mean something to this one.

use std::time::Duration;

use tokio::time::Instant;

/// A run of the machine, as this process finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// Another one with each boot.
    pub id: [u8; 16],
    /// The machine's start, by the clock that tokio reads. That clock stands still while the machine
    /// is suspended, so what was written down seems younger than it is, and never older.
    pub at: Instant,
}

impl Boot {
    /// `None` where the system does not tell its boots apart: no moment outlives a process then.
    #[must_use]
    pub fn current() -> Option<Self> {
        let id = parse(&std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?)?;
        let up = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).ok()?;
        let at = Instant::now().checked_sub(Duration::from(up))?;
        Some(Self { id, at })
    }
}

/// Reads `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
fn parse(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.trim().chars().filter(|character| *character != '-').collect();
    let fits = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u128::from_str_radix(&digits, 16).ok().filter(|_| fits)?;
    Some(id.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_and_nothing_else_is_taken_for_one() {
        let id = parse("00112233-4455-6677-8899-aabbccddeeff\n").unwrap();
        assert_eq!((id[0], id[1], id[15]), (0, 0x11, 0xff));
        for text in
            ["", "0", "+0112233-4455-6677-8899-aabbccddeeff", "zz112233445566778899aabbccddeeff"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn two_looks_agree() {
        let (one, two) = (Boot::current().unwrap(), Boot::current().unwrap());
        assert_eq!(one.id, two.id);
        let apart = one.at.max(two.at).saturating_duration_since(one.at.min(two.at));
        assert!(apart < Duration::from_secs(5), "{apart:?}");
        assert!(one.at < Instant::now());
    }
}
