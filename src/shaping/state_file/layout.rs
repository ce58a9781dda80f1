//! A schedule as bytes: a region of a fixed size a quota. Pure. Reading believes nothing that it
//! cannot check, and what it cannot believe is [`Nonsense`].
//!
//! A region is a head, which names the boot, the quota and its terms, and a slot for each tally of
//! either limit. A slot holds the tally's count and where the clocks stood when it was written, under
//! a checksum that only fits this head. A tally takes the slot of the one that nobody remembers any
//! more; a slot that was never used is filled too, so that none can go missing.

use std::time::Duration;

use super::head::Head;
use super::words::{nanos, put_words, sealed, words_of};
use crate::shaping::envelope::Envelope;
use crate::shaping::history::{History, Marks, Sent, Tally};
use crate::shaping::schedule::Schedule;

/// Bytes of a region.
pub const REGION_BYTES: usize = HEAD_BYTES + 2 * TALLIES_BYTES;
/// Bytes of a head, most of them unused, so that slots begin on a page.
pub const HEAD_BYTES: usize = 4096;
/// Bytes of a slot: none lies across two pages.
pub const SLOT_BYTES: usize = 64;
/// Slots of each of the two limits.
const SLOTS: u64 = 512;
const TALLIES_BYTES: usize = 512 * SLOT_BYTES;
const SLOT_WORDS: usize = SLOT_BYTES / 8;
/// No clock of a schedule stands further ahead, beside two of its windows and spreads.
const AHEAD_MAX: Duration = Duration::from_secs(20 * 60);

/// Why nothing is known from a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Not written since the machine started, or on another one.
    #[error("it was written before the machine started")]
    OtherBoot,
    /// A checksum is wrong, or a part is missing.
    #[error("it is damaged")]
    Damaged,
    /// A moment in it is still to come.
    #[error("it tells of the future")]
    Future,
}

/// Where tallies of a quota's limits are in its region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    salt: u64,
    cells: u64,
    also_cells: u64,
}

/// One write: so many bytes into a region, this far from its beginning.
pub type Slot = (usize, [u8; SLOT_BYTES]);

/// A whole region.
#[must_use]
pub fn region(head: &Head, history: &History, now: Duration) -> Vec<u8> {
    let (schedule, places) = (head.schedule(), Places::new(head));
    let mut bytes = vec![0; REGION_BYTES];
    let mut put = |(at, slot): Slot| {
        if let Some(into) = bytes.get_mut(at..at + SLOT_BYTES) {
            into.copy_from_slice(&slot);
        }
    };
    let (main, also) = schedule.envelopes();
    let limits = [
        (0, Some(main), places.cells, &history.sent),
        (1, also, places.also_cells, &history.also_sent),
    ];
    for (which, envelope, cells, sent) in limits {
        let empty = Tally { number: 0, count: 0 };
        (0..SLOTS).for_each(|slot| put(places.slot(which, slot, empty, Marks::default())));
        let Some(envelope) = envelope else { continue };
        for tally in tallies(envelope, sent, cells, now) {
            put(places.slot(which, tally.number, tally, history.marks));
        }
    }
    let head = head.bytes();
    bytes.iter_mut().zip(head).for_each(|(into, byte)| *into = byte);
    bytes
}

/// What a region tells of the past.
///
/// # Errors
/// [`Nonsense`], when it cannot be believed.
pub fn read(region: &[u8], boot: &[u8; 16], now: Duration) -> Result<History, Nonsense> {
    let head = Head::read(region).ok_or(Nonsense::Damaged)?;
    if head.boot != *boot {
        return Err(Nonsense::OtherBoot);
    }
    let (schedule, places) = (head.schedule(), Places::new(&head));
    let (main, also) = schedule.envelopes();
    let slots = region.get(HEAD_BYTES..REGION_BYTES).ok_or(Nonsense::Damaged)?;
    let (main_slots, also_slots) = slots.split_at(TALLIES_BYTES);
    let (sent, marks) = places.read(main_slots, main, places.cells, now)?;
    let also_sent = match also {
        Some(also) => places.read(also_slots, also, places.also_cells, now)?.0,
        None => Vec::new(),
    };
    let memory = (head.terms.window + head.terms.spread + head.terms.tick) * 3;
    let latest = now + AHEAD_MAX + memory;
    let Marks { clear_at, bursts_from, slow_until, paused_until } = marks;
    if [clear_at, bursts_from, slow_until, paused_until].iter().any(|mark| *mark > latest) {
        return Err(Nonsense::Future);
    }
    Ok(History { terms: head.terms, also: head.also, sent, also_sent, marks })
}

