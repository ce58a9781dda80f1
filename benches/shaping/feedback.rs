//! The real schedule in simulated time against limiters that it was told nothing of, whose refusals
//! it hears.

use std::collections::VecDeque;
use std::time::Duration;

use datapulse_sidecar::shaping::learn::Lesson;
use datapulse_sidecar::shaping::schedule::Schedule;

use super::bars::{Vendor, setup};
use super::limiters::{Class, Limiter};
use super::simulation::{Load, Setup, WAIT_MAX, arrivals};

/// From a request's count to its answer, in seconds.
const ANSWER: f64 = 0.05;

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) sent: usize,
    pub(crate) refused: usize,
    /// When refusals came that belong to none before, in seconds.
    pub(crate) throttles: Vec<f64>,
    pub(crate) lessons: Vec<Lesson>,
    /// Requests that left before a `Retry-After` and a second were over.
    pub(crate) too_early: usize,
}

impl Heard {
    /// Seconds from the first refusal to the next that is another one; `None`: there was none.
    pub(crate) fn respite(&self) -> Option<f64> {
        Some(self.throttles.get(1)? - self.throttles.first()?)
    }
}

/// Limiters of classes that need a word in the configuration, or that nothing is promised of: each
/// as one or several nodes that count apart, with the limit that each has.
pub(crate) fn undeclared(limit: u32) -> Vec<(Vendor, u32, usize)> {
    let small = f64::from((limit / 20).max(5));
    let log = Class::Log { closed: false, counts_refused: false };
    let vendor = |name, class| Vendor { name, class, window: 60.0, tick: 0.0 };
    let whole = |name, class, tick| Vendor { tick, ..vendor(name, class) };
    let a_second = Class::Also { limit: limit.div_ceil(60) as usize * 2, window: 1.0 };
    vec![
        (vendor("small bucket", Class::Bucket { capacity: small }), limit, 1),
        (vendor("GCRA", Class::Gcra { burst: small }), limit, 1),
        (vendor("limit a second", a_second), limit, 1),
        (whole("counter, whole seconds", Class::Counter { counts_refused: true }, 1.0), limit, 1),
        (Vendor { window: 61.0, ..vendor("log of 61 s", log) }, limit, 1),
        (whole("log, bins of 10 s", log, 10.0), limit, 1),
        (vendor("two nodes that count apart", log), limit / 2, 2),
        (vendor("half the limit", log), limit / 2, 1),
    ]
}

/// Runs a load against a vendor's limiter, that asks for so long a pause.
pub(crate) fn heard(
    vendor: &Vendor,
    (limit, nodes): (u32, usize),
    setup: &Setup,
    asks: Option<Duration>,
) -> Heard {
    let mut random = fastrand::Rng::with_seed(setup.seed);
    let mut arrivals =
        arrivals(setup.load, setup.terms.limit, setup.seconds, &mut random).into_iter().peekable();
    let phase = vendor.window * random.f64();
    let limiter = || Limiter::new(vendor.class, limit, vendor.window, phase, vendor.tick);
    let mut limiters: Vec<_> = (0..nodes).map(|_| limiter()).collect();
    let mut schedule = Schedule::new(setup.terms, setup.also, setup.start, Duration::ZERO);
    let mut answers: VecDeque<(f64, u64, bool)> = VecDeque::new();
    let mut waiting: VecDeque<f64> = VecDeque::new();
    let (mut now, mut ask_at, mut newest, mut last_before) = (0.0, 0.0, 0, 0);
    let (mut heard, mut silent_until) = (Heard::default(), 0.0);
    loop {
        let next_answer = answers.front().map(|answer| answer.0);
        let next_ask = (!waiting.is_empty()).then_some(ask_at);
        let next = [arrivals.peek().copied(), next_ask, next_answer].into_iter().flatten();
        let Some(next) = next.reduce(f64::min) else { break };
        now = next.max(now);
        let at = Duration::from_secs_f64(now);
        while let Some((_, number, accepted)) = answers.pop_front_if(|answer| answer.0 <= now) {
            ask_at = now;
            if accepted {
                schedule.answered(number, at);
                continue;
            }
            heard.refused += 1;
            if number > last_before {
                heard.throttles.push(now);
                last_before = newest;
            }
            let throttled = schedule.throttled(at, number, asks);
            heard.lessons.extend(throttled.lesson);
            silent_until = asks.map_or(silent_until, |asks| now + asks.as_secs_f64() + 1.0);
        }
        if arrivals.next_if(|arrival| *arrival <= now).is_some()
            && schedule.leaves_in_time(at, waiting.len() as u64, at + WAIT_MAX)
        {
            if waiting.is_empty() {
                ask_at = now;
            }
            waiting.push_back(now);
        }
        while !waiting.is_empty() && ask_at <= now {
            match schedule.admit(at) {
                Err(later) => ask_at = later.as_secs_f64(),
                Ok(charge) => {
                    waiting.pop_front();
                    newest = charge.number;
                    heard.sent += 1;
                    heard.too_early += usize::from(now < silent_until - 1e-6);
                    let counted = answers.back().map_or(0.0, |last| last.0 - ANSWER);
                    let counted = counted.max(now + 0.24 * random.f64());
                    let node = random.usize(..nodes);
                    let accepted =
                        limiters.get_mut(node).is_some_and(|limiter| limiter.accepts(counted));
                    answers.push_back((counted + ANSWER, charge.number, accepted));
                }
            }
        }
    }
    heard
}

/// The worst of several loads and seeds against one limiter: all of them, one after the other.
pub(crate) fn heard_under_all(
    vendor: &Vendor,
    (limit, nodes): (u32, usize),
    configured: u32,
    asks: Option<Duration>,
    seeds: u64,
) -> Vec<Heard> {
    let loads = [Load::Saturated, Load::Pages(0.6), Load::Bursts(0.8), Load::IdleThenSaturated];
    let runs = loads.iter().flat_map(|load| (0..seeds).map(move |seed| (*load, seed)));
    runs.map(|(load, seed)| {
        heard(vendor, (limit, nodes), &setup(configured, load, 3600.0, seed), asks)
    })
    .collect()
}
