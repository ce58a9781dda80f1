//! Keeps the schedules over a restart, also over a `kill -9`: a file with a region for each quota, and
//! one small write to it a permit, into the page cache.
//!
//! It never fails a call. What was written is only believed by the process that follows on the same
//! boot of the machine; what cannot be believed is taken for the worst that can have been. Two
//! processes never use one file, and a file that is plainly somebody else's is left as it is.

pub mod head;
pub mod layout;
mod ours;
mod words;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::history::History;
use super::schedule::Schedule;
use crate::config::model;
use crate::os::Boot;
use crate::telemetry::Metrics;
use head::{Head, name_hash};
use layout::{HEAD_BYTES, Nonsense, Places, REGION_BYTES};
use ours::{BYTES_MAX, is_ours};

/// Quotas that are kept; further ones are not.
pub const REGIONS_MAX: usize = 256;

/// The file of this process's schedules.
#[derive(Debug)]
pub struct StateFile {
    kept: Arc<Kept>,
    boot: Boot,
    /// What was in it when it was opened.
    found: Found,
    /// Whose each region is, by [`name_hash`]; `None`: it can be had.
    regions: Vec<Option<u64>>,
}

#[derive(Debug)]
enum Found {
    /// It was not there.
    Nothing,
    Regions(Vec<u8>),
}

/// What the file tells of a quota's past.
#[derive(Debug)]
pub enum Past {
    /// There was no file: nothing was ever sent.
    None,
    /// This was sent.
    Known(History),
    /// Something was sent that cannot be known.
    Lost(Nonsense),
    /// The file says nothing about this quota.
    Untold,
}

/// Writes one quota's schedule.
#[derive(Debug)]
pub struct Keeper {
    kept: Arc<Kept>,
    offset: usize,
    places: Places,
}

#[derive(Debug)]
struct Kept {
    file: File,
    path: PathBuf,
    has_failed: AtomicBool,
    metrics: Metrics,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("another process keeps its schedule in it")]
    Taken,
    #[error("it is no plain file")]
    NotAFile,
    #[error("it is somebody else's: there is something in it, and no schedule")]
    Foreign,
    #[error(transparent)]
    System(#[from] io::Error),
}

impl StateFile {
    /// Opens the file where it is configured to be. Without one, for whatever reason, the schedules
    /// are not kept; the reason is told.
    #[must_use]
    pub fn open(at: &model::StateFile, boot: Option<Boot>, metrics: &Metrics) -> Option<Self> {
        let paths = paths(at);
        if paths.is_empty() {
            return None;
        }
        let is_expected = matches!(at, model::StateFile::At(_));
        let Some(boot) = boot else {
            tracing::warn!(
                "this system does not tell one boot from another, so the schedule of quotas is not \
                 kept over a restart; `shaping.state_file: none` says so"
            );
            return None;
        };
        for path in paths {
            match Self::open_at(path, boot, metrics) {
                Ok(file) => {
                    tracing::info!(path = %path.display(), "the schedule of quotas is kept");
                    return Some(file);
                }
                Err(OpenError::System(error))
                    if !is_expected && error.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => tracing::warn!(
                    path = %path.display(),
                    %cause,
                    "the schedule of quotas is not kept over a restart: give `shaping.state_file` \
                     a path that this process alone can write to, or none"
                ),
            }
        }
        None
    }

