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
/// So many keys are remembered that no credential holds at present.
const UNHELD_MAX: usize = 64;

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
    /// Where calls with each key were counted last.
    counted: Vec<Counted>,
    /// Another configuration's are asked by now, and see to the calls that come to another quota.
    is_superseded: bool,
}

/// A key's calls are counted under a quota.
#[derive(Debug, Clone)]
struct Counted {
    key: KeyPrint,
    credential: Arc<str>,
    quota: Arc<str>,
}

/// From one quota to another.
type Way = (Arc<str>, Arc<str>);

/// What follows for calls where keys are counted anew.
#[derive(Debug, Default)]
pub(super) struct Moves {
    /// Whose calls, held back by the first quota until now, are the second one's from now on.
    pub(super) ways: BTreeMap<Way, BTreeSet<Arc<str>>>,
    /// Each credential whose key is known, and the quota that it draws from.
    pub(super) homes: Vec<(Arc<str>, Arc<str>)>,
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
    /// What the configuration says, as long as nothing is known of keys; `before` knows what was told of
    /// already, and where each key's calls were counted, and moves none from now on.
    pub(super) fn new(config: &Config, before: Option<&Self>) -> Self {
        let credentials = config.credentials.iter();
        let credentials = credentials.map(|one| (Arc::clone(&one.name), one.quota.clone()));
        let rate = |(name, quota): (&String, &crate::config::model::Quota)| {
            let limit = quota.limit?;
            let rate = f64::from(limit.calls) * quota.share / limit.per.as_secs_f64();
            Some((Arc::from(name.as_str()), rate))
        };
        let (told, counted) = before
            .map(Self::lock)
            .map(|mut before| {
                before.is_superseded = true;
                (before.told.clone(), before.counted.clone())
            })
            .unwrap_or_default();
        Self {
            credentials: credentials.collect(),
            rates: config.quotas.iter().filter_map(rate).collect(),
            found: Mutex::new(Found { told, counted, ..Found::default() }),
        }
    }

    /// A credential's name.
    pub(super) fn name(&self, credential: usize) -> Option<&Arc<str>> {
        self.credentials.get(credential).map(|(name, _)| name)
    }

    /// The quotas that calls were counted under.
    pub(super) fn counted(&self) -> BTreeSet<Arc<str>> {
        self.lock().counted.iter().map(|one| Arc::clone(&one.quota)).collect()
    }

    /// The quota that this credential draws from now. Nobody learns of it before `follow` has seen to
    /// the calls that come to another quota by that.
    pub(super) fn quota_of(
        &self,
        credential: usize,
        key: impl Fn(usize) -> Option<KeyPrint>,
        follow: impl FnOnce(&Moves),
    ) -> Option<Arc<str>> {
        let mut found = self.lock();
        if found.keys.get(credential) != Some(&key(credential)) {
            follow(&self.find(&mut found, &key));
        }
        found.quotas.get(credential).cloned().flatten()
    }

    /// Who shares a key although the configuration says otherwise, now; `follow` as in
    /// [`Self::quota_of`].
    pub(super) fn shared(
        &self,
        key: impl Fn(usize) -> Option<KeyPrint>,
        follow: impl FnOnce(&Moves),
    ) -> Vec<SharedKey> {
        let mut found = self.lock();
        if (0..self.credentials.len()).any(|index| found.keys.get(index) != Some(&key(index))) {
            follow(&self.find(&mut found, &key));
        }
        found.shared.clone()
    }