/// What was sent, by tallies, in their order; the last one is that of now.
fn tallies(envelope: &Envelope, sent: &[Sent], cells: u64, now: Duration) -> Vec<Tally> {
    let mut tallies: Vec<Tally> = Vec::new();
    let now = Sent { at: now, count: 0 };
    for sent in sent.iter().chain([&now]) {
        let number = envelope.tally(sent.at, cells).number;
        match tallies.last_mut().filter(|last| last.number >= number) {
            Some(last) => last.count = last.count.saturating_add(sent.count),
            None => tallies.push(Tally { number, count: sent.count }),
        }
    }
    tallies
}

impl Places {
    /// Of a region with this head.
    #[must_use]
    pub fn new(head: &Head) -> Self {
        let schedule = head.schedule();
        let (main, also) = schedule.envelopes();
        let also_cells = also.map_or(1, |also| also.cells_a_tally(SLOTS));
        Self { salt: head.salt(), cells: main.cells_a_tally(SLOTS), also_cells }
    }

    /// What is written when a request leaves: the slot of its tally.
    #[must_use]
    pub fn sent(&self, schedule: &Schedule, now: Duration) -> Slot {
        let (main, _) = schedule.envelopes();
        let tally = main.tally(now, self.cells);
        self.slot(0, tally.number, tally, schedule.marks())
    }

    /// The same for the second limit, where there is one.
    #[must_use]
    pub fn also_sent(&self, schedule: &Schedule, now: Duration) -> Option<Slot> {
        let tally = schedule.envelopes().1?.tally(now, self.also_cells);
        Some(self.slot(1, tally.number, tally, Marks::default()))
    }

    fn slot(&self, which: usize, number: u64, tally: Tally, marks: Marks) -> Slot {
        let Marks { clear_at, bursts_from, slow_until, paused_until } = marks;
        let [clear_at, bursts_from, slow_until, paused_until] =
            [clear_at, bursts_from, slow_until, paused_until].map(nanos);
        let count = u64::from(tally.count);
        let words = [tally.number, count, clear_at, bursts_from, slow_until, paused_until, 0, 0];
        let mut bytes = [0; SLOT_BYTES];
        put_words(&mut bytes, &sealed(words, self.salt));
        let slot = usize::try_from(number % SLOTS).unwrap_or_default();
        (HEAD_BYTES + which * TALLIES_BYTES + slot * SLOT_BYTES, bytes)
    }

