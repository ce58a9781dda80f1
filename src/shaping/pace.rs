//! When the next request may leave: evenly spaced, with bursts after idling as far as the envelope
//! allows. Pure: `now` is an argument, since a moment of the caller's choice. Allocates nothing
//! after [`Pace::new`].
//!
//! A send is *paced* when all debt is repaid: `n` paced sends take at least `(n − 1)` intervals,
//! which keeps every window and every sliding counter by itself. A *burst* runs up debt, and only
//! while the [`Envelope`] allows it.

use std::time::Duration;

use super::envelope::Envelope;
use super::history::{History, Marks, Sent};
pub use super::terms::{LATE_MAX, Start, Terms};
use super::terms::{OWN_SPREAD, SLACK};

/// One limit's schedule.
#[derive(Debug, Clone)]
pub struct Pace {
    pub(super) terms: Terms,
    pub(super) interval: Duration,
    debt_max: u32,
    memory: Duration,
    pub(super) envelope: Envelope,
    /// When all debt is repaid.
    pub(super) clear_at: Duration,
    /// From when on enough is known for bursts.
    bursts_from: Duration,
    /// No bursts either, because the upstream refused a request.
    calm_until: Duration,
    pub(super) slow_until: Duration,
}

impl Pace {
    /// A schedule that begins at `now`.
    #[must_use]
    pub fn new(terms: Terms, start: Start, now: Duration) -> Self {
        let terms = Terms { limit: terms.limit.max(1), ..terms };
        let Terms { limit, window, tick, .. } = terms;
        let memory = window + terms.spread;
        let (interval, debt_max) = (terms.interval(), terms.debt_max());
        let (clear_at, bursts_from) = match start {
            Start::Idle => (now, now),
            Start::Unknown => (now, now + memory),
            Start::UsedUp => (now + interval * (debt_max + 1), now + memory * 2),
        };
        let envelope = Envelope::new(limit, window, terms.spread + tick, true);
        Self {
            terms,
            interval,
            debt_max,
            memory,
            envelope,
            clear_at,
            bursts_from,
            calm_until: Duration::ZERO,
            slow_until: Duration::ZERO,
        }
    }

    /// The schedule of a bound that is counted by our own clock, where nothing has to be given up:
    /// never more than `limit` (0 is read as 1) in a `window`, closed at both ends, and no less.
    #[must_use]
    pub fn own(limit: u32, window: Duration, now: Duration) -> Self {
        let limit = limit.max(1);
        let (spread, tick) = (Duration::ZERO, Duration::ZERO);
        Self {
            terms: Terms { limit, window, spread, tick, burst: None },
            interval: (window + OWN_SPREAD) / limit + Duration::from_nanos(1),
            debt_max: limit / 5,
            memory: window,
            envelope: Envelope::new(limit, window, Duration::ZERO, false),
            clear_at: now,
            bursts_from: now,
            calm_until: Duration::ZERO,
            slow_until: Duration::ZERO,
        }
    }

    /// Takes into account what was sent before, under whatever terms.
    pub fn recall(&mut self, history: &History, now: Duration) {
        let Marks { clear_at, bursts_from, slow_until, .. } = history.marks;
        history.sent.iter().for_each(|sent| self.envelope.recall(*sent));
        if history.terms == self.terms {
            self.clear_at = self.clear_at.max(clear_at);
        } else {
            let owed = self.repaid(Duration::ZERO, &history.sent, now);
            self.clear_at = self.clear_at.max(owed);
        }
        self.slow_until = self.slow_until.max(slow_until);
        self.bursts_from = self.bursts_from.max(bursts_from);
        if history.terms.window < self.terms.window {
            // It does not reach back far enough.
            self.bursts_from = self.bursts_from.max(now + self.memory * 2);
        }
    }

    /// Takes into account what was sent beside, by another schedule.
    pub fn join(&mut self, history: &History, now: Duration) {
        self.recall(history, now);
        // Both are owed, and not the greater of the two.
        let sent = self.envelope.sent(now);
        self.clear_at = self.clear_at.max(self.repaid(Duration::ZERO, &sent, now));
    }

