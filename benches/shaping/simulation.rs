//! The real schedule in simulated time: loads in, moments of sending and waits out.

use std::collections::VecDeque;
use std::time::Duration;

use datapulse_sidecar::shaping::pace::{LATE_MAX, Start, Terms};
use datapulse_sidecar::shaping::schedule::{Charge, Schedule};
use datapulse_sidecar::shaping::state_file::head::{Head, name_hash};
use datapulse_sidecar::shaping::state_file::layout::{self, Places};

/// No call waits longer.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(25);
/// The lateness of a timer, in seconds.
const TIMER: f64 = 0.001;

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
    /// How long each had waited for its turn, the first one, in seconds, in order of length.
    pub(crate) waits: Vec<f64>,
    /// Calls that were refused on arrival.
    pub(crate) refused: usize,
    /// Calls that waited longer than they were told, where connections are at hand: who has to set
    /// one up takes a second turn, and those behind leave one later.
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

/// Seeds, from 0 to 3 in turns, of which this one's calls have to set connections up.
const CONNECTING: u64 = 3;

/// From the permit to the wire: nothing, as late as a permit may be used, the same in long waves, or
/// in long waves a connection that has to be set up first.
fn held(seed: u64, now: f64, random: &mut fastrand::Rng) -> f64 {
    let late = LATE_MAX.as_secs_f64();
    let wave = ((now / 17.0) as u64).is_multiple_of(2);
    match seed % 4 {
        0 => 0.0,
        1 => late * random.f64(),
        2 => late * f64::from(wave),
        CONNECTING.. => f64::from(wave) * (0.05 + 0.35 * random.f64()),
    }
}

/// A call that waits for its turn.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    arrived: f64,
    told: f64,
    /// It had its turn, and was too late at the wire: the next one is used, however late.
    retaken: bool,
}

/// A call that has a permit, and its connection at that moment.
#[derive(Debug, Clone, Copy)]
struct Departing {
    at: f64,
    charge: Charge,
    call: Waiting,
}

/// A process, its calls, and what comes of them.
struct Process {
    setup: Setup,
    random: fastrand::Rng,
    schedule: Schedule,
    kept: Option<Kept>,
    waiting: VecDeque<Waiting>,
    departing: Vec<Departing>,
    outcome: Outcome,
    now: f64,
    ask_at: f64,
}

impl Process {
    fn new(setup: Setup, random: fastrand::Rng) -> Self {
        let mut schedule = Schedule::new(setup.terms, setup.also, setup.start, Duration::ZERO);
        let kept = setup.keeps.then(|| Kept::new(&mut schedule, &setup, Duration::ZERO));
        let (waiting, departing, outcome) = (VecDeque::new(), Vec::new(), Outcome::default());
        Self { setup, random, schedule, kept, waiting, departing, outcome, now: 0.0, ask_at: 0.0 }
    }

    /// When something happens that is no arrival.
    fn next(&self) -> Option<f64> {
        let asked = (!self.waiting.is_empty()).then_some(self.ask_at);
        self.departing.iter().map(|one| one.at).chain(asked).reduce(f64::min)
    }

    /// Another one takes its place; nobody who waited is there any more.
    fn kill(&mut self) {
        let at = seconds(self.now);
        self.schedule = match &self.kept {
            Some(kept) => kept.read(&self.setup, at),
            None => Schedule::new(self.setup.terms, self.setup.also, Start::Unknown, at),
        };
        self.kept = self.kept.take().map(|_| Kept::new(&mut self.schedule, &self.setup, at));
        self.waiting.clear();
        self.departing.clear();
        self.ask_at = self.now;
    }

    fn arrive(&mut self) {
        let deadline = seconds(self.now) + WAIT_MAX;
        let ahead = self.waiting.len() as u64;
        if !self.schedule.leaves_in_time(seconds(self.now), ahead, deadline) {
            self.outcome.refused += 1;
            return;
        }
        if self.waiting.is_empty() {
            self.ask_at = self.now;
        }
        let told = deadline.as_secs_f64();
        self.waiting.push_back(Waiting { arrived: self.now, told, retaken: false });
    }

    /// Those whose turn it is take a permit.
    fn admit(&mut self) {
        while let Some(call) = self.waiting.front().copied().filter(|_| self.ask_at <= self.now) {
            let charge = match self.schedule.admit(seconds(self.now)) {
                Ok(charge) => charge,
                Err(later) => {
                    self.ask_at = later.as_secs_f64() + TIMER * self.random.f64();
                    return;
                }
            };
            self.waiting.pop_front();
            // Each of those before it may have had a late timer.
            let is_late = self.now > call.told + 0.1 && self.setup.seed % 4 != CONNECTING;
            self.outcome.late += usize::from(is_late);
            if !call.retaken {
                self.outcome.waits.push(self.now - call.arrived);
            }
            let held =
                if call.retaken { 0.0 } else { held(self.setup.seed, self.now, &mut self.random) };
            self.departing.push(Departing { at: self.now + held, charge, call });
            self.depart();
        }
    }

    /// Those who have their connection leave, or take another permit where that took too long.
    fn depart(&mut self) {
        let now = self.now;
        let is_ready = |one: &mut Departing| one.at <= now;
        let ready: Vec<_> = self.departing.extract_if(.., is_ready).collect();
        for Departing { charge, call, .. } in ready {
            if seconds(now).saturating_sub(charge.at) > LATE_MAX {
                self.schedule.give_back(charge, seconds(now));
                self.waiting.push_front(Waiting { retaken: true, ..call });
                self.ask_at = now;
                continue;
            }
            assert!(self.schedule.restamp(charge, seconds(now)), "nobody asked for silence");
            if let Some(kept) = &mut self.kept {
                kept.write(&self.schedule, seconds(now));
            }
            let most = self.setup.terms.spread.as_secs_f64();
            let jitter = jitter(self.setup.seed, now, most, &mut self.random);
            self.outcome.counted.push(now + jitter);
        }
    }
}

/// Runs a load through a schedule.
pub(crate) fn run(setup: Setup) -> Outcome {
    let mut random = fastrand::Rng::with_seed(setup.seed);
    let arrivals = arrivals(setup.load, setup.terms.limit, setup.seconds, &mut random);
    let mut arrivals = arrivals.into_iter().peekable();
    let mut process = Process::new(setup, random);
    let mut kill_at = setup.killed_every.unwrap_or(f64::MAX);
    loop {
        let next = [arrivals.peek().copied(), process.next()].into_iter().flatten();
        let Some(next) = next.reduce(f64::min) else { break };
        process.now = next.max(process.now);
        if process.now >= kill_at {
            process.kill();
            let every = setup.killed_every.unwrap_or(f64::MAX);
            kill_at += every * (0.5 + process.random.f64());
        }
        process.depart();
        if arrivals.next_if(|at| *at <= process.now).is_some() {
            process.arrive();
        }
        process.admit();
    }
    let mut outcome = process.outcome;
    outcome.counted.sort_by(f64::total_cmp);
    outcome.waits.sort_by(f64::total_cmp);
    outcome
}

fn seconds(at: f64) -> Duration {
    Duration::from_secs_f64(at)
}
