//! A key that draws from another quota from now on, because the configuration or the key of a
//! credential changed: what was sent with it counts there, and its calls that wait go on there.
//!
//! Two quotas' turns are locked at once here alone, and only while the state file's lock is held.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use super::lines::Line;
use super::place::Place;
use super::quota::Quota;
use super::sharing::{Moves, SharedKey};
use super::{Refusal, Shaped, Shaper};
use crate::credential::{KeyPrint, Registry};

/// Credentials that drew from a quota and draw from another one by now. Where there are none, which is
/// nearly always, no lock is taken to see it; else it is taken after the turns'.
#[derive(Debug, Default)]
pub(super) struct Heirs {
    is_any: AtomicBool,
    all: Mutex<Vec<Heir>>,
}

/// Where calls of a credential go on that came here.
#[derive(Debug)]
struct Heir {
    credential: Arc<str>,
    quota: Weak<Quota>,
    /// What is known there of their charges: they are before any of its own from then on.
    charge: u64,
}

impl Heirs {
    /// What is looked for in the one of this credential, where it has one.
    fn of<T>(&self, credential: &str, look: impl FnOnce(&Heir) -> Option<T>) -> Option<T> {
        // What is changed under the turns' lock is seen under it.
        if !self.is_any.load(Ordering::Relaxed) {
            return None;
        }
        // No code under the lock panics; if it did, the names would still be names.
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|heir| *heir.credential == *credential).and_then(look)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Heir>)) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut all);
        self.is_any.store(!all.is_empty(), Ordering::Relaxed);
    }
}

/// A call's place as it is now.
#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) quota: Arc<Quota>,
    pub(super) line: Arc<Line>,
    /// The charge of the last attempt that left; 0: none did.
    pub(super) charge: u64,
}

impl Seat {
    /// Where a call with this credential goes on; `None`: where it is.
    pub(super) fn heir(&self, credential: Option<&Arc<str>>) -> Option<Self> {
        let mut heir = self.next(credential?)?;
        while let Some(next) = heir.next(credential?) {
            heir = next;
        }
        Some(heir)
    }

    fn next(&self, credential: &str) -> Option<Self> {
        let heir = |heir: &Heir| Some((heir.quota.upgrade()?, heir.charge));
        let (quota, charge) = self.quota.heirs.of(credential, heir)?;
        let line = quota.lock().line_for(&self.line.name);
        let charge = if self.charge == 0 { 0 } else { charge };
        Some(Self { quota, line, charge })
    }
}

impl Quota {
    /// Calls with these credentials draw from `heir` from now on.
    pub(super) fn hand_over(&self, credentials: &BTreeSet<Arc<str>>, heir: &Arc<Self>) {
        // What came back is there.
        heir.heirs.change(|heirs| heirs.retain(|one| !credentials.contains(&one.credential)));
        let now = self.since(Instant::now());
        let mut turns = self.lock();
        let (history, of_tenants) = (turns.schedule.history(now), turns.lines.sent(now));
        {
            let mut theirs = heir.lock();
            theirs.schedule.join(&history, now);
            theirs.lines.join(&of_tenants, now);
            // Calls of our own are short, and leave by the schedule that they wait for.
            let own_waiting = u32::try_from(turns.own_waiting).unwrap_or(u32::MAX);
            theirs.schedule.add(own_waiting, now);
            let charge = theirs.schedule.charge_for_all_before();
            self.heirs.change(|heirs| {
                heirs.retain(|one| {
                    !credentials.contains(&one.credential) && one.quota.strong_count() > 0
                });
                heirs.extend(credentials.iter().map(|credential| {
                    let (credential, quota) = (Arc::clone(credential), Arc::downgrade(heir));
                    Heir { credential, quota, charge }
                }));
            });
        }
        // Some of theirs may still be on its way.
        heir.calm();
        heir.in_shadow(|shadow, now| shadow.schedule().join(&history, now));
        self.wake_everybody(&turns);
    }

    /// Whether calls with this credential draw from another quota by now. Asked under the turns' lock,
    /// there is no permit for them here from then on.
    pub(super) fn is_left_by(&self, credential: Option<&Arc<str>>) -> bool {
        let there = |heir: &Heir| (heir.quota.strong_count() > 0).then_some(());
        credential.is_some_and(|credential| self.heirs.of(credential, there).is_some())
    }
}

impl Shaper {
    /// The quota that calls with this credential draw from: the configured one, unless another
    /// credential holds the same key and has a stricter one.
    #[must_use]
    pub fn quota_of(&self, credentials: &Registry, credential: usize) -> Option<Arc<str>> {
        self.drawn_by(credential, |index| credentials.key(index))
    }

    fn drawn_by(
        &self,
        credential: usize,
        key: impl Fn(usize) -> Option<KeyPrint>,
    ) -> Option<Arc<str>> {
        self.sharing.quota_of(credential, key, |moves| self.follow(moves))
    }

    /// What was sent counts where its keys draw from now, and who waits goes on there. Nobody is sent
    /// away from where it draws from, which it may have left with another key before.
    fn follow(&self, moves: &Moves) {
        self.hand_over(moves);
        for (credential, quota) in &moves.homes {
            if let Some(Shaped { quota, .. }) = self.quotas.get(&**quota) {
                quota.heirs.change(|heirs| heirs.retain(|one| one.credential != *credential));
            }
        }
    }

    fn hand_over(&self, moves: &Moves) {
        if moves.ways.is_empty() {
            return;
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        for ((from, to), credentials) in &moves.ways {
            if let Some(from) = self.known(from)
                && let Some(Shaped { quota: to, .. }) = self.quotas.get(&**to)
            {
                from.hand_over(credentials, to);
                to.keep_in(file.as_mut());
            }
        }
    }

    /// Credentials that hold the same key although the configuration gives them different quotas.
    #[must_use]
    pub fn shared_keys(&self, credentials: &Registry) -> Vec<SharedKey> {
        self.sharing.shared(|index| credentials.key(index), |moves| self.follow(moves))
    }

    /// The place of a call that is sent with this credential by this tenant, each by its number in the
    /// configuration; `held`, the one that it has, where that is in the same quota. Asked before anything
    /// is done for the call, so that one whose turn would come too late is refused at once.
    ///
    /// # Errors
    /// A [`Refusal`] when the turn would come after `deadline`.
    pub fn enter(
        &self,
        credentials: &Registry,
        (credential, tenant): (usize, usize),
        deadline: Instant,
        held: Option<Place>,
    ) -> Result<Place, Refusal> {
        self.enter_with(|index| credentials.key(index), (credential, tenant), deadline, held)
    }

    pub(super) fn enter_with(
        &self,
        key: impl Fn(usize) -> Option<KeyPrint>,
        (credential, tenant): (usize, usize),
        deadline: Instant,
        held: Option<Place>,
    ) -> Result<Place, Refusal> {
        let quota = self.drawn_by(credential, key);
        let shaped = quota.as_ref().and_then(|name| self.quotas.get(&**name));
        let held = match held {
            Some(held) if held.is_in(shaped.map(|shaped| &shaped.quota)) => return Ok(held),
            held => held.unwrap_or(Place(None)),
        };
        let place = self.place(quota.as_deref(), tenant, deadline, held)?;
        Ok(self.sharing.name(credential).map_or_else(|| Place(None), |name| place.of(name)))
    }
}
