//! Which workers of an inbox live.
//!
//! Every worker keeps the lock of a file of its own. The lock ends with the
//! last process that has the file open, and handlers inherit it: when a worker
//! is killed while its handler goes on, what they were handling is taken over
//! only when the handler has ended, so that no event is in two hands.

use crate::host::{Random, random_hex};
use crate::store::create_folder;
use crate::store::locked::{Existing, Locked, Mode, StoreError};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// This worker, and what it knows of the others.
pub(super) struct Workers {
    folder: PathBuf,
    own: String,
    lock: Option<Locked>,
    dead: HashSet<String>,
}

/// How long the own file may be in the hands of a worker that looks at it.
const LOCK_WAIT: Duration = Duration::from_secs(30);

impl Workers {
    /// Joins the workers of an inbox.
    pub(super) fn join(inbox: &Path, random: &dyn Random) -> Result<Workers, StoreError> {
        let folder = inbox.join("workers");
        create_folder(&folder)?;
        let own = random_hex(random, 8);
        let lock = Locked::open(&folder.join(&own), Mode::Exclusive, LOCK_WAIT)?;
        lock.share_with_children()?;
        Ok(Workers { folder, own, lock: Some(lock), dead: HashSet::new() })
    }

    /// Returns this worker's name.
    pub(super) fn own(&self) -> &str {
        &self.own
    }

    /// Returns whether what a worker left behind may be taken over: it is this
    /// one, or the last look found it dead. A worker that was not looked for
    /// counts as living.
    pub(super) fn may_take_over(&self, worker: &str) -> bool {
        worker == self.own || self.dead.contains(worker)
    }

    /// Returns whether the last look found a worker dead.
    pub(super) fn is_dead(&self, worker: &str) -> bool {
        self.dead.contains(worker)
    }

    /// Looks which of the workers that the journal names live; the files of
    /// dead ones are deleted. A worker joins before it writes its first line,
    /// so one that the journal named before this look and that has no file
    /// now is dead.
    /// Returns how many others live.
    pub(super) fn look(&mut self, named: impl Iterator<Item = String>) -> Result<usize, StoreError> {
        let named: Vec<String> = named.collect();
        // Without it the others take this worker for dead, and hand its events
        // over a second time.
        if let Some(lock) = self.lock.as_ref().filter(|lock| !lock.is_in_place().unwrap_or(true)) {
            return Err(StoreError::unusable(lock.path(), "was removed while its worker lives; the others would take it for dead"));
        }
        let entries = std::fs::read_dir(&self.folder).map_err(StoreError::io("read", &self.folder))?;
        let mut alive = HashSet::new();
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if name == self.own {
                continue;
            }
            match Locked::try_open_existing(&self.folder.join(&name), Mode::Exclusive)? {
                Existing::Held => {
                    alive.insert(name);
                }
                Existing::Locked(file) => file.remove()?,
                Existing::Absent => {}
            }
        }
        self.dead = named.into_iter().filter(|name| *name != self.own && !alive.contains(name)).collect();
        Ok(alive.len())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            // Left behind, the file is deleted by the next worker.
            let _ = lock.remove();
        }
    }
}

#[cfg(test)]
mod tests;
