//! Reads the configuration again when its file changes, or when somebody asks.
//!
//! It gives what is in the file, good or bad, once; what becomes of it is decided elsewhere.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Config, ConfigWarning, LoadError, parse_bytes, read_file};
use crate::files::{self, Folders};

/// Gives the values for `${NAME}`.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// How often a file that changes while it is read is read again.
const READS_MAX: usize = 4;

/// A configuration file, and what was read from it last.
pub struct ConfigWatch {
    path: PathBuf,
    env: Environment,
    folders: Folders,
    asked: Arc<Notify>,
    /// `None`: it could not be read.
    seen: Option<Vec<u8>>,
}

impl ConfigWatch {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// As [`super::load`].
    pub fn load(
        path: &Path,
        env: Environment,
    ) -> Result<(Config, Vec<ConfigWarning>, Self), LoadError> {
        let bytes = read_file(path)?;
        let (config, warnings) = parse_bytes(path, &bytes, &*env)?;
        let (asked, folders) = (Arc::default(), Folders::new());
        let watch = Self { path: path.to_owned(), env, folders, asked, seen: Some(bytes) };
        Ok((config, warnings, watch))
    }

    /// Whoever notifies this has the file read again, changed or not.
    #[must_use]
    pub fn asked(&self) -> Arc<Notify> {
        Arc::clone(&self.asked)
    }

    /// Waits until there is something else in the file than was read last, or somebody asks.
    ///
    /// # Errors
    /// As [`super::load`]: a file with mistakes is told once, and so is one that is gone.
    pub async fn next(&mut self) -> Result<(Config, Vec<ConfigWarning>), LoadError> {
        let mut is_asked = false;
        loop {
            self.folders.follow([self.path.as_path()]);
            // After the folder is watched, so that no change falls between the two.
            let read = self.read().await;
            let bytes = read.as_ref().ok();
            if is_asked || bytes != self.seen.as_ref() {
                self.seen = bytes.cloned();
                return Ok(parse_bytes(&self.path, &read?, &*self.env)?);
            }
            is_asked = tokio::select! {
                () = self.folders.changed() => false,
                () = self.asked.notified() => true,
            };
        }
    }

    /// The file once it is left alone: half of a list of rules may be valid, too.
    async fn read(&self) -> Result<Vec<u8>, LoadError> {
        for _ in 1..READS_MAX {
            files::settle(&self.path).await;
            let read = self.read_once().await;
            if files::is_settled(&self.path) {
                return read;
            }
        }
        self.read_once().await
    }

    async fn read_once(&self) -> Result<Vec<u8>, LoadError> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
        // The task panicked, or the runtime ends.
        let failed = |error| LoadError::Unreadable {
            path: self.path.clone(),
            source: std::io::Error::other(error),
        };
        read.unwrap_or_else(|error| Err(failed(error)))
    }
}

impl fmt::Debug for ConfigWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigWatch").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn text(name: &str) -> String {
        format!(
            "version: 1\nlisteners: [{{listen: 'localhost:0'}}]\n\
             credentials: [{{name: {name}, level: admin, api_key: 'file:/k'}}]\n"
        )
    }

    async fn next(watch: &mut ConfigWatch) -> Result<String, LoadError> {
        let next = timeout(PATIENCE, watch.next()).await.expect("it comes");
        next.map(|(config, _)| config.credentials[0].name.to_string())
    }

    #[tokio::test]
    async fn what_is_new_in_the_file_is_given_once_good_or_bad() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.yaml");
        std::fs::write(&file, text("one")).unwrap();
        let (_, _, mut watch) = ConfigWatch::load(&file, Arc::new(|_: &str| None)).unwrap();
        std::fs::write(&file, text("two")).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "two");
        std::fs::write(&file, "version: 1\nlistener: []\n").unwrap();
        let Err(LoadError::Invalid(errors)) = next(&mut watch).await else { panic!() };
        assert!(errors.to_string().contains("config.yaml:2"), "{errors}");
        // The same again is nothing new, unless somebody asks.
        std::fs::write(&file, "version: 1\nlistener: []\n").unwrap();
        assert!(timeout(Duration::from_millis(300), watch.next()).await.is_err());
        watch.asked().notify_one();
        assert!(matches!(next(&mut watch).await, Err(LoadError::Invalid(_))));
        std::fs::remove_file(&file).unwrap();
        assert!(matches!(next(&mut watch).await, Err(LoadError::Unreadable { .. })));
        std::fs::write(&file, text("three")).unwrap();
        assert_eq!(next(&mut watch).await.unwrap(), "three");
    }
}
