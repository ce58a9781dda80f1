//! What the upstream's refusals teach of its limiter. Pure.
//!
//! A lesson only ever tightens the schedule. It lasts until the process ends or an operator has it
//! forgotten; whoever reads it is told which line of the configuration would make it last.

use std::time::Duration;

use super::pace::Terms;

/// A tick is never learnt to be coarser than this part of the window, or than [`TICK_FIRST`].
const TICK_PARTS: u32 = 6;
/// What is assumed first of a limiter that counts more widely than ours.
const TICK_FIRST: Duration = Duration::from_secs(1);
/// The spread is learnt in steps of this.
const SPREAD_STEP: Duration = Duration::from_millis(250);
/// No wider spread is learnt.
const SPREAD_MAX: Duration = Duration::from_secs(5);
/// What is kept of a limit, in percent, when paced requests are refused again.
const BACK_OFF: u32 = 85;
/// No lower limit is kept, in percent of what is configured.
const LIMIT_MIN: u32 = 10;
/// What is given back of it, in percent of what is configured.
const GIVE_BACK: u32 = 5;
/// In so many windows without such a refusal,
const QUIET: u32 = 10;
/// and in no less than this.
const QUIET_MIN: Duration = Duration::from_secs(600);

/// Why the upstream refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// We used the quota up, or may have done so before the process began.
    Ours,
    /// Somebody else uses the key.
    ForeignUse,
    /// It takes less at once than we sent.
    SmallerBurst,
    /// There was room, and we did not send much at once.
    Unknown,
}

impl Cause {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Ours, Self::ForeignUse, Self::SmallerBurst, Self::Unknown];

    /// A metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::ForeignUse => "foreign_use",
            Self::SmallerBurst => "smaller_burst",
            Self::Unknown => "unknown",
        }
    }
}

/// What is assumed of the limiter since it refused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// It reads its clock this coarsely, or its windows are that much too long.
    Tick(Duration),
    /// Requests are counted as late as this after they are sent.
    Spread(Duration),
    /// It takes this many at once.
    Burst(u32),
    /// Paced requests are refused, though there is room: once may be chance.
    Paced,
    /// They are refused again: this much is kept to, of so much that is configured.
    Limit(u32, u32),
}

impl Lesson {
    /// Why it is assumed, for people.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Tick(_) => {
                "a request was refused although our count was below the limit: the limiter's windows \
                 are wider than thought"
            }
            Self::Spread(_) => {
                "a request was refused after requests had been held up on their way for longer than \
                 the spread"
            }
            Self::Burst(_) => {
                "a request was refused after a burst, far below the limit: the limiter takes less at \
                 once"
            }
            Self::Paced => {
                "evenly spaced requests are refused, far below the limit: somebody else may use the \
                 key, or the limit is lower"
            }
            Self::Limit(..) => {
                "evenly spaced requests are refused again and again, far below the limit: somebody \
                 else may use the key, or the limit is lower; less of it is used, and a little more \
                 is tried from time to time"
            }
        }
    }
}

/// What was known when the upstream refused a request.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// What the schedule keeps at present.
    pub terms: Terms,
    /// The limit as it is configured.
    pub limit: u32,
    /// The most that any limiter which we keep to can have counted of our requests.
    pub level: u64,
    /// How many requests too early the last one left, after an idle time.
    pub debt: u32,
    /// For how long requests were held up of late.
    pub held_up: Duration,
    /// Whether the upstream tells of others who use the key.
    pub is_shared: bool,
    /// Whether it is known what was sent in the windows before.
    pub is_past_known: bool,
    /// Whether the schedule was kept: if not, a refusal says nothing about the limiter.
    pub is_kept: bool,
}

/// What was learnt of one limiter, and when.
#[derive(Debug, Clone, Default)]
pub struct Lessons {
    tick: Option<(Lesson, Duration)>,
    spread: Option<(Lesson, Duration)>,
    burst: Option<(Lesson, Duration)>,
    paced: Option<(Lesson, Duration)>,
}

