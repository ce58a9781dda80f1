//! Secrets in files: mounted by Kubernetes, written by an agent, or by hand.
//!
//! Symbolic links are followed (Kubernetes swaps them). Only regular files are opened: a pipe would
//! block for ever. A file that is being written to is read once it has come to rest.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::json::{field, with_field};
use super::lock::FileLock;
use super::{Claim, SecretStore, SecretVersion, StoreError, Take};
use crate::files;
use crate::secret::{SECRET_BYTES_MAX, SecretProblem, SecretRef, SecretValue};

/// How often a file that changes while it is read is read again.
const READS_MAX: usize = 4;

/// Reads `file:PATH` and `file:PATH#KEY` references, 64 KiB at most.
#[derive(Debug, Clone, Copy)]
pub struct FileStore;

#[async_trait]
impl SecretStore for FileStore {
    async fn read(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        read_settled(at, SecretValue::for_header).await
    }

    async fn read_document(&self, at: &SecretRef) -> Result<SecretVersion, StoreError> {
        read_settled(at, SecretValue::document).await
    }

    async fn claim(&self, at: &SecretRef, old: &SecretVersion) -> Result<Claim, StoreError> {
        let old = old.clone();
        blocking(at, move |at| {
            let lock = lock(at)?;
            if read(at, SecretValue::for_header)?.value != old.value {
                return Err(StoreError::Conflict { at: at.clone() });
            }
            // Before anything is spent whose successor could not be kept.
            probe(at).map_err(|source| unwritable(at, source))?;
            Ok(Claim { lock: Some(lock), ..Claim::by_version(old) })
        })
        .await
    }

    async fn replace(
        &self,
        at: &SecretRef,
        claim: &Claim,
        new: &SecretValue,
    ) -> Result<SecretVersion, StoreError> {
        let is_locked = claim.lock.is_some();
        let (old, new) = (claim.held.value.clone(), new.clone());
        blocking(at, move |at| {
            let _lock = if is_locked { None } else { Some(lock(at)?) };
            replace(at, &old, &new)?;
            Ok(SecretVersion { value: new, version: None })
        })
        .await
    }

    async fn may_put(&self, at: &SecretRef) -> Result<(), StoreError> {
        blocking(at, |at| {
            // Something that could be there: whether the rest can be kept shows in the same way.
            let (folder, _, _) = to_put(at, &SecretValue::new(b"x".to_vec()))?;
            beside(&folder).map(drop).map_err(|source| unwritable(at, source))
        })
        .await
    }

    async fn put(&self, at: &SecretRef, new: &SecretValue) -> Result<(), StoreError> {
        let new = new.clone();
        blocking(at, move |at| {
            let _lock = match lock(at) {
                Err(StoreError::Missing { .. }) => None,
                lock => Some(lock?),
            };
            let (folder, path, content) = to_put(at, &new)?;
            write_whole(&folder, &path, &content).map_err(|source| unwritable(at, source))
        })
        .await
    }

    /// Nothing was written for it, and nothing needs to be.
    async fn release(&self, _at: &SecretRef, claim: Claim) -> Result<(), StoreError> {
        drop(claim);
        Ok(())
    }
}

/// Where a value belongs, its folder first, and the whole content of the file with it.
fn to_put(
    at: &SecretRef,
    new: &SecretValue,
) -> Result<(PathBuf, PathBuf, SecretValue), StoreError> {
    let SecretRef::File { path, key } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    let content = match (read_capped(at, path), key) {
        (Ok(_), None) | (Err(StoreError::Unusable { .. }), None) => line(new),
        (Ok(content), Some(key)) => with_field(at, &content, key, new)?,
        (Err(StoreError::Missing { .. }), None) => line(new),
        (Err(StoreError::Missing { .. }), Some(key)) => {
            with_field(at, &SecretValue::new(b"{}".to_vec()), key, new)?
        }
        (Err(error), _) => return Err(error),
    };
    let (folder, path) = target_of(path).map_err(|source| unwritable(at, source))?;
    Ok((folder, path, content))
}

/// As [`folder_of`], of a file that may not be there yet.
fn target_of(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    match folder_of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return found,
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::canonicalize(folder.unwrap_or_else(|| Path::new(".")))?;
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let path = folder.join(name);
    Ok((folder, path))
}

fn line(value: &SecretValue) -> SecretValue {
    SecretValue::new([value.expose(), b"\n"].concat())
}

fn unwritable(at: &SecretRef, source: io::Error) -> StoreError {
    StoreError::Unwritable { at: at.clone(), source }
}

