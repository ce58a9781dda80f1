//! The real schedule in simulated time: loads in, moments of sending and waits out.

use std::collections::VecDeque;
use std::time::Duration;

use datapulse_sidecar::shaping::pace::{Start, Terms};
use datapulse_sidecar::shaping::schedule::Schedule;
use datapulse_sidecar::shaping::state_file::head::{Head, name_hash};
use datapulse_sidecar::shaping::state_file::layout::{self, Places};

/// No call waits longer.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(25);
/// The lateness of a timer, in seconds.
const TIMER: f64 = 0.001;
/// The part of the spread that the schedule itself uses up, in seconds.
const SLACK: f64 = 0.010;

/// The machine that everything runs on.
const BOOT: [u8; 16] = [7; 16];

/// What apps ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Load {
    /// Twice the limit.
    Saturated,
    /// Twice the limit and nothing, in turns of one to three minutes.
    OnOff,
    /// Pages of 4 to 10 calls at once, at this part of the limit.
    Pages(f64),
    /// A tenth to a third of the limit at once, at this part of it.
    Bursts(f64),
    /// Five minutes of nothing, then three at twice the limit.
    IdleThenSaturated,
}

/// A run's circumstances.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) terms: Terms,
    pub(crate) also: Option<(u32, Duration)>,
    pub(crate) start: Start,
    pub(crate) load: Load,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
    /// The process is killed and started again so often, in seconds, give or take a half.
    pub(crate) killed_every: Option<f64>,
    /// Whether it has a state file.
    pub(crate) keeps: bool,
}

/// What outlives the process: its state file's bytes, written as the process writes them.
struct Kept {
    head: Head,
    bytes: Vec<u8>,
}

impl Kept {
    fn new(schedule: &mut Schedule, setup: &Setup, now: Duration) -> Self {
        let name = name_hash("q");
        let (terms, also) = (setup.terms, setup.also);
        let head = Head { boot: BOOT, name, terms, also, began_at: now };
        let bytes = layout::region(&head, &schedule.history(now), now);
        Self { head, bytes }
    }

    fn write(&mut self, schedule: &Schedule, now: Duration) {
        let places = Places::new(&self.head);
        let slots = [Some(places.sent(schedule, now)), places.also_sent(schedule, now)];
        for (at, slot) in slots.into_iter().flatten() {
            let into = self.bytes.iter_mut().skip(at);
            into.zip(slot).for_each(|(into, byte)| *into = byte);
        }
    }

    /// The schedule of the process that follows.
    fn read(&self, setup: &Setup, now: Duration) -> Schedule {
        let mut schedule = Schedule::new(setup.terms, setup.also, Start::Idle, now);
        let history = layout::read(&self.bytes, &BOOT, now);
        assert!(history.is_ok(), "{history:?}");
        history.into_iter().for_each(|history| schedule.recall(&history, now));
        schedule
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// When the upstream counted each request, in order.
    pub(crate) counted: Vec<f64>,
    /// How long each that was sent had waited, in seconds, in order of length.
    pub(crate) waits: Vec<f64>,
    /// Calls that were refused on arrival.
    pub(crate) refused: usize,
    /// Calls that waited longer than they were told.
    pub(crate) late: usize,
}

impl Outcome {
    /// The wait that this part of the calls stays within, in seconds.
    pub(crate) fn wait(&self, part: f64) -> f64 {
        let at = (self.waits.len().saturating_sub(1)) as f64 * part;
        self.waits.get(at as usize).copied().unwrap_or(0.0)
    }

