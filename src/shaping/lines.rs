//! A line for each tenant in one quota's queue, and the bound that the tenant has of its own. Pure.
//!
//! A line outlives its tenant for as long as a call holds it: a changed configuration loses nobody.

use std::sync::Arc;
use std::time::Duration;

use super::history::History;
use super::queue::FairQueue;
use super::report::WaitingReport;
use super::schedule::Schedule;
use crate::config::model::{Rate, Tenant};

/// The lines of a queue.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<Lined>);

/// A tenant's line. It is there for as long as somebody holds this.
#[derive(Debug)]
pub(super) struct Line {
    /// In the queue.
    pub(super) number: usize,
    /// The tenant's.
    pub(super) name: Arc<str>,
}

#[derive(Debug)]
struct Lined {
    line: Arc<Line>,
    /// The tenant is configured, and not only on its way out.
    is_open: bool,
    bound: Option<(Rate, Schedule)>,
}

impl Lines {
    /// A line for each of these tenants, in their order. Who has one keeps it, and those who wait in
    /// it; a bound that is as before goes on.
    pub(super) fn arrange<T>(
        &mut self,
        queue: &mut FairQueue<T>,
        tenants: &[Tenant],
        now: Duration,
    ) -> Vec<Arc<Line>> {
        self.0.iter_mut().for_each(|lined| lined.is_open = false);
        let lines = tenants.iter().map(|tenant| self.line_of(queue, tenant, now)).collect();
        self.0.retain(|lined| {
            let number = lined.line.number;
            let is_held = Arc::strong_count(&lined.line) > 1;
            let stays = lined.is_open || is_held || queue.waiting(number) > 0;
            if !stays {
                queue.close(number);
            }
            stays
        });
        lines
    }

    /// The line of a tenant that is configured.
    pub(super) fn of_tenant(&self, name: &str) -> Option<Arc<Line>> {
        let lined = self.0.iter().find(|lined| lined.is_open && *lined.line.name == *name)?;
        Some(Arc::clone(&lined.line))
    }

    /// A line for calls of a tenant that come from another quota: the tenant's, or else one for as long
    /// as they hold it.
    pub(super) fn line_for<T>(&mut self, queue: &mut FairQueue<T>, name: &Arc<str>) -> Arc<Line> {
        if let Some(lined) = self.0.iter().find(|lined| lined.line.name == *name) {
            return Arc::clone(&lined.line);
        }
        let line = Arc::new(Line { number: queue.open(1), name: Arc::clone(name) });
        self.0.push(Lined { line: Arc::clone(&line), is_open: false, bound: None });
        line
    }

    /// A tenant's own bound.
    pub(super) fn bound(&mut self, line: usize) -> Option<&mut Schedule> {
        let lined = self.0.iter_mut().find(|lined| lined.line.number == line)?;
        lined.bound.as_mut().map(|(_, schedule)| schedule)
    }

    /// What was sent under each tenant's own bound.
    pub(super) fn sent(&mut self, now: Duration) -> Vec<(Arc<str>, History)> {
        let sent = self.0.iter_mut().filter_map(|lined| {
            let (_, bound) = lined.bound.as_mut()?;
            Some((Arc::clone(&lined.line.name), bound.history(now)))
        });
        sent.collect()
    }

    /// It counts under the same tenants' bounds here, too.
    pub(super) fn join(&mut self, sent: &[(Arc<str>, History)], now: Duration) {
        for lined in &mut self.0 {
            let theirs = sent.iter().find(|(name, _)| *name == lined.line.name);
            if let (Some((_, bound)), Some((_, sent))) = (&mut lined.bound, theirs) {
                bound.join(sent, now);
            }
        }
    }

    /// In which lines somebody waits.
    pub(super) fn waiting<T>(&self, queue: &FairQueue<T>) -> Vec<WaitingReport> {
        let report = |lined: &Lined| {
            let calls = queue.waiting(lined.line.number);
            (calls > 0).then(|| WaitingReport { tenant: lined.line.name.to_string(), calls })
        };
        self.0.iter().filter_map(report).collect()
    }

    fn line_of<T>(
        &mut self,
        queue: &mut FairQueue<T>,
        tenant: &Tenant,
        now: Duration,
    ) -> Arc<Line> {
        let own = |rate: Rate| (rate, Schedule::own(rate.calls, rate.per, now));
        let changed = |rate: Rate, before: Option<(Rate, Schedule)>| {
            let (rate, mut bound) = own(rate);
            let sent = before.map(|(_, mut before)| before.history(now));
            sent.into_iter().for_each(|sent| bound.recall(&sent, now));
            (rate, bound)
        };
        if let Some(lined) = self.0.iter_mut().find(|lined| lined.line.name == tenant.name) {
            lined.is_open = true;
            queue.reweigh(lined.line.number, tenant.weight);
            if lined.bound.as_ref().map(|(rate, _)| *rate) != tenant.limit {
                // What was sent counts under any number.
                let before = lined.bound.take();
                lined.bound = tenant.limit.map(|rate| changed(rate, before));
            }
            return Arc::clone(&lined.line);
        }
        let number = queue.open(tenant.weight);
        let line = Arc::new(Line { number, name: Arc::clone(&tenant.name) });
        let bound = tenant.limit.map(own);
        self.0.push(Lined { line: Arc::clone(&line), is_open: true, bound });
        line
    }
}
