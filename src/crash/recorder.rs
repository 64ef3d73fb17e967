//! Writes down what is done to files, for the tests that ask what a loss of
//! power may take away. `B24_DISK_TRACE=FILE` gets one JSON object a line: every
//! change that was made, with its bytes, and every point that was passed, in the
//! order in which they happened. `B24_DISK_SKIP=OPERATION[:PATH][@POINT][#N]` leaves
//! out the syncs of this kind (`sync_data`, `sync_all`, `sync_folder`) of files
//! whose path has `PATH` in it, or at its end (`PATH$`), where the point is the
//! last one that the thread has passed; with a number only the N-th of them.

use super::Change;
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held from before a change until it is written down.
static TURN: Mutex<()> = Mutex::new(());

/// How many syncs were those of the rule.
static MATCHED: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static LAST_POINT: Cell<&'static str> = const { Cell::new("") };
    static HERE: RefCell<Option<(PathBuf, Option<String>)>> = const { RefCell::new(None) };
}

pub(super) fn record_here(trace: Option<(PathBuf, Option<String>)>) {
    LAST_POINT.set("");
    MATCHED.store(0, Ordering::Relaxed);
    HERE.replace(trace);
}

/// What is known of a change before it is made.
enum Before {
    /// The file is opened or made.
    Open {
        is_there: bool,
    },
    /// These folders are missing, the highest first.
    Missing(Vec<PathBuf>),
    Nothing,
}

pub(super) fn point(name: &'static str) {
    LAST_POINT.set(name);
    let Some(trace) = trace() else { return };
    let _turn = turn();
    write(&trace, &json!({"op": "point", "name": name, "thread": format!("{:?}", std::thread::current().id())}));
}

pub(super) fn change<T>(change: &Change<'_>, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(trace) = trace() else { return make() };
    let _turn = turn();
    let before = before(change);
    let made = make()?;
    describe(change, before).iter().for_each(|line| write(&trace, line));
    Ok(made)
}

/// Returns whether a sync is one of those that a test leaves out.
pub(super) fn is_left_out(sync: &Change<'_>) -> bool {
    let Some(rule) = skipped() else { return false };
    let (rule, number) = rule.split_once('#').map_or((rule.as_str(), None), |(rule, number)| (rule, number.parse::<u32>().ok()));
    let (rule, point) = rule.split_once('@').map_or((rule, None), |(rule, point)| (rule, Some(point)));
    let (wanted, part) = rule.split_once(':').unwrap_or((rule, ""));
    let (operation, path) = match sync {
        Change::SyncData(file) => ("sync_data", path_of(file)),
        Change::SyncAll(file) => ("sync_all", path_of(file)),
        Change::SyncFolder(folder) => ("sync_folder", folder.display().to_string()),
        Change::Open(_)
        | Change::Write { .. }
        | Change::Cut { .. }
        | Change::Link { .. }
        | Change::Rename { .. }
        | Change::Remove(_)
        | Change::Folders(_) => return false,
    };
    let is_there = part.strip_suffix('$').map_or_else(|| path.contains(part), |end| path.ends_with(end));
    let matches = wanted == operation && is_there && point.is_none_or(|point| point == LAST_POINT.get());
    matches && number.is_none_or(|number| MATCHED.fetch_add(1, Ordering::Relaxed) + 1 == number)
}

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn trace() -> Option<PathBuf> {
    let here = HERE.with_borrow(|here| here.as_ref().map(|(trace, _)| trace.clone()));
    here.or_else(|| std::env::var_os("B24_DISK_TRACE").map(PathBuf::from))
}

fn skipped() -> Option<String> {
    HERE.with_borrow(|here| here.as_ref().map(|(_, rule)| rule.clone())).unwrap_or_else(|| std::env::var("B24_DISK_SKIP").ok())
}

fn before(change: &Change<'_>) -> Before {
    match change {
        Change::Open(path) => Before::Open { is_there: path.symlink_metadata().is_ok() },
        Change::Folders(path) => {
            let missing = path.ancestors().take_while(|folder| !folder.exists()).map(Path::to_owned);
            Before::Missing(missing.collect::<Vec<_>>().into_iter().rev().collect())
        }
        Change::Write { .. }
        | Change::Cut { .. }
        | Change::SyncData(_)
        | Change::SyncAll(_)
        | Change::SyncFolder(_)
        | Change::Link { .. }
        | Change::Rename { .. }
        | Change::Remove(_) => Before::Nothing,
    }
}

fn describe(change: &Change<'_>, before: Before) -> Vec<Value> {
    vec![match (change, before) {
        (Change::Open(path), Before::Open { is_there: false }) => json!({"op": "create", "path": path, "file": number_at(path)}),
        (Change::Folders(_), Before::Missing(missing)) => {
            return missing.into_iter().map(|path| json!({"op": "mkdir", "path": path})).collect();
        }
        (Change::Open(_) | Change::Folders(_), _) => return Vec::new(),
        (Change::Write { file, at, bytes }, _) => json!({"op": "write", "file": number(file), "at": at, "bytes": hex::encode(bytes)}),
        (Change::Cut { file, length }, _) => json!({"op": "cut", "file": number(file), "length": length}),
        (Change::SyncData(file), _) => json!({"op": "sync_data", "file": number(file)}),
        (Change::SyncAll(file), _) => json!({"op": "sync_all", "file": number(file)}),
        (Change::SyncFolder(folder), _) => json!({"op": "sync_folder", "path": folder}),
        (Change::Link { name, .. }, _) => json!({"op": "link", "path": name, "file": number_at(name)}),
        (Change::Rename { from, to }, _) => json!({"op": "rename", "from": from, "path": to, "file": number_at(to)}),
        (Change::Remove(path), _) => json!({"op": "remove", "path": path}),
    }]
}

fn number(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.ino())
}

fn number_at(path: &Path) -> u64 {
    path.symlink_metadata().map_or(0, |metadata| metadata.ino())
}

/// Returns a name under which an open file stands.
fn path_of(file: &File) -> String {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link).map(|path| path.display().to_string()).unwrap_or_default()
}

/// A trace that cannot be written proves nothing.
fn write(trace: &Path, line: &Value) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(trace);
    if file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())).is_err() {
        std::process::abort();
    }
}
