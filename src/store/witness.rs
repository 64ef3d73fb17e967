//! A second witness: a few words about a state file, kept away from it.
//!
//! A state file that was changed, or replaced by an older copy, can look whole.
//! What must not be forgotten is therefore said twice: once in the file,
//! durably, and once in a small file in another folder, with a check.
//!
//! A witness is written after what it tells of is on disk and is never
//! synchronised itself: the file survives a loss of power, the witness survives
//! damage of the file. Both at once is more than this can see; a witness that
//! cannot be read says nothing. It costs a new file, so what every write leaves
//! has other forms (`ledger::witness`, `audit::head`).

use super::locked::{self, StoreError};
use super::{disk, temporary_name};
use crate::crash;
use crate::host::Random;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The place of a witness.
#[derive(Debug, Clone)]
pub struct Witness {
    path: PathBuf,
}

impl Witness {
    /// Takes the place; nothing is created yet.
    #[must_use]
    pub fn at(path: PathBuf) -> Witness {
        Witness { path }
    }

    /// Returns the place, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns what the witness says; `None` when there is none, or none that
    /// can be read.
    pub fn read(&self) -> Result<Option<String>, StoreError> {
        let Some(bytes) = locked::read_if_exists(&self.path)? else { return Ok(None) };
        Ok(String::from_utf8(bytes).ok().and_then(|text| {
            let (text, check) = text.strip_suffix('\n')?.split_once('\n')?;
            (check == check_of(text)).then(|| text.to_owned())
        }))
    }

    /// Returns whether there is one, whatever it says.
    pub fn is_there(&self) -> Result<bool, StoreError> {
        Ok(locked::read_if_exists(&self.path)?.is_some())
    }

    /// Writes the witness, or replaces it: a reader sees the old text or the
    /// new one. The text has one line.
    pub fn write(&self, text: &str, random: &dyn Random) -> Result<(), StoreError> {
        let hidden = self.path.with_file_name(temporary_name(random));
        crash::fault("store.witness").map_err(StoreError::io("write", &self.path))?;
        let file = create(&hidden)?;
        let written = disk::write_at(&file, 0, format!("{text}\n{}\n", check_of(text)).as_bytes()).and_then(|()| {
            crash::point("store.witness.before_rename");
            disk::rename(&hidden, &self.path)
        });
        written.map_err(StoreError::io("write", &self.path)).inspect_err(|_| {
            let _ = disk::remove(&hidden);
        })?;
        crash::point("store.witness.written");
        Ok(())
    }

    /// Takes the witness away; there may be none.
    pub fn remove(&self) -> Result<(), StoreError> {
        match crash::fault("store.witness_remove").and_then(|()| disk::remove(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", &self.path)(error)),
            _ => Ok(()),
        }
    }
}

/// Creates a file, and its folder when that is missing.
fn create(path: &Path) -> Result<File, StoreError> {
    match locked::create_exclusive(path) {
        Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            disk::create_folders(folder).map_err(StoreError::io("create", folder))?;
            locked::create_exclusive(path)
        }
        created => created,
    }
}

fn check_of(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;

    #[test]
    fn a_witness_says_what_was_written_last_or_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::at(folder.path().join("a/b"));
        assert_eq!(witness.read().unwrap(), None);
        for text in ["one", "two", &"x".repeat(4_000)] {
            witness.write(text, &SystemRandom).unwrap();
            assert_eq!(witness.read().unwrap().as_deref(), Some(text));
        }
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        let whole = std::fs::read(witness.path()).unwrap();
        for at in [0, 2_000, 4_000, 4_004, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            std::fs::write(witness.path(), flipped).unwrap();
            assert_eq!((witness.read().unwrap(), witness.is_there().unwrap()), (None, true), "{at}");
        }
        witness.remove().unwrap();
        witness.remove().unwrap();
        assert!(!witness.is_there().unwrap());
    }
}
