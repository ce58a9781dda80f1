//! What every call needs, immutable, behind one pointer that can be swapped.
//!
//! A call takes the snapshot once, at its first byte, and keeps it to its log line; tokens move
//! inside it, through their handles.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::access::{Access, Callers};
use crate::config::Config;
use crate::credential::Registry;
use crate::shaping::Shaper;

/// Everything that decides about a call.
#[derive(Debug)]
pub struct Snapshot {
    /// The valid configuration.
    pub config: Config,
    /// Whose call it is.
    pub callers: Callers,
    /// Who may do what.
    pub access: Access,
    /// The read side of each credential, in the order of the configuration.
    pub credentials: Registry,
    /// Who may send when.
    pub shaper: Shaper,
}

/// The snapshot in force.
#[derive(Debug)]
pub struct Live {
    current: ArcSwap<Snapshot>,
    stored: watch::Sender<()>,
}

impl Live {
    /// Begins with a first snapshot.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        Self { current: ArcSwap::from_pointee(snapshot), stored: watch::Sender::default() }
    }

    /// From now on new calls see this snapshot; those in flight keep theirs. [`Self::load`] is the
    /// read side.
    pub fn store(&self, snapshot: Snapshot) {
        self.current.store(Arc::new(snapshot));
        self.stored.send_replace(());
    }

    /// The snapshot in force now; [`Self::store`] is the write side.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Tells of each [`Self::store`] from now on.
    #[must_use]
    pub fn stored(&self) -> watch::Receiver<()> {
        self.stored.subscribe()
    }
}
