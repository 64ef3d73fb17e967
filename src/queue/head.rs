//! The second witness: how far a file of the inbox was written, kept in a
//! small file beside it.
//!
//! A journal that lost its end is as valid as one that never had it. So after
//! every synchronised append its length and the tip of its chain are written
//! here, in one write that waits for no disk. Whatever kills b24, the witness
//! may lag behind the file, but never leads: what it names was on disk before.
//! A file that has less, or something else, has lost lines, and nothing goes
//! on. A file that was found damaged is marked here as refused: moved away
//! after that, it may be made anew; one that only vanished may not.

use super::line::Tip;
use crate::host::Random;
use crate::store::locked::{self, Existing, Locked, Mode, StoreError};
use crate::store::temporary_name;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Whoever has the witness has the lock of its file as well.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// Length of the witness in bytes: one sector holds it, so it is written as a
/// whole or not at all.
const LENGTH: usize = 128;

/// What the witness says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// The number of the file.
    pub(super) number: u64,
    /// How many of its bytes are on disk for certain.
    pub(super) length: u64,
    /// Where its chain is there.
    pub(super) tip: Tip,
    /// The file was found damaged, and the owner was told.
    pub(super) refused: bool,
}

/// What stands in the file.
#[derive(Serialize, Deserialize)]
struct Text {
    number: u64,
    length: u64,
    tip: String,
    refused: bool,
}

impl Head {
    /// A file that has nothing yet.
    pub(super) fn start(number: u64) -> Head {
        Head { number, length: 0, tip: Tip::start(number), refused: false }
    }

    fn to_bytes(self) -> Vec<u8> {
        let text = Text { number: self.number, length: self.length, tip: self.tip.to_string(), refused: self.refused };
        // A structure of numbers and texts can be written.
        let json = serde_json::to_string(&text).unwrap_or_default();
        let sum = Tip::start(0).after(json.as_bytes());
        format!("{:<1$}\n", format!("{sum} {json}"), LENGTH - 1).into_bytes()
    }

    /// Reads a witness; whatever is not exactly what b24 writes is none.
    fn of_bytes(bytes: &[u8]) -> Option<Head> {
        let json = std::str::from_utf8(bytes.get(9..)?).ok()?;
        let text: Text = serde_json::from_str(json).ok()?;
        let head = Head { number: text.number, length: text.length, tip: Tip::parse(text.tip.as_bytes())?, refused: text.refused };
        (head.to_bytes() == bytes).then_some(head)
    }
}

/// The witness in the hands of this process.
#[derive(Debug)]
pub(super) struct Witness(Locked);

impl Witness {
    /// Opens the witness, if there is one.
    pub(super) fn open(path: &Path) -> Result<Option<(Witness, Head)>, StoreError> {
        let mut file = match Locked::open_existing(path, Mode::Exclusive, LOCK_WAIT)? {
            Existing::Locked(file) => file,
            Existing::Held => return Err(StoreError::Busy(path.to_owned())),
            Existing::Absent => return Ok(None),
        };
        let damaged = || StoreError::unusable(path, "is damaged: it does not say how far the file beside it was written");
        let head = Head::of_bytes(&file.read_range(0, LENGTH + 1)?).ok_or_else(damaged)?;
        Ok(Some((Witness(file), head)))
    }

    /// Makes the witness; on disk when this returns.
    pub(super) fn create(path: &Path, head: &Head, random: &dyn Random) -> Result<Witness, StoreError> {
        locked::create_durable(path, &head.to_bytes(), &temporary_name(random))?;
        match Locked::open_existing(path, Mode::Exclusive, LOCK_WAIT)? {
            Existing::Locked(file) => Ok(Witness(file)),
            Existing::Held | Existing::Absent => Err(StoreError::Busy(path.to_owned())),
        }
    }

    /// Says how far the file is on disk.
    pub(super) fn write(&mut self, head: &Head) -> Result<(), StoreError> {
        self.0.write_at(0, &head.to_bytes())
    }

    /// Notes that the file was found damaged and the owner was told.
    pub(super) fn mark_refused(&mut self, head: Head) -> Result<(), StoreError> {
        if head.refused { Ok(()) } else { self.write(&Head { refused: true, ..head }) }
    }

    /// Says it, and waits for the disk: the witness takes something back.
    pub(super) fn write_durable(&mut self, head: &Head) -> Result<(), StoreError> {
        self.write(head)?;
        self.0.sync_data()
    }
}

/// What a scan of a file must come by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    pub(super) length: u64,
    pub(super) tip: Tip,
}

impl Mark {
    /// Compares the mark with a place that the scan came to; `None` when it is
    /// another place.
    pub(super) fn check(&self, length: u64, tip: Tip) -> Option<bool> {
        (length == self.length).then_some(tip == self.tip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_witness_is_read_as_it_was_written_and_not_otherwise() {
        let head = Head { number: 7, length: u64::MAX, tip: Tip::start(3), refused: false };
        let bytes = head.to_bytes();
        assert_eq!((bytes.len(), Head::of_bytes(&bytes)), (LENGTH, Some(head)));
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[place] ^= 1 << bit;
                assert_eq!(Head::of_bytes(&damaged), None, "{place} {bit}");
            }
            assert_eq!(Head::of_bytes(&bytes[..place]), None);
        }
    }
}
