//! Who looks at the clock again, after something changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::quota::Quota;
use super::turns::Turns;

impl Quota {
    /// Whoever is next looks at the clock now.
    pub(super) fn wake_next(&self, turns: &mut Turns<Arc<Notify>>, now: Duration) {
        if turns.own_waiting > 0 {
            self.own_woken.notify_waiters();
        } else if let Some(woken) = turns.whose_turn(now) {
            woken.notify_one();
        }
    }

    /// Everybody who waits looks at the clock now.
    pub(super) fn wake_everybody(&self, turns: &Turns<Arc<Notify>>) {
        self.own_woken.notify_waiters();
        turns.everybody().for_each(|woken| woken.notify_one());
    }

    /// Others came before somebody who is too late for that: it is told now, and not at its deadline.
    pub(super) fn tell_displaced(turns: &mut Turns<Arc<Notify>>, now: Duration) {
        if let Some(woken) = turns.displaced(now) {
            woken.notify_one();
        }
    }
}