    /// Goes on under stricter terms.
    pub fn tighten(&mut self, terms: Terms, now: Duration) {
        let mut stricter = Self::new(terms, Start::Idle, now);
        stricter.recall(&self.history(now), now);
        stricter.clear_at = stricter.clear_at.max(self.clear_at);
        (stricter.bursts_from, stricter.calm_until) = (self.bursts_from, self.calm_until);
        *self = stricter;
    }

    /// So many requests were sent by others, at some time until now.
    pub fn add(&mut self, count: u32, now: Duration) {
        let sent = Sent { at: now, count };
        self.envelope.recall(sent);
        self.clear_at = self.repaid(self.clear_at, &[sent], now).max(self.clear_at);
    }

    /// A request leaves that was not held back: what was sent within two windows is owed from then on,
    /// and nothing for what was sent before. Gives what it costs.
    pub fn leave(&mut self, now: Duration) -> Duration {
        self.envelope.count(now);
        let sent = self.envelope.sent(now);
        self.clear_at = self.repaid(Duration::ZERO, &sent, now);
        self.interval
    }

    /// When it is repaid as if it had been sent at our own pace, beside what was owed before.
    pub(super) fn repaid(&self, owed: Duration, sent: &[Sent], now: Duration) -> Duration {
        let remembered = self.remembered();
        let sent = sent.iter().filter(|sent| sent.at + remembered >= now);
        let repaid = sent.fold(owed, |clear_at, sent| {
            let from = clear_at.max(sent.at.saturating_sub(SLACK));
            from.saturating_add(self.interval.saturating_mul(sent.count))
        });
        repaid.min(now + remembered)
    }

    /// After so long nobody counts a request any more: two windows, or one by our own clock.
    fn remembered(&self) -> Duration {
        if self.envelope.is_strict() {
            self.memory + self.terms.window + self.terms.tick
        } else {
            self.memory
        }
    }

    /// How many requests were sent sooner than they would have been evenly spaced.
    #[must_use]
    pub fn debt(&self, now: Duration) -> u32 {
        let ahead = self.clear_at.saturating_sub(now).as_nanos() / self.interval.as_nanos().max(1);
        u32::try_from(ahead).unwrap_or(u32::MAX)
    }

    /// What the schedule keeps.
    #[must_use]
    pub const fn terms(&self) -> Terms {
        self.terms
    }

    /// What was sent and where the clocks stand.
    #[must_use]
    pub fn history(&mut self, now: Duration) -> History {
        let (sent, marks) = (self.envelope.sent(now), self.marks());
        History { terms: self.terms, also: None, sent, also_sent: Vec::new(), marks }
    }

    /// Where the clocks stand; of a pause nothing is known here.
    #[must_use]
    pub fn marks(&self) -> Marks {
        let (clear_at, slow_until, bursts_from) =
            (self.clear_at, self.slow_until, self.bursts_from());
        Marks { clear_at, bursts_from, slow_until, paused_until: Duration::ZERO }
    }

    /// What is counted.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// Whether a request may leave now.
    ///
    /// # Errors
    /// When it is worth asking again: later than `now`.
    pub fn check(&mut self, now: Duration) -> Result<(), Duration> {
        if now >= self.clear_at {
            return Ok(());
        }
        let bursts_from = self.bursts_from();
        if self.debt_max == 0 || now < bursts_from {
            return Err(self.clear_at.min(bursts_from.max(now + self.interval)));
        }
        let repaid = self.burst_at();
        if now < repaid {
            return Err(repaid);
        }
        if self.envelope.allows(now) {
            return Ok(());
        }
        Err(self.clear_at.min(self.envelope.next_step(now)))
    }

    /// A request leaves now. Gives what it costs.
    pub fn charge(&mut self, now: Duration) -> Duration {
        let cost = self.interval_at(now);
        self.envelope.count(now);
        self.clear_at = self.clear_at.max(now.saturating_sub(SLACK)) + cost;
        cost
    }