    fn open_at(path: &Path, boot: Boot, metrics: &Metrics) -> Result<Self, OpenError> {
        let mut options = careful();
        options.write(true).mode(0o600);
        let (file, is_new) = match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                (options.open(path)?, false)
            }
            created => (created?, true),
        };
        // Held until the process ends, however it ends.
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::Taken,
            TryLockError::Error(error) => OpenError::System(error),
        })?;
        let bytes = read(&file)?;
        let owner = |region| Head::read(region).map(|head| head.name);
        let regions = bytes.chunks_exact(REGION_BYTES).map(owner).collect();
        let found = if is_new { Found::Nothing } else { Found::Regions(bytes) };
        let (path, has_failed) = (path.to_owned(), AtomicBool::new(false));
        let kept = Kept { file, path, has_failed, metrics: metrics.clone() };
        Ok(Self { kept: Arc::new(kept), boot, found, regions })
    }

    /// What is in the way of the file where it is configured to be, as far as that can be told without
    /// writing: that there is none yet, or none that we may read, is no objection.
    #[must_use]
    pub fn objection(at: &model::StateFile) -> Option<String> {
        let there = |path: &PathBuf| Some((path.display().to_string(), careful().open(path).ok()?));
        let (path, file) = paths(at).iter().find_map(there)?;
        match read(&file) {
            Ok(_) | Err(OpenError::System(_)) => None,
            Err(cause) => Some(format!(
                "{path} is not used: {cause}; give a path that this process alone writes to, or none"
            )),
        }
    }

    /// What the process before this one sent of a quota.
    #[must_use]
    pub fn past(&self, quota: &str, now: Duration) -> Past {
        let Found::Regions(bytes) = &self.found else { return Past::None };
        let name = name_hash(quota);
        let mut regions = bytes.chunks_exact(REGION_BYTES);
        // A region that cannot be read may be anybody's.
        let mut is_damaged = bytes.is_empty() || !regions.clone().remainder().is_empty();
        let own = regions.find(|region| match Head::read(region) {
            Some(head) => head.name == name,
            None => {
                is_damaged = true;
                false
            }
        });
        match own.map(|region| layout::read(region, &self.boot.id, now)) {
            Some(Ok(history)) => Past::Known(history),
            Some(Err(nonsense)) => Past::Lost(nonsense),
            None if is_damaged => Past::Lost(Nonsense::Damaged),
            None => Past::Untold,
        }
    }

    /// Frees the regions of all quotas but these.
    pub fn retain<'n>(&mut self, quotas: impl Iterator<Item = &'n str>) {
        let names: Vec<u64> = quotas.map(name_hash).collect();
        for region in &mut self.regions {
            *region = region.filter(|name| names.contains(name));
        }
    }

    /// Begins to keep a quota's schedule; `None` where that cannot be done.
    #[must_use]
    pub fn keep(&mut self, quota: &str, history: &History, now: Duration) -> Option<Keeper> {
        let (name, boot) = (name_hash(quota), self.boot.id);
        let own = self.regions.iter().position(|region| *region == Some(name));
        let free = || self.regions.iter().position(Option::is_none);
        let index = own.or_else(free).unwrap_or(self.regions.len());
        if index >= REGIONS_MAX {
            return None;
        }
        let (terms, also) = (history.terms, history.also);
        let head = Head { boot, name, terms, also, began_at: now };
        let offset = index * REGION_BYTES;
        self.kept.attempt(|file| {
            file.set_len(((index + 1).max(self.regions.len()) * REGION_BYTES) as u64)?;
            let region = layout::region(&head, history, now);
            let (head, slots) = region.split_at(HEAD_BYTES);
            // Between the first and the last write, the region is nonsense.
            file.write_all_at(&[0; HEAD_BYTES], offset as u64)?;
            file.write_all_at(slots, (offset + HEAD_BYTES) as u64)?;
            file.write_all_at(head, offset as u64)
        })?;
        match self.regions.get_mut(index) {
            Some(region) => *region = Some(name),
            None => self.regions.push(Some(name)),
        }
        Some(Keeper { kept: Arc::clone(&self.kept), offset, places: Places::new(&head) })
    }
}

/// Where the file may be; the first that can be had is used.
fn paths(at: &model::StateFile) -> &[PathBuf] {
    match at {
        model::StateFile::None => &[],
        model::StateFile::At(path) => std::slice::from_ref(path),
        model::StateFile::Auto(paths) => paths,
    }
}

/// Not to be held up by a pipe that stands in the file's place.
fn careful() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(nix::libc::O_NONBLOCK);
    options
}

/// The regions of a file, unless it cannot be ours.
fn read(file: &File) -> Result<Vec<u8>, OpenError> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(OpenError::NotAFile);
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64).read_to_end(&mut bytes)?;
    if !is_ours(&bytes, metadata.len()) {
        return Err(OpenError::Foreign);
    }
    Ok(bytes)
}

impl Keeper {
    /// A request leaves, or the upstream asked for silence.
    pub fn write(&self, schedule: &Schedule, now: Duration) {
        let slots = [Some(self.places.sent(schedule, now)), self.places.also_sent(schedule, now)];
        self.kept.attempt(|file| {
            slots
                .iter()
                .flatten()
                .try_for_each(|(at, slot)| file.write_all_at(slot, (self.offset + at) as u64))
        });
    }
}

