//! A second limit. Pure.

use std::time::Duration;

use super::envelope::Envelope;
use super::pace::Terms;

/// A second limit: counted, not paced, as windows are of a second or so.
#[derive(Debug, Clone)]
pub(super) struct Also {
    pub(super) envelope: Envelope,
    pub(super) limit: u32,
    pub(super) window: Duration,
    pub(super) memory: Duration,
}

impl Also {
    pub(super) fn new(terms: Terms, (limit, window): (u32, Duration)) -> Self {
        let (limit, spread) = (limit.max(1), terms.spread + terms.tick);
        let envelope = Envelope::new(limit, window, spread, false);
        Self { envelope, limit, window, memory: window + spread }
    }

    /// A tick that was learnt is the first limit's matter; a wider spread is both's.
    pub(super) fn tighten(&mut self, terms: Terms, now: Duration) {
        let spread = self.window + terms.spread;
        if spread <= self.memory {
            return;
        }
        let mut stricter =
            Self::new(Terms { tick: Duration::ZERO, ..terms }, (self.limit, self.window));
        self.envelope.sent(now).into_iter().for_each(|sent| stricter.envelope.recall(sent));
        *self = stricter;
    }
}
