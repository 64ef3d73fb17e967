//! The one place that locks files; what it changes on disk goes through
//! [`disk`](super::disk).
//!
//! A lock is a whole-file advisory lock (`flock`). It belongs to the open file
//! and ends with the process, so a lock that is held proves a living owner: no
//! process ids, no leases, no clock. Lock files are never deleted or renamed
//! over while in use; after every lock it is checked that the path still
//! leads to the file, and one that was deleted meanwhile is opened anew.

use super::disk::{self, no_follow, no_wait};
use crate::crash;
use crate::error::{Code, Coded};
use crate::store::patience;
use fs2::FileExt as _;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Why a state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the lock.
    #[error("{} is locked by another process for too long", .0.display())]
    Busy(PathBuf),
    /// The file is there but cannot be what b24 wrote.
    #[error("{} {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What was there is gone, or older than it was.
    #[error("{} {problem}", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
        /// What is missing.
        problem: String,
        /// What a person can do.
        next: String,
    },
}

impl StoreError {
    /// Names the operation and the file that an error belongs to.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// Says what is wrong with a file.
    pub fn unusable(path: &Path, problem: impl Into<String>) -> StoreError {
        StoreError::Unusable { path: path.to_owned(), problem: problem.into() }
    }

    /// Says what is missing of a file, and what a person can do.
    pub fn lost(path: &Path, problem: impl Into<String>, next: impl Into<String>) -> StoreError {
        StoreError::Lost { path: path.to_owned(), problem: problem.into(), next: next.into() }
    }
}

impl Coded for StoreError {
    fn code(&self) -> Code {
        match self {
            StoreError::Io { .. } | StoreError::Unusable { .. } | StoreError::Lost { .. } => Code::LocalState,
            StoreError::Busy(_) => Code::LockBusy,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            StoreError::Io { .. } => "Check that its folder exists, is yours and has room".to_owned(),
            StoreError::Busy(_) => "Try again; --max-wait sets how long to wait".to_owned(),
            StoreError::Unusable { .. } => "Look at the file, then move it away; b24 leaves it as it is".to_owned(),
            StoreError::Lost { next, .. } => next.clone(),
        })
    }
}

/// Which lock to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Readers among themselves.
    Shared,
    /// One owner.
    Exclusive,
}

/// A state file together with its lock: the data is reachable only while the
/// lock is held, and dropping the value gives the lock back.
#[derive(Debug)]
pub struct Locked {
    file: File,
    path: PathBuf,
}

impl Locked {
    /// Opens or creates the file and waits for its lock.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the lock was not free within `wait`.
    pub fn open(path: &Path, mode: Mode, wait: Duration) -> Result<Locked, StoreError> {
        loop {
            let (file, metadata) = open_file(path, disk::open_or_create)?;
            if !try_lock(&file, mode, path)? {
                wait_for_lock(&file, mode, path, wait)?;
            }
            if is_linked(&metadata, path)? {
                return Ok(Locked { file, path: path.to_owned() });
            }
        }
    }

    /// Opens or creates the file and takes its lock if it is free.
    pub fn try_open(path: &Path, mode: Mode) -> Result<Option<Locked>, StoreError> {
        loop {
            let (file, metadata) = open_file(path, disk::open_or_create)?;
            if !try_lock(&file, mode, path)? {
                return Ok(None);
            }
            if is_linked(&metadata, path)? {
                return Ok(Some(Locked { file, path: path.to_owned() }));
            }
        }
    }

    /// Opens a file that is there and takes its lock if it is free.
    pub fn try_open_existing(path: &Path, mode: Mode) -> Result<Existing, StoreError> {
        Locked::open_existing(path, mode, Duration::ZERO)
    }

