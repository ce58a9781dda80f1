//! Limiters as vendors build them, each written from its own description and from nothing in
//! `src/shaping`: what the shaper is judged by. Times are seconds since any moment.

use std::collections::VecDeque;

/// How a vendor counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Class {
    /// Windows by the clock, with a phase that callers do not know.
    FixedWindow,
    /// The first request opens a window; the first after its end opens the next.
    WindowFromFirst,
    /// The requests of the last window; `closed`: one of exactly a window ago still counts.
    Log { closed: bool, counts_refused: bool },
    /// `previous × (1 − x/W) + current ≤ L`.
    Counter { counts_refused: bool },
    /// A bucket of this capacity, filled evenly with `L` in a window.
    Bucket { capacity: f64 },
    /// The generic cell rate algorithm with a burst of so many.
    Gcra { burst: f64 },
    /// A log of so many in so many seconds, beside the limit itself.
    Also { limit: usize, window: f64 },
}

/// One key's limiter.
#[derive(Debug)]
pub(crate) struct Limiter {
    class: Class,
    limit: f64,
    window: f64,
    phase: f64,
    /// Times are cut to multiples of this; 0: not at all.
    tick: f64,
    number: f64,
    current: f64,
    previous: f64,
    last: f64,
    log: VecDeque<f64>,
}

impl Limiter {
    /// `phase` is where in its window the limiter is at time zero.
    pub(crate) fn new(class: Class, limit: u32, window: f64, phase: f64, tick: f64) -> Self {
        let tokens = if let Class::Bucket { capacity } = class { capacity } else { 0.0 };
        Self {
            class,
            limit: f64::from(limit),
            window,
            phase,
            tick,
            number: f64::NEG_INFINITY,
            current: tokens,
            previous: 0.0,
            last: f64::NEG_INFINITY,
            log: VecDeque::new(),
        }
    }

    /// Whether a request that is counted at `at` is accepted.
    pub(crate) fn accepts(&mut self, at: f64) -> bool {
        let at = at + self.phase;
        let at = if self.tick > 0.0 { (at / self.tick).floor() * self.tick } else { at };
        match self.class {
            Class::FixedWindow => self.fixed_window(at),
            Class::WindowFromFirst => {
                if at - self.last >= self.window {
                    (self.last, self.current) = (at, 0.0);
                }
                self.current += 1.0;
                self.current <= self.limit
            }
            Class::Log { closed, counts_refused } => {
                let counting = if counts_refused { f64::INFINITY } else { self.limit };
                self.forget(at, self.window, closed);
                self.note(at, self.limit, counting)
            }
            Class::Counter { counts_refused } => self.counter(at, counts_refused),
            Class::Bucket { capacity } => {
                let since = if self.last.is_finite() { at - self.last } else { 0.0 };
                self.current = (self.current + since * self.limit / self.window).min(capacity);
                self.last = at;
                let accepted = self.current >= 1.0;
                self.current -= f64::from(accepted);
                accepted
            }
            Class::Gcra { burst } => {
                let each = self.window / self.limit;
                let due = self.last.max(at);
                let accepted = due - at <= (burst - 1.0) * each;
                if accepted {
                    self.last = due + each;
                }
                accepted
            }
            Class::Also { limit, window } => {
                self.forget(at, window, false);
                self.note(at, limit as f64, limit as f64)
            }
        }
    }

    fn fixed_window(&mut self, at: f64) -> bool {
        let number = (at / self.window).floor();
        if number > self.number {
            (self.number, self.current) = (number, 0.0);
        }
        self.current += 1.0;
        self.current <= self.limit
    }

    fn forget(&mut self, at: f64, window: f64, closed: bool) {
        let over = |first: &f64| {
            let age = at - first;
            if closed { age > window } else { age >= window }
        };
        while self.log.front().is_some_and(over) {
            self.log.pop_front();
        }
    }

    /// Accepts below `limit`, and keeps below `counting`.
    fn note(&mut self, at: f64, limit: f64, counting: f64) -> bool {
        let kept = self.log.len() as f64;
        if kept < counting {
            self.log.push_back(at);
        }
        kept < limit
    }

    fn counter(&mut self, at: f64, counts_refused: bool) -> bool {
        let number = (at / self.window).floor();
        if number > self.number {
            let next = number - self.number < 1.5;
            self.previous = if next { self.current } else { 0.0 };
            (self.number, self.current) = (number, 0.0);
        }
        let x = at / self.window - number;
        let accepted = self.previous * (1.0 - x) + self.current + 1.0 <= self.limit + 1e-9;
        if accepted || counts_refused {
            self.current += 1.0;
        }
        accepted
    }
}
