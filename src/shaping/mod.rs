//! Who may send when. For now everybody at once: the interface is what the proxy is built on, the
//! schedule behind it comes later.
//!
//! A [`Place`] or [`Permit`] frees what it holds when it is dropped, on every path; nothing else
//! gives it back.

pub mod envelope;
pub mod pace;
pub mod pause;
pub mod queue;
pub mod retry_after;
pub mod schedule;

use std::time::Duration;

use tokio::time::Instant;

/// Decides when a call may be sent.
#[derive(Debug, Default)]
pub struct Shaper {}

/// A place in a quota's queue, held until the call is sent or given up.
#[derive(Debug)]
#[must_use = "dropping it gives the place up"]
pub struct Place {
    admitted_at: Instant,
}

/// The right to send one request now; every attempt needs its own.
#[derive(Debug)]
#[must_use = "it is charged when the request is written"]
pub struct Permit {
    /// When the request was about to be written.
    pub departed_at: Instant,
    /// How long the call had held its place.
    pub waited: Duration,
}

/// The shaper refuses a call when it arrives, never after it waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// When the schedule has room.
    pub retry_after: Duration,
}

impl Shaper {
    /// Waits for the call's turn under a quota (`None`: not shaped).
    ///
    /// # Errors
    /// A [`Refusal`] when the turn would come after `deadline`.
    #[expect(clippy::unused_async, reason = "a call waits here once there is a queue")]
    pub async fn admit(&self, _quota: Option<&str>, _deadline: Instant) -> Result<Place, Refusal> {
        Ok(Place { admitted_at: Instant::now() })
    }
}

impl Place {
    /// The request head is about to be written: stamps the permit.
    pub fn depart(&self, now: Instant) -> Permit {
        Permit { departed_at: now, waited: now.saturating_duration_since(self.admitted_at) }
    }
}
