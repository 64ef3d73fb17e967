//! How often a record was dispatched, said in a second place.
//!
//! A record whose end was cut, which was emptied, deleted or replaced by an
//! older copy, can look like one that was never dispatched. So the n-th
//! dispatch gives the record a second name, `sent/<record>.n`. The names are
//! hard links: they cost no new file, and are asked for without reading a
//! folder. Whoever reads a record with n dispatches looks for the name
//! `.n+1`: when it is there, the record lost something. A second name without
//! a record means that the record is missing, and still holds what was in it.
//! Neither is ever executed; a person settles it
//! ([`Ledger::resolve`](super::Ledger::resolve)). The names are not
//! synchronised: a loss of power takes none of a record's lines, and damage
//! none of the names.
//!
//! The order, under the record's lock: `D` durable, folder durable, name, first
//! byte. And at the end: names away, the last one first, and synchronised, then
//! the record: a loss of power must not bring back a name without a record. A
//! crash between two steps leaves a record that says more than its names, which
//! is no contradiction; the next reader adds them. So it does for records of a
//! version that had no such names.
//!
//! | Lost or damaged | The record alone says | Record and names say |
//! |--|--|--|
//! | everything behind `C` | claimed: execute | damaged |
//! | the second `D` of `C D N D` and what follows | not executed: execute | damaged |
//! | the second generation | the answer of the first | damaged |
//! | the file | nothing: execute | missing |
//! | the outcome only | unknown | unknown |
//!
//! The records of a worker's own calls have no such names: their keys are used
//! once, and the worker's journal knows them.

use super::chain;
use super::record::{Line, Record};
use super::{Ledger, LedgerError};
use crate::crash;
use crate::store::disk;
use crate::store::locked::{self, Locked, StoreError};
use std::io;
use std::path::{Path, PathBuf};

/// The second names of a record.
#[derive(Debug)]
pub(super) struct Names {
    record: PathBuf,
    base: PathBuf,
}

impl Names {
    /// Returns the name that the n-th dispatch gives.
    fn of(&self, number: usize) -> PathBuf {
        let mut name = self.base.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Gives the name of the n-th dispatch.
    pub(super) fn give(&self, number: usize) -> Result<(), StoreError> {
        let name = self.of(number);
        let given = crash::fault("store.witness").and_then(|()| match disk::link(&self.record, &name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let folder = name.parent().unwrap_or(Path::new("/"));
                disk::create_folders(folder)?;
                disk::link(&self.record, &name)
            }
            given => given,
        });
        match given {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(StoreError::io("create", &name)(error)),
            _ => {}
        }
        crash::point("store.witness.written");
        Ok(())
    }

    fn is_given(&self, number: usize) -> Result<bool, StoreError> {
        is_there(&self.of(number))
    }
}

/// Names that were taken away, and may come back with a loss of power.
#[must_use = "a record goes after its names are gone from the disk"]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Forgotten {
    has_any: bool,
}

impl Forgotten {
    pub(super) fn and(self, other: Forgotten) -> Forgotten {
        Forgotten { has_any: self.has_any || other.has_any }
    }
}

fn is_there(name: &Path) -> Result<bool, StoreError> {
    match crash::fault("store.witness_read").and_then(|()| std::fs::symlink_metadata(name)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(StoreError::io("read", name)(error)),
    }
}

/// Returns how often a record says that it was dispatched.
pub(super) fn dispatches(record: &Record) -> usize {
    record.lines.iter().filter(|line| matches!(line, Line::D(_))).count()
}

impl Ledger {
    /// Returns the second names of a record.
    pub(super) fn names(&self, name: &str) -> Names {
        Names { record: self.record_path(name), base: self.sent().join(name) }
    }

    fn sent(&self) -> PathBuf {
        self.folder.join("sent")
    }

    /// Reads a record under its lock and compares it with its names, which are
    /// completed.
    pub(super) fn read_record(&self, file: &mut Locked, name: &str) -> Result<Record, LedgerError> {
        let bytes = file.read_all()?;
        let record = self.examine(&bytes, name)?.map_err(|problem| LedgerError::damaged(name, file.path(), problem))?;
        let count = dispatches(&record);
        let names = self.names(name);
        if count > 0 && !is_of_worker(&record) && !names.is_given(count)? {
            (1..=count).try_for_each(|number| names.give(number))?;
        }
        Ok(record)
    }

