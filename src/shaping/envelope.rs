//! What was sent of late, and whether one more would trip a limiter of any phase. Pure: `now` is
//! an argument. Nothing here allocates after [`Envelope::new`].
//!
//! With `A(y)` sends in the last `y`, a window `W`, a limit `L` and a spread `J`, one more send is
//! allowed when, counting it, for all `x` in `[0, W)`:
//! `(x/W)·A(x + J) + (1 − x/W)·A(x + W + J) ≤ L`.
//! `x = 0` is the sliding log with a margin for jitter; all `x` together are the sliding counter
//! `previous × (1 − x/W) + current` of every phase.

use std::time::Duration;

use super::history::{Sent, Tally};

/// A window is counted in so many cells; a cell counts as a whole as soon as it is touched.
const CELLS: u64 = 120;

/// Counts of what was sent over two windows and the spread.
#[derive(Debug, Clone)]
pub struct Envelope {
    limit: u64,
    window: u64,
    spread: u64,
    strict: bool,
    cell: u64,
    /// A ring of a power of two, by the cell's index.
    cells: Box<[u32]>,
    newest: u64,
    total: u64,
}

impl Envelope {
    /// `limit` sends in each `window`, with `spread` between our send and the upstream's count.
    ///
    /// `strict` covers sliding counters too; without it, windows of any phase and logs.
    #[must_use]
    pub fn new(limit: u32, window: Duration, spread: Duration, strict: bool) -> Self {
        let (window, spread) = (nanos(window).max(CELLS), nanos(spread));
        let cell = window.div_ceil(CELLS);
        // Two windows, the spread, and the cells that are only touched at either end.
        let length = (2 * CELLS + spread.div_ceil(cell) + 4).next_power_of_two();
        let cells = vec![0; usize::try_from(length).unwrap_or(usize::MAX)].into_boxed_slice();
        let limit = u64::from(limit);
        Self { limit, window, spread, strict, cell, cells, newest: length, total: 0 }
    }

    /// Whether one more send keeps within the limit.
    #[must_use]
    pub fn allows(&mut self, now: Duration) -> bool {
        self.advance(now);
        self.total < self.limit || self.holds(now, 1)
    }

    /// Whether so many more sends at once, at a moment that is still to come, keep within the limit
    /// if nothing is sent before. They do as well when some of them are sent before.
    #[must_use]
    pub fn will_allow(&mut self, sends: u64, now: Duration, at: Duration) -> bool {
        self.advance(now);
        self.total.saturating_add(sends) <= self.limit || self.holds(at.max(now), sends)
    }

    /// The most that any limiter which the inequality covers can have counted at `at`, with what was
    /// sent since then.
    #[must_use]
    pub fn level(&self, at: Duration) -> u64 {
        let level = self.highest(at, 0, u128::MAX).div_ceil(u128::from(self.window));
        u64::try_from(level).unwrap_or(u64::MAX)
    }

    /// The inequality, with so many more sends at a moment that is not before the newest cell.
    fn holds(&self, at: Duration, sends: u64) -> bool {
        let most = u128::from(self.limit) * u128::from(self.window);
        self.highest(at, sends, most) <= most
    }

    /// The highest of the weighted sums, times the window, or the first that is over `enough`.
    fn highest(&self, at: Duration, sends: u64, enough: u128) -> u128 {
        let from = self.position(at).saturating_sub(self.spread);
        let mut index = from / self.cell;
        let mut near = sends.saturating_add(self.sum(index, self.newest + 1));
        let mut far = near + self.sum(index.saturating_sub(CELLS), index);
        let mut highest = u128::from(far) * u128::from(self.window);
        // Between two steps the weighted sum falls with x: only the steps need a look.
        let mut x = from % self.cell;
        while self.strict && x < self.window && highest <= enough {
            index = index.saturating_sub(1);
            near += self.counted(index);
            far += self.counted(index.saturating_sub(CELLS));
            let weighted =
                u128::from(x) * u128::from(near) + u128::from(self.window - x) * u128::from(far);
            highest = highest.max(weighted);
            x += self.cell;
        }
        highest
    }

    /// Whether so many more sends, at whatever moments from now on, keep within the limit.
    #[must_use]
    pub fn has_room_for(&mut self, sends: u64, now: Duration) -> bool {
        self.advance(now);
        self.total.saturating_add(sends) <= self.limit
    }

