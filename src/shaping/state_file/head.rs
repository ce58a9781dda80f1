//! The head of a region: which boot, quota and terms its slots are about. Pure.

use std::time::Duration;

use super::words::{mixed, nanos, put_words, sealed, words_of};
use crate::shaping::pace::{Start, Terms};
use crate::shaping::schedule::Schedule;

/// The first bytes of a region of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"dp-sched");
const WORDS: usize = 16;
/// No terms of a valid configuration are longer.
const SPAN_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a region says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The boot in which its moments mean something.
    pub boot: [u8; 16],
    /// The quota: [`name_hash`].
    pub name: u64,
    /// What the schedule keeps.
    pub terms: Terms,
    /// The second limit and its window.
    pub also: Option<(u32, Duration)>,
    /// Another one with each beginning, so that no slot of an earlier one is believed.
    pub began_at: Duration,
}

/// A short name for a quota's name.
#[must_use]
pub fn name_hash(name: &str) -> u64 {
    name.bytes().fold(MAGIC, |hash, byte| mixed(hash, u64::from(byte)))
}

/// Whether a region begins as one of this layout, whatever follows.
#[must_use]
pub fn is_begun(region: &[u8]) -> bool {
    region.starts_with(&MAGIC.to_le_bytes())
}

impl Head {
    /// The first bytes of the region.
    #[must_use]
    pub fn bytes(&self) -> [u8; WORDS * 8] {
        let mut bytes = [0; WORDS * 8];
        put_words(&mut bytes, &self.words());
        bytes
    }

    /// What the slots of this head are sealed with.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.words().last().copied().unwrap_or_default()
    }

    fn words(&self) -> [u64; WORDS] {
        let boot = u128::from_be_bytes(self.boot);
        let Terms { limit, window, spread, tick, burst } = self.terms;
        let (also, also_window) = self.also.unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "its two halves")]
        let (high, low) = ((boot >> 64) as u64, boot as u64);
        let words = [
            MAGIC,
            high,
            low,
            self.name,
            u64::from(limit),
            nanos(window),
            nanos(spread),
            nanos(tick),
            burst.map_or(0, |burst| u64::from(burst) + 1),
            u64::from(also),
            nanos(also_window),
            nanos(self.began_at),
            0,
            0,
            0,
            0,
        ];
        sealed(words, MAGIC)
    }

    /// What a region says of itself, where it can be believed.
    #[must_use]
    pub fn read(region: &[u8]) -> Option<Self> {
        let words: [u64; WORDS] = words_of(region);
        let [magic, high, low, name, limit, window, spread, tick, burst, also, also_window, at, ..] =
            sealed(words, MAGIC);
        if sealed(words, MAGIC) != words || magic != MAGIC {
            return None;
        }
        let spans = [window, spread, tick, also_window].map(Duration::from_nanos);
        let [window, spread, tick, also_window] = spans;
        if window.is_zero() || spans.iter().any(|span| *span > SPAN_MAX) {
            return None;
        }
        let burst = match burst.checked_sub(1) {
            Some(burst) => Some(u32::try_from(burst).ok()?),
            None => None,
        };
        let terms = Terms { limit: u32::try_from(limit).ok()?, window, spread, tick, burst };
        let also = (also > 0).then_some((u32::try_from(also).ok()?, also_window));
        let boot = (u128::from(high) << 64 | u128::from(low)).to_be_bytes();
        Some(Self { boot, name, terms, also, began_at: Duration::from_nanos(at) })
    }

    /// An empty schedule of these terms, for its cells.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.terms, self.also, Start::Idle, Duration::ZERO)
    }
}
