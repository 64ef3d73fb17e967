//! Writing the audit log, under its lock.
//!
//! Opening repairs what a crash left, step by step in the order in which
//! things are written, so that each state has one reading:
//!
//! | Found | Left by a crash | Done |
//! |--|--|--|
//! | no current file, or an empty one | before the first record of a segment | make its name durable, go on from the last segment |
//! | bytes behind the last line end | within the write of a record | cut them, keep them in the next record's `torn` |
//! | zeroes in place of a part of a record | a loss of power before it was synchronised | the same, from this record on |
//! | a last record `segment_end` | between the end of a segment and its renaming | rename it now |
//!
//! A record counts as durable after `sync_data` alone, because the names were
//! made durable before the first record was written. A record that cannot be
//! written or synchronised is cut off again: an error means "not in the log".

use super::AuditLog;
use super::head::Head;
use super::line::{self, GENESIS, Line, SEGMENT_END};
use super::place::Place;
use crate::crash;
use crate::host::{random_hex, timestamp};
use crate::store::hole;
use crate::store::locked::{Locked, Mode, StoreError, sync_parent};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// How much of the end is read to find the last record; doubled until it fits.
const WINDOW: u64 = 64 * 1024;

/// The longest line that is written, and therefore looked for.
const LONGEST_LINE: u64 = 8 * 1024 * 1024;

/// How much of a torn tail is kept; `torn_bytes` tells its whole length.
const TORN_KEPT: usize = 64 * 1024;

/// Fields that only the chain sets.
const RESERVED: [&str; 6] = ["seq", "prev", "ts", "boot", "torn", "torn_bytes"];

/// What a new record follows.
#[derive(Debug, Clone)]
pub(super) struct Tip {
    pub(super) seq: u64,
    pub(super) hash: String,
    ts: String,
    ends_segment: bool,
}

impl Tip {
    fn genesis() -> Tip {
        Tip { seq: 0, hash: GENESIS.to_owned(), ts: String::new(), ends_segment: false }
    }
}

/// The end of a file: the last whole record and what stands behind it.
struct Tail {
    tip: Option<Tip>,
    whole: u64,
    torn: Vec<u8>,
}

/// The current segment, repaired and open for writing.
pub(super) struct Journal<'a> {
    log: &'a AuditLog,
    file: Locked,
    end: u64,
    tip: Tip,
    torn: Vec<u8>,
}