    /// Opens a file that is there and waits for its lock. A file that is
    /// removed meanwhile is not made again.
    pub fn open_existing(path: &Path, mode: Mode, wait: Duration) -> Result<Existing, StoreError> {
        loop {
            let (file, metadata) = match open_file(path, open_existing) {
                Ok(opened) => opened,
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Ok(Existing::Absent);
                }
                Err(error) => return Err(error),
            };
            if !try_lock(&file, mode, path)? {
                match wait_for_lock(&file, mode, path, wait) {
                    Err(StoreError::Busy(_)) => return Ok(Existing::Held),
                    waited => waited?,
                }
            }
            if is_linked(&metadata, path)? {
                return Ok(Existing::Locked(Locked { file, path: path.to_owned() }));
            }
        }
    }

    /// Creates a file that is not there yet, durable and locked before anybody
    /// can see it: write and lock a temporary file, then link it. Returns
    /// `None` when the name is taken. The folder is not synchronised.
    pub fn create_new(path: &Path, content: &[u8], temporary: &str) -> Result<Option<Locked>, StoreError> {
        let hidden = path.with_file_name(temporary);
        let published = (|| {
            let file = create_exclusive(&hidden)?;
            file.try_lock_exclusive().map_err(StoreError::io("lock", &hidden))?;
            crash::fault("store.create").map_err(StoreError::io("write", path))?;
            disk::write_at(&file, 0, content).map_err(StoreError::io("write", path))?;
            disk::sync_all(&file).map_err(StoreError::io("synchronise", path))?;
            crash::point("store.create.before_link");
            crash::fault("store.link").map_err(StoreError::io("create", path))?;
            match disk::link(&hidden, path) {
                Ok(()) => Ok(Some(Locked { file, path: path.to_owned() })),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
                Err(error) => Err(StoreError::io("create", path)(error)),
            }
        })();
        crash::point("store.create.before_unlink");
        let _ = disk::remove(&hidden);
        published
    }

    /// Returns the file's path, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the length in bytes.
    pub fn length(&self) -> Result<u64, StoreError> {
        Ok(self.file.metadata().map_err(StoreError::io("read", &self.path))?.len())
    }

    /// Returns what tells the file from every other one there is.
    pub fn id(&self) -> Result<(u64, u64), StoreError> {
        let open = self.file.metadata().map_err(StoreError::io("read", &self.path))?;
        Ok((open.dev(), open.ino()))
    }

    /// Returns whether its path still leads to the file.
    pub fn is_in_place(&self) -> Result<bool, StoreError> {
        is_linked(&self.file.metadata().map_err(StoreError::io("read", &self.path))?, &self.path)
    }

    /// Reads the whole file.
    pub fn read_all(&mut self) -> Result<Vec<u8>, StoreError> {
        self.read_from(0)
    }

    /// Reads from a position to the end.
    pub fn read_from(&mut self, position: u64) -> Result<Vec<u8>, StoreError> {
        let rest = self.length()?.saturating_sub(position);
        self.read_range(position, usize::try_from(rest).unwrap_or(usize::MAX))
    }

    /// Reads a part of the file; fewer bytes when it ends before.
    pub fn read_range(&mut self, position: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        crash::fault("store.read").map_err(StoreError::io("read", &self.path))?;
        let mut content = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut content[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io("read", &self.path)(error)),
            }
        }
        content.truncate(filled);
        Ok(content)
    }

    /// Lets processes that are started from now on inherit the lock: it is
    /// held until the last of them has ended, too.
    pub fn share_with_children(&self) -> Result<(), StoreError> {
        rustix::io::fcntl_setfd(&self.file, rustix::io::FdFlags::empty()).map_err(|error| StoreError::io("share", &self.path)(error.into()))
    }

    /// Appends in one write; durable only after [`Locked::sync_data`]. What a
    /// full disk left of a failed append is cut off, so that a later one does
    /// not stand behind half a line.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let end = self.length()?;
        let written = crash::fault("store.append").and_then(|()| disk::write_at(&self.file, end, bytes));
        written.map_err(StoreError::io("write", &self.path)).inspect_err(|_| {
            let _ = disk::set_length(&self.file, end);
        })
    }

    /// Writes at a position.
    pub fn write_at(&mut self, position: u64, bytes: &[u8]) -> Result<(), StoreError> {
        crash::fault("store.write").map_err(StoreError::io("write", &self.path))?;
        disk::write_at(&self.file, position, bytes).map_err(StoreError::io("write", &self.path))
    }

    /// Cuts the file to a length.
    pub fn truncate(&mut self, length: u64) -> Result<(), StoreError> {
        crash::fault("store.cut").and_then(|()| disk::set_length(&self.file, length)).map_err(StoreError::io("cut", &self.path))
    }

    /// Waits until the content is on disk. A failure is final: the data must
    /// not be counted as written, also not after a later success.
    pub fn sync_data(&self) -> Result<(), StoreError> {
        crash::fault("store.sync").map_err(StoreError::io("synchronise", &self.path))?;
        disk::sync_data(&self.file).map_err(StoreError::io("synchronise", &self.path))
    }

    /// Deletes the file; whoever waits for its lock opens a new one.
    pub fn remove(self) -> Result<(), StoreError> {
        crash::fault("store.remove").and_then(|()| disk::remove(&self.path)).map_err(StoreError::io("delete", &self.path))
    }

    /// Renames the file within its folder; the lock stays with it.
    pub fn rename(&mut self, to: &Path) -> Result<(), StoreError> {
        disk::rename(&self.path, to).map_err(StoreError::io("rename", &self.path))?;
        to.clone_into(&mut self.path);
        Ok(())
    }
}

/// What was found at a path that must not be created.
#[derive(Debug)]
pub enum Existing {
    /// There is no such file.
    Absent,
    /// Another process holds its lock.
    Held,
    /// The lock is ours.
    Locked(Locked),
}

/// Writes a new file under a name that must be free: temporary file, sync,
/// link, sync of the folder. Returns whether the name was free.
pub fn create_durable(path: &Path, content: &[u8], temporary: &str) -> Result<bool, StoreError> {
    match Locked::create_new(path, content, temporary)? {
        Some(_) => sync_parent(path).map(|()| true),
        None => Ok(false),
    }
}

