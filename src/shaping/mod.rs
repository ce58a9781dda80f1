//! Who may send when: no quota is ever used beyond what the upstream accepts, and hardly any of it
//! is wasted.
//!
//! A [`Place`] frees what it holds when it is dropped, on every path; nothing else gives it back.
//! Nothing here sends, and no lock is held over a wait. The decisions are in `schedule.rs` and
//! `queue.rs`, which are pure.

pub mod history;
pub mod envelope;
mod terms;
pub mod pace;
mod charged;
pub mod pause;
pub mod told;
pub mod learn;
pub mod learner;
mod model_error;
mod also;
pub mod queue;
pub mod schedule;
mod usage;
pub mod heed;
pub mod state_file;
mod report;
mod lines;
mod turns;
mod outlook;
mod throttles;
mod shadow;
mod quota;
mod wake;
mod moves;
mod shadowed;
mod answers;
mod place;
mod own_call;
mod sharing;
mod build;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::config::model;
use crate::os::Boot;
use crate::telemetry::Metrics;
use build::{Builder, length_max};
use lines::Line;
pub use own_call::OwnPermit;
pub use place::{Permit, Place};
use place::{Turn, Waited};
use quota::Quota;
pub use report::{HeldBack, Learnt, QuotaReport, ShadowReport, WaitingReport};
pub use sharing::SharedKey;
use sharing::Sharing;
use state_file::StateFile;

/// Decides when a call may be sent.
#[derive(Debug)]
pub struct Shaper {
    quotas: BTreeMap<String, Shaped>,
    /// Quotas of earlier configurations, which keys were counted under.
    left: BTreeMap<String, Arc<Quota>>,
    sharing: Sharing,
    /// The last ticket that a call got, in whichever quota: the same after a reload.
    tickets: Arc<AtomicU64>,
    /// No call waits longer for its turn.
    wait_max: Duration,
    /// When the time of every schedule begins.
    began_at: Instant,
    boot: Option<Boot>,
    /// The same one after a reload.
    file: Arc<Mutex<Option<StateFile>>>,
}

/// A quota as the configuration in force has it.
#[derive(Debug)]
struct Shaped {
    quota: Arc<Quota>,
    /// By the tenants' indices.
    lines: Vec<Arc<Line>>,
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

/// What a shaper has beside its quotas.
struct Parts {
    left: BTreeMap<String, Arc<Quota>>,
    sharing: Sharing,
    tickets: Arc<AtomicU64>,
    began_at: Instant,
    boot: Option<Boot>,
    file: Arc<Mutex<Option<StateFile>>>,
}

impl Shaper {
    /// A schedule for each quota, which goes on where the state file's left off.
    #[must_use]
    pub fn new(config: &Config, metrics: &Metrics) -> Self {
        Self::begin(config, metrics, Boot::current())
    }

    fn begin(config: &Config, metrics: &Metrics, boot: Option<Boot>) -> Self {
        let began_at = boot.map_or_else(Instant::now, |boot| boot.at);
        let is_needed = !config.quotas.is_empty();
        let at = &config.shaping.state_file;
        let file = is_needed.then(|| StateFile::open(at, boot, metrics)).flatten();
        let file = Arc::new(Mutex::new(file));
        let (left, sharing, tickets) =
            (BTreeMap::new(), Sharing::new(config, None), Arc::default());
        let parts = Parts { left, sharing, tickets, began_at, boot, file };
        Self::build(config, parts, metrics, |builder, name, quota| builder.first(name, quota))
    }

    /// The same for a changed configuration. A quota keeps its schedule and its queue; one that
    /// changed goes on with what it knows of what was sent.
    #[must_use]
    pub fn renewed(&self, before: &Config, now: &Config, metrics: &Metrics) -> Self {
        let (began_at, boot, file) = (self.began_at, self.boot, Arc::clone(&self.file));
        let tickets = Arc::clone(&self.tickets);
        let mut is_opened = false;
        if before.quotas.is_empty() && !now.quotas.is_empty() {
            // Until now there was nothing to keep.
            let mut open = file.lock().unwrap_or_else(PoisonError::into_inner);
            if open.is_none() {
                *open = StateFile::open(&now.shaping.state_file, boot, metrics);
                is_opened = true;
            }
        }
        let sharing = Sharing::new(now, Some(&self.sharing));
        let counted = sharing.counted();
        let is_shaped = |name: &str| now.quotas.get(name).is_some_and(|one| one.limit.is_some());
        let known =
            self.quotas.iter().map(|(name, shaped)| (name, &shaped.quota)).chain(&self.left);
        let gone = known.filter(|(name, _)| !is_shaped(name));
        let left = gone.inspect(|(_, quota)| quota.retire());
        let left = left.filter(|(name, _)| counted.contains(name.as_str()));
        let left = left.map(|(name, quota)| (name.clone(), Arc::clone(quota))).collect();
        let parts = Parts { left, sharing, tickets, began_at, boot, file };
        Self::build(now, parts, metrics, |builder, name, quota| match self.known(name) {
            Some(known) if before.quotas.get(name) == Some(quota) => Some(Arc::clone(known)),
            Some(known) => builder.changed(known, quota),
            None if is_opened => builder.late(name, quota),
            None => builder.added(name, quota),
        })
    }