/// The lock on the file itself, not on a link to it.
fn lock(at: &SecretRef) -> Result<FileLock, StoreError> {
    let SecretRef::File { path, .. } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    // Before it is opened, because opening a pipe waits for its writer.
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(StoreError::NotAFile { at: at.clone() });
    }
    match folder_of(path).and_then(|(_, path)| FileLock::try_new(&path)) {
        Ok(Some(lock)) => Ok(lock),
        Ok(None) => Err(StoreError::Claimed { at: at.clone() }),
        Err(gone) if gone.kind() == io::ErrorKind::NotFound => {
            Err(StoreError::Missing { at: at.clone() })
        }
        Err(source) => Err(unwritable(at, source)),
    }
}

/// Where a file is once its links are followed: its folder, and its path in there.
fn folder_of(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let path = std::fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("/")).to_path_buf();
    Ok((folder, path))
}

async fn read_settled(at: &SecretRef, take: Take) -> Result<SecretVersion, StoreError> {
    let SecretRef::File { path, .. } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    for _ in 1..READS_MAX {
        files::settle(path).await;
        let found = blocking(at, move |at| read(at, take)).await;
        // What was written to meanwhile may have been read by half.
        if files::is_settled(path) {
            return found;
        }
    }
    blocking(at, move |at| read(at, take)).await
}

/// Runs file system calls where they hold up nobody.
async fn blocking<T: Send + 'static>(
    at: &SecretRef,
    work: impl FnOnce(&SecretRef) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (at, reference) = (at.clone(), at.clone());
    match tokio::task::spawn_blocking(move || work(&at)).await {
        Ok(result) => result,
        // The task panicked, or the runtime ends.
        Err(e) => Err(StoreError::Unreadable { at: reference, source: io::Error::other(e) }),
    }
}

/// Writes beside the file and renames over it, so that it is whole at every moment. Only its owner
/// may read it afterwards (mode 0600). A link stays, and what it leads to is replaced.
fn replace(at: &SecretRef, old: &SecretValue, new: &SecretValue) -> Result<(), StoreError> {
    let SecretRef::File { path, key } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    let there = read(at, SecretValue::for_header)?.value;
    let (folder, file) = folder_of(path).map_err(|source| unwritable(at, source))?;
    if there == *new {
        // The last try has written it, and may have failed after that.
        return sync(&folder).map_err(|source| unwritable(at, source));
    }
    if there != *old {
        return Err(StoreError::Conflict { at: at.clone() });
    }
    let content = match key {
        Some(key) => with_field(at, &read_capped(at, path)?, key, new)?,
        None => line(new),
    };
    write_whole(&folder, &file, &content).map_err(|source| unwritable(at, source))
}

fn write_whole(folder: &Path, path: &Path, content: &SecretValue) -> io::Result<()> {
    let mut file = beside(folder)?;
    file.write_all(content.expose())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(folder)
}

/// Without this a name may lead to the old content after a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether something can be written beside the file.
fn probe(at: &SecretRef) -> io::Result<()> {
    let SecretRef::File { path, .. } = at else { return Ok(()) };
    let (folder, _) = folder_of(path)?;
    beside(&folder)?.write_all(b"x")
}

/// A file in the same folder, gone when it is dropped.
fn beside(folder: &Path) -> io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new().prefix(".datapulse-").tempfile_in(folder)
}

fn read(at: &SecretRef, take: Take) -> Result<SecretVersion, StoreError> {
    let SecretRef::File { path, key } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    let content = read_capped(at, path)?;
    let bytes = match key {
        Some(key) => field(at, &content, key)?,
        None => content.expose().to_vec(),
    };
    let value = take(bytes).map_err(|problem| StoreError::Unusable { at: at.clone(), problem })?;
    Ok(SecretVersion { value, version: None })
}

