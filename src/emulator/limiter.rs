//! The four limiters that APIs use, for one key. Pure: `now` is an argument, nothing waits.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Which limiter the emulator plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A count that starts over each window, the first window starting with the first request.
    FixedWindow,
    /// The time of each admitted request of the last window.
    SlidingLog,
    /// `previous × (1 − elapsed/window) + current`, as Cloudflare counts.
    SlidingCounter,
    /// A bucket of `limit` tokens that fills evenly in one window.
    TokenBucket,
}

/// `limit` requests in each `window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests, from 1 to 1,000,000.
    pub limit: u32,
    /// Above zero.
    pub window: Duration,
}

impl Rate {
    /// Reads `600`, `600/min` (a minute) or `10/s`; `None` for anything else, zero included.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (number, seconds) = match text.split_once('/') {
            None | Some((_, "min")) => (text.strip_suffix("/min").unwrap_or(text), 60),
            Some((number, "s")) => (number, 1),
            Some(_) => return None,
        };
        let limit = number.parse().ok().filter(|limit| (1..=1_000_000).contains(limit))?;
        Some(Self { limit, window: Duration::from_secs(seconds) })
    }
}

/// One key's limiter.
#[derive(Debug, Clone)]
pub struct Limiter {
    kind: Kind,
    rate: Rate,
    start: Option<Instant>,
    previous: u32,
    current: u32,
    tokens: f64,
    log: VecDeque<Instant>,
}

impl Limiter {
    /// An unused limiter.
    #[must_use]
    pub fn new(kind: Kind, rate: Rate) -> Self {
        let tokens = f64::from(rate.limit);
        let log = VecDeque::new();
        Self { kind, rate, start: None, previous: 0, current: 0, tokens, log }
    }

