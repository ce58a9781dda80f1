//! Notices when a stored secret gets another value, and tells the one who uses it.
//!
//! Only the value counts: a file that is touched, written again or swapped with the same content
//! wakes nobody, and neither does one that is gone or half there. What was read stays in use.

use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{SecretStore, SecretVersion, StoreError};
use crate::files::Folders;
use crate::secret::{SecretRef, SecretValue};
use crate::telemetry::error_chain;

/// The stores, and the list of what is watched in them. Cloning shares both.
#[derive(Debug, Clone)]
pub struct Secrets {
    stores: Arc<dyn SecretStore>,
    entries: Arc<Mutex<Vec<Weak<Entry>>>>,
    /// Tells the watcher that there is one more.
    added: Arc<Notify>,
}

/// The write side of every [`SecretWatch`]: one task looks for changes of files.
#[derive(Debug)]
pub struct SecretWatcher {
    secrets: Secrets,
    folders: Folders,
}

/// The read side: one secret in its store, as its one user sees it. [`SecretWatcher`] is the write
/// side, and forgets the secret once this is dropped.
#[derive(Debug)]
pub struct SecretWatch {
    stores: Arc<dyn SecretStore>,
    entry: Arc<Entry>,
}

struct Entry {
    at: SecretRef,
    known: Mutex<Known>,
    wake: Notify,
}

#[derive(Default)]
struct Known {
    /// What the user read last.
    used: Option<SecretValue>,
    /// Another value that is there now, and that the user has not read yet.
    noticed: Option<SecretValue>,
    /// Why the last look at a secret in use found none: told once.
    problem: Option<&'static str>,
}

/// The stores with their watcher: whoever calls runs [`SecretWatcher::run`].
#[must_use]
pub fn watched(stores: Arc<dyn SecretStore>) -> (Secrets, SecretWatcher) {
    let folders = Folders::new();
    let secrets = Secrets { stores, entries: Arc::default(), added: folders.waker() };
    (secrets.clone(), SecretWatcher { secrets, folders })
}

impl Secrets {
    /// Watches one more secret, until what is returned is dropped.
    #[must_use]
    pub fn watch(&self, at: &SecretRef) -> SecretWatch {
        let entry =
            Arc::new(Entry { at: at.clone(), known: Mutex::default(), wake: Notify::new() });
        self.entries.lock().push(Arc::downgrade(&entry));
        self.added.notify_one();
        SecretWatch { stores: Arc::clone(&self.stores), entry }
    }
}

impl SecretWatcher {
    /// Looks after every event in a folder with a watched file, and from time to time without one.
    /// Never ends by itself.
    pub async fn run(mut self) {
        loop {
            let entries = self.entries();
            self.folders.follow(entries.iter().filter_map(|entry| match &entry.at {
                SecretRef::File { path, .. } => Some(path.as_path()),
                SecretRef::Env { .. } => None,
            }));
            // After the folders are watched, so that no change falls between the two.
            let mut looks = JoinSet::new();
            for entry in entries {
                let stores = Arc::clone(&self.secrets.stores);
                looks.spawn(async move { entry.look(&*stores).await });
            }
            // A look that panicked was told by the panic hook, and the next one comes.
            while looks.join_next().await.is_some() {}
            self.folders.changed().await;
        }
    }

    /// What is still watched. The environment of a process does not change.
    fn entries(&self) -> Vec<Arc<Entry>> {
        let mut entries = self.secrets.entries.lock();
        entries.retain(|entry| entry.strong_count() > 0);
        let alive = entries.iter().filter_map(Weak::upgrade);
        alive.filter(|entry| matches!(entry.at, SecretRef::File { .. })).collect()
    }
}

impl Entry {
    async fn look(&self, stores: &dyn SecretStore) {
        match stores.read(&self.at).await {
            Ok(found) => self.found(found.value),
            Err(error) => self.failed(&error),
        }
    }

    fn found(&self, value: SecretValue) {
        let mut known = self.known.lock();
        known.problem = None;
        if known.used.as_ref() == Some(&value) {
            known.noticed = None;
        } else if known.noticed.as_ref() != Some(&value) {
            known.noticed = Some(value);
            self.wake.notify_one();
        }
    }

    fn failed(&self, error: &StoreError) {
        let mut known = self.known.lock();
        let is_told = known.problem.replace(error.kind()) == Some(error.kind());
        if known.used.is_some() && !is_told {
            let cause = error_chain(error);
            tracing::warn!(cause, "a secret in use cannot be read; what was read before is kept");
        }
    }
}

impl SecretWatch {
    /// Which secret.
    #[must_use]
    pub fn at(&self) -> &SecretRef {
        &self.entry.at
    }

    /// Reads it anew. From then on another value than this one is a change.
    ///
    /// # Errors
    /// As [`SecretStore::read`].
    pub async fn read(&self) -> Result<SecretVersion, StoreError> {
        // What is noticed from here on may be newer than what is read. A read that fails is tried
        // again by its user, and does not count as a change for ever.
        self.entry.known.lock().noticed = None;
        let found = self.stores.read(&self.entry.at).await?;
        self.use_value(&found.value);
        Ok(found)
    }

