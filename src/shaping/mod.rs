//! Who may send when: no quota is ever used beyond what the upstream accepts, and hardly any of it
//! is wasted.
//!
//! A [`Place`] frees what it holds when it is dropped, on every path; nothing else gives it back.
//! Nothing here sends, and no lock is held over a wait. The decisions are in `schedule.rs` and
//! `queue.rs`, which are pure.

pub mod envelope;
pub mod pace;
pub mod pause;
pub mod queue;
pub mod schedule;
mod lines;
mod turns;
mod quota;
mod sharing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::config::model;
use crate::credential::Registry;
use crate::telemetry::Metrics;
use lines::Line;
use pace::{Start, Terms};
use queue::Ticket;
use quota::Quota;
use schedule::Schedule;
pub use sharing::SharedKey;
use sharing::Sharing;
use turns::Taken;

/// A permit may always be used for this long: timers are that late.
const LATE_MIN: Duration = Duration::from_millis(10);
/// Waiting calls a quota, whatever its limit, unless `shaping.queue` says otherwise.
const QUEUE_MAX: usize = 10_000;

/// Decides when a call may be sent.
#[derive(Debug)]
pub struct Shaper {
    quotas: BTreeMap<String, Shaped>,
    sharing: Sharing,
    /// No call waits longer for its turn.
    wait_max: Duration,
}

/// A quota as the configuration in force has it.
#[derive(Debug)]
struct Shaped {
    quota: Arc<Quota>,
    /// By the tenants' indices.
    lines: Vec<Arc<Line>>,
    /// From the permit to the wire at most; later, a new permit is needed.
    late: Duration,
}

/// A place in a quota's queue, held until the call is over; each attempt takes a permit from it.
#[derive(Debug)]
#[must_use = "dropping it gives the place up"]
pub struct Place(Option<Turn>);

#[derive(Debug)]
struct Turn {
    quota: Arc<Quota>,
    late: Duration,
    line: Arc<Line>,
    ticket: Ticket,
    arrived_at: Instant,
    wait_max: Duration,
    /// By the attempt that has not left yet.
    taken: Option<Taken>,
    /// The number of the charge that the last attempt left with.
    sent: Option<u64>,
}

/// The right to send one request now; every attempt needs its own.
#[derive(Debug)]
#[must_use = "it is charged when the request is written"]
pub struct Permit {
    /// When the request was about to be written.
    pub departed_at: Instant,
    /// How long the call had held its place.
    pub waited: Duration,
}

/// The shaper refuses a call: when it arrives, or as soon as the upstream's silence makes its
/// deadline impossible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When the schedule has room.
    pub retry_after: Duration,
    /// The queue has no place; else the call would miss its deadline.
    pub full: bool,
    /// The tenant's own share is used up, while others wait too.
    pub tenants_fault: bool,
}

impl Shaper {
    /// A schedule for each quota, beginning now, with nothing known of what was sent before.
    #[must_use]
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        let sharing = Sharing::new(config, None);
        Self::build(config, sharing, |name, quota| build(name, quota, metrics))
    }

    /// The same for a changed configuration. A quota that is as before keeps its schedule and its
    /// queue; of one that changed, what was sent is forgotten, and so it is taken to be used up, and
    /// a pause goes on.
    #[must_use]
    pub fn renewed(&self, before: &Config, now: &Config, metrics: &Metrics) -> Self {
        let sharing = Sharing::new(now, Some(&self.sharing));
        Self::build(now, sharing, |name, quota| match self.quotas.get(name) {
            Some(known) if before.quotas.get(name) == Some(quota) => Some(Arc::clone(&known.quota)),
            Some(known) => {
                let new = build(name, &model::Quota { cautious: true, ..*quota }, metrics)?;
                // Until the upstream's silence is over, and until those who wait with the old
                // schedule have left.
                if let Some(rest) = known.quota.rest() {
                    new.throttled(0, Some(rest));
                }
                Some(new)
            }
            None => build(name, quota, metrics),
        })
    }

    fn build(
        config: &Config,
        sharing: Sharing,
        quota: impl Fn(&str, &model::Quota) -> Option<Arc<Quota>>,
    ) -> Self {
        let wait_max = config.shaping.wait_max;
        let shaped = |(name, terms): (&String, &model::Quota)| {
            let quota = quota(name, terms)?;
            let burst = terms.limit.map_or(0, |rate| part_of(rate.calls, terms.share) as usize / 5);
            // What can leave in time, at once or paced.
            let paced = wait_max.as_nanos() / quota.interval().as_nanos().max(1);
            let leave = usize::try_from(paced).unwrap_or(QUEUE_MAX) + burst + 1;
            let length_max = config.shaping.queue_max.unwrap_or_else(|| leave.min(QUEUE_MAX));
            let lines = quota.arrange(&config.tenants, length_max);
            let late = (terms.spread / 2).max(LATE_MIN);
            Some((name.clone(), Shaped { quota, lines, late }))
        };
        Self { quotas: config.quotas.iter().filter_map(shaped).collect(), sharing, wait_max }
    }

    /// The quota that calls with this credential draw from: the configured one, unless another
    /// credential holds the same key and has a stricter one.
    #[must_use]
    pub fn quota_of(&self, credentials: &Registry, credential: usize) -> Option<Arc<str>> {
        let key = |index| credentials.key(index);
        let (quota, joined) = self.sharing.quota_of(credential, key);
        for shaped in joined.iter().filter_map(|name| self.quotas.get(&**name)) {
            // What was sent with the key before was counted elsewhere.
            shaped.quota.calm();
        }
        quota
    }

    /// Credentials that hold the same key although the configuration gives them different quotas.
    #[must_use]
    pub fn shared_keys(&self, credentials: &Registry) -> Vec<SharedKey> {
        self.sharing.shared(|index| credentials.key(index))
    }

    /// Whether a call of this tenant that arrives now would leave before its deadline: asked before
    /// anything is done for it. Gives the place that [`Place::ready`] waits with.
    ///
    /// # Errors
    /// A [`Refusal`] when the turn would come after `deadline`.
    pub fn admit(
        &self,
        quota: Option<&str>,
        tenant: usize,
        deadline: Instant,
    ) -> Result<Place, Refusal> {
        let shaped = quota.and_then(|name| self.quotas.get(name));
        let Some((shaped, line)) = shaped.and_then(|one| Some((one, one.lines.get(tenant)?)))
        else {
            return Ok(Place(None));
        };
        let (quota, line, wait_max) = (Arc::clone(&shaped.quota), Arc::clone(line), self.wait_max);
        let (arrived_at, ticket) = (Instant::now(), quota.ticket());
        quota.foresee(&line, ticket, deadline.min(arrived_at + wait_max))?;
        let late = shaped.late;
        let (taken, sent) = (None, None);
        Ok(Place(Some(Turn { quota, late, line, ticket, arrived_at, wait_max, taken, sent })))
    }

    /// Forgets what the upstream's answers taught of this quota: its pause, and the caution after it.
    /// What was sent still counts. False: there is no such quota, or it shapes nothing.
    pub fn forget(&self, name: &str) -> bool {
        let shaped = self.quotas.get(name);
        shaped.inspect(|shaped| shaped.quota.forget()).is_some()
    }

    /// Brings the gauges up to date that change without a call.
    pub fn observe(&self) {
        self.quotas.values().for_each(|shaped| shaped.quota.observe());
    }
}

