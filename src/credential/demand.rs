//! What handles ask of a refresher. Setting it twice is as setting it once: nothing can pile up.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::Notify;

use super::Generation;

/// Set by any number of handles, taken by the one refresher.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// The newest generation that the upstream rejected; 0: none since the refresher looked.
    rejected: AtomicU64,
    /// Whether a call waits for a token.
    is_wanted: AtomicBool,
    /// Whether an operator asked for a token.
    is_asked: AtomicBool,
    /// Whether the process ends.
    is_ending: AtomicBool,
    wake: Notify,
    end: Notify,
}

/// What was asked for since the refresher looked last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demanded {
    /// As [`Demand::rejected`].
    pub(super) rejected: Generation,
    /// A call waits for a token.
    pub(super) is_wanted: bool,
    /// An operator asked for a token.
    pub(super) is_asked: bool,
}

impl Demand {
    pub(super) fn want(&self) {
        self.set(&self.is_wanted);
    }

    pub(super) fn ask(&self) {
        self.set(&self.is_asked);
    }

    /// What is under way is finished, and nothing more begun.
    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.end.notify_waiters();
    }

    /// Waits for [`Self::end`]. Cancel-safe.
    pub(super) async fn ending(&self) {
        let told = self.end.notified();
        if !self.is_ending.load(Ordering::Acquire) {
            told.await;
        }
    }

    pub(super) fn reject(&self, generation: Generation) {
        self.rejected.fetch_max(generation.0, Ordering::AcqRel);
        self.wake.notify_one();
    }

    fn set(&self, flag: &AtomicBool) {
        flag.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until something is asked for. Cancel-safe.
    pub(super) async fn made(&self) {
        self.wake.notified().await;
    }

    pub(super) fn take(&self) -> Demanded {
        Demanded {
            rejected: Generation(self.rejected.swap(0, Ordering::AcqRel)),
            is_wanted: self.is_wanted.swap(false, Ordering::AcqRel),
            is_asked: self.is_asked.swap(false, Ordering::AcqRel),
        }
    }
}