impl Lessons {
    /// Draws the conclusion from a refusal: its cause, and the lesson where there is a new one.
    pub fn learn(&mut self, now: Duration, seen: &Seen) -> (Cause, Option<Lesson>) {
        let Seen { terms, limit, level, debt, held_up, .. } = *seen;
        let is_near = level * 10 >= u64::from(limit) * 9;
        if !seen.is_past_known {
            return (Cause::Ours, None);
        }
        if seen.is_shared && !is_near {
            return (Cause::ForeignUse, None);
        }
        if !seen.is_kept {
            let cause = if debt > 0 { Cause::SmallerBurst } else { Cause::Unknown };
            return (if is_near { Cause::Ours } else { cause }, None);
        }
        if held_up > terms.spread && terms.spread < SPREAD_MAX {
            let steps = held_up.as_millis().div_ceil(SPREAD_STEP.as_millis());
            let wider = SPREAD_STEP.saturating_mul(u32::try_from(steps).unwrap_or(u32::MAX));
            let lesson = Lesson::Spread(wider.min(SPREAD_MAX));
            self.spread = Some((lesson, now));
            return (Cause::Ours, Some(lesson));
        }
        if is_near {
            let most = (terms.window / TICK_PARTS).max(TICK_FIRST);
            let tick = (terms.tick * 2).clamp(TICK_FIRST, most);
            let lesson = (tick > terms.tick).then_some(Lesson::Tick(tick));
            self.tick = lesson.map(|lesson| (lesson, now)).or(self.tick);
            return (Cause::Ours, lesson);
        }
        if debt > 0 && terms.debt_max() > 1 {
            let lesson = Lesson::Burst(terms.burst_of(terms.debt_max() / 2));
            self.burst = Some((lesson, now));
            return (Cause::SmallerBurst, Some(lesson));
        }
        let least = part_of(limit, LIMIT_MIN);
        let lesson = match self.paced {
            None => Lesson::Paced,
            Some(_) => Lesson::Limit(part_of(terms.limit, BACK_OFF).max(least), limit),
        };
        let is_new = self.paced.is_none_or(|(known, _)| known != lesson);
        // At the least that is kept, the time without a refusal begins anew.
        self.paced = Some((lesson, now));
        (Cause::Unknown, is_new.then_some(lesson))
    }

    /// Gives back a part of a limit that was lowered, when nothing was refused for long enough. Gives
    /// whether there was something to give back.
    pub fn recover(&mut self, now: Duration, window: Duration) -> bool {
        let Some((Lesson::Limit(kept, limit), at)) = self.paced else { return false };
        let quiet = now.saturating_sub(at).as_nanos();
        let quiet = quiet / window.saturating_mul(QUIET).max(QUIET_MIN).as_nanos();
        let steps = u32::try_from(quiet).unwrap_or(u32::MAX);
        if steps == 0 {
            return false;
        }
        let kept = kept.saturating_add(part_of(limit, GIVE_BACK).saturating_mul(steps));
        self.paced = (kept < limit).then_some((Lesson::Limit(kept, limit), now));
        true
    }

    /// The terms with all that was learnt.
    #[must_use]
    pub fn applied_to(&self, mut terms: Terms) -> Terms {
        for (lesson, _) in self.iter() {
            match lesson {
                Lesson::Tick(tick) => terms.tick = terms.tick.max(tick),
                Lesson::Spread(spread) => terms.spread = terms.spread.max(spread),
                Lesson::Burst(burst) => {
                    terms.burst = Some(terms.burst.map_or(burst, |known| known.min(burst)));
                }
                Lesson::Paced => {}
                Lesson::Limit(kept, _) => terms.limit = terms.limit.min(kept),
            }
        }
        terms
    }

    /// Each lesson, with when it was learnt.
    pub fn iter(&self) -> impl Iterator<Item = (Lesson, Duration)> {
        [self.tick, self.spread, self.burst, self.paced].into_iter().flatten()
    }
}

