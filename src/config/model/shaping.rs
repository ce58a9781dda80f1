//! The limits that belong to credentials, and how calls wait for them.

use std::path::PathBuf;
use std::time::Duration;

/// A limit that belongs to an API key.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Calls in `per`; `None`: no shaping.
    pub limit: Option<Rate>,
    /// This process's part of it, above 0 and at most 1.
    pub share: f64,
    /// A second limit.
    pub also: Option<Rate>,
    /// Between our send and the upstream's count.
    pub spread: Duration,
    /// How coarsely the upstream reads its clock.
    pub tick: Duration,
    /// How many calls the upstream takes at once, at least 1; `None`: as many as the limit.
    pub burst: Option<u32>,
    /// What is assumed of calls before this process began.
    pub cold_start: ColdStart,
}

/// What is assumed of calls before a process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColdStart {
    /// What the state file says; a new one is that of a first start, before which nothing was sent.
    Auto,
    /// What the state file says; a new one tells nothing of others, whom this process may replace.
    Paced,
    /// That the quota was used up.
    Cautious,
}

/// So many calls in so much time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub calls: u32,
    /// A second, a minute or an hour.
    pub per: Duration,
}

/// How calls wait for their turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shaping {
    /// No call waits longer; above zero.
    pub wait_max: Duration,
    /// Waiting calls a quota, from 1 to 100,000; `None`: what can leave within `wait_max`.
    pub queue_max: Option<usize>,
    /// Where the schedules are kept over a restart.
    pub state_file: StateFile,
    /// No call is held back: what would have become of it is counted.
    pub shadow: bool,
}

/// A file that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateFile {
    /// The first of these that can be had; none of them, where none can.
    Auto(Vec<PathBuf>),
    /// This one.
    At(PathBuf),
    /// There is none.
    None,
}
