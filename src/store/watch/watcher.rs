//! The task that looks for other values: after events in folders, and of stores that tell nothing by
//! themselves from time to time.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Secrets;
use super::entry::Entry;
use crate::files::Folders;
use crate::secret::SecretRef;

/// Looks at stores that are under way at once; more of them wait for the next turn.
const LOOKS_MAX: usize = 16;

/// The write side of every [`SecretWatch`](super::SecretWatch).
#[derive(Debug)]
pub struct SecretWatcher {
    secrets: Secrets,
    folders: Folders,
}

impl SecretWatcher {
    pub(super) const fn new(secrets: Secrets, folders: Folders) -> Self {
        Self { secrets, folders }
    }

    /// Looks after every event in a folder with a watched file, and from time to time without one;
    /// looks at other stores when it is due; lets the stores do their own work. Never ends by itself.
    pub async fn run(self) {
        let Self { secrets, folders } = self;
        tokio::join!(events(&secrets, folders), polls(&secrets), secrets.stores.keep());
    }
}

async fn events(secrets: &Secrets, mut folders: Folders) {
    loop {
        let mut entries = secrets.entries();
        entries.retain(|entry| matches!(entry.at(), SecretRef::File { .. }));
        folders.follow(entries.iter().filter_map(|entry| match entry.at() {
            SecretRef::File { path, .. } => Some(path.as_path()),
            _ => None,
        }));
        // After the folders are watched, so that no change falls between the two.
        looks(secrets, entries).await;
        folders.changed().await;
    }
}

async fn polls(secrets: &Secrets) {
    loop {
        let mut planned: Vec<(Instant, Arc<Entry>)> = Vec::new();
        planned.extend(secrets.entries().into_iter().filter_map(|entry| {
            let due = entry.due()?;
            Some((due, entry))
        }));
        planned.sort_by_key(|(due, _)| *due);
        let now = Instant::now();
        let next = planned.first().map(|(due, _)| *due);
        let due = planned.into_iter().take_while(|(due, _)| *due <= now).take(LOOKS_MAX);
        let due: Vec<_> = due.map(|(_, entry)| entry).collect();
        if !due.is_empty() {
            looks(secrets, due).await;
            continue;
        }
        let sleep = async {
            match next {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = secrets.planned.notified() => {}
        }
    }
}

async fn looks(secrets: &Secrets, entries: Vec<Arc<Entry>>) {
    let mut looks = JoinSet::new();
    for entry in entries {
        let stores = Arc::clone(&secrets.stores);
        looks.spawn(async move { entry.look(&*stores).await });
    }
    // A look that panicked was told by the panic hook, and the next one comes.
    while looks.join_next().await.is_some() {}
}
