//! Secrets that an issuer may have used up. None of them is ever sent again: an issuer that sees one
//! twice takes it for stolen, and ends everything that came of the same login.

use std::collections::VecDeque;

use crate::secret::SecretValue;

/// So many of each kind are remembered, the last ones: a store that lags behind holds none that is older.
const KEPT: usize = 8;

/// The last secrets that were sent to be used up.
#[derive(Debug, Default)]
pub(super) struct Spent {
    used: VecDeque<SecretValue>,
    /// Not used up: the issuer does not take them, as they were sent.
    refused: VecDeque<SecretValue>,
}

impl Spent {
    /// Before it is sent.
    pub(super) fn mark(&mut self, secret: &SecretValue) {
        put(&mut self.used, secret);
    }

    /// The issuer certainly did not use it up.
    pub(super) fn unmark(&mut self, secret: &SecretValue) {
        self.used.retain(|spent| spent != secret);
    }

    /// The issuer does not take it, and sending it in the same way again is of no use.
    pub(super) fn refuse(&mut self, secret: &SecretValue) {
        self.unmark(secret);
        put(&mut self.refused, secret);
    }

    /// Those of another list that may be used up, too. One that was refused may be taken where another
    /// client sends it, or to another issuer.
    pub(super) fn extend(&mut self, others: &Self) {
        others.used.iter().for_each(|other| self.mark(other));
    }

    /// Whether it is not to be sent.
    pub(super) fn has(&self, secret: &SecretValue) -> bool {
        self.used.contains(secret) || self.refused.contains(secret)
    }
}

/// As the last one.
fn put(list: &mut VecDeque<SecretValue>, secret: &SecretValue) {
    list.retain(|one| one != secret);
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(secret.clone());
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

    #[test]
    fn one_that_was_refused_is_not_sent_again_and_is_not_handed_on() {
        let [refused, used] = ["a", "b"].map(|text| SecretValue::new(text.into()));
        let (mut first, mut next) = (Spent::default(), Spent::default());
        first.mark(&refused);
        first.mark(&used);
        first.refuse(&refused);
        next.extend(&first);
        assert!(first.has(&refused) && first.has(&used));
        assert!(!next.has(&refused) && next.has(&used));
    }
}