    /// Writes a value of our own in the place of `old`; it is no change.
    ///
    /// # Errors
    /// As [`SecretStore::replace`].
    pub async fn replace(&self, old: &SecretValue, new: &SecretValue) -> Result<(), StoreError> {
        self.stores.replace(&self.entry.at, old, new).await?;
        self.use_value(new);
        Ok(())
    }

    /// Waits until there is another value than was read last. Cancel-safe.
    pub async fn changed(&self) {
        loop {
            let woken = self.entry.wake.notified();
            if self.entry.known.lock().noticed.is_some() {
                return;
            }
            woken.await;
        }
    }

    fn use_value(&self, value: &SecretValue) {
        let mut known = self.entry.known.lock();
        known.used = Some(value.clone());
        if known.noticed.as_ref() == Some(value) {
            known.noticed = None;
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::time::timeout;

    use super::*;
    use crate::store::FileStore;

    /// A store that holds one text; none: the secret is missing.
    #[derive(Debug, Default)]
    struct One(Mutex<Option<&'static str>>);

    #[async_trait]
    impl SecretStore for One {
        async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
            match *self.0.lock() {
                Some(text) => {
                    let value = SecretValue::for_header(text.into()).unwrap();
                    Ok(SecretVersion { value, version: None })
                }
                None => Err(StoreError::Missing { at: at.clone() }),
            }
        }
    }

    struct Bench {
        store: Arc<One>,
        watch: SecretWatch,
        _tasks: JoinSet<()>,
    }

    impl Bench {
        fn new(text: Option<&'static str>) -> Self {
            let store = Arc::new(One(Mutex::new(text)));
            let stores: Arc<dyn SecretStore> = Arc::clone(&store) as Arc<dyn SecretStore>;
            let (secrets, watcher) = watched(stores);
            let watch = secrets.watch(&"file:/nowhere/key".parse().unwrap());
            let mut tasks = JoinSet::new();
            tasks.spawn(watcher.run());
            Self { store, watch, _tasks: tasks }
        }

        /// Whether a change is told once this text is there.
        async fn tells(&self, text: Option<&'static str>) -> bool {
            *self.store.0.lock() = text;
            // Longer than the poll.
            timeout(Duration::from_secs(100), self.watch.changed()).await.is_ok()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_another_value_is_a_change_and_the_poll_finds_it_without_events() {
        let bench = Bench::new(Some("a"));
        bench.watch.read().await.unwrap();
        assert!(!bench.tells(Some("a")).await);
        assert!(!bench.tells(None).await, "what is gone is no new value");
        assert!(!bench.tells(Some("a")).await, "nor is the same value that came back");
        assert!(bench.tells(Some("b")).await);
        assert!(bench.tells(Some("b")).await, "until it is read");
        bench.watch.read().await.unwrap();
        assert!(!bench.tells(Some("b")).await);
        assert!(bench.tells(Some("a")).await, "the way back is a change too");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_value_is_a_change_and_one_that_was_undone_is_none() {
        let bench = Bench::new(None);
        assert!(bench.watch.read().await.is_err());
        assert!(bench.tells(Some("a")).await);
        bench.watch.read().await.unwrap();
        assert!(bench.tells(Some("b")).await);
        *bench.store.0.lock() = Some("a");
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(!bench.tells(Some("a")).await);
    }

    async fn changes_to(watch: &SecretWatch, want: &str) {
        timeout(Duration::from_secs(20), watch.changed()).await.unwrap();
        assert_eq!(watch.read().await.unwrap().value.expose_str(), Some(want));
    }

    fn version(mount: &Path, name: &str, text: &str) {
        std::fs::create_dir(mount.join(name)).unwrap();
        std::fs::write(mount.join(name).join("key"), text).unwrap();
        symlink(name, mount.join("..data_tmp")).unwrap();
        std::fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
    }

    #[tokio::test]
    async fn every_way_to_replace_a_file_is_noticed_by_its_event() {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path();
        version(mount, "..v1", "one");
        symlink("..data/key", mount.join("key")).unwrap();
        let (secrets, watcher) = watched(Arc::new(FileStore));
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run());
        let file = mount.join("key");
        let watch = secrets.watch(&format!("file:{}", file.display()).parse().unwrap());
        changes_to(&watch, "one").await;
        version(mount, "..v2", "two");
        std::fs::remove_dir_all(mount.join("..v1")).unwrap();
        changes_to(&watch, "two").await;
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, "three").unwrap();
        changes_to(&watch, "three").await;
        std::fs::write(mount.join("new"), "four").unwrap();
        std::fs::rename(mount.join("new"), &file).unwrap();
        changes_to(&watch, "four").await;
        std::fs::write(&file, "five").unwrap();
        changes_to(&watch, "five").await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_that_nobody_uses_is_forgotten() {
        let bench = Bench::new(Some("a"));
        let (secrets, watcher) = watched(Arc::clone(&bench.store) as Arc<dyn SecretStore>);
        let watches: Vec<_> =
            (0..3).map(|_| secrets.watch(&"file:/nowhere/key".parse().unwrap())).collect();
        assert_eq!(watcher.entries().len(), 3);
        drop(watches);
        assert_eq!(watcher.entries().len(), 0);
        assert!(secrets.entries.lock().is_empty());
        assert!(!format!("{:?} {:?}", bench.watch, bench.store).contains("noticed"));
    }
}
