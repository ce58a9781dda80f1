//! A call of the sidecar's own to the API host: it takes a permit as any attempt does, and goes before
//! everybody who waits.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::quota::Quota;
use super::schedule::Charge;
use super::turns::OwnStep;
use super::{Refusal, Shaper};

/// The right to send one request now. Dropping it says that no answer came.
#[derive(Debug)]
#[must_use = "it is charged already"]
pub struct OwnPermit {
    quota: Arc<Quota>,
    /// `None` once it is known what became of it.
    charge: Option<Charge>,
}

impl Shaper {
    /// Waits for a permit ahead of the queue; `None`: nothing is shaped.
    ///
    /// # Errors
    /// A [`Refusal`] when there is no room before `deadline`.
    pub async fn own_call(
        &self,
        quota: Option<&str>,
        deadline: Instant,
    ) -> Result<Option<OwnPermit>, Refusal> {
        let Some(shaped) = quota.and_then(|name| self.quotas.get(name)) else { return Ok(None) };
        let quota = Arc::clone(&shaped.quota);
        let charge = Some(quota.own_turn(deadline).await?);
        Ok(Some(OwnPermit { quota, charge }))
    }
}

impl OwnPermit {
    /// The request did not leave.
    pub fn give_back(mut self) {
        if let Some(charge) = self.charge.take() {
            self.quota.give_own_back(charge);
        }
    }

    /// The upstream answered `429`, with this `Retry-After`.
    pub fn throttled(mut self, asked: Option<Duration>) {
        if let Some(charge) = self.charge.take() {
            self.quota.landed(charge);
            self.quota.throttled(charge.number, asked);
        }
    }

    /// The upstream answered anything else.
    pub fn answered(mut self) {
        if let Some(charge) = self.charge.take() {
            self.quota.landed(charge);
            self.quota.answered(charge.number);
        }
    }
}

impl Drop for OwnPermit {
    fn drop(&mut self) {
        if let Some(charge) = self.charge.take() {
            self.quota.landed(charge);
        }
    }
}

/// Goes before everybody who waits, until it is dropped.
struct Ahead<'a>(&'a Quota);

impl<'a> Ahead<'a> {
    fn new(quota: &'a Quota) -> Self {
        quota.count_ahead(1);
        Self(quota)
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.0.count_ahead(-1);
    }
}

impl Quota {
    /// Waits for a permit for a call of our own, ahead of everybody.
    async fn own_turn(&self, deadline: Instant) -> Result<Charge, Refusal> {
        let _ahead = Ahead::new(self);
        loop {
            // From before the question: what changes after it wakes this one.
            let woken = self.own_woken.notified();
            let now = Instant::now();
            let asked = self.lock().own_step(self.since(now), self.since(deadline));
            match asked {
                OwnStep::Leave(charge) => return Ok(charge),
                OwnStep::Refuse(refusal) => return Err(refusal),
                // Whether woken or not: the next step says what it means.
                OwnStep::Later(at) => {
                    let _elapsed = timeout_at(self.began_at + at, woken).await;
                }
            }
        }
    }

    /// So many more calls of our own wait.
    fn count_ahead(&self, more: isize) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.own_waiting = turns.own_waiting.saturating_add_signed(more);
        if turns.own_waiting == 0 {
            self.wake_next(&mut turns, now);
        }
    }

    /// A call of our own did not leave.
    fn give_own_back(&self, charge: Charge) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.schedule.give_back(charge, now);
        self.wake_next(&mut turns, now);
    }

    /// A call of our own has arrived by now, if ever.
    fn landed(&self, charge: Charge) {
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        turns.schedule.landed(charge, now);
        turns.keep(now);
        drop(turns);
        self.more_in_shadow(1);
        self.metrics.quota_sent.with_label_values(&[&*self.name]).inc();
    }
}