    /// A quota of this configuration, or of an earlier one.
    fn known(&self, name: &str) -> Option<&Arc<Quota>> {
        self.quotas.get(name).map(|shaped| &shaped.quota).or_else(|| self.left.get(name))
    }

    fn build(
        config: &Config,
        Parts { left, sharing, tickets, began_at, boot, file }: Parts,
        metrics: &Metrics,
        quota: impl Fn(&mut Builder<'_>, &str, &model::Quota) -> Option<Arc<Quota>>,
    ) -> Self {
        let mut open = file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut builder = Builder::new(config, began_at, open.as_mut(), metrics);
        let shaped = |(name, terms): (&String, &model::Quota)| {
            let quota = quota(&mut builder, name, terms)?;
            let length_max = length_max(config, terms, &quota);
            let lines = quota.arrange(&config.tenants, length_max);
            quota.hold(!config.shaping.shadow, &config.tenants, length_max);
            Some((name.clone(), Shaped { quota, lines }))
        };
        let quotas = config.quotas.iter().filter_map(shaped).collect();
        drop(open);
        let wait_max = config.shaping.wait_max;
        Self { quotas, left, sharing, tickets, wait_max, began_at, boot, file }
    }

    /// The place of a call of this tenant's in a quota that its credential is not looked at for: see
    /// [`Self::enter`].
    ///
    /// # Errors
    /// As there.
    pub fn admit(
        &self,
        quota: Option<&str>,
        tenant: usize,
        deadline: Instant,
    ) -> Result<Place, Refusal> {
        self.place(quota, tenant, deadline, Place(None))
    }

    /// A place in this quota's queue, for a call that has `held` in another one by now: it stands where
    /// it would stand here, is refused for no lack of places where it had one, and what it waited stays
    /// told.
    fn place(
        &self,
        quota: Option<&str>,
        tenant: usize,
        deadline: Instant,
        mut held: Place,
    ) -> Result<Place, Refusal> {
        let shaped = quota.and_then(|name| self.quotas.get(name));
        let Some((shaped, line)) = shaped.and_then(|one| Some((one, one.lines.get(tenant)?)))
        else {
            return Ok(Place(None));
        };
        let (quota, line, wait_max) = (Arc::clone(&shaped.quota), Arc::clone(line), self.wait_max);
        let arrived_at = Instant::now();
        let (ticket, returns, waited) = match &mut held.0 {
            Some(turn) => (turn.ticket, turn.returns, std::mem::take(&mut turn.waited)),
            None => (self.tickets.fetch_add(1, Ordering::Relaxed) + 1, false, Waited::default()),
        };
        quota.foresee((&line, ticket, returns), deadline.min(arrived_at + wait_max))?;
        Ok(Place(Some(Turn {
            quota,
            line,
            ticket,
            credential: None,
            arrived_at,
            wait_max,
            waited,
            returns,
            taken: None,
            sent: None,
        })))
    }

    /// Forgets what the upstream's answers taught of this quota: its pause, and the caution after it.
    /// What was sent still counts. False: there is no such quota, or it shapes nothing.
    pub fn forget(&self, name: &str) -> bool {
        let shaped = self.quotas.get(name);
        shaped.inspect(|shaped| shaped.quota.forget()).is_some()
    }

    /// Takes the gauges away of what this configuration had and the next one has not.
    pub fn forget_gauges(before: &Config, now: &Config, metrics: &Metrics) {
        let is_shaped = |config: &Config, name: &str| {
            config.quotas.get(name).is_some_and(|quota| quota.limit.is_some())
        };
        for name in before.quotas.keys() {
            let stays = is_shaped(now, name);
            if !stays {
                metrics.forget_quota(name);
            }
            let is_there = |tenant: &str| stays && now.tenants.iter().any(|t| *t.name == *tenant);
            for tenant in before.tenants.iter().filter(|tenant| !is_there(&tenant.name)) {
                metrics.quotas.forget_tenant(name, &tenant.name);
            }
        }
    }

    /// Brings the gauges up to date that change without a call.
    pub fn observe(&self) {
        self.quotas.values().for_each(|shaped| shaped.quota.observe());
    }
}