    /// A request was sent.
    pub fn count(&mut self, now: Duration) {
        self.advance(now);
        let newest = self.newest;
        if let Some(cell) = self.cell_mut(newest) {
            *cell = cell.saturating_add(1);
            self.total += 1;
        }
    }

    /// So many were sent at `at`, which may be before what was counted last.
    pub fn recall(&mut self, sent: Sent) {
        self.advance(sent.at);
        let index = self.position(sent.at) / self.cell;
        let kept = index + self.length() > self.newest;
        if let Some(cell) = self.cell_mut(index).filter(|_| kept) {
            // What a full cell does not take never leaves it either.
            let taken = sent.count.min(u32::MAX - *cell);
            *cell += taken;
            self.total += u64::from(taken);
        }
    }

    /// Whether it covers sliding counters, which look back two windows.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// What was sent, the oldest first, each as late as it can have been.
    #[must_use]
    pub fn sent(&mut self, now: Duration) -> Vec<Sent> {
        self.advance(now);
        let tallies = self.tallies(1).into_iter().filter(|tally| tally.count > 0);
        let latest = tallies.map(|tally| self.latest(tally, 1));
        latest.map(|sent| Sent { at: sent.at.min(now), ..sent }).collect()
    }

    /// The latest moment at which what is counted in a tally of so many cells can have been sent.
    #[must_use]
    pub fn latest(&self, tally: Tally, cells: u64) -> Sent {
        let cells = cells.saturating_mul(self.cell);
        let end = tally.number.saturating_add(1).saturating_mul(cells);
        Sent { at: Duration::from_nanos(end.saturating_sub(1)), count: tally.count }
    }

    /// How many cells one of at most `most` tallies has.
    #[must_use]
    pub fn cells_a_tally(&self, most: u64) -> u64 {
        self.length().div_ceil(most.max(1)).max(1)
    }

    /// The tally of `cells` cells that `at` is in.
    #[must_use]
    pub fn tally(&self, at: Duration, cells: u64) -> Tally {
        self.tally_of(nanos(at) / self.cell / cells, cells)
    }

    /// Every tally that is remembered, the oldest first.
    #[must_use]
    pub fn tallies(&self, cells: u64) -> Vec<Tally> {
        let newest = self.newest.saturating_sub(self.length());
        let oldest = (newest + 1).saturating_sub(self.length());
        (oldest / cells..=newest / cells).map(|number| self.tally_of(number, cells)).collect()
    }

    fn tally_of(&self, number: u64, cells: u64) -> Tally {
        let from = number * cells + self.length();
        let count = self.sum(from, from + cells);
        Tally { number, count: u32::try_from(count).unwrap_or(u32::MAX) }
    }

    /// The request that was counted at `at` was not sent.
    pub fn uncount(&mut self, at: Duration) {
        let index = self.position(at) / self.cell;
        let kept = index <= self.newest && index + self.length() > self.newest;
        if let Some(cell) = self.cell_mut(index).filter(|cell| kept && **cell > 0) {
            *cell -= 1;
            self.total -= 1;
        }
    }

    /// Sends in the last window.
    #[must_use]
    pub fn used(&mut self, now: Duration) -> u64 {
        self.advance(now);
        self.sum(self.newest.saturating_sub(CELLS) + 1, self.newest + 1)
    }

    /// For how long, from `from` until now, a window held at least so many sends; and until when this was
    /// looked at, which is where the last whole cell ends. What is not remembered any more is taken to
    /// have been like what is.
    #[must_use]
    pub fn time_at(&mut self, least: u64, from: Duration, now: Duration) -> (Duration, Duration) {
        self.advance(now);
        let ended = self.position(now) / self.cell;
        // The first whose whole window is remembered.
        let oldest = (self.newest + CELLS).saturating_sub(self.length());
        let begun = self.position(from) / self.cell;
        let first = begun.max(oldest);
        let mut held = self.sum(first.saturating_sub(CELLS - 1), first);
        let mut cells = 0;
        for index in first..ended {
            held += self.counted(index);
            cells += u64::from(held >= least);
            held -= self.counted(index.saturating_sub(CELLS - 1));
        }
        let until = ended.saturating_sub(self.length()).saturating_mul(self.cell);
        let (asked, seen) = (ended.saturating_sub(begun), ended.saturating_sub(first).max(1));
        let near = self.cell.saturating_mul(cells).saturating_mul(asked) / seen;
        (Duration::from_nanos(near), Duration::from_nanos(until))
    }

