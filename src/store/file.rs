//! Secrets in files: mounted by Kubernetes, written by an agent, or by hand.
//!
//! Symbolic links are followed (Kubernetes swaps them). Only regular files are opened: a pipe would
//! block for ever. A file that is being written to is read once it has come to rest.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use async_trait::async_trait;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{SecretStore, SecretVersion, StoreError};
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
        let SecretRef::File { path, .. } = at else {
            return Err(StoreError::OtherStore { at: at.clone() });
        };
        for _ in 1..READS_MAX {
            files::settle(path).await;
            let found = blocking(at, read).await;
            // What was written to meanwhile may have been read by half.
            if files::is_settled(path) {
                return found;
            }
        }
        blocking(at, read).await
    }

    async fn replace(
        &self,
        at: &SecretRef,
        old: &SecretValue,
        new: &SecretValue,
    ) -> Result<(), StoreError> {
        let (old, new) = (old.clone(), new.clone());
        blocking(at, move |at| replace(at, &old, &new)).await
    }
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
    if read(at)?.value != *old {
        return Err(StoreError::Conflict { at: at.clone() });
    }
    let content = match key {
        Some(key) => with_field(at, &read_capped(at, path)?, key, new)?,
        None => SecretValue::new([new.expose(), b"\n"].concat()),
    };
    let write = || {
        let path = std::fs::canonicalize(path)?;
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let mut file = tempfile::Builder::new().prefix(".datapulse-").tempfile_in(folder)?;
        file.write_all(content.expose())?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|source| StoreError::Unwritable { at: at.clone(), source })
}

/// The JSON object with one field changed; the others stay.
fn with_field(
    at: &SecretRef,
    content: &SecretValue,
    key: &str,
    new: &SecretValue,
) -> Result<SecretValue, StoreError> {
    let not_json = || StoreError::NotJson { at: at.clone() };
    let Ok(mut fields) =
        serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(content.expose())
    else {
        return Err(not_json());
    };
    let text = new.expose_str().ok_or_else(not_json)?;
    fields.insert(key.to_owned(), text.into());
    serde_json::to_vec(&fields).map(SecretValue::new).map_err(|_unwritable| not_json())
}

fn read(at: &SecretRef) -> Result<SecretVersion, StoreError> {
    let SecretRef::File { path, key } = at else {
        return Err(StoreError::OtherStore { at: at.clone() });
    };
    let content = read_capped(at, path)?;
    let bytes = match key {
        Some(key) => field(at, &content, key)?,
        None => content.expose().to_vec(),
    };
    let value = SecretValue::for_header(bytes)
        .map_err(|problem| StoreError::Unusable { at: at.clone(), problem })?;
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

/// One top-level string of a JSON object. serde's own errors are dropped: they quote values.
fn field(at: &SecretRef, content: &SecretValue, key: &str) -> Result<Vec<u8>, StoreError> {
    let mut json = serde_json::Deserializer::from_slice(content.expose());
    let Ok(found) = OneField(key).deserialize(&mut json) else {
        return Err(StoreError::NotJson { at: at.clone() });
    };
    if json.end().is_err() {
        return Err(StoreError::NotJson { at: at.clone() });
    }
    match found {
        Some(serde_json::Value::String(text)) => Ok(text.into_bytes()),
        Some(_) => Err(StoreError::NotAString { at: at.clone() }),
        None => Err(StoreError::NoSuchKey { at: at.clone() }),
    }
}

/// Picks one key of an object and builds nothing of its neighbours, which may be secrets too.
struct OneField<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for OneField<'_> {
    type Value = Option<serde_json::Value>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneField<'_> {
    type Value = Option<serde_json::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("the key is there twice"));
            }
        }
        Ok(found)
    }
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
        let done = FileStore.replace(&at, &value(old), &value("n3w")).await;
        if done.is_ok() {
            assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
        done.map(|()| std::fs::read_to_string(&file).unwrap()).map_err(|error| error.kind())
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
        assert!(FileStore.replace(&nowhere, &value, &value).await.is_err());
    }
}
