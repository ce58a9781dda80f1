//! Tells when files change, and when one has stopped changing.
//!
//! Folders are watched, not files: Kubernetes swaps the `..data` link beside a mounted file, editors
//! and agents rename over it, and a watch on a file that is replaced hears nothing more. Events can
//! be lost and some file systems have none, so a slow poll stands behind them. Nothing here reads
//! what is in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock;

/// Nothing may happen for this long before a change is told, so that a burst is told once.
const QUIET: Duration = Duration::from_millis(50);
/// A folder that never rests is told of after this long all the same.
const BURST_MAX: Duration = Duration::from_millis(500);
/// Between two looks without an event, before ±20 % (so that many sidecars do not look together).
const POLL: Duration = Duration::from_secs(60);
/// A file that was written to in this time may be half-written.
const SETTLED_AFTER: Duration = Duration::from_millis(50);
/// How often a file that is written to is looked at again before it is read as it is.
const LOOKS_MAX: usize = 20;
/// Links of one path that are followed.
const LINKS_MAX: usize = 8;

/// Watches the folders in which some files are.
#[derive(Debug)]
pub struct Folders {
    /// `None`: the system gives no events, and there is only the poll.
    watcher: Option<RecommendedWatcher>,
    happened: Arc<Notify>,
    /// What is watched, and which folder it was: one that is made anew is watched anew.
    watched: BTreeMap<PathBuf, FolderId>,
}

/// Device and inode.
type FolderId = (u64, u64);

impl Folders {
    /// Watches nothing yet. A system without events is told in the log; the poll remains.
    #[must_use]
    pub fn new() -> Self {
        let happened = Arc::new(Notify::new());
        let tell = Arc::clone(&happened);
        // Called on notify's own thread. A permit is kept once, so nothing can pile up.
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                tell.notify_one();
            }
        });
        let watcher = watcher
            .inspect_err(|cause| {
                tracing::warn!(%cause, "no file events; files are looked at once a minute");
            })
            .ok();
        Self { watcher, happened, watched: BTreeMap::new() }
    }

    /// From now on watches the folders in which `files` and the targets of their links are, or, of
    /// those that do not exist, the nearest one that does. What is watched already stays so.
    pub fn follow<'p>(&mut self, files: impl IntoIterator<Item = &'p Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: BTreeMap<PathBuf, FolderId> = files
            .into_iter()
            .flat_map(folders_of)
            .filter_map(|folder| folder_id(&folder).map(|id| (folder, id)))
            .collect();
        for (gone, _) in self.watched.iter().filter(|(path, id)| wanted.get(*path) != Some(id)) {
            // The system has let go of it already when the folder is gone.
            drop(watcher.unwatch(gone));
        }
        self.watched.retain(|path, id| wanted.get(path) == Some(id));
        for (folder, id) in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.watched.insert(folder, id)),
                Err(cause) => {
                    let folder = folder.display();
                    tracing::warn!(%folder, %cause, "a folder cannot be watched; it is looked at once a minute");
                }
            }
        }
    }

    /// Waits until something has happened in a folder and a moment of quiet has passed, or until a
    /// look is due without an event. Cancel-safe: what happened is not forgotten.
    pub async fn changed(&self) {
        calm(&self.happened).await;
    }

    /// Makes [`Self::changed`] return, as an event would.
    #[must_use]
    pub fn waker(&self) -> Arc<Notify> {
        Arc::clone(&self.happened)
    }
}

impl Default for Folders {
    fn default() -> Self {
        Self::new()
    }
}

/// Reading is no change, and our own reading would wake us for ever.
const fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// An event and then quiet, or the poll.
async fn calm(happened: &Notify) {
    let poll = Instant::now() + POLL.mul_f64(0.8 + 0.4 * fastrand::f64());
    if timeout_at(poll, happened.notified()).await.is_err() {
        return;
    }
    let at_most = Instant::now() + BURST_MAX;
    let mut unheard = Unheard { happened, told: false };
    loop {
        let quiet = Instant::now() + QUIET;
        let another = timeout_at(quiet.min(at_most), happened.notified()).await.is_ok();
        if !another || Instant::now() >= at_most {
            unheard.told = true;
            return;
        }
    }
}

/// Gives an event back when the wait for quiet is dropped.
struct Unheard<'a> {
    happened: &'a Notify,
    told: bool,
}

impl Drop for Unheard<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.happened.notify_one();
        }
    }
}

/// The folders whose entries decide what is read under `file`: its own, and those that its links
/// lead through.
fn folders_of(file: &Path) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    let mut at = file.to_path_buf();
    for _ in 0..LINKS_MAX {
        let folder = parent(&at);
        folders.extend(existing(folder));
        let Ok(target) = std::fs::read_link(&at) else { break };
        at = folder.join(target);
    }
    // Links among the folders, such as Kubernetes' `..data`.
    if let Ok(real) = std::fs::canonicalize(file) {
        folders.extend(existing(parent(&real)));
    }
    folders
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => path,
    }
}

/// `folder`, or the nearest one above it that exists.
fn existing(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().find(|folder| folder.is_dir()).map(Path::to_path_buf)
}

