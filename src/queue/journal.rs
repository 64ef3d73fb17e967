//! The files of an inbox: `inbox-N.jsonl`, the highest N counts.
//!
//! Protocol: whoever works on the inbox holds `inbox.lock` from reading the
//! lines that others appended to appending his own; so several workers are one.
//! Bytes behind the last line end are the rest of a killed writer and are cut
//! by the next holder of the lock. A line that cannot be read anywhere else is
//! damage, and nothing goes on. A journal that is mostly history is replaced:
//! a snapshot is written and synchronised as `inbox-(N+1).jsonl`, and only
//! then the old file is deleted; a crash between the two leaves both, and the
//! higher one is complete.

use super::line::Line;
use super::state::{Place, State};
use crate::crash;
use crate::host::Random;
use crate::store::locked::{self, Locked, Mode, StoreError};
use crate::store::{create_folder, temporary_name};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a worker may keep the inbox; it holds no more than two syncs.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The journal of an inbox as one process has read it.
pub(super) struct Journal {
    folder: PathBuf,
    number: u64,
    /// Everything before this offset is in the state.
    position: u64,
    /// How long the file was when it was made by compaction.
    base: u64,
}

/// The journal while this process may change it.
pub(super) struct Held {
    _lock: Locked,
    file: Locked,
}

impl Journal {
    /// Finds the journal of a folder, or makes the folder.
    pub(super) fn find(folder: &Path) -> Result<Journal, StoreError> {
        create_folder(folder)?;
        Ok(Journal { folder: folder.to_owned(), number: 0, position: 0, base: 0 })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("inbox-{number:06}.jsonl"))
    }

    /// Takes the lock and brings the state up to date.
    pub(super) fn lock(&mut self, state: &mut State) -> Result<Held, StoreError> {
        let lock = Locked::open(&self.folder.join("inbox.lock"), Mode::Exclusive, LOCK_WAIT)?;
        let newest = self.newest()?;
        if newest != self.number {
            *state = State::default();
            (self.number, self.position, self.base) = (newest, 0, 0);
        }
        let path = self.path(self.number);
        let is_new = !path.exists();
        let file = Locked::open(&path, Mode::Exclusive, LOCK_WAIT)?;
        if is_new {
            locked::sync_parent(&path)?;
        }
        let mut held = Held { _lock: lock, file };
        match self.refresh(&mut held, state) {
            Ok(()) => Ok(held),
            Err(error) => {
                // The state has a part of what the file says.
                self.rewind();
                Err(error)
            }
        }
    }

    /// Returns the highest number there is; deletes what a crash left of
    /// lower ones.
    fn newest(&self) -> Result<u64, StoreError> {
        if self.number > 0 && self.path(self.number).exists() && !self.path(self.number + 1).exists() {
            return Ok(self.number);
        }
        let entries = std::fs::read_dir(&self.folder).map_err(StoreError::io("read", &self.folder))?;
        let number = |name: &str| name.strip_prefix("inbox-")?.strip_suffix(".jsonl")?.parse::<u64>().ok();
        let numbers: Vec<u64> = entries.filter_map(|entry| number(&entry.ok()?.file_name().to_string_lossy())).collect();
        let newest = numbers.iter().copied().max().unwrap_or(1);
        for old in numbers.into_iter().filter(|number| *number < newest) {
            let _ = std::fs::remove_file(self.path(old));
        }
        Ok(newest)
    }

    fn refresh(&mut self, held: &mut Held, state: &mut State) -> Result<(), StoreError> {
        let length = held.file.length()?;
        if length < self.position {
            return Err(StoreError::unusable(held.file.path(), "is shorter than before; it was replaced by something else"));
        }
        if length == self.position {
            return Ok(());
        }
        let tail = held.file.read_from(self.position)?;
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        let mut offset = self.position;
        for text in tail[..complete].split_inclusive(|byte| *byte == b'\n') {
            let line = Line::parse(&text[..text.len() - 1])
                .ok_or_else(|| StoreError::unusable(held.file.path(), format!("has a damaged line at byte {offset}")))?;
            let is_end_of_snapshot = matches!(line, Line::Snapshot { .. });
            state.apply(line, Place { offset, length: text.len().try_into().unwrap_or(u32::MAX) });
            offset += text.len() as u64;
            if is_end_of_snapshot {
                self.base = offset;
            }
        }
        if complete < tail.len() {
            held.file.truncate(offset)?;
        }
        self.position = offset;
        Ok(())
    }

    /// Appends lines whose effect the state has already; `durable` waits for
    /// the disk.
    pub(super) fn append(&mut self, held: &mut Held, bytes: &[u8], durable: bool) -> Result<(), StoreError> {
        crash::point("queue.before_append");
        held.file.append(bytes)?;
        self.position += bytes.len() as u64;
        crash::point("queue.after_append");
        if durable {
            held.file.sync_data()?;
            crash::point("queue.after_sync");
        }
        Ok(())
    }

    /// Returns where the next line will stand.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the length at the last compaction.
    pub(super) fn base(&self) -> u64 {
        self.base
    }

    /// Says that the journal is to grow again before it is compacted.
    pub(super) fn put_off_compaction(&mut self) {
        self.base = self.position;
    }

    /// Forgets what was read: the next lock reads everything.
    pub(super) fn rewind(&mut self) {
        self.number = 0;
    }

    /// Reads the line of an event.
    pub(super) fn read(held: &mut Held, place: Place) -> Result<Line, StoreError> {
        let text = held.file.read_range(place.offset, place.length as usize)?;
        let line = text.strip_suffix(b"\n").and_then(Line::parse);
        line.ok_or_else(|| StoreError::unusable(held.file.path(), format!("has a damaged line at byte {}", place.offset)))
    }

    /// Replaces the journal by a snapshot; the next lock reads it.
    pub(super) fn replace(&mut self, held: Held, snapshot: &[u8], random: &dyn Random) -> Result<(), StoreError> {
        let next = self.path(self.number + 1);
        if locked::create_durable(&next, snapshot, &temporary_name(random))? {
            crash::point("queue.between_journals");
            held.file.remove()?;
        }
        self.rewind();
        Ok(())
    }
}