    /// Looks at all keys anew, and tells in the log what is new.
    fn find(&self, found: &mut Found, key: &dyn Fn(usize) -> Option<KeyPrint>) -> Moves {
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
        let names = self.credentials.iter().zip(&keys).zip(&quotas);
        let counted = names.filter_map(|(((credential, _), key), quota)| {
            let (credential, quota) = (Arc::clone(credential), Arc::clone(quota.as_ref()?));
            Some(Counted { key: (*key)?, credential, quota })
        });
        let moves = count_anew(&mut found.counted, counted.collect());
        (found.keys, found.quotas, found.shared) = (keys, quotas, shared);
        if found.is_superseded { Moves::default() } else { moves }
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

/// What is counted elsewhere from now on. Keys that nobody holds for a moment are not forgotten.
fn count_anew(counted: &mut Vec<Counted>, now: Vec<Counted>) -> Moves {
    let homes = now.iter().map(|one| (Arc::clone(&one.credential), Arc::clone(&one.quota)));
    let mut moves = Moves { homes: homes.collect(), ..Moves::default() };
    let mut unheld = Vec::new();
    for before in counted.drain(..) {
        let Some(held) = now.iter().find(|one| one.key == before.key) else {
            unheld.push(before);
            continue;
        };
        if held.quota != before.quota {
            let way = (before.quota, Arc::clone(&held.quota));
            moves.ways.entry(way).or_default().insert(before.credential);
        }
    }
    unheld.truncate(UNHELD_MAX);
    *counted = now;
    counted.extend(unheld);
    moves
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
            let _quota = sharing.quota_of(index, key, |_| ());
        }
        let got: Vec<_> = (0..keys.len())
            .map(|index| {
                let quota = sharing.quota_of(index, key, |_| ());
                quota.map_or_else(String::new, |quota| quota.to_string())
            })
            .collect();
        assert_eq!(got, want, "{keys:?}");
        let told: Vec<_> =
            sharing.shared(key, |_| ()).iter().map(|one| one.credentials.join(" ")).collect();
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

    /// What moves as credential 0 is asked for.
    fn moves(sharing: &Sharing, keys: &[&str]) -> Vec<String> {
        let mut told = Vec::new();
        let key =
            |index: usize| keys.get(index).filter(|one| **one != "-").and_then(|one| key(one));
        let _quota = sharing.quota_of(0, key, |moves| {
            for ((from, to), credentials) in &moves.ways {
                let names: Vec<_> = credentials.iter().map(|one| &**one).collect();
                told.push(format!("{from} {to}: {}", names.join(" ")));
            }
        });
        told
    }

    #[test]
    fn what_was_sent_with_a_key_follows_it_to_the_quota_that_it_draws_from() {
        let three = sharing(&[FAST, SLOW, FAST]);
        assert!(moves(&three, &["1", "2", "3"]).is_empty(), "nothing was sent before");
        assert!(moves(&three, &["2", "2", "3"]).is_empty(), "the key is where it was");
        assert!(moves(&three, &["4", "4", "3"]).is_empty(), "a new key");
        assert!(moves(&three, &["1", "2", "3"]).is_empty(), "the old ones are not forgotten");
        let shared = sharing(&[FAST, SLOW, FAST]);
        assert!(moves(&shared, &["1", "2", "1"]).is_empty());
        assert_eq!(moves(&shared, &["5", "1", "1"]), ["fast slow: a c"], "the slow one has it");
    }

    #[test]
    fn a_reload_takes_along_where_each_keys_calls_were_counted() {
        let before = sharing(&[FAST, SLOW]);
        assert!(moves(&before, &["1", "2"]).is_empty());
        let text = "version: 1\nlisteners: [{listen: 'localhost:1'}]\n\
             quotas: {quick: {limit: 1000/min}, slow: {limit: 300/min}}\ncredentials:\n  \
             - {name: z, level: admin, quota: quick, api_key: 'file:/k'}\n  \
             - {name: b, level: admin, quota: slow, api_key: 'file:/k'}\n";
        let config = crate::config::parse(text, "test", &|_| None).unwrap().0;
        let after = Sharing::new(&config, Some(&before));
        assert_eq!(after.counted().len(), 2);
        // The key is known by itself, and not by a credential's name.
        assert_eq!(moves(&after, &["1", "2"]), ["fast quick: a"]);
        assert!(moves(&after, &["1", "-"]).is_empty());
        assert!(
            moves(&before, &["2", "1"]).is_empty(),
            "calls that began before move nothing back"
        );
    }
}