    /// Admits a request, or says how long until one could be admitted.
    ///
    /// # Errors
    /// The wait, when the request is over the limit; a refused request is not counted.
    pub fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.kind {
            Kind::FixedWindow => self.fixed_window(now),
            Kind::SlidingLog => self.sliding_log(now),
            Kind::SlidingCounter => self.sliding_counter(now),
            Kind::TokenBucket => self.token_bucket(now),
        }
    }

    /// How many more would be admitted now.
    #[must_use]
    pub fn remaining(&self, now: Instant) -> u32 {
        let Rate { limit, window } = self.rate;
        let elapsed =
            self.start.map_or(Duration::ZERO, |start| now.saturating_duration_since(start));
        match self.kind {
            Kind::FixedWindow if elapsed >= window => limit,
            Kind::FixedWindow => limit.saturating_sub(self.current),
            Kind::SlidingLog => {
                let counts = |at: &&Instant| now.saturating_duration_since(**at) < window;
                let counted = self.log.iter().filter(counts).count();
                limit.saturating_sub(u32::try_from(counted).unwrap_or(u32::MAX))
            }
            Kind::SlidingCounter => {
                let passed = elapsed.as_secs_f64() / window.as_secs_f64();
                let weighted = f64::from(self.previous) * (1.0 - passed).max(0.0);
                whole(f64::from(limit) - weighted - f64::from(self.current))
            }
            Kind::TokenBucket => whole(self.tokens),
        }
    }

    /// How long until all of the limit is there again, if nothing is admitted meanwhile.
    #[must_use]
    pub fn reset(&self, now: Instant) -> Duration {
        let Rate { limit, window } = self.rate;
        let at = match self.kind {
            Kind::FixedWindow => self.start.map(|start| start + window),
            Kind::SlidingLog => self.log.back().map(|newest| *newest + window),
            // What was counted in a window weighs on the next one until that ends.
            Kind::SlidingCounter => self.start.map(|start| match (self.previous, self.current) {
                (0, 0) => start,
                (_, 0) => start + window,
                _ => start + window * 2,
            }),
            Kind::TokenBucket => {
                let missing = 1.0 - self.tokens / f64::from(limit);
                self.start.map(|filled| filled + window.mul_f64(missing))
            }
        };
        at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    fn fixed_window(&mut self, now: Instant) -> Result<(), Duration> {
        let start = *self.start.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= self.rate.window {
            (self.start, self.current) = (Some(now), 0);
        } else if self.current >= self.rate.limit {
            return Err(self.rate.window.saturating_sub(elapsed));
        }
        self.current += 1;
        Ok(())
    }

    fn sliding_log(&mut self, now: Instant) -> Result<(), Duration> {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        while self.log.front().is_some_and(|at| age(at) >= self.rate.window) {
            self.log.pop_front();
        }
        if self.log.len() >= self.rate.limit as usize {
            let oldest = self.log.front().map_or(Duration::ZERO, age);
            return Err(self.rate.window.saturating_sub(oldest));
        }
        self.log.push_back(now);
        Ok(())
    }

    fn sliding_counter(&mut self, now: Instant) -> Result<(), Duration> {
        let window = self.rate.window;
        let start = *self.start.get_or_insert(now);
        let elapsed = now.saturating_duration_since(start);
        if elapsed >= window * 2 {
            (self.start, self.previous, self.current) = (Some(now), 0, 0);
        } else if elapsed >= window {
            (self.start, self.previous, self.current) = (Some(start + window), self.current, 0);
        }
        let elapsed = now.saturating_duration_since(self.start.unwrap_or(now));
        let passed = elapsed.as_secs_f64() / window.as_secs_f64();
        let weighted = f64::from(self.previous) * (1.0 - passed) + f64::from(self.current);
        if weighted + 1.0 > f64::from(self.rate.limit) {
            return Err(self.counter_has_room_at().saturating_sub(elapsed));
        }
        self.current += 1;
        Ok(())
    }

    /// When one more request is admitted that is not now, since the window began, if nothing else is.
    fn counter_has_room_at(&self) -> Duration {
        let Rate { limit, window } = self.rate;
        let others = limit.saturating_sub(1);
        // What was counted weighs less and less, until with one more it is the limit.
        let weighs = |counted: u32, most: u32| 1.0 - f64::from(most) / f64::from(counted.max(1));
        let passed = match others.checked_sub(self.current) {
            Some(most) => weighs(self.previous, most),
            // Not in this window any more: what it counted is the next one's past.
            None => 1.0 + weighs(self.current, others),
        };
        // A nanosecond for what is rounded.
        window.mul_f64(passed.max(0.0)) + Duration::from_nanos(1)
    }

    fn token_bucket(&mut self, now: Instant) -> Result<(), Duration> {
        let limit = f64::from(self.rate.limit);
        let each = self.rate.window.as_secs_f64() / limit;
        let last = self.start.replace(now).unwrap_or(now);
        let filled = now.saturating_duration_since(last).as_secs_f64() / each;
        self.tokens = (self.tokens + filled).min(limit);
        if self.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.tokens) * each));
        }
        self.tokens -= 1.0;
        Ok(())
    }
}

