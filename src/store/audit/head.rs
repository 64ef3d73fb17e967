//! How far the log is known to reach, said beside it.
//!
//! The chain alone cannot show that records are missing at its end, or that
//! the log is an older copy, or gone. So number and hash of the last record
//! that is on disk stand in a [`Witness`] beside the log. It is written after
//! the record was synchronised: a loss of power never leaves it ahead of the
//! log. What was appended without waiting for the disk, reads and refusals, is
//! not counted.

use super::AuditLog;
use super::journal::Tip;
use crate::store::locked::StoreError;

/// The last record that is known to be on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) hash: String,
}

impl Head {
    /// Reads it; `None` when there is none, or none that can be read.
    pub(super) fn read(log: &AuditLog) -> Result<Option<Head>, StoreError> {
        let text = log.place.head().read()?;
        Ok(text.as_deref().and_then(|text| {
            let (seq, hash) = text.strip_prefix("1.")?.split_once('.')?;
            Some(Head { seq: seq.parse().ok()?, hash: hash.to_owned() })
        }))
    }

    pub(super) fn write(log: &AuditLog, tip: &Tip) -> Result<(), StoreError> {
        log.place.head().write(&format!("1.{}.{}", tip.seq, tip.hash), log.random.as_ref())
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
            log.place.head().path().display()
        );
        Err(StoreError::lost(log.place.current(), problem, next))
    }
}