impl<'a> Journal<'a> {
    /// Opens the current segment. The caller holds the lock of the log.
    pub(super) fn open(log: &'a AuditLog, wait: Duration) -> Result<Journal<'a>, StoreError> {
        let head = Head::read(log)?;
        let mut journal = Journal::open_current(log, wait, head.as_ref())?;
        if journal.tip_is_here() && journal.tip.ends_segment {
            return journal.leave_segment(wait);
        }
        let day_is_over = journal.tip.ts.get(..10) < timestamp(log.clock.now()).get(..10);
        if journal.tip_is_here() && (journal.end >= log.segment_bytes || day_is_over) {
            journal.end_segment()?;
            return journal.leave_segment(wait);
        }
        Ok(journal)
    }

    fn open_current(log: &'a AuditLog, wait: Duration, head: Option<&Head>) -> Result<Journal<'a>, StoreError> {
        let place = &log.place;
        let mut file = Locked::open(place.current(), Mode::Exclusive, wait)?;
        let tail = read_tail(&mut file, head.map_or(0, |head| head.seq))?;
        if tail.whole == 0 && !line::is_ours(&tail.torn) {
            return Err(foreign(file.path()));
        }
        let tip = match tail.tip {
            Some(tip) => tip,
            None => tip_of_last_segment(place, wait)?,
        };
        // Before anything is repaired: what is cut off then cannot be looked at.
        head.map_or(Ok(()), |head| head.check(log, &tip))?;
        if !tail.torn.is_empty() {
            crash::point("audit.before_repair");
            file.truncate(tail.whole)?;
        }
        if tail.whole == 0 {
            place.sync_names()?;
        }
        crash::point("audit.opened");
        Ok(Journal { log, file, end: tail.whole, tip, torn: tail.torn })
    }

    /// Returns whether the last record stands in this file, not in an earlier
    /// segment.
    fn tip_is_here(&self) -> bool {
        self.end > 0
    }

    pub(super) fn tip(&self) -> &Tip {
        &self.tip
    }

    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes one record behind the last one.
    pub(super) fn write(&mut self, fields: &Map<String, Value>) -> Result<(), StoreError> {
        let now = timestamp(self.log.clock.now());
        let body = Value::Object(self.body(fields, &now)).to_string();
        let hash = line::hash(&self.tip.hash, body.as_bytes());
        let line = line::frame(&hash, body.as_bytes());
        let length = line.len() as u64;
        if length > LONGEST_LINE {
            return Err(StoreError::unusable(self.file.path(), format!("takes no record of {length} bytes")));
        }
        crash::point("audit.before_write");
        if let Err(error) = self.file.append(&line) {
            self.cut(self.end);
            return Err(error);
        }
        crash::point("audit.written");
        self.end += length;
        self.torn.clear();
        let ends_segment = fields.get("type").and_then(Value::as_str) == Some(SEGMENT_END);
        self.tip = Tip { seq: self.tip.seq + 1, hash, ts: now, ends_segment };
        Ok(())
    }

    /// Waits until all records are on disk; when that fails, those behind
    /// `start` are cut off again.
    pub(super) fn sync(&mut self, start: u64) -> Result<(), StoreError> {
        self.file.sync_data().inspect_err(|_| self.cut(start))?;
        crash::point("audit.synchronised");
        Ok(())
    }

    /// Cuts off what could not be written. When even that fails, the next
    /// opening finds a torn tail or a whole record, and copes with both.
    pub(super) fn cut(&mut self, end: u64) {
        let _ = self.file.truncate(end);
    }

    fn body(&self, fields: &Map<String, Value>, now: &str) -> Map<String, Value> {
        let mut body = Map::new();
        body.insert("seq".to_owned(), Value::from(self.tip.seq + 1));
        body.insert("prev".to_owned(), Value::from(self.tip.hash.as_str()));
        body.insert("ts".to_owned(), Value::from(now));
        body.insert("boot".to_owned(), Value::from(self.log.boot_id.as_str()));
        if !self.torn.is_empty() {
            body.insert("torn".to_owned(), Value::from(hex::encode(&self.torn[..self.torn.len().min(TORN_KEPT)])));
            body.insert("torn_bytes".to_owned(), Value::from(self.torn.len()));
        }
        let callers = fields.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str()));
        body.extend(callers.map(|(name, value)| (name.clone(), value.clone())));
        body
    }

    /// Writes the last record of the segment. From here on, whoever opens the
    /// file goes on with the renaming.
    pub(super) fn end_segment(&mut self) -> Result<(), StoreError> {
        let start = self.end;
        let number = next_segment(&self.log.place)?;
        let fields = [("type".to_owned(), Value::from(SEGMENT_END)), ("segment".to_owned(), Value::from(number))];
        self.write(&Map::from_iter(fields))?;
        self.sync(start)
    }

    /// Renames the ended segment and opens the next one.
    fn leave_segment(mut self, wait: Duration) -> Result<Journal<'a>, StoreError> {
        let target = self.log.place.segment(next_segment(&self.log.place)?);
        // The record that ends the segment may come from a process that died
        // before it could synchronise it.
        self.file.sync_data()?;
        crash::point("audit.before_rename");
        self.file.rename(&target)?;
        crash::point("audit.renamed");
        sync_parent(&target)?;
        sync_parent(self.log.place.current())?;
        crash::point("audit.rename_synchronised");
        let Journal { log, file, torn, .. } = self;
        // The next file follows the segment's last record and has to lock it.
        drop(file);
        let mut next = Journal::open_current(log, wait, None)?;
        next.torn = torn;
        Ok(next)
    }
}

