//! Which quota a credential draws from. A quota belongs to a key at DataPulse's: credentials that hold
//! the same key share one schedule, the strictest of theirs, whatever the configuration says.
//!
//! Found out when a call is admitted, because keys change while the sidecar runs, and by keyed hashes,
//! never by values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::credential::KeyPrint;

/// So many groups that were told of are remembered.
const TOLD_MAX: usize = 64;

/// Who shares.
#[derive(Debug)]
pub(super) struct Sharing {
    /// Name and quota of each credential, by the configuration.
    credentials: Vec<(Arc<str>, Option<Arc<str>>)>,
    /// Calls a second of each quota that shapes.
    rates: BTreeMap<Arc<str>, f64>,
    found: Mutex<Found>,
}

/// What follows from the keys of a moment.
#[derive(Debug, Default)]
struct Found {
    keys: Vec<Option<KeyPrint>>,
    quotas: Vec<Option<Arc<str>>>,
    shared: Vec<SharedKey>,
    /// The groups that were told of in the log.
    told: BTreeSet<Vec<String>>,
}

/// Credentials that hold the same key although the configuration gives them different quotas, as
/// `/status` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedKey {
    /// Their names, in the order of the configuration.
    pub credentials: Vec<String>,
    /// The quota that all of them draw from: the strictest of theirs.
    pub quota: String,
}

impl Sharing {
    /// What the configuration says, as long as nothing is known of keys; `before` is what was told of
    /// already.
    pub(super) fn new(config: &Config, before: Option<&Self>) -> Self {
        let credentials = config.credentials.iter();
        let credentials = credentials.map(|one| (Arc::clone(&one.name), one.quota.clone()));
        let rate = |(name, quota): (&String, &crate::config::model::Quota)| {
            let limit = quota.limit?;
            let rate = f64::from(limit.calls) * quota.share / limit.per.as_secs_f64();
            Some((Arc::from(name.as_str()), rate))
        };
        let told = before.map(|before| before.lock().told.clone()).unwrap_or_default();
        Self {
            credentials: credentials.collect(),
            rates: config.quotas.iter().filter_map(rate).collect(),
            found: Mutex::new(Found { told, ..Found::default() }),
        }
    }

    /// The quota that this credential draws from now, and those that others' sends came to because
    /// of a key that changed.
    pub(super) fn quota_of(
        &self,
        credential: usize,
        key: impl Fn(usize) -> Option<KeyPrint>,
    ) -> (Option<Arc<str>>, Vec<Arc<str>>) {
        let mut found = self.lock();
        let mut joined = Vec::new();
        if found.keys.get(credential) != Some(&key(credential)) {
            joined = self.find(&mut found, &key);
        }
        (found.quotas.get(credential).cloned().flatten(), joined)
    }

    /// Who shares a key although the configuration says otherwise, now.
    pub(super) fn shared(&self, key: impl Fn(usize) -> Option<KeyPrint>) -> Vec<SharedKey> {
        let mut found = self.lock();
        if (0..self.credentials.len()).any(|index| found.keys.get(index) != Some(&key(index))) {
            self.find(&mut found, &key);
        }
        found.shared.clone()
    }

    /// Looks at all keys anew, and tells in the log what is new. Gives the quotas that credentials
    /// draw from who did not before.
    fn find(&self, found: &mut Found, key: &dyn Fn(usize) -> Option<KeyPrint>) -> Vec<Arc<str>> {
        let keys: Vec<_> = (0..self.credentials.len()).map(key).collect();
        let (quotas, shared) = self.resolve(&keys);
        for one in &shared {
            let is_new = !found.told.contains(&one.credentials);
            if is_new {
                tracing::warn!(
                    credentials = one.credentials.join(", "),
                    quota = one.quota,
                    "these credentials hold the same key, and draw from one quota, the strictest of \
                     theirs; give them the same `quota` in the configuration"
                );
            }
            if is_new && found.told.len() < TOLD_MAX {
                found.told.insert(one.credentials.clone());
            }
        }
        let moved = quotas.iter().zip(&found.quotas).filter(|(now, before)| now != before);
        let joined = moved.filter_map(|(now, _)| now.clone()).collect();
        (found.keys, found.quotas, found.shared) = (keys, quotas, shared);
        joined
    }