    /// What the slots of one limit tell, and the clocks of the newest.
    fn read(
        &self,
        slots: &[u8],
        envelope: &Envelope,
        cells: u64,
        now: Duration,
    ) -> Result<(Vec<Sent>, Marks), Nonsense> {
        let newest = envelope.tally(now, cells).number;
        let (mut sent, mut last) = (Vec::new(), (0, Marks::default()));
        for (slot, bytes) in (0_u64..).zip(slots.chunks_exact(SLOT_BYTES)) {
            let words: [u64; SLOT_WORDS] = words_of(bytes);
            let [number, count, clear_at, bursts_from, slow_until, paused_until, ..] = words;
            let count = u32::try_from(count).map_err(|_too_many| Nonsense::Damaged)?;
            let [clear_at, bursts_from, slow_until, paused_until] =
                [clear_at, bursts_from, slow_until, paused_until].map(Duration::from_nanos);
            let marks = Marks { clear_at, bursts_from, slow_until, paused_until };
            let is_empty = number == 0 && count == 0;
            if sealed(words, self.salt) != words || (number % SLOTS != slot && !is_empty) {
                return Err(Nonsense::Damaged);
            }
            if number > newest {
                return Err(Nonsense::Future);
            }
            if number >= last.0 && !is_empty {
                last = (number, marks);
            }
            if count > 0 {
                let latest = envelope.latest(Tally { number, count }, cells);
                sent.push(Sent { at: latest.at.min(now), ..latest });
            }
        }
        sent.sort_unstable_by_key(|sent| sent.at);
        Ok((sent, last.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shaping::pace::{Start, Terms};
    use crate::shaping::state_file::head::name_hash;

    const BOOT: [u8; 16] = [7; 16];

    fn terms(limit: u32, window: u64) -> Terms {
        let (window, spread) = (Duration::from_secs(window), Duration::from_millis(250));
        Terms { limit, window, spread, tick: Duration::ZERO, burst: None }
    }

    fn head(terms: Terms, also: Option<(u32, Duration)>, began_at: Duration) -> Head {
        Head { boot: BOOT, name: name_hash("q"), terms, also, began_at }
    }

    /// Asks again and again in `gaps` (milliseconds), and tells each request to `sent`.
    fn use_up(
        schedule: &mut Schedule,
        now: &mut Duration,
        gaps: &[u64],
        mut sent: impl FnMut(&Schedule, Duration),
    ) {
        for gap in gaps {
            *now += Duration::from_millis(*gap);
            if schedule.admit(*now).is_ok() {
                sent(schedule, *now);
            }
        }
    }

    fn gaps() -> impl Strategy<Value = Vec<u64>> {
        prop::collection::vec(prop_oneof![0_u64..50, 0_u64..2000, 0_u64..40_000], 1..120)
    }

    proptest! {
        /// The whole region, or slot by slot as a process writes it that is then killed.
        #[test]
        fn what_is_read_back_never_allows_more(
            (limit, window, also) in (2_u32..60, 1_u64..100, prop::option::of((1_u32..5, 1_u64..20))),
            (before, after) in (gaps(), gaps()),
            throttled in any::<bool>(),
            start in 0_u64..1_000_000,
        ) {
            let also = also.map(|(limit, window)| (limit, Duration::from_secs(window)));
            let terms = terms(limit, window);
            let mut now = Duration::from_millis(start);
            let head = head(terms, also, now);
            let places = Places::new(&head);
            let mut schedule = Schedule::new(terms, also, Start::Idle, now);
            let mut bytes = region(&head, &schedule.history(now), now);
            let mut put = |schedule: &Schedule, now: Duration| {
                let slots = [Some(places.sent(schedule, now)), places.also_sent(schedule, now)];
                for (at, slot) in slots.into_iter().flatten() {
                    bytes[at..at + SLOT_BYTES].copy_from_slice(&slot);
                }
            };
            use_up(&mut schedule, &mut now, &before, &mut put);
            if throttled {
                schedule.throttled(now, 0, Some(Duration::from_secs(3)));
                put(&schedule, now);
            }
            let history = read(&bytes, &BOOT, now).unwrap();
            prop_assert_eq!(&history.marks, &schedule.marks());
            let mut again = Schedule::new(terms, also, Start::Idle, now);
            again.recall(&history, now);
            // Whatever it allows, the one that lived on allows too, and little more than it.
            let (mut both, mut one) = (0, 0);
            for gap in after {
                now += Duration::from_millis(gap);
                let (lived_on, recalled) = (schedule.admit(now), again.admit(now));
                prop_assert!(lived_on.is_ok() || recalled.is_err(), "{now:?}");
                match (lived_on, recalled) {
                    (Ok(_), Ok(_)) => both += 1,
                    (Ok(charge), Err(_)) => {
                        schedule.give_back(charge, now);
                        one += 1;
                    }
                    _ => {}
                }
            }
            prop_assert!(one == 0, "{one} more, {both} alike");
        }

        #[test]
        fn damage_is_noticed_wherever_it_is(
            gaps in gaps(),
            (at, flip) in (0..REGION_BYTES, 1_u8..),
        ) {
            let mut now = Duration::from_secs(1000);
            let head = head(terms(10, 60), Some((2, Duration::from_secs(1))), now);
            let mut schedule = Schedule::new(head.terms, head.also, Start::Idle, now);
            use_up(&mut schedule, &mut now, &gaps, |_, _| {});
            let mut bytes = region(&head, &schedule.history(now), now);
            let whole = read(&bytes, &BOOT, now).unwrap();
            bytes[at] ^= flip;
            match read(&bytes, &BOOT, now) {
                Ok(history) => prop_assert_eq!(history, whole, "byte {}", at),
                Err(nonsense) => prop_assert_eq!(nonsense, Nonsense::Damaged),
            }
        }

        #[test]
        fn no_bytes_at_all_make_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..2 * REGION_BYTES),
        ) {
            prop_assert!(read(&bytes, &BOOT, Duration::ZERO).is_err());
        }
    }

    #[test]
    fn damage_is_noticed_at_each_byte_of_the_head_and_of_each_kind_of_slot() {
        let now = Duration::from_secs(1000);
        let head = head(terms(10, 60), Some((2, Duration::from_secs(1))), now);
        let mut schedule = Schedule::new(head.terms, head.also, Start::Idle, now);
        schedule.admit(now).unwrap();
        let bytes = region(&head, &schedule.history(now), now);
        let whole = read(&bytes, &BOOT, now).unwrap();
        assert_eq!((whole.sent.len(), whole.also_sent.len()), (1, 1));
        let (used, _) = Places::new(&head).sent(&schedule, now);
        let (also_used, _) = Places::new(&head).also_sent(&schedule, now).unwrap();
        let parts = [0, HEAD_BYTES, used, also_used, REGION_BYTES - SLOT_BYTES];
        for at in parts.iter().flat_map(|from| *from..from + SLOT_BYTES).chain(64..128) {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                assert_eq!(read(&damaged, &BOOT, now), Err(Nonsense::Damaged), "byte {at}");
            }
        }
        for length in [0, 1, HEAD_BYTES, REGION_BYTES - 1] {
            assert_eq!(read(&bytes[..length], &BOOT, now), Err(Nonsense::Damaged), "{length}");
        }
        let mut zeroed = bytes;
        zeroed[HEAD_BYTES..].fill(0);
        assert_eq!(read(&zeroed, &BOOT, now), Err(Nonsense::Damaged), "a lost page");
    }

    #[test]
    fn another_boot_and_the_future_are_nonsense() {
        let now = Duration::from_secs(1000);
        let head = head(terms(10, 60), None, now);
        let mut schedule = Schedule::new(head.terms, None, Start::Idle, now);
        schedule.admit(now).unwrap();
        let bytes = region(&head, &schedule.history(now), now);
        assert_eq!(read(&bytes, &[8; 16], now), Err(Nonsense::OtherBoot));
        assert_eq!(read(&bytes, &BOOT, Duration::from_secs(999)), Err(Nonsense::Future));
        let mut history = schedule.history(now);
        history.marks.clear_at = now + Duration::from_secs(3600);
        let bytes = region(&head, &history, now);
        assert_eq!(read(&bytes, &BOOT, now), Err(Nonsense::Future));
        // A slot of an earlier beginning is not believed under a new one.
        let mut mixed =
            region(&Head { began_at: Duration::ZERO, ..head }, &schedule.history(now), now);
        let (at, slot) = Places::new(&head).sent(&schedule, now);
        mixed[at..at + SLOT_BYTES].copy_from_slice(&slot);
        assert_eq!(read(&mixed, &BOOT, now), Err(Nonsense::Damaged));
    }
}
