use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::entry::AfterFailure;
use super::*;
use crate::store::{FileStore, Version};

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
    let (secrets, _watcher) = watched(Arc::clone(&bench.store) as Arc<dyn SecretStore>);
    let watches: Vec<_> =
        (0..3).map(|_| secrets.watch(&"file:/nowhere/key".parse().unwrap())).collect();
    assert_eq!(secrets.entries().len(), 3);
    drop(watches);
    assert_eq!(secrets.entries().len(), 0);
    assert!(secrets.entries.lock().is_empty());
    assert!(!format!("{:?} {:?}", bench.watch, bench.store).contains("noticed"));
}

/// A store that has to be asked: it counts versions, and what it was asked for.
#[derive(Debug)]
struct Polled {
    state: Mutex<PolledState>,
    /// Whether versions may be looked at without the value.
    tells_versions: bool,
}

#[derive(Debug, Default)]
struct PolledState {
    text: &'static str,
    version: u64,
    fails_with: Option<fn(SecretRef) -> StoreError>,
    versions: u32,
    reads: u32,
}

const POLL: Duration = Duration::from_secs(60);

impl Polled {
    fn set(&self, text: &'static str, version: u64) {
        let mut state = self.state.lock();
        (state.text, state.version) = (text, version);
    }

    fn fail(&self, with: Option<fn(SecretRef) -> StoreError>) {
        self.state.lock().fails_with = with;
    }

    /// What it was asked since the last time: versions, values.
    fn asked(&self) -> (u32, u32) {
        let mut state = self.state.lock();
        (std::mem::take(&mut state.versions), std::mem::take(&mut state.reads))
    }
}

#[async_trait]
impl SecretStore for Polled {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        let mut state = self.state.lock();
        state.reads += 1;
        if let Some(fail) = state.fails_with {
            return Err(fail(at.clone()));
        }
        let value = SecretValue::for_header(state.text.into()).unwrap();
        Ok(SecretVersion { value, version: Some(Version::Number(state.version)) })
    }

    async fn version(&self, at: &SecretRef) -> Result<Option<Version>, StoreError> {
        if !self.tells_versions {
            return Ok(None);
        }
        let mut state = self.state.lock();
        state.versions += 1;
        match state.fails_with {
            Some(fail) => Err(fail(at.clone())),
            None => Ok(Some(Version::Number(state.version))),
        }
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(POLL)
    }
}

struct PolledBench {
    store: Arc<Polled>,
    watch: SecretWatch,
    _tasks: JoinSet<()>,
}

