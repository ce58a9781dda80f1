//! How a refresher begins after another one, and how it ends: nothing that could be lost is lost.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::super::state::{Published, Work};
use super::super::succession::{Keepers, Office};
use super::super::supply::Estate;
use super::Refresher;
use crate::clock;

impl Refresher {
    /// Where it replaces its secret, it comes after those who did and are not among `kept`.
    pub(in super::super) fn succeed(&mut self, keepers: &Keepers, kept: &[Arc<Office>]) {
        if self.supply.must_finish() {
            let (at, effect) = (self.supply.at(), self.supply.effect());
            self.predecessors = keepers.take_over(at, effect, kept);
            keepers.add(at, effect, self.office());
        }
    }

    /// Waits for what those before it leave: each ends by itself, and soon.
    pub(super) async fn inherit(&mut self) {
        let estates = std::mem::take(&mut self.predecessors);
        if estates.is_empty() {
            return;
        }
        let _guard = self.under_way.enter();
        self.published.send_modify(|p| p.work = Work::Spending);
        for estate in estates {
            // None comes from one that had ended.
            if let Ok(estate) = estate.await {
                self.supply.inherit(estate);
            }
        }
        self.published.send_modify(|p| {
            p.work = Work::None;
            self.show_unwritten(p);
        });
    }

    /// Leaves what is not written to who comes next. Without anybody it tries once more to write it, and
    /// without a handle until it is written.
    pub(super) async fn end(mut self) {
        let _guard = self.under_way.enter();
        loop {
            if let Some(heir) = self.office.heir()
                && self.hand_on(heir)
            {
                break;
            }
            self.write().await;
            self.published.send_modify(|p| p.work = Work::Ended);
            let due = self.supply.write_due().filter(|_| self.published.is_closed());
            let Some(due) = due else { return };
            tokio::select! {
                () = self.office.wanted() => {}
                () = clock::sleep_until(due) => {}
            }
        }
        self.published.send_modify(|p| {
            p.work = Work::Ended;
            self.show_unwritten(p);
        });
    }

    /// Whether there was somebody to take it.
    fn hand_on(&mut self, heir: oneshot::Sender<Estate>) -> bool {
        match heir.send(self.supply.leave()) {
            Ok(()) => true,
            Err(estate) => {
                self.supply.inherit(estate);
                false
            }
        }
    }

    /// Tries to write what the store lacks, if there is something.
    pub(super) async fn write(&mut self) {
        self.supply.write().await;
        self.published.send_modify(|p| self.show_unwritten(p));
    }

    pub(super) fn show_unwritten(&self, published: &mut Published) {
        published.is_unpersisted = self.supply.is_unpersisted();
        published.has_to_write = self.supply.write_due().is_some();
    }
}