    /// Requests counted from `from` to `to` seconds, as a part of what the limit allows.
    pub(crate) fn used(&self, limit: u32, from: f64, to: f64) -> f64 {
        let count = self.counted.iter().filter(|at| (from..to).contains(*at)).count();
        count as f64 / (f64::from(limit) * (to - from) / 60.0)
    }
}

/// When calls arrive, in seconds, in order.
pub(crate) fn arrivals(
    load: Load,
    limit: u32,
    seconds: f64,
    random: &mut fastrand::Rng,
) -> Vec<f64> {
    let a_second = f64::from(limit) / 60.0;
    let mut times = Vec::new();
    let mut now = 0.0;
    let steady = |times: &mut Vec<f64>, from: f64, to: f64| {
        let each = 0.5 / a_second;
        times.extend((0..((to - from) / each) as usize).map(|n| from + n as f64 * each));
    };
    while now < seconds {
        match load {
            Load::Saturated => {
                steady(&mut times, 0.0, seconds);
                now = seconds;
            }
            Load::OnOff => {
                let on = 60.0 + 120.0 * random.f64();
                steady(&mut times, now, now + on);
                now += on + 60.0 + 120.0 * random.f64();
            }
            Load::IdleThenSaturated => {
                steady(&mut times, now + 300.0, now + 480.0);
                now += 480.0;
            }
            Load::Pages(part) | Load::Bursts(part) => {
                let size = match load {
                    Load::Pages(_) => random.u32(4..=10),
                    _ => random.u32(limit / 10..=limit / 3),
                };
                let gap = f64::from(size) / (a_second * part);
                now += -gap * (1.0 - random.f64()).ln();
                times.extend((0..size).map(|_| now));
            }
        }
    }
    times.retain(|at| *at < seconds);
    times
}

/// The way to the upstream: even, two-faced, or in long waves; at most the spread.
fn jitter(kind: u64, now: f64, most: f64, random: &mut fastrand::Rng) -> f64 {
    match kind % 3 {
        0 => most * random.f64(),
        1 => most * f64::from(random.bool()),
        _ => most * f64::from(((now / 20.0) as u64).is_multiple_of(2)),
    }
}

/// Runs a load through a schedule.
pub(crate) fn run(setup: Setup) -> Outcome {
    let mut random = fastrand::Rng::with_seed(setup.seed);
    let most = (setup.terms.spread.as_secs_f64() - SLACK).max(0.0);
    let mut arrivals =
        arrivals(setup.load, setup.terms.limit, setup.seconds, &mut random).into_iter().peekable();
    let mut schedule = Schedule::new(setup.terms, setup.also, setup.start, Duration::ZERO);
    let mut waiting: VecDeque<(f64, f64)> = VecDeque::new();
    let mut outcome = Outcome::default();
    let mut kept = setup.keeps.then(|| Kept::new(&mut schedule, &setup, Duration::ZERO));
    let (mut now, mut ask_at, mut kill_at) = (0.0, 0.0, setup.killed_every.unwrap_or(f64::MAX));
    loop {
        let next_arrival = arrivals.peek().copied();
        let next_ask = (!waiting.is_empty()).then_some(ask_at);
        let Some(next) = [next_arrival, next_ask].into_iter().flatten().reduce(f64::min) else {
            break;
        };
        now = next.max(now);
        if now >= kill_at {
            schedule = match &kept {
                Some(kept) => kept.read(&setup, seconds(now)),
                None => Schedule::new(setup.terms, setup.also, Start::Unknown, seconds(now)),
            };
            kept = kept.map(|_| Kept::new(&mut schedule, &setup, seconds(now)));
            waiting.clear();
            let every = setup.killed_every.unwrap_or(f64::MAX);
            (ask_at, kill_at) = (now, kill_at + every * (0.5 + random.f64()));
        }
        if next_arrival.is_some_and(|at| at <= now) {
            arrivals.next();
            let deadline = seconds(now) + WAIT_MAX;
            if !schedule.leaves_in_time(seconds(now), waiting.len() as u64, deadline) {
                outcome.refused += 1;
                continue;
            }
            if waiting.is_empty() {
                ask_at = now;
            }
            waiting.push_back((now, deadline.as_secs_f64()));
        }
        while let Some((arrived, told)) = waiting.front().copied().filter(|_| ask_at <= now) {
            if let Err(later) = schedule.admit(seconds(now)) {
                ask_at = later.as_secs_f64() + TIMER * random.f64();
                break;
            }
            if let Some(kept) = &mut kept {
                kept.write(&schedule, seconds(now));
            }
            waiting.pop_front();
            outcome.waits.push(now - arrived);
            // Each of those before it may have had a late timer.
            outcome.late += usize::from(now > told + 0.1);
            outcome.counted.push(now + jitter(setup.seed, now, most, &mut random));
        }
    }
    outcome.counted.sort_by(f64::total_cmp);
    outcome.waits.sort_by(f64::total_cmp);
    outcome
}

fn seconds(at: f64) -> Duration {
    Duration::from_secs_f64(at)
}
