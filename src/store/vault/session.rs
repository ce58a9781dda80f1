//! The login at Vault that all reads share: one at a time, kept alive, never in a loop.
//!
//! A token that still works is never given up because it cannot be renewed.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use super::super::StoreError;
use super::super::verdict::DENIED_WAIT;
use super::login::{self, Granted};
use super::transport::Transport;
use crate::backoff::Backoff;
use crate::config::model::{VaultAuth, VaultStore};
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::{Metrics, error_chain};

/// A renewal that gives less than this part of the first life ends soon: log in anew before.
const SHRUNK: f64 = 0.9;

/// A token that Vault gave.
pub(super) struct Lease {
    pub(super) token: SecretValue,
    /// Counts logins.
    pub(super) generation: u64,
    expires_at: Option<Instant>,
    due: Option<(Instant, Duty)>,
    /// What the login gave it.
    ttl: Option<Duration>,
}

/// What is to be done for a lease before it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    Renew,
    LogIn,
}

/// The one login of a store.
pub(super) struct Session {
    pub(super) transport: Transport,
    spec: VaultStore,
    lease: watch::Sender<Option<Arc<Lease>>>,
    logging_in: tokio::sync::Mutex<Tries>,
    /// How many logins failed: who waited for one of them shares it.
    failed: AtomicU64,
    /// The last login that a denial caused.
    forced_at: Mutex<Option<Instant>>,
    /// Work for [`Self::keep`].
    changed: Notify,
    metrics: Metrics,
}

/// Logins that failed.
#[derive(Default)]
struct Tries {
    /// Why the last one did.
    last: Option<StoreError>,
    /// A login that was refused is not tried again before.
    barred_until: Option<Instant>,
}

impl Session {
    pub(super) fn new(transport: Transport, spec: &VaultStore, metrics: &Metrics) -> Self {
        Self {
            transport,
            spec: spec.clone(),
            lease: watch::Sender::new(None),
            logging_in: tokio::sync::Mutex::default(),
            failed: AtomicU64::default(),
            forced_at: Mutex::default(),
            changed: Notify::new(),
            metrics: metrics.clone(),
        }
    }

    /// A token that is good now; logs in where there is none.
    pub(super) async fn lease(&self, at: &SecretRef) -> Result<Arc<Lease>, StoreError> {
        match self.current() {
            Some(lease) => Ok(lease),
            None => self.log_in(at, 0).await,
        }
    }

    /// After a denial with this lease: a newer one, by one fresh login. `None` when the last such
    /// login is too near: it would not help.
    pub(super) async fn after_denial(
        &self,
        at: &SecretRef,
        denied: &Lease,
    ) -> Result<Option<Arc<Lease>>, StoreError> {
        if let Some(newer) = self.current().filter(|now| now.generation > denied.generation) {
            return Ok(Some(newer));
        }
        {
            let now = Instant::now();
            let mut forced_at = self.forced_at.lock();
            if forced_at.is_some_and(|last| now < last + DENIED_WAIT) {
                return Ok(None);
            }
            *forced_at = Some(now);
        }
        self.log_in(at, denied.generation).await.map(Some)
    }

    fn current(&self) -> Option<Arc<Lease>> {
        let now = Instant::now();
        self.lease.borrow().clone().filter(|lease| lease.expires_at.is_none_or(|end| now < end))
    }

    /// Logs in, unless somebody else did, or could not, while we waited for our turn. `than`: only a
    /// lease newer than this generation will do.
    async fn log_in(&self, at: &SecretRef, than: u64) -> Result<Arc<Lease>, StoreError> {
        let failed = self.failed.load(Ordering::SeqCst);
        let mut tries = self.logging_in.lock().await;
        if let Some(lease) = self.current().filter(|lease| lease.generation > than) {
            return Ok(lease);
        }
        let refused = || StoreError::LoginRefused { at: at.clone(), reason: "login_refused" };
        if tries.barred_until.is_some_and(|until| Instant::now() < until) {
            return Err(refused());
        }
        if let Some(error) = &tries.last
            && failed < self.failed.load(Ordering::SeqCst)
        {
            return Err(error.of_another(at));
        }
        let granted = login::log_in(&self.transport, &self.spec, at).await;
        let outcome = granted.as_ref().map_or_else(StoreError::kind, |_| "ok");
        self.metrics.store_logins.with_label_values(&["vault", outcome]).inc();
        let granted = granted.inspect_err(|error| {
            let wait = error.retry_after().unwrap_or(Duration::ZERO);
            tries.barred_until = Some(Instant::now() + wait);
            tries.last = Some(error.of_another(at));
            self.failed.fetch_add(1, Ordering::SeqCst);
        })?;
        tries.barred_until = None;
        let before = self.lease.borrow().as_ref().map_or(0, |lease| lease.generation);
        let lease = Arc::new(Lease::new(granted, before.max(than) + 1, Instant::now()));
        self.lease.send_replace(Some(Arc::clone(&lease)));
        self.changed.notify_one();
        tracing::info!(
            store = "vault",
            ttl_seconds = lease.ttl.map_or(0, |ttl| ttl.as_secs()),
            "logged in"
        );
        Ok(lease)
    }

