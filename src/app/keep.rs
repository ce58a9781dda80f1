//! Keeps the refresh token that a login gave, over a store that does not answer or is claimed.
//!
//! Never writes it over what it may have been renewed to: a token that was spent already would be sent
//! a second time, which ends the grant.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::login::LoginError;
use crate::secret::{SecretRef, SecretValue};
use crate::store::{CLAIM_LAPSE, SecretStore, StoreError};

/// For so long a token is tried to be written: a claim of somebody who died has ended by then.
const WRITE_MAX: Duration = CLAIM_LAPSE.saturating_mul(2);
const WRITE_AGAIN: Duration = Duration::from_millis(500);

/// A write was tried, and nobody knows whether it was done.
#[derive(Debug)]
struct Doubt {
    /// What was there; `None`: nothing that can be read.
    before: Option<SecretValue>,
}

/// Writes `token` over what is there. Not cancel-safe: the token is nowhere else.
///
/// # Errors
/// [`LoginError::Lost`], [`LoginError::Overtaken`].
pub(super) async fn keep(
    store: &dyn SecretStore,
    at: &SecretRef,
    token: &SecretValue,
) -> Result<(), LoginError> {
    let deadline = Instant::now() + WRITE_MAX;
    let mut doubt = None;
    loop {
        let error = match attempt(store, at, token, &mut doubt).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(LoginError::Overtaken),
            Err(error) => error,
        };
        let is_worth_it = error.is_transient() || matches!(error, StoreError::Conflict { .. });
        if !is_worth_it || Instant::now() >= deadline {
            return Err(LoginError::Lost(error));
        }
        sleep(WRITE_AGAIN).await;
    }
}

/// Whether it is kept; `false`: that is not known, and there is another one by now.
async fn attempt(
    store: &dyn SecretStore,
    at: &SecretRef,
    token: &SecretValue,
    doubt: &mut Option<Doubt>,
) -> Result<bool, StoreError> {
    let there = match store.read(at).await {
        Ok(found) => Some(found.value),
        Err(error) if doubt.is_some() && error.is_transient() => return Err(error),
        Err(_nothing_usable) => None,
    };
    if let Some(Doubt { before }) = doubt {
        if there.as_ref() == Some(token) {
            return Ok(true);
        }
        if there != *before {
            return Ok(false);
        }
    }
    let put = store.put(at, token).await;
    if let Err(error) = &put
        && !matches!(error, StoreError::Claimed { .. } | StoreError::Conflict { .. })
    {
        doubt.get_or_insert(Doubt { before: there });
    }
    put.map(|()| true)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use async_trait::async_trait;
    use parking_lot::Mutex;

    use super::*;
    use crate::store::SecretVersion;

    /// What comes of one `put` that does not succeed.
    #[derive(Debug, Clone, Copy)]
    enum Mishap {
        /// Its answer is lost, and it was done or not; then somebody else may have written.
        Lost { is_done: bool, then: Option<&'static str> },
        /// Somebody else has it, and writes this.
        Claimed { then: &'static str },
    }
    use Mishap::{Claimed, Lost};

    #[derive(Debug)]
    struct Unsteady {
        held: Mutex<Option<SecretValue>>,
        mishaps: Mutex<VecDeque<Mishap>>,
        /// Reads that fail, after the first.
        outage: Mutex<usize>,
        reads: Mutex<usize>,
        puts: Mutex<usize>,
    }

    fn value(text: &str) -> SecretValue {
        SecretValue::new(text.as_bytes().to_vec())
    }

    #[async_trait]
    impl SecretStore for Unsteady {
        async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
            *self.reads.lock() += 1;
            let outage = &mut *self.outage.lock();
            if *self.reads.lock() > 1 && *outage > 0 {
                *outage -= 1;
                return Err(StoreError::Timeout { at: at.clone() });
            }
            let held = self.held.lock().clone();
            let value = held.ok_or_else(|| StoreError::Missing { at: at.clone() })?;
            Ok(SecretVersion { value, version: None })
        }

        async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
            *self.puts.lock() += 1;
            let mishap = self.mishaps.lock().pop_front();
            let (is_done, then) = match mishap {
                None => (true, None),
                Some(Lost { is_done, then }) => (is_done, then),
                Some(Claimed { then }) => (false, Some(then)),
            };
            let mut held = self.held.lock();
            if is_done {
                *held = Some(new.clone());
            }
            if let Some(then) = then {
                *held = Some(value(then));
            }
            match mishap {
                None => Ok(()),
                Some(Lost { .. }) => Err(StoreError::Timeout { at: at.clone() }),
                Some(Claimed { .. }) => Err(StoreError::Claimed { at: at.clone() }),
            }
        }
    }

    /// What comes of it, what the store holds in the end, and after how many writes.
    async fn kept(
        before: Option<&str>,
        mishaps: &[Mishap],
        outage: usize,
    ) -> (Result<(), LoginError>, Option<SecretValue>, usize) {
        let store = Unsteady {
            held: Mutex::new(before.map(value)),
            mishaps: Mutex::new(mishaps.iter().copied().collect()),
            outage: Mutex::new(outage),
            reads: Mutex::new(0),
            puts: Mutex::new(0),
        };
        let at = "vault:secret/alice#token".parse().unwrap();
        let done = keep(&store, &at, &value("new")).await;
        (done, store.held.into_inner(), store.puts.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_never_written_over_what_it_was_renewed_to() {
        let renewed = Some("renewed");
        for before in [None, Some("old")] {
            for mishaps in [
                &[Lost { is_done: true, then: renewed }][..],
                &[Lost { is_done: false, then: None }, Lost { is_done: true, then: renewed }],
                // Whose successor it is cannot be known.
                &[Lost { is_done: false, then: None }, Claimed { then: "renewed" }],
            ] {
                for outage in [0, 3] {
                    let (done, held, _) = kept(before, mishaps, outage).await;
                    assert!(matches!(done, Err(LoginError::Overtaken)), "{mishaps:?}: {done:?}");
                    assert_eq!(held, Some(value("renewed")), "{mishaps:?}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_written_until_the_store_holds_it() {
        let done = Lost { is_done: true, then: None };
        let undone = Lost { is_done: false, then: None };
        // What is renewed meanwhile is another grant's.
        let claimed = Claimed { then: "older" };
        let cases: [(&[Mishap], usize); 6] = [
            (&[], 1),
            (&[done], 1),
            (&[undone], 2),
            (&[undone, done], 2),
            (&[claimed], 2),
            (&[claimed, done], 2),
        ];
        for before in [None, Some("old")] {
            for (mishaps, writes) in cases {
                let (done, held, puts) = kept(before, mishaps, 2).await;
                assert!(done.is_ok(), "{mishaps:?}: {done:?}");
                assert_eq!((held, puts), (Some(value("new")), writes), "{mishaps:?}");
            }
        }
        let (done, held, _) = kept(Some("old"), &[undone; 100], 0).await;
        assert!(matches!(done, Err(LoginError::Lost(_))), "{done:?}");
        assert_eq!(held, Some(value("old")));
    }
}