    /// When a request leaves at the latest, with so many before it, if nothing else comes.
    #[must_use]
    pub fn leaves_by(&mut self, now: Duration, ahead: u64) -> Duration {
        let count = u32::try_from(ahead).unwrap_or(u32::MAX);
        let bursts = self.debt_max > 0 && now >= self.bursts_from();
        let room = bursts && self.envelope.has_room_for(ahead.saturating_add(1), now);
        let clear_at = self.clear_at.max(now);
        let debt = if room { self.debt_max.saturating_sub(1) } else { 0 };
        let spaced = self.interval.saturating_mul(count);
        let slow = (self.slow_until.saturating_sub(now) / 2).min(spaced);
        let spaced = spaced.saturating_add(slow);
        // A burst's first requests leave at once: as many as the debt has room for.
        now.max(clear_at.saturating_add(spaced).saturating_sub(self.interval * debt))
    }

    /// Whether a request leaves by `deadline`, with so many before it, if nothing else comes.
    ///
    /// Looks further than [`Self::leaves_by`]: debt that the envelope will have room for is no wait.
    #[must_use]
    pub fn leaves_in_time(&mut self, now: Duration, ahead: u64, deadline: Duration) -> bool {
        if self.leaves_by(now, ahead) <= deadline {
            return true;
        }
        // The schedule is asked once a cell at least.
        let by = deadline.saturating_sub(self.envelope.cell());
        if self.debt_max == 0 || by < now.max(self.bursts_from()) || now < self.slow_until {
            return false;
        }
        let count = u32::try_from(ahead).unwrap_or(u32::MAX);
        let debt = self.interval.saturating_mul(self.debt_max - 1);
        let spaced = self.clear_at.max(now).saturating_add(self.interval.saturating_mul(count));
        spaced <= by + debt && self.envelope.will_allow(ahead.saturating_add(1), now, by)
    }

    /// No bursts for two windows, and half the rate for so long: the upstream said that it is full.
    pub fn calm(&mut self, from: Duration, slow: Duration) {
        self.calm_until = self.calm_until.max(from + self.memory * 2);
        self.slow_until = self.slow_until.max(from + slow);
    }

    /// Takes back what [`Self::calm`] did. What was sent still counts.
    pub const fn forget(&mut self) {
        (self.slow_until, self.calm_until) = (Duration::ZERO, Duration::ZERO);
    }

    /// Between two paced requests.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// Requests in the last window.
    #[must_use]
    pub fn used(&mut self, now: Duration) -> u64 {
        self.envelope.used(now)
    }

    pub(super) fn bursts_from(&self) -> Duration {
        self.bursts_from.max(self.calm_until)
    }

    /// When there is room for one more within the largest debt.
    fn burst_at(&self) -> Duration {
        let debt = self.interval.saturating_mul(self.debt_max.saturating_sub(1));
        self.clear_at.saturating_sub(debt)
    }

