//! Where the files of the audit log are.

use crate::store::create_folder;
use crate::store::locked::{StoreError, sync_parent};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// What the settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditPlace {
    /// A folder of b24's own: everything stands in it.
    Folder(PathBuf),
    /// One file; what else is needed stands in the folder `FILE.d`.
    File(PathBuf),
}

/// The paths that follow from an [`AuditPlace`].
#[derive(Debug)]
pub(super) struct Place {
    current: PathBuf,
    folder: PathBuf,
    spool: PathBuf,
    head: PathBuf,
}

impl Place {
    pub(super) fn new(place: AuditPlace) -> Place {
        let (AuditPlace::Folder(base) | AuditPlace::File(base)) = &place;
        let (spool, head) = (with_ending(base, ".spool"), with_ending(base, ".head"));
        match place {
            AuditPlace::Folder(folder) => Place { current: folder.join("audit.jsonl"), spool, head, folder },
            AuditPlace::File(file) => Place { folder: with_ending(&file, ".d"), spool, head, current: file },
        }
    }

    /// What says how far the log reaches: beside it, so that it is not lost
    /// with it.
    pub(super) fn head(&self) -> &Path {
        &self.head
    }

    /// The segment that is written now.
    pub(super) fn current(&self) -> &Path {
        &self.current
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.folder.join("audit.lock")
    }

    /// A segment that was ended.
    pub(super) fn segment(&self, number: u64) -> PathBuf {
        self.folder.join(format!("seg-{number}.jsonl"))
    }

    /// Where records wait that could not be appended: beside the log, not in
    /// it, because the log is what failed.
    pub(super) fn spool(&self) -> &Path {
        &self.spool
    }

    /// Returns the numbers of the ended segments in ascending order.
    pub(super) fn segments(&self) -> Result<Vec<u64>, StoreError> {
        let mut numbers: Vec<u64> = names(&self.folder)?
            .iter()
            .filter_map(|name| name.to_str()?.strip_prefix("seg-")?.strip_suffix(".jsonl")?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn create_folders(&self) -> Result<(), StoreError> {
        create_folder(&self.folder)
    }

    /// Makes the names of the current file, of the folder and of all in it
    /// durable.
    pub(super) fn sync_names(&self) -> Result<(), StoreError> {
        sync_parent(&self.current)?;
        sync_parent(&self.lock())?;
        sync_parent(&self.folder)
    }
}

/// Returns the names in a folder; none when there is no folder.
pub(super) fn names(folder: &Path) -> Result<Vec<OsString>, StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", folder)(error)),
    };
    let names: io::Result<Vec<OsString>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    names.map_err(StoreError::io("read", folder))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