/// Replaces a file as a whole: temporary file, sync, rename, sync of the
/// folder. A reader sees the old content or the new one, never a part.
pub fn replace_durable(path: &Path, content: &[u8], temporary: &str) -> Result<(), StoreError> {
    let hidden = path.with_file_name(temporary);
    let written = (|| {
        let file = create_exclusive(&hidden)?;
        crash::fault("store.replace").map_err(StoreError::io("write", path))?;
        disk::write_at(&file, 0, content).map_err(StoreError::io("write", path))?;
        disk::sync_all(&file).map_err(StoreError::io("synchronise", path))?;
        crash::point("store.replace.before_rename");
        disk::rename(&hidden, path).map_err(StoreError::io("replace", path))
    })();
    if written.is_err() {
        let _ = disk::remove(&hidden);
    }
    written?;
    crash::point("store.replace.before_sync");
    sync_parent(path)
}

/// Makes the names in the folder of a file durable.
pub fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    crash::fault("store.sync_folder").map_err(StoreError::io("synchronise", folder))?;
    disk::sync_folder(folder).map_err(StoreError::io("synchronise", folder))
}

/// Reads a whole file without following a link in its last part; `None` when
/// it is not there.
pub fn read_if_exists(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let Some((file, metadata)) = open_regular(path)? else { return Ok(None) };
    read_to_end(&file, metadata.len()).map(Some).map_err(StoreError::io("read", path))
}

/// Reads to the end, of which the length is known. The file itself would ask
/// for length and position once more: every call reads many small files.
fn read_to_end(file: &File, length: u64) -> io::Result<Vec<u8>> {
    // Room for the read that finds the end; a length that is not true of a
    // huge file must not take memory before anything was read.
    let room = usize::try_from(length.min(1024 * 1024)).unwrap_or(0) + 64;
    let mut content = Vec::with_capacity(room);
    file.take(u64::MAX).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens a file in the same way, to be read piece by piece.
pub fn open_if_exists(path: &Path) -> Result<Option<File>, StoreError> {
    Ok(open_regular(path)?.map(|(file, _)| file))
}

fn open_regular(path: &Path) -> Result<Option<(File, Metadata)>, StoreError> {
    let opened =
        crash::fault("store.read_file").and_then(|()| OpenOptions::new().read(true).custom_flags(no_follow() | no_wait()).open(path));
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let metadata = file.metadata().map_err(StoreError::io("read", path))?;
    match metadata.is_file() {
        true => Ok(Some((file, metadata))),
        false => Err(StoreError::unusable(path, "is not a file")),
    }
}

fn open_file(path: &Path, open: fn(&Path) -> io::Result<File>) -> Result<(File, Metadata), StoreError> {
    crash::fault("store.open").map_err(StoreError::io("open", path))?;
    let file = open(path).map_err(StoreError::io("open", path))?;
    // What is written to a device is not kept, whatever it answers.
    let metadata = file.metadata().map_err(StoreError::io("read", path))?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(StoreError::unusable(path, "is not a file")),
    }
}

fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(no_follow() | no_wait()).open(path)
}

/// Creates a file that is not there yet, for the user alone.
pub(super) fn create_exclusive(path: &Path) -> Result<File, StoreError> {
    disk::create(path, disk::PRIVATE).map_err(StoreError::io("create", path))
}

fn try_lock(file: &File, mode: Mode, path: &Path) -> Result<bool, StoreError> {
    let locked = match mode {
        Mode::Shared => fs2::FileExt::try_lock_shared(file),
        Mode::Exclusive => fs2::FileExt::try_lock_exclusive(file),
    };
    match locked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == fs2::lock_contended_error().kind() => Ok(false),
        Err(error) => Err(StoreError::io("lock", path)(error)),
    }
}

/// Waits on a helper thread, because a blocking lock cannot be given a
/// deadline. The thread locks the same open file; if the deadline passes, both
/// handles are dropped, and with the last one the lock.
fn wait_for_lock(file: &File, mode: Mode, path: &Path, wait: Duration) -> Result<(), StoreError> {
    if wait.is_zero() {
        return Err(StoreError::Busy(path.to_owned()));
    }
    let handle = file.try_clone().map_err(StoreError::io("lock", path))?;
    let (done, locked) = mpsc::channel();
    std::thread::spawn(move || {
        let result = match mode {
            Mode::Shared => fs2::FileExt::lock_shared(&handle),
            Mode::Exclusive => fs2::FileExt::lock_exclusive(&handle),
        };
        let _ = done.send(result);
    });
    match patience::waiting_for_lock(wait, |wait| locked.recv_timeout(wait)) {
        Ok(result) => result.map_err(StoreError::io("lock", path)),
        Err(_) => Err(StoreError::Busy(path.to_owned())),
    }
}

/// Returns whether the path still leads to the open file. The link count would
/// not do: a process that was killed while it made the file leaves a second,
/// hidden name.
fn is_linked(open: &Metadata, path: &Path) -> Result<bool, StoreError> {
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("read", path)(error)),
    }
}