fn next_segment(place: &Place) -> Result<u64, StoreError> {
    Ok(place.segments()?.last().map_or(1, |number| number + 1))
}

fn tip_of_last_segment(place: &Place, wait: Duration) -> Result<Tip, StoreError> {
    let Some(last) = place.segments()?.pop() else { return Ok(Tip::genesis()) };
    let path = place.segment(last);
    let tail = read_back(&mut Locked::open(&path, Mode::Shared, wait)?, Holes::AreData)?;
    match tail.tip {
        Some(tip) if tail.torn.is_empty() => Ok(tip),
        Some(_) | None => Err(StoreError::unusable(&path, "does not end with a whole record; look at it with b24 audit verify")),
    }
}

/// What zeroes are taken for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holes {
    /// The end of what is on disk.
    End,
    /// Bytes like others.
    AreData,
}

/// Finds the end of a file. Zeroes that stand before a record which is known to
/// be on disk are no loss of power but damage: `verify` tells of it.
fn read_tail(file: &mut Locked, certain: u64) -> Result<Tail, StoreError> {
    match read_back(file, Holes::End) {
        Ok(tail) if tail.tip.as_ref().map_or(0, |tip| tip.seq) >= certain => Ok(tail),
        // A disk that cannot be read has said nothing about holes.
        Err(error @ StoreError::Io { .. }) => Err(error),
        Ok(_) | Err(_) => read_back(file, Holes::AreData),
    }
}

/// Reads back from the end until a whole last line is found. The cost depends
/// on the length of that line, not on the length of the file.
fn read_back(file: &mut Locked, holes: Holes) -> Result<Tail, StoreError> {
    let length = file.length()?;
    let mut window = WINDOW;
    loop {
        let start = length.saturating_sub(window);
        let bytes = file.read_range(start, usize::try_from(length - start).unwrap_or(usize::MAX))?;
        let hole = hole::first(&bytes, start).filter(|_| holes == Holes::End);
        let last_end = bytes[..hole.unwrap_or(bytes.len())].iter().rposition(|byte| *byte == b'\n');
        let line_start = last_end.and_then(|end| bytes[..end].iter().rposition(|byte| *byte == b'\n')).map(|at| at + 1);
        match (last_end, line_start.or((start == 0).then_some(0))) {
            (None, _) if start == 0 => return Ok(Tail { tip: None, whole: 0, torn: bytes }),
            (Some(end), Some(line_start)) => {
                let tip = read_tip(&bytes[line_start..end], file.path())?;
                return Ok(Tail { tip: Some(tip), whole: start + end as u64 + 1, torn: bytes[end + 1..].to_vec() });
            }
            _ if window > 2 * LONGEST_LINE => return Err(foreign(file.path())),
            _ => window *= 2,
        }
    }
}

fn read_tip(bytes: &[u8], path: &Path) -> Result<Tip, StoreError> {
    if !line::is_ours(bytes) {
        return Err(foreign(path));
    }
    let Some(line) = Line::parse(bytes).filter(Line::is_genuine) else {
        return Err(StoreError::unusable(path, "has a damaged last record; look at it with b24 audit verify"));
    };
    let ends_segment = line.head.is(SEGMENT_END);
    Ok(Tip { seq: line.head.seq, hash: line.hash.to_owned(), ts: line.head.ts, ends_segment })
}

fn foreign(path: &Path) -> StoreError {
    StoreError::unusable(path, "does not end as an audit log of b24; it is left alone, name another file for the audit log")
}

/// Returns a name for a temporary file that nobody else uses.
pub(super) fn temporary_name(log: &AuditLog) -> String {
    format!(".{}-{}", std::process::id(), random_hex(log.random.as_ref(), 8))
}