/// So many percent of a limit, at least one.
fn part_of(limit: u32, percent: u32) -> u32 {
    let part = u64::from(limit) * u64::from(percent) / 100;
    u32::try_from(part).unwrap_or(limit).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    const TERMS: Terms =
        Terms { limit: 100, window: ms(60_000), spread: ms(250), tick: ms(0), burst: None };

    const SEEN: Seen = Seen {
        terms: TERMS,
        limit: 100,
        level: 50,
        debt: 0,
        held_up: ms(0),
        is_shared: false,
        is_past_known: true,
        is_kept: true,
    };

    #[test]
    fn each_refusal_has_a_cause_and_teaches_what_follows_from_it() {
        let near = Seen { level: 90, ..SEEN };
        let burst = Seen { level: 89, debt: 15, ..SEEN };
        let late = Seen { held_up: ms(700), ..near };
        for (seen, cause, lesson) in [
            (near, Cause::Ours, Some(Lesson::Tick(ms(1000)))),
            (late, Cause::Ours, Some(Lesson::Spread(ms(750)))),
            (Seen { is_past_known: false, ..late }, Cause::Ours, None),
            (burst, Cause::SmallerBurst, Some(Lesson::Burst(12))),
            (Seen { is_shared: true, ..burst }, Cause::ForeignUse, None),
            (Seen { is_shared: true, ..near }, Cause::Ours, Some(Lesson::Tick(ms(1000)))),
            (SEEN, Cause::Unknown, Some(Lesson::Paced)),
            (Seen { is_kept: false, ..SEEN }, Cause::Unknown, None),
            (Seen { is_kept: false, ..near }, Cause::Ours, None),
            (Seen { is_kept: false, ..burst }, Cause::SmallerBurst, None),
        ] {
            let mut lessons = Lessons::default();
            assert_eq!(lessons.learn(ms(5), &seen), (cause, lesson), "{seen:?}");
            assert_eq!(lessons.iter().next(), lesson.map(|lesson| (lesson, ms(5))));
        }
    }

    #[test]
    fn a_limit_that_paced_requests_are_refused_under_is_lowered_and_given_back_by_and_by() {
        let mut lessons = Lessons::default();
        let refused = |lessons: &mut Lessons, now| {
            let terms = lessons.applied_to(TERMS);
            lessons.learn(now, &Seen { terms, level: 5, ..SEEN }).1
        };
        let limit = |lessons: &Lessons| lessons.applied_to(TERMS).limit;
        assert_eq!(refused(&mut lessons, ms(0)), Some(Lesson::Paced));
        assert_eq!(limit(&lessons), 100, "once may be chance");
        for kept in [85, 72, 61, 51, 43, 36, 30, 25, 21, 17, 14, 11, 10] {
            assert_eq!(refused(&mut lessons, ms(0)), Some(Lesson::Limit(kept, 100)));
            assert_eq!(limit(&lessons), kept);
        }
        assert_eq!(refused(&mut lessons, ms(1)), None, "that is the least");
        let window = TERMS.window;
        assert!(!lessons.recover(ms(600_000), window), "ten windows are not over");
        assert!(lessons.recover(ms(600_001), window));
        assert_eq!(limit(&lessons), 15);
        assert!(!lessons.recover(ms(600_002), window));
        assert!(lessons.recover(ms(600_001 + 16 * 600_000), window));
        assert_eq!(limit(&lessons), 95);
        assert!(lessons.recover(ms(600_001 + 17 * 600_000), window));
        assert_eq!((limit(&lessons), lessons.iter().count()), (100, 0), "nothing is left of it");
        refused(&mut lessons, ms(0));
        refused(&mut lessons, ms(0));
        let second = ms(1000);
        assert!(!lessons.recover(ms(599_999), second), "a second's windows are no reason to hurry");
        assert!(lessons.recover(ms(600_000), second));
    }

    #[test]
    fn a_lesson_that_was_not_enough_is_followed_by_a_stricter_one_up_to_a_bound() {
        let mut lessons = Lessons::default();
        let (mut ticks, mut bursts, mut spreads) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..8 {
            let terms = lessons.applied_to(TERMS);
            ticks.push(terms.tick.as_secs());
            bursts.push(terms.debt_max());
            spreads.push(terms.spread.as_millis());
            lessons.learn(ms(0), &Seen { terms, level: 99, ..SEEN });
            lessons.learn(ms(0), &Seen { terms, debt: 20, ..SEEN });
            lessons.learn(ms(0), &Seen { terms, held_up: terms.spread * 3, ..SEEN });
        }
        assert_eq!(ticks, [0, 1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(bursts[0], 20);
        let paced = bursts.iter().position(|debt| *debt <= 1).unwrap();
        assert!(bursts[..paced].is_sorted_by(|before, after| after <= before), "{bursts:?}");
        assert!(bursts[paced..].iter().all(|debt| *debt <= 1), "and then it is paced: {bursts:?}");
        assert_eq!(spreads[..4], [250, 750, 2250, 5000]);
    }

    proptest! {
        #[test]
        fn what_is_learnt_only_ever_tightens(
            seen in prop::collection::vec(
                (0_u64..110, 0_u32..30, 0_u64..20_000, any::<bool>(), any::<bool>()),
                1..30,
            ),
            (limit, window, burst) in (1_u32..1000, 1_u64..3600, prop::option::of(1_u32..50)),
        ) {
            let configured = Terms { limit, window: ms(window * 1000), burst, ..TERMS };
            let mut lessons = Lessons::default();
            let mut before = configured;
            for (level, debt, held_up, is_shared, is_past_known) in seen {
                let level = level * u64::from(limit) / 100;
                let seen = Seen {
                    terms: before, limit, level, debt, held_up: ms(held_up), is_shared, is_past_known, is_kept: true,
                };
                lessons.learn(ms(0), &seen);
                let after = lessons.applied_to(configured);
                prop_assert!(after.interval() >= before.interval(), "{before:?} {after:?}");
                prop_assert!(after.debt_max() <= configured.debt_max(), "{after:?}");
                prop_assert!(after.tick >= before.tick && after.spread >= before.spread);
                prop_assert!(after.tick <= ms(1000).max(configured.window / TICK_PARTS));
                before = after;
            }
        }
    }
}
