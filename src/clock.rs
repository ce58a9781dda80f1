//! Time that goes on while the machine sleeps, and the only reader of the wall clock.
//!
//! What expires is held against a [`Moment`]: tokio's clock, and with it every timer, stands still
//! while a laptop sleeps, and tokens grow old all the same. The wall clock is for what other machines
//! wrote down (a JWT's `exp`, an HTTP date) and for what people read, never for waiting: it can step.

use std::ops::{Add, Sub};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::os;

/// No machine that runs this version is earlier: 2026-01-01 (Unix seconds).
const NOT_EARLIER_THAN: u64 = 1_767_225_600;
/// Less sleep than this is not told from the time between two looks at two clocks.
const SLEEP_MIN_MS: u64 = 500;
/// After waking up, a wait for a [`Moment`] ends this much too late at most.
const LATE_MAX: Duration = Duration::from_secs(15);

/// A point in time, by a clock that never steps and that goes on while the machine sleeps.
///
/// Not to be mixed with tokio's `Instant`, which calls' deadlines are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant);

impl Moment {
    /// This one.
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now() + asleep())
    }

    /// Zero when `earlier` is later.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// Since this moment.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0 + more)
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, less: Duration) -> Self {
        Self(self.0 - less)
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// Waits until `at`. When the machine sleeps meanwhile, up to 15 s longer.
pub async fn sleep_until(at: Moment) {
    loop {
        let left = at.saturating_duration_since(Moment::now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LATE_MAX)).await;
    }
}

/// For how long the machine has slept since this was called first: the same from one time that it
/// sleeps to the next.
#[must_use]
pub fn asleep() -> Duration {
    // Whoever is held up between two clocks reads too little; one of three was not.
    static BEFORE: LazyLock<Duration> =
        LazyLock::new(|| os::slept().max(os::slept()).max(os::slept()));
    static KNOWN_MS: AtomicU64 = AtomicU64::new(0);
    let known = KNOWN_MS.load(Ordering::Relaxed);
    let now = woken(known, os::slept().saturating_sub(*BEFORE));
    if now > known && KNOWN_MS.fetch_max(now, Ordering::Relaxed) < now {
        tracing::info!(seconds = (now - known).div_ceil(1000), "the machine slept");
    }
    let asleep = Duration::from_millis(now);
    #[cfg(test)]
    let asleep = asleep + tests::PRETENDED.get();
    asleep
}

/// How many milliseconds the machine has slept, out of what was known and what the clocks say.
fn woken(known_ms: u64, said: Duration) -> u64 {
    let said_ms = u64::try_from(said.as_millis()).unwrap_or(u64::MAX);
    if said_ms.saturating_sub(known_ms) >= SLEEP_MIN_MS { said_ms } else { known_ms }
}

/// The wall clock's time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Seconds since 1970 (UTC), as JWTs count them (RFC 7519 section 2, `NumericDate`).
#[must_use]
pub fn unix_seconds() -> u64 {
    wall().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Whether the wall clock is wrong for certain: it is earlier than this version. Certificates are
/// "not yet valid" then, whoever shows them.
#[must_use]
pub fn is_suspect() -> bool {
    unix_seconds() < NOT_EARLIER_THAN
}

/// As [`unix_seconds`]; `None` when the clock [is wrong](is_suspect).
#[must_use]
pub fn believable_unix_seconds() -> Option<u64> {
    Some(unix_seconds()).filter(|seconds| *seconds >= NOT_EARLIER_THAN)
}

/// A moment as the wall clock's seconds since 1970, for metrics and `/status`.
#[must_use]
pub fn to_unix_seconds(at: Moment) -> f64 {
    let now = Moment::now();
    let wall_now = wall().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (ahead, behind) = (at.saturating_duration_since(now), now.saturating_duration_since(at));
    (wall_now + ahead).saturating_sub(behind).as_secs_f64()
}

#[cfg(test)]
pub(crate) use tests::pretend_to_sleep;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// A paused test runs on one thread, so that this is its own.
        pub(super) static PRETENDED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// From now on it is as if the machine had slept for so much longer.
    pub(crate) fn pretend_to_sleep(time: Duration) {
        PRETENDED.set(PRETENDED.get() + time);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_two_clocks_differ_by_is_no_sleep_and_sleep_is_told_once() {
        let mut known = 0;
        let mut told = Vec::new();
        for said in [0, 3, 499, 2, 500, 501, 900, 480, 1000, 28_800_000, 28_800_400] {
            known = woken(known, Duration::from_millis(said));
            told.push(known);
        }
        let hours = 28_800_000;
        assert_eq!(told, [0, 0, 0, 0, 500, 500, 500, 500, 1000, hours, hours]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_moment_passes_while_the_machine_sleeps_and_a_wait_for_it_ends_soon_after() {
        let (begin, timer) = (Moment::now(), Instant::now());
        sleep_until(begin + SECOND * 20).await;
        assert_eq!((begin.elapsed(), timer.elapsed()), (SECOND * 20, SECOND * 20));
        let waiting = sleep_until(begin + SECOND * 3600);
        let sleeping = async {
            tokio::time::sleep(SECOND * 10).await;
            pretend_to_sleep(SECOND * 7200);
            assert_eq!(begin.elapsed(), SECOND * 7230);
        };
        tokio::join!(waiting, sleeping);
        assert_eq!(timer.elapsed(), SECOND * 35, "15 s after it woke up at most");
        assert_eq!(begin - (begin + SECOND), Duration::ZERO);
    }

    #[test]
    fn a_moment_is_shown_by_the_wall_clock() {
        let now = wall().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        for (at, want) in [(Moment::now() + SECOND * 60, 60.0), (Moment::now(), 0.0)] {
            assert!((to_unix_seconds(at) - now - want).abs() < 5.0);
        }
    }
}
