//! The audit log: an append-only, hash-chained file of JSON lines.
//!
//! A write is bracketed by two records of one request id: its `intent` is
//! durable before the request leaves, its `outcome` follows the answer. Each
//! record names the hash of its predecessor (`line.rs` has the format), so that
//! nothing in the middle can be changed, removed, moved or inserted unseen. That
//! records are missing at the end shows `head.rs`: nothing is appended then.
//!
//! `audit.lock` guards all files. Appending reads the end of the current
//! segment, repairs what a crash left (`journal.rs`), writes the line in one
//! piece and, when asked, waits for the disk. At 64 MiB, or at the first record
//! of a new day (UTC), the segment is ended and renamed to `seg-N.jsonl`; the
//! chain goes on in a new file.
//!
//! An outcome that cannot be appended is put beside the log ([`AuditLog::spool`])
//! and appended before the next record, with the time of the failure in
//! `spooled`. A crash in between may append it twice; the verifier knows.

mod head;
mod journal;
mod line;
mod lines;
mod params;
mod place;
mod spool;
mod tail;
mod verify;

pub use params::describe_params;
pub use place::AuditPlace;
pub use tail::{Tail, TailLine};
pub use verify::{OpenIntent, Problem, Report};

use crate::host::{Clock, Random};
use crate::store::locked::{Locked, Mode, StoreError, read_if_exists};
use head::Head;
use journal::Journal;
use place::Place;
use serde_json::{Map, Value};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// A segment is ended when it has grown to this length.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// How long a reader waits for the lock.
const READ_WAIT: Duration = Duration::from_secs(10);

/// Whether an appended record must survive a loss of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk when the call returns.
    Durable,
    /// In the hands of the system; for reads.
    Lazy,
}

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Receipt {
    /// Its number, counted from 1 through all segments.
    pub seq: u64,
    /// Its hash, which the next record names.
    pub hash: String,
    /// Only the log can say that a record is in it.
    #[serde(skip)]
    issued: Issued,
}

/// What only this module can make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Issued;

/// The audit log of this installation.
pub struct AuditLog {
    place: Place,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    boot_id: String,
    segment_bytes: u64,
}

impl AuditLog {
    /// Takes the place; nothing is created or read before the first use.
    #[must_use]
    pub fn open(place: AuditPlace, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> AuditLog {
        let boot_id = clock.boot_id();
        AuditLog { place: Place::new(place), clock, random, boot_id, segment_bytes: SEGMENT_BYTES }
    }

    /// Appends a record made of `seq`, `prev`, `ts`, `boot` and the given
    /// fields; given fields of these names are left out. `wait` is for the lock.
    ///
    /// # Errors
    /// After an error the record is not in the log, and a write whose intent
    /// it was must not be sent.
    pub fn append(&self, fields: &Map<String, Value>, durability: Durability, wait: Duration) -> Result<Receipt, StoreError> {
        self.place.create_folders()?;
        let _lock = Locked::open(&self.place.lock(), Mode::Exclusive, wait)?;
        let mut journal = Journal::open(self, wait)?;
        let waiting = spool::waiting(self.place.spool())?;
        let start = journal.end();
        for spooled in &waiting {
            journal.write(&spooled.fields).inspect_err(|_| journal.cut(start))?;
        }
        journal.write(fields).inspect_err(|_| journal.cut(start))?;
        if durability == Durability::Durable || !waiting.is_empty() {
            journal.sync(start)?;
            Head::write(self, journal.tip(), wait).inspect_err(|_| journal.cut(start))?;
        }
        spool::done(&waiting);
        Ok(Receipt { seq: journal.tip().seq, hash: journal.tip().hash.clone(), issued: Issued })
    }

    /// Keeps a record that could not be appended; the next append takes it in
    /// first. Durable when it returns, but nobody can promise that it works:
    /// the log has just failed.
    pub fn spool(&self, fields: &Map<String, Value>) -> Result<(), StoreError> {
        spool::keep(self, fields)
    }

    /// Finds the last `count` lines; writers wait only while they are found.
    pub fn tail(&self, count: usize) -> Result<Tail, StoreError> {
        tail::find(self, count)
    }

    /// Checks the whole chain; writers wait only while the files are opened.
    pub fn verify(&self) -> Result<Report, StoreError> {
        verify::verify(self)
    }

    /// Locks for reading. A log that cannot be written, such as a copy on a
    /// read-only medium, has no writers to be kept out.
    fn read_lock(&self) -> Result<Option<Locked>, StoreError> {
        let path = self.place.lock();
        if read_if_exists(&path)?.is_none() {
            return Ok(None);
        }
        match Locked::open(&path, Mode::Shared, READ_WAIT) {
            Err(StoreError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                Ok(None)
            }
            locked => locked.map(Some),
        }
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tests;
