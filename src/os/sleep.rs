//! For how long the machine has slept, which a process does not notice by itself: Linux stops the
//! monotonic clock, and with it every timer, while the machine is suspended.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Counts while the machine sleeps.
#[cfg(target_os = "linux")]
const ALWAYS: ClockId = ClockId::CLOCK_BOOTTIME;
/// What timers go by.
#[cfg(target_os = "linux")]
const AWAKE: ClockId = ClockId::CLOCK_MONOTONIC;

/// As on Linux, by other names.
#[cfg(not(target_os = "linux"))]
const ALWAYS: ClockId = ClockId::CLOCK_MONOTONIC;
#[cfg(not(target_os = "linux"))]
const AWAKE: ClockId = ClockId::CLOCK_UPTIME_RAW;

/// For how long the machine has slept since it was started: a few microseconds less at most, or as
/// long as this process was held up between its two looks at a clock.
#[must_use]
pub fn slept() -> Duration {
    // In this order, so that being held up never looks like sleep.
    let always = read(ALWAYS);
    always.saturating_sub(read(AWAKE))
}

fn read(clock: ClockId) -> Duration {
    // Both clocks are there on each system that this builds for.
    clock_gettime(clock).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_awake_does_not_sleep_on() {
        let before = slept();
        assert!(slept().abs_diff(before) < Duration::from_secs(60));
    }
}
