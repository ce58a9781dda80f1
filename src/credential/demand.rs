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
    /// Whether what is not written yet is to be tried now.
    is_write_wanted: AtomicBool,
    wake: Notify,
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
    /// What is not written yet is to be tried now.
    pub(super) is_write_wanted: bool,
}

impl Demand {
    pub(super) fn want(&self) {
        self.set(&self.is_wanted);
    }

    pub(super) fn ask(&self) {
        self.set(&self.is_asked);
    }

    pub(super) fn write(&self) {
        self.set(&self.is_write_wanted);
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
            is_write_wanted: self.is_write_wanted.swap(false, Ordering::AcqRel),
        }
    }
}