    /// Compares the bytes of a record with its names.
    pub(super) fn examine(&self, bytes: &[u8], name: &str) -> Result<Result<Record, String>, StoreError> {
        let record = match chain::parse(bytes) {
            Ok(record) => record,
            Err(problem) => return Ok(Err(problem)),
        };
        if !is_of_worker(&record) && self.names(name).is_given(dispatches(&record) + 1)? {
            return Ok(Err("lost its end: it was dispatched more often than it says".to_owned()));
        }
        Ok(Ok(record))
    }

    /// Returns whether a record was dispatched once, whatever became of it.
    pub(super) fn was_dispatched(&self, name: &str) -> Result<bool, StoreError> {
        self.names(name).is_given(1)
    }

    /// Refuses a record that was just created although it was dispatched
    /// before, and takes it away again.
    pub(super) fn refuse_missing(&self, file: Locked, name: &str) -> Result<Locked, LedgerError> {
        if !self.was_dispatched(name)? {
            return Ok(file);
        }
        let path = file.path().to_owned();
        file.remove()?;
        Err(missing(name, &path))
    }

    /// Returns the numbers of the dispatches that left a name, the last first.
    pub(super) fn names_of_dispatches(&self, name: &str) -> Result<Vec<usize>, StoreError> {
        let names = super::admin::names_in(&self.sent())?;
        let numbers = names.iter().filter_map(|other| other.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        let mut numbers: Vec<usize> = numbers.collect();
        numbers.sort_unstable_by(|one, other| other.cmp(one));
        Ok(numbers)
    }

    /// Takes the names of dispatches away, given from the last to the first.
    /// They count as gone when this is passed to [`Ledger::sync_names`].
    pub(super) fn forget_dispatches(&self, name: &str, numbers: impl Iterator<Item = usize>) -> Result<Forgotten, StoreError> {
        let names = self.names(name);
        let mut forgotten = Forgotten { has_any: false };
        for number in numbers {
            let link = names.of(number);
            match crash::fault("store.witness_remove").and_then(|()| disk::remove(&link)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io("delete", &link)(error)),
                removed => forgotten.has_any |= removed.is_ok(),
            }
            crash::point("store.witness.removed");
        }
        Ok(forgotten)
    }

    /// Waits until names that were taken away are gone from the disk.
    pub(super) fn sync_names(&self, forgotten: Forgotten) -> Result<(), StoreError> {
        if forgotten.has_any { locked::sync_parent(&self.sent().join("any")) } else { Ok(()) }
    }

    /// Returns the bytes of a missing record that one of its names still holds.
    pub(super) fn remains(&self, name: &str, numbers: &[usize]) -> Vec<u8> {
        let names = self.names(name);
        numbers.first().and_then(|number| locked::read_if_exists(&names.of(*number)).ok()?).unwrap_or_default()
    }

    /// Returns the names of the records that were dispatched and have no file.
    pub(super) fn missing_records(&self) -> Result<Vec<String>, StoreError> {
        let mut missing = Vec::new();
        for entry in super::admin::names_in(&self.sent())? {
            let Some(name) = entry.strip_suffix(".1").filter(|name| name.len() == 64) else { continue };
            // A record may be on its way out: then its names went first.
            if !self.record_path(name).exists() && self.was_dispatched(name)? {
                missing.push(name.to_owned());
            }
        }
        Ok(missing)
    }

    /// Puts the bytes of a damaged file aside, where nothing reads them but a
    /// person. Returns the place.
    pub(super) fn keep_aside(&self, name: &str, bytes: &[u8]) -> Result<PathBuf, StoreError> {
        let folder = self.folder.join("damaged");
        crate::store::create_folder(&folder)?;
        let time = self.now().replace(':', "");
        let place = folder.join(format!("{name}.{time}-{}", crate::host::random_hex(self.random.as_ref(), 4)));
        crate::store::locked::create_durable(&place, bytes, &crate::store::temporary_name(self.random.as_ref()))?;
        Ok(place)
    }
}

/// Says that a record is gone.
pub(super) fn missing(name: &str, path: &Path) -> LedgerError {
    LedgerError::damaged(name, path, "is missing although its write was dispatched".to_owned())
}

fn is_of_worker(record: &Record) -> bool {
    record.claim().is_some_and(|claim| claim.key.starts_with(super::ONCE))
}