    fn interval_at(&self, now: Duration) -> Duration {
        if now < self.slow_until { self.interval * 2 } else { self.interval }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms(limit: u32) -> Terms {
        let (spread, tick) = (Duration::from_millis(250), Duration::ZERO);
        Terms { limit, window: Duration::from_secs(60), spread, tick, burst: None }
    }

    /// How many leave at once at the start, and how many within a minute, with a queue that is
    /// never empty.
    fn check(terms: Terms, start: Start, at_once: u64, minute: std::ops::RangeInclusive<u64>) {
        let mut pace = Pace::new(terms, start, Duration::ZERO);
        let (mut now, mut first, mut sent) = (Duration::ZERO, 0, 0);
        while now < Duration::from_secs(60) {
            match pace.check(now) {
                Ok(()) => {
                    pace.charge(now);
                    first += u64::from(now.is_zero());
                    sent += 1;
                }
                Err(later) => {
                    assert!(later > now, "{later:?} is not later than {now:?}");
                    now = later;
                }
            }
        }
        assert_eq!(first, at_once, "{terms:?} {start:?}");
        assert!(minute.contains(&sent), "{sent} in the first minute: {terms:?} {start:?}");
    }

    #[test]
    fn bursts_are_what_is_known_to_be_safe() {
        check(terms(100), Start::Idle, 20, 98..=100);
        check(terms(1000), Start::Idle, 200, 990..=1000);
        check(terms(100), Start::Unknown, 1, 98..=100);
        check(terms(100), Start::UsedUp, 0, 77..=79);
        check(Terms { burst: Some(5), ..terms(100) }, Start::Idle, 3, 98..=100);
        check(Terms { burst: Some(1), ..terms(100) }, Start::Idle, 1, 98..=100);
        check(terms(1), Start::Idle, 1, 1..=1);
        check(terms(2), Start::Idle, 1, 1..=1);
    }

    #[test]
    fn a_bound_of_our_own_gives_nothing_away_and_nothing_up() {
        for (limit, window) in [(1, 1), (2, 1), (10, 60), (200, 60)] {
            let window = Duration::from_secs(window);
            let mut pace = Pace::own(limit, window, Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            while now < window * 20 {
                match pace.check(now) {
                    Ok(()) => {
                        pace.charge(now);
                        sent.push(now);
                    }
                    Err(later) => now = later,
                }
            }
            let limit = limit as usize;
            let within = |pair: &[Duration]| pair[limit] - pair[0] > window;
            assert!(sent.windows(limit + 1).all(within), "over {limit} in {window:?}");
            assert!(sent.len() * 100 >= limit * 20 * 98, "{} of {}", sent.len(), limit * 20);
        }
    }

    #[test]
    fn a_permit_that_is_given_back_can_be_used_at_once() {
        let mut pace = Pace::new(terms(2), Start::Idle, Duration::ZERO);
        let cost = pace.charge(Duration::ZERO);
        assert!(pace.check(Duration::from_secs(1)).is_err());
        pace.give_back(Duration::ZERO, Some(cost), Duration::from_secs(1));
        assert!(pace.check(Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn half_the_rate_after_a_throttle_and_no_bursts() {
        let mut pace = Pace::new(terms(100), Start::Idle, Duration::ZERO);
        pace.calm(Duration::from_secs(10), Duration::from_secs(5));
        let mut at = Vec::new();
        let mut now = Duration::from_secs(10);
        while at.len() < 12 {
            match pace.check(now) {
                Ok(()) => {
                    pace.charge(now);
                    at.push(now.as_secs_f64());
                }
                Err(later) => now = later,
            }
        }
        let gaps: Vec<_> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps[..3].iter().all(|gap| *gap > 1.2), "{gaps:?}");
        assert!(gaps[6..].iter().all(|gap| *gap < 0.62), "{gaps:?}");
    }

    #[test]
    fn what_was_charged_before_a_throttle_is_given_back_as_it_was_charged() {
        let (mut pace, now) = (Pace::new(terms(100), Start::Idle, Duration::ZERO), Duration::ZERO);
        pace.charge(now);
        let cost = pace.charge(now);
        pace.calm(now, Duration::from_secs(5));
        pace.give_back(now, Some(cost), now);
        assert_eq!(pace.debt(SLACK), 0, "one was sent, and its interval is half over");
        assert!(pace.check(pace.interval() - SLACK * 2).is_err(), "the other one's is not");
    }

    proptest! {
        /// Those that never leave are as if they had never been charged, or a little more careful.
        #[test]
        fn what_was_given_back_makes_nothing_leave_sooner_than_if_it_had_never_been(
            limit in 2_u32..300,
            burst in prop::option::of(1_u32..30),
            steps in prop::collection::vec((0_u64..900, 0_u64..4, any::<bool>()), 1..200),
        ) {
            let terms = Terms { burst, ..terms(limit) };
            let mut pace = Pace::new(terms, Start::Idle, Duration::ZERO);
            let mut without = pace.clone();
            let (mut now, mut taken) = (Duration::ZERO, Vec::new());
            for (gap, scale, leaves) in steps {
                now += Duration::from_millis(gap * scale);
                if pace.check(now).is_ok() {
                    prop_assert_eq!(without.check(now), Ok(()));
                    let cost = pace.charge(now);
                    if leaves {
                        without.charge(now);
                        taken.iter_mut().for_each(|(_, last)| *last = None);
                    } else {
                        taken.iter_mut().for_each(|(_, last)| *last = None);
                        taken.push((now, Some(cost)));
                    }
                }
                if scale == 0 {
                    for (at, last) in taken.drain(..) {
                        pace.give_back(at, last, now);
                    }
                }
            }
        }

        /// Arrivals at random, each sent as soon as the schedule lets it.
        #[test]
        fn no_window_and_no_sliding_counter_of_any_phase_is_over_the_limit(
            limit in 2_u32..60,
            gaps in prop::collection::vec(0_u64..4_000, 1..200),
            idle in 0_u64..200_000,
        ) {
            let mut pace = Pace::new(terms(limit), Start::Idle, Duration::ZERO);
            let (mut now, mut sent) = (Duration::ZERO, Vec::new());
            for (n, gap) in gaps.iter().enumerate() {
                now += Duration::from_millis(if n == 100 { idle } else { *gap / 4 });
                while let Err(later) = pace.check(now) {
                    now = later;
                }
                pace.charge(now);
                sent.push(now.as_secs_f64());
            }
            let within = |from: f64, to: f64| {
                sent.iter().filter(|at| (from..=to).contains(*at)).count() as f64
            };
            for at in &sent {
                prop_assert!(within(at - 60.24, *at) <= f64::from(limit), "a closed window");
                for phase in (0..60).step_by(7) {
                    let x = f64::from(phase);
                    let previous = within(at - x - 60.0, at - x - 1e-9);
                    let counted = previous * (1.0 - x / 60.0) + within(at - x, *at);
                    prop_assert!(counted <= f64::from(limit) + 1e-6, "{counted} with phase {x}");
                }
            }
        }

        #[test]
        fn a_request_leaves_when_it_was_told_at_the_latest(
            limit in 2_u32..300,
            before in prop::collection::vec(0_u64..2_000, 0..200),
            ahead in 0_u64..200,
        ) {
            let mut pace = Pace::new(terms(limit), Start::Idle, Duration::ZERO);
            let mut now = Duration::ZERO;
            for gap in before {
                now += Duration::from_millis(gap);
                if pace.check(now).is_ok() {
                    pace.charge(now);
                }
            }
            let told = pace.leaves_by(now, ahead);
            for _ in 0..ahead {
                while let Err(later) = pace.check(now) {
                    now = later;
                }
                pace.charge(now);
            }
            while let Err(later) = pace.check(now) {
                now = later;
            }
            prop_assert!(now <= told + Duration::from_millis(1), "{now:?}, told {told:?}");
        }

        #[test]
        fn what_is_told_to_leave_in_time_does(
            limit in 2_u32..300,
            before in prop::collection::vec(0_u64..2_000, 0..300),
            (ahead, wait) in (0_u64..100, 0_u64..40_000),
        ) {
            let mut pace = Pace::new(terms(limit), Start::Idle, Duration::ZERO);
            let mut now = Duration::ZERO;
            for gap in before {
                now += Duration::from_millis(gap);
                if pace.check(now).is_ok() {
                    pace.charge(now);
                }
            }
            let deadline = now + Duration::from_millis(wait);
            let told = pace.leaves_in_time(now, ahead, deadline);
            for _ in 0..=ahead {
                while let Err(later) = pace.check(now) {
                    now = later;
                }
                pace.charge(now);
            }
            prop_assert!(!told || now <= deadline + Duration::from_millis(1), "{now:?}, {deadline:?}");
        }
    }
}