impl Kept {
    /// `None` once a write failed: what is in the file must not be believed any more.
    fn attempt(&self, write: impl FnOnce(&File) -> io::Result<()>) -> Option<()> {
        if self.has_failed.load(Ordering::Relaxed) {
            return None;
        }
        let Err(cause) = write(&self.file) else { return Some(()) };
        self.metrics.state_file_errors.inc();
        if !self.has_failed.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.path.display(),
                %cause,
                "the schedule of quotas cannot be written any more; until the next start it is not \
                 kept, and after it the quotas are taken to be used up"
            );
            // An empty file is nonsense. Where even that fails, so will the next process's writes.
            drop(self.file.set_len(0));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shaping::pace::{Start, Terms};

    #[tokio::test]
    async fn a_write_that_fails_ends_the_keeping_once_and_is_counted() {
        let metrics = Metrics::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule");
        std::fs::write(&path, "x").unwrap();
        // As a file system that has become read-only.
        let file = File::open(&path).unwrap();
        let kept =
            Kept { file, path, has_failed: AtomicBool::new(false), metrics: metrics.clone() };
        let boot = Boot::current().unwrap();
        let mut file =
            StateFile { kept: Arc::new(kept), boot, found: Found::Nothing, regions: Vec::new() };
        let window = Duration::from_secs(60);
        let terms =
            Terms { limit: 9, window, spread: Duration::ZERO, tick: Duration::ZERO, burst: None };
        let now = Duration::from_secs(1);
        let mut schedule = Schedule::new(terms, None, Start::Idle, now);
        let history = schedule.history(now);
        for _ in 0..2 {
            assert!(file.keep("q", &history, now).is_none());
            assert_eq!(metrics.state_file_errors.get(), 1);
        }
    }

    #[tokio::test]
    async fn what_is_no_plain_file_is_not_used() {
        let metrics = Metrics::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [dir.path().to_owned(), pipe, "/nowhere/schedule".into(), "/dev/null".into()] {
            let at = model::StateFile::At(path.clone());
            assert!(StateFile::open(&at, Boot::current(), &metrics).is_none(), "{path:?}");
        }
    }

    #[tokio::test]
    async fn what_is_plainly_somebody_elses_stays_as_it_is_byte_for_byte() {
        let metrics = Metrics::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("schedule");
        let at = model::StateFile::At(path.clone());
        assert_eq!(StateFile::objection(&at), None, "there is none yet");
        for text in ["x", "version: 1\nlisteners: []\n", "{\"refresh_token\": \"the only one\"}"] {
            std::fs::write(&path, text).unwrap();
            let objection = StateFile::objection(&at).unwrap();
            assert!(objection.contains("somebody else's"), "{objection}");
            assert!(StateFile::open(&at, Boot::current(), &metrics).is_none());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert!(StateFile::objection(&model::StateFile::At(dir.path().to_owned())).is_some());
        std::fs::write(&path, "").unwrap();
        let file = StateFile::open(&at, Boot::current(), &metrics);
        assert!(file.is_some(), "nothing is lost with an empty one");
        assert_eq!(StateFile::objection(&at), None, "of a process that uses it");
    }

    #[tokio::test]
    async fn each_quota_keeps_its_place_whoever_comes_and_goes() {
        let metrics = Metrics::new().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let at = model::StateFile::Auto(vec![dir.path().join("schedule")]);
        let now = Duration::from_secs(1);
        let open = || StateFile::open(&at, Boot::current(), &metrics).unwrap();
        let history = |limit| {
            let window = Duration::from_secs(60);
            let (spread, tick) = (Duration::ZERO, Duration::ZERO);
            let terms = Terms { limit, window, spread, tick, burst: None };
            Schedule::new(terms, None, Start::Idle, now).history(now)
        };
        let limit = |file: &StateFile, quota| match file.past(quota, now) {
            Past::Known(history) => Some(history.terms.limit),
            _ => None,
        };
        let mut file = open();
        assert!(matches!(file.past("a", now), Past::None));
        for (quota, at) in [("a", 1), ("b", 2), ("c", 3)] {
            assert!(file.keep(quota, &history(at), now).is_some());
        }
        drop(file);
        let mut file = open();
        assert_eq!(["a", "b", "c"].map(|quota| limit(&file, quota)), [Some(1), Some(2), Some(3)]);
        assert!(matches!(file.past("d", now), Past::Untold));
        file.retain(["c", "d"].into_iter());
        for (quota, at) in [("d", 4), ("c", 5)] {
            assert!(file.keep(quota, &history(at), now).is_some());
        }
        drop(file);
        let file = open();
        assert_eq!(["c", "d"].map(|quota| limit(&file, quota)), [Some(5), Some(4)]);
        let length = std::fs::metadata(dir.path().join("schedule")).unwrap().len();
        assert_eq!(length, 3 * REGION_BYTES as u64);
    }
}
