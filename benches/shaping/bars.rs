//! What is promised of a quota, and how each part of it is measured.

use std::time::Duration;

use datapulse_sidecar::shaping::pace::{Start, Terms};
use datapulse_sidecar::shaping::schedule::Schedule;

use super::limiters::{Class, Limiter};
use super::simulation::{Load, Setup, WAIT_MAX, arrivals, run};

/// Of each limiter's window, tried one by one.
pub(crate) const PHASES: u32 = 60;

/// A class of limiters and what its users write in the configuration.
#[derive(Debug)]
pub(crate) struct Promise {
    pub(crate) name: &'static str,
    pub(crate) classes: Vec<Vendor>,
    pub(crate) tick: Duration,
    pub(crate) burst: Option<u32>,
    pub(crate) also: Option<(u32, Duration)>,
}

/// A limiter: how it counts, in windows of so many seconds, cut to so many seconds.
#[derive(Debug)]
pub(crate) struct Vendor {
    pub(crate) name: &'static str,
    pub(crate) class: Class,
    pub(crate) window: f64,
    pub(crate) tick: f64,
}

const fn vendor(name: &'static str, class: Class) -> Vendor {
    Vendor { name, class, window: 60.0, tick: 0.0 }
}

/// Every class that is promised, for a limit.
pub(crate) fn promises(limit: u32) -> Vec<Promise> {
    let zero = Duration::ZERO;
    let log = |closed, counts_refused| Class::Log { closed, counts_refused };
    let small = (limit / 20).max(5);
    let a_second = limit.div_ceil(60) * 2;
    vec![
        Promise {
            name: "default",
            classes: vec![
                vendor("fixed window", Class::FixedWindow),
                vendor("window from the first request", Class::WindowFromFirst),
                vendor("sliding log", log(false, false)),
                vendor("sliding log, closed", log(true, false)),
                vendor("sliding log, counts refused", log(true, true)),
                vendor("sliding counter", Class::Counter { counts_refused: false }),
                vendor("sliding counter, counts refused", Class::Counter { counts_refused: true }),
                vendor("bucket of the limit", Class::Bucket { capacity: f64::from(limit) }),
            ],
            tick: zero,
            burst: None,
            also: None,
        },
        Promise {
            name: "tick: 1s",
            classes: vec![
                Vendor {
                    tick: 1.0,
                    ..vendor("counter, whole seconds", Class::Counter { counts_refused: true })
                },
                Vendor { tick: 1.0, ..vendor("log, whole seconds", log(true, true)) },
                Vendor { window: 61.0, ..vendor("log of 61 s", log(false, true)) },
                Vendor { window: 61.0, ..vendor("fixed window of 61 s", Class::FixedWindow) },
            ],
            tick: Duration::from_secs(1),
            burst: None,
            also: None,
        },
        Promise {
            name: "burst",
            classes: vec![
                vendor("small bucket", Class::Bucket { capacity: f64::from(small) }),
                vendor("GCRA", Class::Gcra { burst: f64::from(small) }),
            ],
            tick: zero,
            burst: Some(small),
            also: None,
        },
        Promise {
            name: "also",
            classes: vec![vendor(
                "limit a second",
                Class::Also { limit: a_second as usize, window: 1.0 },
            )],
            tick: zero,
            burst: None,
            also: Some((a_second, Duration::from_secs(1))),
        },
    ]
}

/// A limit a second that is no more than the limit itself allows.
pub(crate) fn also_at_the_rate(limit: u32) -> Promise {
    let also = Some((limit.div_ceil(60), Duration::from_secs(1)));
    let (tick, burst, classes) = (Duration::ZERO, None, Vec::new());
    Promise { name: "also, a 60th a second", classes, tick, burst, also }
}

/// Every load that the promise is kept under.
pub(crate) const LOADS: [Load; 6] = [
    Load::Saturated,
    Load::OnOff,
    Load::Pages(0.3),
    Load::Pages(0.6),
    Load::Bursts(0.8),
    Load::IdleThenSaturated,
];

/// A run of a limit with the defaults.
pub(crate) fn setup(limit: u32, load: Load, seconds: f64, seed: u64) -> Setup {
    let (window, spread) = (Duration::from_secs(60), Duration::from_millis(250));
    Setup {
        terms: Terms { limit, window, spread, tick: Duration::ZERO, burst: None },
        also: None,
        start: Start::Idle,
        load,
        seconds,
        seed,
        killed_every: None,
        keeps: false,
    }
}