    /// Each credential's quota, and whom the configuration separates wrongly. Pure.
    fn resolve(&self, keys: &[Option<KeyPrint>]) -> (Vec<Option<Arc<str>>>, Vec<SharedKey>) {
        let mut quotas: Vec<_> = self.credentials.iter().map(|(_, quota)| quota.clone()).collect();
        let mut shared = Vec::new();
        for (first, key) in keys.iter().enumerate() {
            let Some(key) = key else { continue };
            let same = |index: &usize| keys.get(*index) == Some(&Some(*key));
            let group: Vec<usize> = (0..keys.len()).filter(same).collect();
            if group.first() != Some(&first) {
                continue;
            }
            let of = |index: &usize| self.credentials.get(*index);
            let named = group.iter().filter_map(of).filter_map(|(_, quota)| quota.as_ref());
            let rated = named.filter_map(|quota| Some((self.rates.get(quota)?, quota)));
            let strictest = rated.min_by(|(a, _), (b, _)| a.total_cmp(b));
            let Some((_, strictest)) = strictest else { continue };
            if group.iter().filter_map(of).all(|(_, quota)| quota.as_ref() == Some(strictest)) {
                continue;
            }
            for index in &group {
                if let Some(quota) = quotas.get_mut(*index) {
                    *quota = Some(Arc::clone(strictest));
                }
            }
            let credentials = group.iter().filter_map(of).map(|(name, _)| name.to_string());
            shared.push(SharedKey {
                credentials: credentials.collect(),
                quota: strictest.to_string(),
            });
        }
        (quotas, shared)
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        // No code under the lock panics; if it did, what was found would still be true.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretValue;

    /// Credentials a, b, c … with these quotas; `slow` is 100/min by share, `fast` 1000/min.
    fn sharing(quotas: &[&str]) -> Sharing {
        let mut text = String::from(
            "version: 1\nlisteners: [{listen: 'localhost:1'}]\n\
             quotas: {slow: {limit: 300/min, share: 1/3}, fast: {limit: 1000/min}, none: {limit: unlimited}}\n\
             credentials:\n",
        );
        for (name, quota) in ('a'..).zip(quotas) {
            text += &format!("  - {{name: {name}, level: admin, api_key: 'file:/k'{quota}}}\n");
        }
        Sharing::new(&crate::config::parse(&text, "test", &|_| None).unwrap().0, None)
    }

    fn key(value: &str) -> Option<KeyPrint> {
        KeyPrint::new("", &SecretValue::new(value.into()))
    }

    /// The quota of each, with keys as given (`-`: none yet), and who shares against the file.
    fn check(sharing: &Sharing, keys: &str, want: &[&str], shared: &[&str]) {
        let keys: Vec<_> = keys.split(' ').collect();
        let key =
            |index: usize| keys.get(index).filter(|one| **one != "-").and_then(|one| key(one));
        // A key that changes matters with the first call that uses it.
        for index in 0..keys.len() {
            let _quota = sharing.quota_of(index, key);
        }
        let got: Vec<_> = (0..keys.len())
            .map(|index| {
                sharing.quota_of(index, key).0.map_or_else(String::new, |quota| quota.to_string())
            })
            .collect();
        assert_eq!(got, want, "{keys:?}");
        let told: Vec<_> =
            sharing.shared(key).iter().map(|one| one.credentials.join(" ")).collect();
        assert_eq!(told, shared, "{keys:?}");
    }

    const SLOW: &str = ", quota: slow";
    const FAST: &str = ", quota: fast";

    #[test]
    fn those_who_hold_the_same_key_draw_from_the_strictest_quota_of_theirs() {
        let three = sharing(&[FAST, SLOW, "", FAST]);
        check(&three, "1 2 3 4", &["fast", "slow", "", "fast"], &[]);
        check(&three, "1 1 1 4", &["slow", "slow", "slow", "fast"], &["a b c"]);
        check(&three, "1 2 1 4", &["fast", "slow", "fast", "fast"], &["a c"]);
        check(&sharing(&[SLOW, SLOW, ""]), "1 1 2", &["slow", "slow", ""], &[]);
        check(&sharing(&[", quota: none", FAST]), "1 1", &["fast", "fast"], &["a b"]);
        check(&sharing(&[", quota: none", ""]), "1 1", &["none", ""], &[]);
    }

    #[test]
    fn a_key_that_is_not_known_yet_and_one_that_changes_are_taken_as_they_come() {
        let two = sharing(&[FAST, SLOW]);
        check(&two, "- -", &["fast", "slow"], &[]);
        check(&two, "1 -", &["fast", "slow"], &[]);
        check(&two, "1 1", &["slow", "slow"], &["a b"]);
        check(&two, "2 1", &["fast", "slow"], &[]);
        check(&two, "2 2", &["slow", "slow"], &["a b"]);
    }

    #[test]
    fn a_quota_that_others_come_to_is_told() {
        let two = sharing(&[FAST, SLOW]);
        let ask = |keys: [&str; 2]| two.quota_of(0, |index| key(keys[index])).1;
        assert!(ask(["1", "2"]).is_empty(), "nothing was sent before");
        assert_eq!(ask(["2", "2"]), ["slow".into()]);
        assert!(ask(["2", "2"]).is_empty());
        assert_eq!(ask(["1", "2"]), ["fast".into()]);
    }
}