    /// For how long a cell counts as a whole.
    #[must_use]
    pub const fn cell(&self) -> Duration {
        Duration::from_nanos(self.cell)
    }

    /// When the counts move on: before then, [`Self::allows`] hardly changes its mind.
    #[must_use]
    pub fn next_step(&self, now: Duration) -> Duration {
        let from = self.position(now).saturating_sub(self.spread);
        now + Duration::from_nanos(self.cell - from % self.cell)
    }

    /// Nanoseconds with room for all of the history below zero.
    fn position(&self, at: Duration) -> u64 {
        nanos(at).saturating_add(self.length().saturating_mul(self.cell))
    }

    fn length(&self) -> u64 {
        self.cells.len() as u64
    }

    fn cell_mut(&mut self, index: u64) -> Option<&mut u32> {
        let mask = self.length() - 1;
        self.cells.get_mut(usize::try_from(index & mask).ok()?)
    }

    fn at(&self, index: u64) -> u64 {
        let mask = self.length() - 1;
        let cell = usize::try_from(index & mask).ok().and_then(|at| self.cells.get(at));
        cell.map_or(0, |cell| u64::from(*cell))
    }

    /// What is counted in a cell, as far as it is remembered.
    fn counted(&self, index: u64) -> u64 {
        let is_remembered = index <= self.newest && index + self.length() > self.newest;
        if is_remembered { self.at(index) } else { 0 }
    }

    /// What is counted in the cells from `from` to before `to`, as far as they are remembered.
    fn sum(&self, from: u64, to: u64) -> u64 {
        let remembered = (self.newest + 1).saturating_sub(self.length());
        let cells = from.max(remembered)..to.min(self.newest + 1);
        cells.map(|index| self.at(index)).sum()
    }