fn read_capped(at: &SecretRef, path: &Path) -> Result<SecretValue, StoreError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { at: at.clone() },
        _ => StoreError::Unreadable { at: at.clone(), source },
    };
    // Before the file is opened, because opening a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(StoreError::NotAFile { at: at.clone() });
    }
    let file = File::open(path).map_err(failed)?;
    // Room for all of it from the start: a buffer that grows leaves copies behind.
    let mut content = Vec::with_capacity(SECRET_BYTES_MAX + 2);
    let limit = u64::try_from(SECRET_BYTES_MAX + 1).unwrap_or(u64::MAX);
    let outcome = file.take(limit).read_to_end(&mut content);
    // Owned before anything can fail, so that it is wiped on each path.
    let content = SecretValue::new(content);
    if outcome.map_err(failed)? > SECRET_BYTES_MAX {
        return Err(StoreError::Unusable { at: at.clone(), problem: SecretProblem::TooLarge });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(content: &[u8], key: Option<&str>) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("canary-free-name");
        std::fs::write(&path, content).unwrap();
        let at = SecretRef::File { path, key: key.map(str::to_owned) };
        match FileStore.read(&at).await {
            Ok(read) => Ok(read.value.expose_str().unwrap().to_owned()),
            Err(error) => {
                assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error:?}");
                assert!(!error.is_transient());
                Err(error.kind().to_owned())
            }
        }
    }

    #[tokio::test]
    async fn a_whole_file_is_the_secret() {
        let large = vec![b'x'; SECRET_BYTES_MAX + 1];
        let cases: [(&[u8], Result<&str, &str>); 7] = [
            (b"s3cr3t", Ok("s3cr3t")),
            (b"s3cr3t\n", Ok("s3cr3t")),
            (b"", Err("unusable")),
            (b"\n", Err("unusable")),
            (b"s3cr3t\ns3cr3t", Err("unusable")),
            (b"s3cr3t\xff", Err("unusable")),
            (&large, Err("unusable")),
        ];
        for (content, want) in cases {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(check(content, None).await, want);
        }
    }

    #[tokio::test]
    async fn a_key_names_a_string_at_the_top_of_an_object() {
        for (content, want) in [
            (r#"{"other": 1, "k": "s3cr3t\n"}"#, Ok("s3cr3t")),
            (r#"{"other": "s3cr3t"}"#, Err("no_such_key")),
            (r#"{"deep": {"k": "s3cr3t"}}"#, Err("no_such_key")),
            (r#"{"k": null}"#, Err("not_a_string")),
            (r#"{"k": 7}"#, Err("not_a_string")),
            (r#"{"k": ["s3cr3t"]}"#, Err("not_a_string")),
            (r#"{"k": ""}"#, Err("unusable")),
            (r#"{"k": "s3\r\ncr3t"}"#, Err("unusable")),
            (r#"{"k": "s3cr3t", "k": "s3cr3t"}"#, Err("not_json")),
            (r#"{"k": "s3cr3t"} s3cr3t"#, Err("not_json")),
            (r#"{"k": "s3cr3t"#, Err("not_json")),
            (r#""s3cr3t""#, Err("not_json")),
            ("s3cr3t", Err("not_json")),
            ("", Err("not_json")),
        ] {
            let want = want.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(check(content.as_bytes(), Some("k")).await, want, "{content}");
        }
    }

    #[tokio::test]
    async fn what_is_absent_or_no_file_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let read = async |path: &Path| {
            let at = SecretRef::File { path: path.to_path_buf(), key: None };
            FileStore.read(&at).await.map(drop).map_err(|e| e.kind())
        };
        assert_eq!(read(&dir.path().join("absent")).await, Err("missing"));
        assert_eq!(read(dir.path()).await, Err("not_a_file"));
        assert_eq!(read(Path::new("/dev/zero")).await, Err("not_a_file"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_are_followed_and_an_unreadable_file_is_said_to_be() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, "s3cr3t").unwrap();
        symlink(&file, &link).unwrap();
        let at = SecretRef::File { path: link, key: None };
        assert!(FileStore.read(&at).await.is_ok());
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o000)).unwrap();
        // Root reads it all the same; then there is no such case to see.
        if File::open(&file).is_err() {
            let error = FileStore.read(&at).await.unwrap_err();
            assert_eq!((error.kind(), error.is_transient()), ("unreadable", false));
        }
    }

    async fn replaced(content: &str, key: Option<&str>, old: &str) -> Result<String, &'static str> {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        std::fs::write(&file, content).unwrap();
        symlink(&file, &link).unwrap();
        let at = SecretRef::File { path: link.clone(), key: key.map(str::to_owned) };
        let value = |text: &str| SecretValue::new(text.into());
        let old = SecretVersion { value: value(old), version: None };
        let done = FileStore.replace(&at, &Claim::by_version(old), &value("n3w")).await;
        if done.is_ok() {
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
        done.map(|_| std::fs::read_to_string(&file).unwrap()).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn a_value_is_replaced_whole_and_only_if_it_is_still_the_one_that_was_read() {
        assert_eq!(replaced("s3cr3t\n", None, "s3cr3t").await, Ok("n3w\n".to_owned()));
        assert_eq!(replaced("theirs\n", None, "s3cr3t").await, Err("conflict"));
        let json = r#"{"k":"s3cr3t","other":{"a":[1,null]}}"#;
        let want = r#"{"k":"n3w","other":{"a":[1,null]}}"#.to_owned();
        assert_eq!(replaced(json, Some("k"), "s3cr3t").await, Ok(want));
        assert_eq!(replaced(json, Some("absent"), "s3cr3t").await, Err("no_such_key"));
        let nowhere = "file:/proc/version".parse().unwrap();
        let value = SecretValue::new(b"s3cr3t".to_vec());
        let claim = Claim::by_version(SecretVersion { value: value.clone(), version: None });
        assert!(FileStore.replace(&nowhere, &claim, &value).await.is_err());
    }

    #[tokio::test]
    async fn a_value_is_put_whatever_is_there_and_the_rest_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let json = Some(r#"{"k":"old","other":1}"#);
        for (content, key, want) in [
            (None, None, Ok("n3w\n")),
            (Some(""), None, Ok("n3w\n")),
            (Some("any thing\nat all"), None, Ok("n3w\n")),
            (None, Some("k"), Ok(r#"{"k":"n3w"}"#)),
            (json, Some("k"), Ok(r#"{"k":"n3w","other":1}"#)),
            (json, Some("l"), Ok(r#"{"k":"old","l":"n3w","other":1}"#)),
            (Some("no json"), Some("k"), Err("not_json")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let at = SecretRef::File { path: path.clone(), key: key.map(str::to_owned) };
            let may = FileStore.may_put(&at).await.map_err(|error| error.kind());
            assert_eq!(may.err(), want.err(), "{content:?} {key:?}");
            let before = std::fs::read_to_string(&path).ok();
            assert_eq!(before.as_deref(), content, "asking changes nothing");
            let put = FileStore.put(&at, &SecretValue::new(b"n3w".to_vec())).await;
            let put = put.map(|()| std::fs::read_to_string(&path).unwrap());
            assert_eq!(put.as_deref().map_err(StoreError::kind), want, "{content:?} {key:?}");
            if want.is_ok() {
                assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            }
            assert!(std::fs::read_dir(dir.path()).unwrap().count() <= 1, "nothing is left behind");
        }
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_written_is_known_before_and_a_claim_is_waited_for() {
        for nowhere in ["file:/nowhere/at/all", "file:/proc/token"] {
            let error = FileStore.may_put(&nowhere.parse().unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), "unwritable", "{nowhere}");
        }
        let dir = tempfile::tempdir().unwrap();
        let at = SecretRef::File { path: dir.path().to_path_buf(), key: None };
        assert_eq!(FileStore.may_put(&at).await.unwrap_err().kind(), "not_a_file");
        let at = SecretRef::File { path: dir.path().join("file"), key: None };
        let new = SecretValue::new(b"n3w".to_vec());
        FileStore.put(&at, &new).await.unwrap();
        let claim = FileStore.claim(&at, &FileStore.read(&at).await.unwrap()).await.unwrap();
        assert_eq!(FileStore.put(&at, &new).await.unwrap_err().kind(), "claimed");
        drop(claim);
        FileStore.put(&at, &new).await.unwrap();
    }

    #[tokio::test]
    async fn only_one_at_a_time_has_the_claim_and_it_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "s3cr3t").unwrap();
        let at = SecretRef::File { path, key: None };
        let old = FileStore.read(&at).await.unwrap();
        let claim = FileStore.claim(&at, &old).await.unwrap();
        let kind =
            async |old: &SecretVersion| FileStore.claim(&at, old).await.map_err(|e| e.kind());
        assert_eq!(kind(&old).await.unwrap_err(), "claimed");
        let new = SecretValue::new(b"n3w".to_vec());
        let unclaimed = Claim::by_version(old.clone());
        let error = FileStore.replace(&at, &unclaimed, &new).await.unwrap_err();
        assert_eq!(error.kind(), "claimed");
        for _ in 0..2 {
            let written = FileStore.replace(&at, &claim, &new).await;
            assert!(written.is_ok(), "what the last try has written is no conflict");
        }
        drop(claim);
        assert_eq!(kind(&old).await.unwrap_err(), "conflict", "what was claimed is spent");
        let new = FileStore.read(&at).await.unwrap();
        assert!(kind(&new).await.is_ok());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
