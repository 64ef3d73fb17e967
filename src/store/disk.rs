//! The few operations by which b24 changes files that must survive.
//!
//! Every change of the state folder is one of these, so that what a loss of
//! power can take away is known in one place: the tests record them, in their
//! order, and try out every state in which a disk may then be found
//! (`tests/it/power_loss.rs`). In the shipped program they are the system's
//! calls and nothing more.

use crate::crash::{Change, record, record_sync};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The mode of every file of the state folder.
pub const PRIVATE: u32 = 0o600;

/// The mode of a folder whose name may not be on disk yet.
const UNSETTLED: u32 = 0o1700;

/// Creates a file that is not there yet.
pub fn create(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(mode).custom_flags(no_follow());
    record(&Change::Open(path), || options.open(path))
}

/// Opens a file, and creates it when it is not there.
pub fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(PRIVATE).custom_flags(no_follow() | no_wait());
    record(&Change::Open(path), || options.open(path))
}

/// Writes bytes at a position.
pub fn write_at(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    record(&Change::Write { file, at, bytes }, || file.write_all_at(bytes, at))
}

/// Sets the length of a file.
pub fn set_length(file: &File, length: u64) -> io::Result<()> {
    record(&Change::Cut { file, length }, || file.set_len(length))
}

/// Waits until the content of a file is on disk, with its length.
pub fn sync_data(file: &File) -> io::Result<()> {
    record_sync(&Change::SyncData(file), || file.sync_data())
}

/// Waits until a file is on disk; its name is not part of it.
pub fn sync_all(file: &File) -> io::Result<()> {
    record_sync(&Change::SyncAll(file), || file.sync_all())
}

/// Waits until the names in a folder are on disk.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    record_sync(&Change::SyncFolder(folder), || File::open(folder)?.sync_all())
}

/// Gives a file another name, which must be free.
pub fn link(file: &Path, name: &Path) -> io::Result<()> {
    record(&Change::Link { file, name }, || std::fs::hard_link(file, name))
}

/// Gives a file another name instead of its own; a file of that name goes.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    record(&Change::Rename { from, to }, || std::fs::rename(from, to))
}

/// Takes a name away.
pub fn remove(path: &Path) -> io::Result<()> {
    record(&Change::Remove(path), || std::fs::remove_file(path))
}

/// Creates a folder and those above it that are missing, for the user alone.
pub fn create_folders(path: &Path) -> io::Result<()> {
    make_folders(path, 0o700)
}

/// The same, with a mark that their names may not be on disk yet: the sticky
/// bit, which means nothing in a folder of one user.
pub fn create_unsettled_folders(path: &Path) -> io::Result<()> {
    make_folders(path, UNSETTLED)
}

fn make_folders(path: &Path, mode: u32) -> io::Result<()> {
    record(&Change::Folders(path), || DirBuilder::new().recursive(true).mode(mode).create(path))
}

/// Returns whether a folder is there and does not bear that mark.
#[must_use]
pub fn is_settled_folder(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_dir() && !is_marked(&metadata))
}

/// Takes the mark away. Left there, it costs the next user of the folder a
/// sync. What does not bear it is not ours to change.
pub fn settle_folder(path: &Path) {
    if path.metadata().is_ok_and(|metadata| is_marked(&metadata)) {
        let _ = std::fs::set_permissions(path, Permissions::from_mode(0o700));
    }
}

fn is_marked(metadata: &Metadata) -> bool {
    metadata.is_dir() && metadata.mode() & 0o7777 == UNSETTLED
}

/// Links are not followed, and programs that are started do not inherit files.
pub(super) fn no_follow() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC).bits().cast_signed()
}

/// Without it, a pipe in the place of a file would be waited for.
pub(super) fn no_wait() -> i32 {
    rustix::fs::OFlags::NONBLOCK.bits().cast_signed()
}
