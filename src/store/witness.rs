//! A second witness: a few words about a state file, kept away from it.
//!
//! A state file that lost its end, or was replaced by an older copy, can look
//! whole. What must not be forgotten is therefore said twice: once in the
//! file, durably, and once in the text of a symbolic link in another folder.
//! The link leads nowhere; its text is written and replaced by one operation,
//! and read by one, without a file to open. It costs a new inode, though: what
//! every write leaves has other forms (`ledger::witness`, `audit::head`).
//!
//! A witness is written after what it tells of is on disk and is never
//! synchronised itself: the file survives a loss of power, the witness survives
//! damage of the file. Both at once is more than this can see.

use super::locked::StoreError;
use super::temporary_name;
use crate::crash;
use crate::host::Random;
use std::io;
use std::os::unix::fs::DirBuilderExt;
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

    /// Returns what the witness says; `None` when there is none.
    pub fn read(&self) -> Result<Option<String>, StoreError> {
        crash::fault("store.witness_read").map_err(StoreError::io("read", &self.path))?;
        match std::fs::read_link(&self.path) {
            Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreError::io("read", &self.path)(error)),
        }
    }

    /// Writes the witness, or replaces it: a reader sees the old text or the
    /// new one.
    pub fn write(&self, text: &str, random: &dyn Random) -> Result<(), StoreError> {
        crash::fault("store.witness").map_err(StoreError::io("write", &self.path))?;
        match self.link(text, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let hidden = self.path.with_file_name(temporary_name(random));
                let replaced = self.link(text, &hidden).and_then(|()| {
                    crash::point("store.witness.before_rename");
                    std::fs::rename(&hidden, &self.path)
                });
                replaced.map_err(StoreError::io("write", &self.path)).inspect_err(|_| {
                    let _ = std::fs::remove_file(&hidden);
                })?;
            }
            written => written.map_err(StoreError::io("write", &self.path))?,
        }
        crash::point("store.witness.written");
        Ok(())
    }

    /// Takes the witness away; there may be none.
    pub fn remove(&self) -> Result<(), StoreError> {
        match crash::fault("store.witness_remove").and_then(|()| std::fs::remove_file(&self.path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("delete", &self.path)(error)),
            _ => {
                crash::point("store.witness.removed");
                Ok(())
            }
        }
    }

    /// The folders are made when they are missing, and not synchronised.
    fn link(&self, text: &str, path: &Path) -> io::Result<()> {
        match std::os::unix::fs::symlink(text, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = self.path.parent().unwrap_or(Path::new("/"));
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                std::os::unix::fs::symlink(text, path)
            }
            linked => linked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;

    #[test]
    fn a_witness_says_what_was_written_last() {
        let folder = tempfile::tempdir().unwrap();
        let witness = Witness::at(folder.path().join("a/b"));
        assert_eq!(witness.read().unwrap(), None);
        for text in ["one", "two", &"x".repeat(4_000)] {
            witness.write(text, &SystemRandom).unwrap();
            assert_eq!(witness.read().unwrap().as_deref(), Some(text));
        }
        assert_eq!(std::fs::read_dir(folder.path().join("a")).unwrap().count(), 1);
        witness.remove().unwrap();
        witness.remove().unwrap();
        assert_eq!(witness.read().unwrap(), None);
    }
}