fn folder_id(folder: &Path) -> Option<FolderId> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(folder).ok().map(|found| (found.dev(), found.ino()))
}

/// Waits while a file is being written to, for a second at most. One that is absent is settled.
pub async fn settle(path: &Path) {
    for _ in 0..LOOKS_MAX {
        let Some(wait) = unsettled_for(path) else { return };
        sleep(wait).await;
    }
}

/// Whether a file was left alone for a moment: what was read before is whole.
#[must_use]
pub fn is_settled(path: &Path) -> bool {
    unsettled_for(path).is_none()
}

/// How long it takes until the file may be settled. A time stamp from the future says nothing.
fn unsettled_for(path: &Path) -> Option<Duration> {
    let modified = std::fs::metadata(path).and_then(|found| found.modified()).ok()?;
    let age = clock::wall().duration_since(modified).ok()?;
    SETTLED_AFTER.checked_sub(age).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tokio::task::JoinSet;
    use tokio::time::timeout;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_once_and_after_it() {
        let happened = Arc::new(Notify::new());
        let began = Instant::now();
        let mut writer = JoinSet::new();
        let tell = Arc::clone(&happened);
        writer.spawn(async move {
            for _ in 0..5 {
                tell.notify_one();
                sleep(MS * 20).await;
            }
        });
        calm(&happened).await;
        assert_eq!(began.elapsed(), MS * 80 + QUIET);
        assert!(timeout(Duration::from_secs(10), calm(&happened)).await.is_err(), "told once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_never_rests_is_told_of_all_the_same() {
        let happened = Arc::new(Notify::new());
        let mut writer = JoinSet::new();
        let tell = Arc::clone(&happened);
        writer.spawn(async move {
            loop {
                tell.notify_one();
                sleep(MS * 10).await;
            }
        });
        let began = Instant::now();
        calm(&happened).await;
        assert!(began.elapsed() <= BURST_MAX + MS * 10, "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_event_a_look_is_due_once_a_minute_more_or_less() {
        let happened = Notify::new();
        for _ in 0..50 {
            let began = Instant::now();
            calm(&happened).await;
            let took = began.elapsed();
            assert!((48..=72).contains(&took.as_secs()), "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_not_forgotten_when_the_wait_for_quiet_is_given_up() {
        let happened = Notify::new();
        happened.notify_one();
        assert!(timeout(MS * 10, calm(&happened)).await.is_err());
        assert!(timeout(MS * 60, calm(&happened)).await.is_ok());
    }

    #[test]
    fn reading_is_no_change() {
        use notify::event::{CreateKind, ModifyKind, RemoveKind};
        for kind in [
            EventKind::Create(CreateKind::File),
            EventKind::Modify(ModifyKind::Any),
            EventKind::Remove(RemoveKind::Folder),
            EventKind::Access(AccessKind::Close(AccessMode::Write)),
            EventKind::Other,
        ] {
            assert!(is_change(kind), "{kind:?}");
        }
        for kind in [AccessKind::Open(AccessMode::Any), AccessKind::Close(AccessMode::Read)] {
            assert!(!is_change(EventKind::Access(kind)), "{kind:?}");
        }
    }

    #[test]
    fn the_folders_of_links_are_watched_and_of_what_is_absent_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for folder in ["mount/..v1", "other"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("mount/..v1/key"), "k").unwrap();
        symlink("..v1", root.join("mount/..data")).unwrap();
        symlink("..data/key", root.join("mount/key")).unwrap();
        symlink(root.join("mount/key"), root.join("other/key")).unwrap();
        let check = |file: &str, want: &[&str]| {
            let want: BTreeSet<PathBuf> = want.iter().map(|folder| root.join(folder)).collect();
            assert_eq!(folders_of(&root.join(file)), want, "{file}");
        };
        check("mount/key", &["mount", "mount/..data", "mount/..v1"]);
        check("other/key", &["other", "mount", "mount/..data", "mount/..v1"]);
        check("absent/deep/key", &[""]);
    }

    #[tokio::test]
    async fn what_happens_in_a_folder_wakes_even_after_it_was_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("secrets");
        let file = folder.join("key");
        let mut folders = Folders::new();
        let patience = Duration::from_secs(20);
        for _ in 0..2 {
            folders.follow([file.as_path()]);
            std::fs::create_dir(&folder).unwrap();
            timeout(patience, folders.changed()).await.unwrap();
            folders.follow([file.as_path()]);
            std::fs::write(&file, "k").unwrap();
            timeout(patience, folders.changed()).await.unwrap();
            folders.follow([file.as_path()]);
            std::fs::remove_dir_all(&folder).unwrap();
            timeout(patience, folders.changed()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_file_is_settled_a_moment_after_the_last_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        assert!(is_settled(&file), "absent");
        std::fs::write(&file, "k").unwrap();
        settle(&file).await;
        assert!(is_settled(&file));
        let ahead = clock::wall() + Duration::from_secs(3600);
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(ahead).unwrap();
        assert!(is_settled(&file), "a time stamp from the future says nothing");
    }
}
