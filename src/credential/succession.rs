//! One task alone keeps a secret that is replaced by what it gives: where a reload changes a credential,
//! the new task takes over what the old one knows of its secret, and the old one asks nobody any more.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Effect;
use super::supply::Estate;
use crate::secret::SecretRef;

/// The place of one task, which another one can be given.
#[derive(Debug, Default)]
pub(super) struct Office {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Kept,
    /// By another task.
    Wanted(oneshot::Sender<Estate>),
    Left,
}

impl Office {
    /// Asks for it; `None` where there is nothing to wait for.
    fn want(&self) -> Option<oneshot::Receiver<Estate>> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Kept) {
            return None;
        }
        let (heir, estate) = oneshot::channel();
        *state = State::Wanted(heir);
        drop(state);
        self.wake.notify_waiters();
        Some(estate)
    }

    async fn wanted(&self) {
        let told = self.wake.notified();
        if !matches!(*self.state.lock(), State::Wanted(_)) {
            told.await;
        }
    }

    /// Whoever wants it.
    fn heir(&self) -> Option<oneshot::Sender<Estate>> {
        let mut state = self.state.lock();
        match std::mem::replace(&mut *state, State::Left) {
            State::Wanted(heir) => Some(heir),
            other => {
                *state = other;
                None
            }
        }
    }
}

/// Who is in office: nobody waits for it once this is dropped.
#[derive(Debug, Default)]
pub(super) struct Holder(Arc<Office>);

impl Holder {
    pub(super) const fn office(&self) -> &Arc<Office> {
        &self.0
    }

    /// Waits until another task wants the office. Cancel-safe.
    pub(super) async fn wanted(&self) {
        self.0.wanted().await;
    }

    /// Whoever wants it.
    pub(super) fn heir(&self) -> Option<oneshot::Sender<Estate>> {
        self.0.heir()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        *self.0.state.lock() = State::Left;
    }
}

/// Every task that keeps a secret which it replaces, those of a configuration that is no longer in force
/// among them. Clones share the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Keepers(Arc<Mutex<Vec<Keeper>>>);

#[derive(Debug)]
struct Keeper {
    at: SecretRef,
    effect: Effect,
    office: Weak<Office>,
}

impl Keepers {
    /// The offices of those who keep this secret and are not among `kept` are taken: what each of them
    /// leaves.
    pub(super) fn take_over(
        &self,
        at: &SecretRef,
        effect: Effect,
        kept: &[Arc<Office>],
    ) -> Vec<oneshot::Receiver<Estate>> {
        let mut estates = Vec::new();
        self.0.lock().retain(|keeper| {
            let Some(office) = keeper.office.upgrade() else { return false };
            let is_kept = kept.iter().any(|one| Arc::ptr_eq(one, &office));
            if is_kept || keeper.at != *at || keeper.effect != effect {
                return true;
            }
            estates.extend(office.want());
            false
        });
        estates
    }

    /// From now on this is one of them.
    pub(super) fn add(&self, at: &SecretRef, effect: Effect, office: &Arc<Office>) {
        let keeper = Keeper { at: at.clone(), effect, office: Arc::downgrade(office) };
        self.0.lock().push(keeper);
    }
}
