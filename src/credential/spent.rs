//! Secrets that an issuer may have used up. None of them is ever sent again: an issuer that sees one
//! twice takes it for stolen, and ends everything that came of the same login.

use std::collections::VecDeque;

use crate::secret::SecretValue;

/// So many are remembered, the last ones: a store that lags behind holds none that is older.
const KEPT: usize = 8;

/// The last secrets that were sent to be used up.
#[derive(Debug, Default)]
pub(super) struct Spent(VecDeque<SecretValue>);

impl Spent {
    /// Before it is sent.
    pub(super) fn mark(&mut self, secret: &SecretValue) {
        self.unmark(secret);
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(secret.clone());
    }

    /// The issuer certainly did not use it up.
    pub(super) fn unmark(&mut self, secret: &SecretValue) {
        self.0.retain(|spent| spent != secret);
    }

    /// Those of another list, too.
    pub(super) fn extend(&mut self, others: &Self) {
        others.0.iter().for_each(|other| self.mark(other));
    }

    pub(super) fn has(&self, secret: &SecretValue) -> bool {
        self.0.contains(secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_and_one_that_was_not_used_up_is_not() {
        let secret = |n: usize| SecretValue::new(n.to_string().into_bytes());
        let mut spent = Spent::default();
        for n in 0..20 {
            spent.mark(&secret(n));
            spent.mark(&secret(n));
        }
        assert!(spent.has(&secret(19)) && spent.has(&secret(20 - KEPT)));
        assert!(!spent.has(&secret(19 - KEPT)));
        spent.unmark(&secret(19));
        assert!(!spent.has(&secret(19)) && spent.has(&secret(18)));
    }
}