/// A process that is killed again and again under a load, and the use of its quota in the end: the
/// most requests that a limiter of a promised class refused, and how many there were.
pub(crate) fn killed(limit: u32, load: Load, seconds: f64, keeps: bool, seed: u64) -> Killed {
    let mut setup = setup(limit, load, seconds, seed);
    (setup.killed_every, setup.keeps) = (Some(120.0), keeps);
    setup.start = if keeps { Start::Idle } else { Start::Unknown };
    let outcome = run(setup);
    let promises = promises(limit);
    let classes = promises.iter().take(1).flat_map(|promise| &promise.classes);
    let worst = classes.map(|vendor| throttled(vendor, limit, &outcome.counted, PHASES)).max();
    Killed {
        used: 100.0 * outcome.used(limit, 300.0, seconds),
        throttled: worst.unwrap_or(0),
        sent: outcome.counted.len(),
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Killed {
    /// Percent of the quota, after five minutes.
    pub(crate) used: f64,
    pub(crate) throttled: usize,
    pub(crate) sent: usize,
}

/// The same with what a promise's users write.
pub(crate) fn setup_of(
    promise: &Promise,
    limit: u32,
    load: Load,
    seconds: f64,
    seed: u64,
) -> Setup {
    let mut setup = setup(limit, load, seconds, seed);
    (setup.terms.tick, setup.terms.burst, setup.also) = (promise.tick, promise.burst, promise.also);
    setup
}

/// How many requests of short runs of every load and so many seeds the classes of a promise refuse,
/// each with a phase of its own, and how many requests there were.
pub(crate) fn throttled_of_seeds(
    promise: &Promise,
    limit: u32,
    seeds: std::ops::Range<u64>,
) -> (usize, usize) {
    let runs = seeds.flat_map(|seed| LOADS.map(|load| (load, seed)));
    runs.fold((0, 0), |(refused, sent), (load, seed)| {
        let counted = run(setup_of(promise, limit, load, 600.0, seed)).counted;
        let mut phases = fastrand::Rng::with_seed(seed);
        let theirs = promise.classes.iter().map(|vendor| {
            let phase = vendor.window * phases.f64();
            let mut limiter = Limiter::new(vendor.class, limit, vendor.window, phase, vendor.tick);
            counted.iter().filter(|at| !limiter.accepts(**at)).count()
        });
        (refused + theirs.sum::<usize>(), sent + counted.len())
    })
}

/// How many requests a vendor's limiter refuses, by the worst of so many phases.
pub(crate) fn throttled(vendor: &Vendor, limit: u32, counted: &[f64], phases: u32) -> usize {
    let refused = |phase: u32| {
        // Not a multiple of a cell or a second.
        let phase = vendor.window * (f64::from(phase) + 0.37) / f64::from(phases);
        let mut limiter = Limiter::new(vendor.class, limit, vendor.window, phase, vendor.tick);
        counted.iter().filter(|at| !limiter.accepts(**at)).count()
    };
    (0..phases).map(refused).max().unwrap_or(0)
}

/// What a load meets at a vendor's without a shaper: the fewest 429s of so many phases.
pub(crate) fn without_us(vendor: &Vendor, setup: Setup, phases: u32) -> usize {
    let mut random = fastrand::Rng::with_seed(setup.seed);
    let arrivals = arrivals(setup.load, setup.terms.limit, setup.seconds, &mut random);
    let refused = |phase: u32| {
        let phase = vendor.window * (f64::from(phase) + 0.37) / f64::from(phases);
        let mut limiter =
            Limiter::new(vendor.class, setup.terms.limit, vendor.window, phase, vendor.tick);
        arrivals.iter().filter(|at| !limiter.accepts(**at)).count()
    };
    (0..phases).map(refused).min().unwrap_or(0)
}

/// The use of a saturated quota after its first five minutes; `connecting`: half of the time each
/// call needs a new connection.
pub(crate) fn saturated_use(promise: &Promise, limit: u32, seconds: f64, connecting: bool) -> f64 {
    let seed = if connecting { 7 } else { 4 };
    let outcome = run(setup_of(promise, limit, Load::Saturated, seconds, seed));
    outcome.used(limit, 300.0, seconds)
}

/// Calls at one instant of a fresh process: refused, and sent at once.
pub(crate) fn at_once(limit: u32, calls: usize) -> (usize, usize) {
    let terms = setup(limit, Load::Saturated, 1.0, 1).terms;
    let mut schedule = Schedule::new(terms, None, Start::Idle, Duration::ZERO);
    let (mut refused, mut sent, mut ahead) = (0, 0, 0);
    for _ in 0..calls {
        if ahead == 0 && schedule.admit(Duration::ZERO).is_ok() {
            sent += 1;
        } else if !schedule.leaves_in_time(Duration::ZERO, ahead, WAIT_MAX) {
            refused += 1;
        } else {
            ahead += 1;
        }
    }
    (refused, sent)
}
