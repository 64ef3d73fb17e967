//! How far the log is known to reach, said beside it.
//!
//! The chain alone cannot show that records are missing at its end, or that
//! the log is an older copy, or gone. So number and hash of the last record
//! that is on disk stand in a small file beside the log, which is overwritten
//! in place, under the log's lock. It is written after the record was
//! synchronised: a loss of power never leaves it ahead of the log. When it
//! cannot be read, it says nothing. What was appended without waiting for the disk, reads and refusals, is
//! not counted.

use super::AuditLog;
use super::journal::Tip;
use crate::store::locked::{Locked, Mode, StoreError, read_if_exists};
use std::time::Duration;

/// The last record that is known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
}

impl Head {
    /// Reads it; `None` when there is none, or none that can be read.
    pub(super) fn read(log: &AuditLog) -> Result<Option<Head>, StoreError> {
        let bytes = read_if_exists(log.place.head())?.unwrap_or_default();
        Ok(std::str::from_utf8(&bytes).ok().and_then(|text| {
            let (text, check) = text.lines().next()?.split_once(' ')?;
            let (seq, hash) = text.split_once('.')?;
            (check == check_of(text)).then_some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() })
        }))
    }

    pub(super) fn write(log: &AuditLog, tip: &Tip, wait: Duration) -> Result<(), StoreError> {
        let text = format!("{}.{}", tip.seq, tip.hash);
        let line = format!("{text} {}\n", check_of(&text));
        Locked::open(log.place.head(), Mode::Exclusive, wait)?.write_at(0, line.as_bytes())
    }

    /// Refuses to go on with a log that does not reach as far.
    pub(super) fn check(&self, log: &AuditLog, tip: &Tip) -> Result<(), StoreError> {
        let problem = match tip.seq.cmp(&self.seq) {
            std::cmp::Ordering::Less => format!("ends with record {}, but {} were written", tip.seq, self.seq),
            std::cmp::Ordering::Equal if tip.hash != self.hash => format!("holds another record {} than was written", self.seq),
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => return Ok(()),
        };
        let next = format!(
            "Put the log back from a copy, or look at it with b24 audit verify; a person who moves the log and {} away begins a new one",
            log.place.head().display()
        );
        Err(StoreError::lost(log.place.current(), problem, next))
    }
}

fn check_of(text: &str) -> String {
    format!("{:08x}", crc32c::crc32c(text.as_bytes()))
}