    /// Forgets what is older than the ring.
    fn advance(&mut self, now: Duration) {
        let index = self.position(now) / self.cell;
        let steps = index.saturating_sub(self.newest).min(self.length());
        for index in index - steps..index {
            if let Some(cell) = self.cell_mut(index + 1) {
                let gone = std::mem::take(cell);
                self.total -= u64::from(gone);
            }
        }
        self.newest = self.newest.max(index);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WINDOW: f64 = 60.0;

    /// What the formula says of sends at these times, the last one included, cell-free.
    fn worst(sent: &[f64], now: f64, spread: f64) -> f64 {
        let within = |y: f64| sent.iter().filter(|at| now - **at <= y).count() as f64;
        // The sum only rises where a send enters one of the two counts.
        let steps = sent.iter().flat_map(|at| [now - at - spread, now - at - spread - WINDOW]);
        let steps = steps.filter(|x| (0.0..WINDOW).contains(x)).chain([0.0]);
        let weighted = |x: f64| {
            let part = x / WINDOW;
            part * within(x + spread) + (1.0 - part) * within(x + WINDOW + spread)
        };
        steps.map(weighted).fold(0.0, f64::max)
    }

    #[test]
    fn what_does_not_go_into_a_full_cell_is_not_counted_for_ever() {
        let (window, spread) = (Duration::from_secs(60), Duration::from_millis(250));
        let mut envelope = Envelope::new(100, window, spread, true);
        for _ in 0..3 {
            envelope.recall(Sent { at: Duration::from_secs(1), count: u32::MAX });
        }
        assert_eq!(envelope.total, u64::from(u32::MAX));
        assert!(!envelope.allows(Duration::from_secs(1)));
        let later = Duration::from_secs(200);
        assert!(envelope.allows(later));
        assert_eq!((envelope.used(later), envelope.total), (0, 0));
    }

    proptest! {
        #[test]
        fn what_is_allowed_holds_the_formula_for_every_phase(
            limit in 1_u32..40,
            gaps in prop::collection::vec(0.0_f64..6.0, 1..200),
        ) {
            let mut envelope =
                Envelope::new(limit, Duration::from_secs(60), Duration::from_millis(250), true);
            let (mut now, mut sent) = (0.0, Vec::new());
            for gap in gaps {
                now += gap;
                if envelope.allows(Duration::from_secs_f64(now)) {
                    envelope.count(Duration::from_secs_f64(now));
                    sent.push(now);
                    let worst = worst(&sent, now, 0.25);
                    prop_assert!(worst <= f64::from(limit) + 1e-6, "{worst} at {now}: {sent:?}");
                }
            }
        }

        #[test]
        fn a_send_that_was_taken_back_leaves_no_trace(gaps in prop::collection::vec(0_u64..9000, 1..50)) {
            let spread = Duration::from_millis(250);
            let mut envelope = Envelope::new(3, Duration::from_secs(60), spread, true);
            let mut now = Duration::ZERO;
            for gap in gaps {
                now += Duration::from_millis(gap);
                envelope.count(now);
                envelope.uncount(now);
                prop_assert_eq!((envelope.used(now), envelope.total), (0, 0));
            }
        }
    }

    proptest! {
        #[test]
        fn the_level_is_what_the_formula_says_or_a_cell_more(
            gaps in prop::collection::vec(0.0_f64..3.0, 1..120),
        ) {
            let spread = Duration::from_millis(250);
            let mut envelope = Envelope::new(1000, Duration::from_secs(60), spread, true);
            let (mut now, mut sent) = (0.0, Vec::new());
            for gap in gaps {
                now += gap;
                envelope.count(Duration::from_secs_f64(now));
                sent.push(now);
            }
            let level = envelope.level(Duration::from_secs_f64(now)) as f64;
            prop_assert!(level >= worst(&sent, now, 0.25) - 1e-6);
            prop_assert!(level <= worst(&sent, now, 1.25).ceil() + 1.0);
        }

        #[test]
        fn what_will_be_allowed_at_once_is_allowed_bit_by_bit(
            gaps in prop::collection::vec(0_u64..3000, 1..100),
            sends in 1_u64..20,
            (early, wait) in (0.0_f64..1.0, 0_u64..60_000),
        ) {
            let spread = Duration::from_millis(250);
            let mut envelope = Envelope::new(20, Duration::from_secs(60), spread, true);
            let mut now = Duration::from_secs(100);
            for gap in gaps {
                now += Duration::from_millis(gap);
                if envelope.allows(now) {
                    envelope.count(now);
                }
            }
            let at = now + Duration::from_millis(wait);
            let told = envelope.will_allow(sends, now, at);
            // Some before, as far as that is allowed, and the rest then.
            let before = now + (at - now).mul_f64(early);
            let mut left = sends;
            for moment in [before, at] {
                while left > 0 && envelope.allows(moment) {
                    envelope.count(moment);
                    left -= 1;
                }
            }
            prop_assert!(!told || left == 0, "{left} of {sends} are left");
        }

        #[test]
        fn what_is_recalled_is_what_was_counted(
            gaps in prop::collection::vec(0_u64..2000, 1..300),
            window in 1_u64..100,
            most in 30_u64..600,
        ) {
            let new = || {
                let spread = Duration::from_millis(250);
                Envelope::new(3, Duration::from_secs(window), spread, true)
            };
            let (mut envelope, mut now) = (new(), Duration::from_secs(1_000));
            for gap in gaps {
                now += Duration::from_millis(gap);
                envelope.count(now);
            }
            let mut same = new();
            envelope.sent(now).into_iter().for_each(|sent| same.recall(sent));
            prop_assert_eq!(&same.cells, &envelope.cells);
            prop_assert_eq!((same.newest, same.total), (envelope.newest, envelope.total));
            let cells = envelope.cells_a_tally(most);
            let tallies = envelope.tallies(cells);
            prop_assert!(tallies.len() as u64 <= most + 1, "{} of {most}", tallies.len());
            let counted: u64 = tallies.iter().map(|tally| u64::from(tally.count)).sum();
            prop_assert_eq!(counted, envelope.total);
            prop_assert_eq!(Some(&envelope.tally(now, cells)), tallies.last());
        }
    }

    #[test]
    fn a_full_window_allows_again_once_it_and_the_next_went_by() {
        let window = Duration::from_secs(60);
        let mut envelope = Envelope::new(2, window, Duration::from_millis(250), true);
        envelope.count(Duration::ZERO);
        envelope.count(Duration::ZERO);
        // The counter still holds (1 − x/W) × 2 of them until the next window is over.
        for (at, allowed) in [(0, false), (59, false), (60, false), (61, false), (121, true)] {
            assert_eq!(envelope.allows(Duration::from_secs(at)), allowed, "{at} s");
        }
        let mut log = Envelope::new(2, window, Duration::from_millis(250), false);
        log.count(Duration::ZERO);
        log.count(Duration::ZERO);
        for (at, allowed) in [(0, false), (60, false), (61, true)] {
            assert_eq!(log.allows(Duration::from_secs(at)), allowed, "{at} s");
        }
    }
}
