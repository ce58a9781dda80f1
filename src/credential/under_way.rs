//! How many refreshers are at something whose outcome must not be missed, those of a configuration that
//! is no longer in force among them: the end waits for them.

use std::sync::Arc;

use tokio::sync::watch;

/// Counts. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(super) struct UnderWay(Arc<watch::Sender<usize>>);

/// Counts as one until it is dropped.
#[derive(Debug)]
pub(super) struct Guard(UnderWay);

impl UnderWay {
    pub(super) fn enter(&self) -> Guard {
        self.0.send_modify(|count| *count += 1);
        Guard(self.clone())
    }

    /// Waits until there is none. Cancel-safe.
    pub(super) async fn over(&self) {
        // The sender lives as long as `self`.
        drop(self.0.subscribe().wait_for(|count| *count == 0).await);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}
