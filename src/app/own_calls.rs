//! Lets the sidecar's own calls to the API host draw from the quotas that apps' calls draw from.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::credential::{Ended, Free, OwnCall, OwnCalls};
use crate::proxy::Live;
use crate::shaping::OwnPermit;

/// One of our own calls waits no longer: a credential's try to get a token takes 10 s at most.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// Asks the shaper that is in force.
#[derive(Debug, Default)]
pub(super) struct Shaped(OnceLock<Weak<Live>>);

impl Shaped {
    /// By this one from now on; before, no credential runs.
    pub(super) fn shape_by(&self, live: Live) -> Arc<Live> {
        let live = Arc::new(live);
        // Set once, at the start.
        drop(self.0.set(Arc::downgrade(&live)));
        live
    }
}

#[async_trait]
impl OwnCalls for Shaped {
    async fn permit(&self, credential: &str) -> Option<Box<dyn OwnCall>> {
        let Some(live) = self.0.get().and_then(Weak::upgrade) else { return Some(Box::new(Free)) };
        let snapshot = live.load();
        let mut credentials = snapshot.config.credentials.iter();
        let index = credentials.position(|one| &*one.name == credential);
        // One that a reload is about to add: nobody else uses it yet.
        let Some(index) = index else { return Some(Box::new(Free)) };
        let quota = snapshot.shaper.quota_of(&snapshot.credentials, index);
        let deadline = Instant::now() + WAIT_MAX;
        match snapshot.shaper.own_call(quota.as_deref(), deadline).await {
            Ok(Some(permit)) => Some(Box::new(permit)),
            Ok(None) => Some(Box::new(Free)),
            Err(refusal) => {
                let retry_after_s = refusal.retry_after.as_secs();
                tracing::info!(credential, retry_after_s, "the quota has no room for our own call");
                None
            }
        }
    }
}

impl OwnCall for OwnPermit {
    fn ended(self: Box<Self>, how: Ended) {
        match how {
            Ended::NotSent => self.give_back(),
            Ended::Unanswered => {}
            Ended::Answered { status: 429, retry_after } => self.throttled(retry_after),
            Ended::Answered { .. } => self.answered(),
        }
    }
}