impl PolledBench {
    fn new(tells_versions: bool) -> Self {
        let state = PolledState { text: "a", version: 1, ..PolledState::default() };
        let store = Arc::new(Polled { state: Mutex::new(state), tells_versions });
        let (secrets, watcher) = watched(Arc::clone(&store) as Arc<dyn SecretStore>);
        let watch = secrets.watch(&"vault:a/b#c".parse().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(watcher.run());
        Self { store, watch, _tasks: tasks }
    }

    async fn changes_within(&self, time: Duration) -> bool {
        timeout(time, self.watch.changed()).await.is_ok()
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_polled_store_the_version_is_looked_at_and_the_value_only_when_it_moved() {
    let bench = PolledBench::new(true);
    assert!(!bench.changes_within(POLL * 10).await);
    assert_eq!(bench.store.asked(), (0, 0), "who has not read it yet tries by itself");
    bench.watch.read().await.unwrap();
    assert!(!bench.changes_within(POLL * 20).await);
    let (versions, reads) = bench.store.asked();
    assert!((16..=25).contains(&versions), "{versions} looks in 20 polls");
    assert_eq!(reads, 1);
    bench.store.set("a", 2);
    assert!(!bench.changes_within(POLL * 2).await, "another version of the same value");
    assert_eq!(bench.store.asked().1, 1);
    assert_eq!(bench.watch.entry.report().version.as_deref(), Some("2"));
    bench.store.set("b", 3);
    assert!(bench.changes_within(POLL.mul_f64(1.2)).await);
    assert_eq!(bench.watch.recall().await.unwrap().value.expose_str(), Some("b"));
    assert_eq!(bench.store.asked().1, 1, "what was noticed is not read again");
    assert!(!bench.changes_within(POLL * 2).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_tells_no_versions_is_read() {
    let bench = PolledBench::new(false);
    bench.watch.read().await.unwrap();
    bench.store.set("b", 2);
    assert!(bench.changes_within(POLL.mul_f64(1.2)).await);
    let (versions, reads) = bench.store.asked();
    assert_eq!(versions, 0);
    assert!((2..=3).contains(&reads), "{reads}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_down_for_an_hour_is_asked_a_bounded_number_of_times() {
    fastrand::seed(1);
    let bench = PolledBench::new(true);
    bench.watch.read().await.unwrap();
    bench.store.asked();
    bench.store.fail(Some(|at| StoreError::Timeout { at }));
    bench.store.set("b", 2);
    let began = Instant::now();
    // Its user goes on with what there is, however often it asks for it.
    while began.elapsed() < Duration::from_secs(3600) {
        assert_eq!(bench.watch.recall().await.unwrap().value.expose_str(), Some("a"));
        assert!(!bench.changes_within(Duration::from_secs(2)).await);
    }
    let (versions, reads) = bench.store.asked();
    println!("asked {versions} times in an hour");
    assert!(versions + reads <= 150, "{versions} and {reads}");
    let report = bench.watch.entry.report();
    assert_eq!((report.problem.as_deref(), report.missing), (Some("timeout"), false));
    assert!(report.age_seconds.unwrap() >= 3600);
    bench.store.fail(None);
    assert!(bench.changes_within(Duration::from_secs(60)).await, "one backoff step");
}

#[tokio::test(start_paused = true)]
async fn what_a_store_refuses_is_tried_once_a_minute() {
    let bench = PolledBench::new(true);
    bench.watch.read().await.unwrap();
    bench.store.asked();
    bench.store.fail(Some(|at| StoreError::Denied { at, reason: "denied" }));
    assert!(!bench.changes_within(Duration::from_secs(3600)).await);
    let (versions, reads) = bench.store.asked();
    assert!((58..=60).contains(&versions) && reads == 0, "{versions} and {reads}");
}

#[tokio::test(start_paused = true)]
async fn an_older_version_is_believed_when_it_is_found_a_second_time() {
    for tells_versions in [true, false] {
        let bench = PolledBench::new(tells_versions);
        bench.store.set("new", 7);
        bench.watch.read().await.unwrap();
        // A replica that lags behind, once.
        bench.store.set("old", 6);
        assert_eq!(bench.watch.read().await.unwrap().value.expose_str(), Some("new"));
        assert_eq!(bench.watch.entry.report().version.as_deref(), Some("7"));
        bench.store.set("new", 7);
        assert_eq!(bench.watch.read().await.unwrap().value.expose_str(), Some("new"));
        // Somebody went back.
        bench.store.set("old", 6);
        assert_eq!(bench.watch.read().await.unwrap().value.expose_str(), Some("new"));
        assert!(bench.changes_within(POLL.mul_f64(1.2)).await);
        assert_eq!(bench.watch.recall().await.unwrap().value.expose_str(), Some("old"));
        assert_eq!(bench.watch.entry.report().version.as_deref(), Some("6"));
    }
}

#[tokio::test]
async fn a_document_is_watched_with_its_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    std::fs::write(&path, "a\nb\n").unwrap();
    let at = format!("file:{}", path.display()).parse().unwrap();
    let (secrets, watcher) = watched(Arc::new(FileStore));
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    let document = secrets.watch_document(&at);
    assert_eq!(document.read().await.unwrap().value.expose_str(), Some("a\nb"));
    assert!(secrets.watch(&at).read().await.is_err(), "nobody else takes it");
    std::fs::write(&path, "a\nc\n").unwrap();
    timeout(Duration::from_secs(60), document.changed()).await.expect("it is noticed");
    assert_eq!(document.read().await.unwrap().value.expose_str(), Some("a\nc"));
}

/// A store that is looked at once an hour.
#[derive(Debug, Default)]
struct Hourly(One);

#[async_trait]
impl SecretStore for Hourly {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.0.read(at).await
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(Duration::from_secs(3600))
    }
}

#[tokio::test(start_paused = true)]
async fn where_stores_are_others_than_before_nothing_waits_for_its_turn() {
    let store = Arc::new(Hourly::default());
    *store.0.0.lock() = Some("a");
    let (secrets, watcher) = watched(Arc::clone(&store) as Arc<dyn SecretStore>);
    let watch = secrets.watch(&"aws:a".parse().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    watch.read().await.unwrap();
    *store.0.0.lock() = Some("b");
    assert!(timeout(Duration::from_secs(1800), watch.changed()).await.is_err());
    secrets.look_again();
    timeout(Duration::from_secs(1), watch.changed()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_gone_and_is_made_anew_with_the_same_version_is_read() {
    let bench = PolledBench::new(true);
    bench.watch.read().await.unwrap();
    bench.store.fail(Some(|at| StoreError::Missing { at }));
    assert!(!bench.changes_within(POLL * 3).await, "what was read stays");
    bench.store.fail(None);
    bench.store.set("b", 1);
    assert!(bench.changes_within(POLL.mul_f64(1.2)).await);
    assert_eq!(bench.watch.recall().await.unwrap().value.expose_str(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn the_first_secret_takes_over_from_its_fallback_as_soon_as_it_can_be_read() {
    let (first, other) = (Arc::new(Hourly::default()), FileStore);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "other").unwrap();
    let both: Arc<dyn SecretStore> = Arc::new(Both(Arc::clone(&first), other));
    let (secrets, watcher) = watched(both);
    let fallback = format!("file:{}", file.display()).parse().unwrap();
    let watch = secrets.watch(&"aws:a".parse().unwrap()).or(&fallback);
    let mut tasks = JoinSet::new();
    tasks.spawn(watcher.run());
    for turn in ["a", "b"] {
        *first.0.0.lock() = None;
        let other = watch.read().await.unwrap().value;
        assert_eq!(other.expose_str(), Some("other"), "{turn}");
        watch.accepted(&other);
        assert!(secrets.report().iter().any(|report| report.fallback == Some(true)), "{turn}");
        // Also when it is what it was before.
        *first.0.0.lock() = Some("a");
        timeout(Duration::from_secs(61), watch.changed()).await.unwrap();
        let first = watch.recall().await.unwrap().value;
        assert_eq!(first.expose_str(), Some("a"), "{turn}");
        watch.accepted(&first);
        let reports = secrets.report();
        assert!(reports.iter().all(|report| report.fallback != Some(true)), "{turn}");
        let other = reports.iter().find(|report| report.secret.starts_with("file")).unwrap();
        assert_eq!((other.fallback, other.age_seconds), (None, None), "it is not looked at");
    }
    *first.0.0.lock() = None;
    std::fs::remove_file(&file).unwrap();
    assert!(matches!(watch.read().await, Err(StoreError::Missing { at }) if at != fallback));
}

/// Files in files, everything else in the other.
#[derive(Debug)]
struct Both(Arc<Hourly>, FileStore);

#[async_trait]
impl SecretStore for Both {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        match at {
            SecretRef::File { .. } => self.1.read(at).await,
            _ => self.0.read(at).await,
        }
    }

    fn poll(&self, at: &SecretRef) -> Option<Duration> {
        match at {
            SecretRef::File { .. } => None,
            _ => self.0.poll(at),
        }
    }
}

/// A store that answers once it is let.
#[derive(Debug)]
struct Slow(tokio::sync::Semaphore);

#[async_trait]
impl SecretStore for Slow {
    async fn read(&self, _at: &SecretRef) -> Result<SecretVersion, StoreError> {
        self.0.acquire().await.unwrap().forget();
        let value = SecretValue::for_header("a".into()).unwrap();
        Ok(SecretVersion { value, version: None })
    }

    fn poll(&self, _at: &SecretRef) -> Option<Duration> {
        Some(POLL)
    }
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_is_not_used_any_more_is_not_looked_at_whatever_was_under_way() {
    let store = Slow(tokio::sync::Semaphore::new(1));
    let entry = Entry::new(&"aws:a".parse().unwrap(), false);
    entry.read(&store, AfterFailure::Waits).await.unwrap();
    assert!(entry.due().is_some() && entry.report().age_seconds.is_some());
    let rested = async {
        tokio::task::yield_now().await;
        entry.rest();
        store.0.add_permits(1);
    };
    tokio::join!(entry.look(&store), rested);
    assert_eq!((entry.due(), entry.report().age_seconds), (None, None));
    assert_eq!(store.0.available_permits(), 0, "the look was under way");
    entry.look(&store).await;
    store.0.add_permits(1);
    entry.read(&store, AfterFailure::Waits).await.unwrap();
    assert!(entry.due().is_some(), "until it is used again");
}

#[tokio::test(start_paused = true)]
async fn a_newer_value_than_the_one_that_was_noticed_is_read_and_no_change_afterwards() {
    let bench = PolledBench::new(true);
    bench.watch.read().await.unwrap();
    bench.store.set("b", 2);
    assert!(bench.changes_within(POLL.mul_f64(1.2)).await);
    bench.store.set("c", 3);
    assert_eq!(bench.watch.read().await.unwrap().value.expose_str(), Some("c"));
    assert!(!bench.changes_within(POLL * 2).await);
    assert_eq!(bench.watch.recall().await.unwrap().value.expose_str(), Some("c"));
}
