//! What the upstream's answers do to a quota: those who wait are told, and so are the operators.

use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use super::heed::Throttled;
use super::learn::Lesson;
use super::quota::Quota;
use super::report::Learnt;
use super::told;

impl Quota {
    /// The upstream refused the call with this charge: nothing leaves until it may. Gives for how
    /// long.
    pub(super) fn throttled(&self, charge: u64, asked: Option<Duration>) -> Duration {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let Throttled { until, cause, lesson } = turns.schedule.throttled(now, charge, asked);
        self.throttled.add(cause);
        turns.keep(now);
        // Those who cannot wait that long are told now.
        self.wake_everybody(&turns);
        let share = turns.schedule.share();
        drop(turns);
        self.metrics.upstream_throttled.with_label_values(&[&*self.name, cause.as_str()]).inc();
        let (quota, pause_s) = (&*self.name, until.saturating_sub(now).as_secs());
        tracing::warn!(quota, cause = cause.as_str(), pause_s, "the upstream's limit is reached");
        if let Some(lesson) = lesson {
            let config = config_line(quota, lesson, share);
            tracing::warn!(quota, config, "learnt from it: {}", lesson.reason());
        }
        until.saturating_sub(now)
    }

    /// The upstream took the call with this charge.
    pub(super) fn answered(&self, charge: u64) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        if turns.schedule.answered(charge, now) {
            self.wake_next(&mut turns, now);
        }
    }

    /// Others begin to draw from this quota: no bursts for a while.
    pub(super) fn calm(&self) {
        let now = self.since(Instant::now());
        self.lock().schedule.calm(now);
        self.in_shadow(|shadow, now| shadow.schedule().calm(now));
    }

    /// An answer to a call that left then says by itself what is left of a limit.
    pub(super) fn told(&self, headers: &HeaderMap, departed_at: Instant) {
        if !told::is_there(headers) {
            return;
        }
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let Some(told) = told::parse(headers, turns.schedule.window()) else { return };
        let foreign = turns.schedule.told(told, self.since(departed_at), now);
        drop(turns);
        if foreign > 0 {
            self.more_in_shadow(foreign);
        }
    }

    /// What the upstream's answers taught; `share` is this process's part of what is configured.
    pub(super) fn learnt(&self, share: f64) -> Vec<Learnt> {
        let now = self.since(Instant::now());
        let (lessons, _) = self.lock().schedule.learnt(now);
        let learnt = lessons.into_iter().map(|(lesson, at)| Learnt {
            reason: lesson.reason().to_owned(),
            for_seconds: now.saturating_sub(at).as_secs(),
            config: config_line(&self.name, lesson, share),
        });
        learnt.collect()
    }

    /// Forgets what the upstream's answers taught.
    pub(super) fn forget(&self) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.schedule.forget(now);
        turns.keep(now);
        self.wake_next(&mut turns, now);
        drop(turns);
        self.in_shadow(|shadow, now| shadow.schedule().forget(now));
    }
}

/// What makes a lesson last, as it is written in the configuration.
fn config_line(quota: &str, lesson: Lesson, share: f64) -> String {
    let line = match lesson {
        Lesson::Tick(tick) => format!("tick: {}", humantime::format_duration(tick)),
        Lesson::Spread(spread) => format!("spread: {}", humantime::format_duration(spread)),
        Lesson::Burst(burst) => format!("burst: {}", (f64::from(burst) / share).ceil()),
        Lesson::Paced => "share: 1/2".to_owned(),
        Lesson::Limit(kept, limit) => {
            let share = f64::from(kept) / f64::from(limit) * share;
            // Three digits that say something.
            let digits = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6].into_iter();
            let digits = 3 + digits.filter(|least| share < *least).count();
            format!("share: {share:.digits$}")
        }
    };
    format!("quotas.{quota}.{line}")
}
