//! What a schedule remembers, in a form that outlives it: over a restart (`state_file/`), or over a
//! change of its terms. Pure. Times are since the schedule's beginning of time.

use std::time::Duration;

use super::pace::Terms;

/// What was sent, under which terms, and what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// What the schedule kept.
    pub terms: Terms,
    /// Its second limit and that limit's window.
    pub also: Option<(u32, Duration)>,
    /// What was sent within two windows and the spread, the oldest first.
    pub sent: Vec<Sent>,
    /// The same as far as the second limit remembers it.
    pub also_sent: Vec<Sent>,
    /// Where its clocks stood.
    pub marks: Marks,
}

/// Requests that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// The latest moment at which they can have been.
    pub at: Duration,
    /// How many.
    pub count: u32,
}

/// Moments that a schedule waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// When all debt is repaid.
    pub clear_at: Duration,
    /// From when on there are bursts.
    pub bursts_from: Duration,
    /// Until when the rate is half of what it could be.
    pub slow_until: Duration,
    /// Until when the upstream wants silence.
    pub paused_until: Duration,
}

/// What is counted in a cell of the time in which something was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Which cell, from the beginning of time.
    pub number: u64,
    /// How many.
    pub count: u32,
}