    /// Renews the token at two thirds of its life, and logs in anew before it ends where renewing
    /// does not help. Never ends.
    pub(super) async fn keep(&self) {
        let at = SecretRef::Vault { path: "auth/token".to_owned(), field: "self".to_owned() };
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let mut not_before = Instant::now();
        loop {
            let lease = self.lease.borrow().clone();
            let due = lease.as_ref().and_then(|lease| lease.due);
            let Some((lease, (when, duty))) = lease.zip(due) else {
                self.changed.notified().await;
                continue;
            };
            let is_over = lease.expires_at.is_some_and(|end| end <= Instant::now());
            tokio::select! {
                () = sleep_until(when.max(not_before)) => {}
                () = self.changed.notified() => continue,
            }
            let kept = match duty {
                Duty::Renew if !is_over => self.renew(&at, &lease).await,
                _ => self.log_in(&at, lease.generation).await.map(drop),
            };
            match kept {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let wait = backoff.next_wait();
                    let wait = error.retry_after().map_or(wait, |least| wait.max(least));
                    not_before = Instant::now() + wait;
                    let cause = error_chain(&error);
                    tracing::warn!(store = "vault", cause, "the login could not be kept alive");
                }
            }
        }
    }

    async fn renew(&self, at: &SecretRef, lease: &Lease) -> Result<(), StoreError> {
        let renewed = login::renew(&self.transport, &lease.token, at).await;
        let outcome = match &renewed {
            Ok(_) => "renewed",
            Err(StoreError::LoginRefused { .. } | StoreError::Denied { .. }) => "renewal_refused",
            Err(error) => error.kind(),
        };
        self.metrics.store_logins.with_label_values(&["vault", outcome]).inc();
        match renewed {
            Ok(granted) => {
                let renewed = lease.renewed(&granted, Instant::now(), self.logs_in());
                self.lease.send_modify(|now| {
                    // A login may have come in between.
                    if now.as_ref().is_some_and(|now| now.generation == lease.generation) {
                        *now = Some(Arc::new(renewed));
                    }
                });
                Ok(())
            }
            // It is no token any more, whatever we were told.
            Err(StoreError::LoginRefused { .. } | StoreError::Denied { .. }) => {
                self.log_in(at, lease.generation).await.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether a login gives another token, or reads the one again that somebody else obtained.
    const fn logs_in(&self) -> bool {
        !matches!(self.spec.auth, VaultAuth::Token { .. })
    }
}

impl Lease {
    fn new(granted: Granted, generation: u64, now: Instant) -> Self {
        let duty = if granted.is_renewable { Duty::Renew } else { Duty::LogIn };
        Self {
            generation,
            expires_at: granted.ttl.map(|ttl| now + ttl),
            due: granted.ttl.map(|ttl| (now + due_after(ttl, fastrand::f64()), duty)),
            ttl: granted.ttl,
            token: granted.token,
        }
    }

    /// The same token with more life. One that gets less and less is near its end, which no renewal
    /// moves.
    fn renewed(&self, granted: &Granted, now: Instant, logs_in: bool) -> Self {
        let left = granted.ttl.unwrap_or(Duration::ZERO);
        let is_short = self.ttl.is_some_and(|ttl| left < ttl.mul_f64(SHRUNK));
        let duty =
            if is_short && logs_in || !granted.is_renewable { Duty::LogIn } else { Duty::Renew };
        Self {
            token: self.token.clone(),
            generation: self.generation,
            expires_at: Some(now + left),
            due: Some((now + due_after(left, fastrand::f64()), duty)),
            ttl: self.ttl,
        }
    }
}

/// About two thirds of a life: `draw` (0 to 1) moves it, so that replicas do not come together.
fn due_after(ttl: Duration, draw: f64) -> Duration {
    ttl.mul_f64(0.6 + 0.13 * draw.clamp(0.0, 1.0))
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("address", &self.spec.address.as_str())
            .finish_non_exhaustive()
    }
}