/// A quota that begins now; `None` where nothing is shaped.
fn build(name: &str, quota: &model::Quota, metrics: &Metrics) -> Option<Arc<Quota>> {
    let rate = quota.limit?;
    let limit = part_of(rate.calls, quota.share);
    let terms = Terms {
        limit,
        window: rate.per,
        spread: quota.spread,
        tick: quota.tick,
        burst: quota.burst.map(|burst| part_of(burst, quota.share)),
    };
    let also = quota.also.map(|also| (part_of(also.calls, quota.share), also.per));
    let start = if quota.cautious { Start::UsedUp } else { Start::Unknown };
    let schedule = Schedule::new(terms, also, start, Duration::ZERO);
    Some(Arc::new(Quota::new(name, limit, schedule, metrics)))
}

/// This process's part of so many calls; at least one.
fn part_of(calls: u32, share: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most `calls`, and not below zero"
    )]
    let part = (f64::from(calls) * share + 1e-9).floor() as u32;
    part.max(1)
}

impl Place {
    /// Waits for the call's turn, before a connection is taken; at once where it was waited for.
    ///
    /// # Errors
    /// A [`Refusal`] when the turn would come after `deadline`.
    pub async fn ready(&mut self, deadline: Instant) -> Result<(), Refusal> {
        let Some(turn) = &mut self.0 else { return Ok(()) };
        if turn.taken.is_none() {
            let deadline = deadline.min(Instant::now() + turn.wait_max);
            turn.taken = Some(turn.quota.turn(&turn.line, turn.ticket, deadline).await?);
        }
        Ok(())
    }

    /// The request head is about to be written: stamps the permit, and waits for another where too
    /// much time went by since the call's turn.
    ///
    /// # Errors
    /// As [`Self::ready`].
    pub async fn depart(&mut self, deadline: Instant) -> Result<Permit, Refusal> {
        let mut retaken = false;
        loop {
            self.ready(deadline).await?;
            let now = Instant::now();
            let Some(turn) = &mut self.0 else {
                return Ok(Permit { departed_at: now, waited: Duration::ZERO });
            };
            let Some(taken) = turn.taken.take() else { continue };
            let late = now.saturating_duration_since(turn.quota.moment(taken)) > turn.late;
            // Once: what was waited for a second time leaves, however slow the machine is.
            let is_late = late && !retaken;
            if is_late || !turn.quota.restamp(taken, now) {
                turn.quota.give_back(taken);
                retaken |= is_late;
                continue;
            }
            turn.sent = Some(taken.charge.number);
            let waited = now.saturating_duration_since(turn.arrived_at);
            turn.quota.observe_wait(waited);
            return Ok(Permit { departed_at: now, waited });
        }
    }

    /// The upstream answered `429`, with this `Retry-After`: pauses the whole quota. Gives how long,
    /// and whether the call could be sent again before its deadline; `None` without a quota.
    pub fn throttled(
        &self,
        asked: Option<Duration>,
        deadline: Instant,
    ) -> Option<(Duration, bool)> {
        let turn = self.0.as_ref()?;
        let pause = turn.quota.throttled(turn.sent?, asked);
        let again = turn.quota.returns_by(&turn.line, turn.ticket);
        let by = deadline.min(Instant::now() + turn.wait_max);
        Some((pause, again < by))
    }

    /// The upstream answered anything else.
    pub fn answered(&self) {
        if let Some(turn) = &self.0
            && let Some(charge) = turn.sent
        {
            turn.quota.answered(charge);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            self.quota.give_back(taken);
        }
    }
}