/// Whole requests, none below zero.
fn whole(requests: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the limit, and not below zero"
    )]
    let whole = requests.max(0.0) as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Requests at these times (ms) with 2 a second: which are admitted?
    fn check(kind: Kind, times: &[u64], admitted: &[bool]) {
        let start = Instant::now();
        let mut limiter = Limiter::new(kind, Rate::parse("2/s").unwrap());
        let got: Vec<_> = times
            .iter()
            .map(|at| limiter.admit(start + Duration::from_millis(*at)).is_ok())
            .collect();
        assert_eq!(got, admitted, "{kind:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_limiter_admits_what_its_kind_promises() {
        check(
            Kind::FixedWindow,
            &[0, 900, 950, 1000, 1001, 1002],
            &[true, true, false, true, true, false],
        );
        check(
            Kind::SlidingLog,
            &[0, 900, 950, 1000, 1001, 1900],
            &[true, true, false, true, false, true],
        );
        check(Kind::SlidingCounter, &[0, 900, 950, 1000, 1500], &[true, true, false, false, true]);
        check(
            Kind::TokenBucket,
            &[0, 0, 0, 500, 500, 5000, 5000, 5000],
            &[true, true, false, true, false, true, true, false],
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_what_would_be_admitted_at_once() {
        let start = Instant::now();
        for kind in [Kind::FixedWindow, Kind::SlidingLog, Kind::SlidingCounter, Kind::TokenBucket] {
            let mut limiter = Limiter::new(kind, Rate::parse("7/s").unwrap());
            for at in [0, 0, 300, 310, 900, 1200, 1210, 1220, 2900, 4000, 4500, 4600, 4999] {
                let now = start + Duration::from_millis(at);
                let _admitted = limiter.admit(now);
                let left = limiter.remaining(now);
                let mut same = limiter.clone();
                let more = (0..).take_while(|_| same.admit(now).is_ok()).count();
                assert_eq!(left as usize, more, "{kind:?} at {at}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_of_the_limit_is_there_again_after_the_reset_and_not_before() {
        let (start, limit) = (Instant::now(), 7);
        for kind in [Kind::FixedWindow, Kind::SlidingLog, Kind::SlidingCounter, Kind::TokenBucket] {
            let unused = Limiter::new(kind, Rate::parse("7/s").unwrap());
            assert_eq!(unused.reset(start), Duration::ZERO, "{kind:?}");
            let mut limiter = unused;
            for at in [0, 0, 300, 310, 900, 1200, 1210, 1220, 2900, 4000, 4500, 4600, 4999] {
                let now = start + Duration::from_millis(at);
                let _admitted = limiter.admit(now);
                let reset = limiter.reset(now);
                let admitted_after = |wait: Duration| {
                    let mut same = limiter.clone();
                    (0..).take_while(|_| same.admit(now + wait).is_ok()).count()
                };
                let tick = Duration::from_millis(1);
                assert_eq!(admitted_after(reset + tick), limit, "{kind:?} at {at}: {reset:?}");
                assert!(admitted_after(reset - tick) < limit, "{kind:?} at {at}: {reset:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_refused_and_waits_as_long_as_it_was_told_is_admitted_and_not_before() {
        let start = Instant::now();
        for kind in [Kind::FixedWindow, Kind::SlidingLog, Kind::SlidingCounter, Kind::TokenBucket] {
            let mut refused = 0;
            for text in ["1/s", "2/s", "7/s", "100/min", "601/min"] {
                let mut limiter = Limiter::new(kind, Rate::parse(text).unwrap());
                let mut now = start;
                for gap in [0, 3, 0, 210, 17, 0, 0, 640, 5, 1100, 2, 0, 90].repeat(200) {
                    now += Duration::from_millis(gap);
                    let Err(wait) = limiter.admit(now) else { continue };
                    refused += 1;
                    let tick = Duration::from_micros(1);
                    let mut same = limiter.clone();
                    let sooner = same.admit(now + wait.saturating_sub(tick));
                    assert!(
                        wait <= tick || sooner.is_err(),
                        "{kind:?} {text}: {wait:?} is too long"
                    );
                    let mut same = limiter.clone();
                    assert_eq!(same.admit(now + wait + tick), Ok(()), "{kind:?} {text}: {wait:?}");
                }
            }
            assert!(refused > 1000, "{kind:?}: {refused}");
        }
    }

    #[test]
    fn a_rate_is_a_minute_or_a_second() {
        for (text, want) in [
            ("600", Some((600, 60))),
            ("600/min", Some((600, 60))),
            ("10/s", Some((10, 1))),
            ("0", None),
            ("1/h", None),
            ("x/s", None),
        ] {
            assert_eq!(
                Rate::parse(text).map(|rate| (rate.limit, rate.window.as_secs())),
                want,
                "{text}"
            );
        }
    }
}
