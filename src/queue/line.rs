//! The lines of the inbox journal: `<sum><link> <compact JSON>\n`, 8 hex digits
//! each.
//!
//! `sum` is the CRC-32C of the JSON. `link` is a running checksum over the sums
//! of all lines up to this one ([`Tip`]): a line that was removed, doubled,
//! moved or comes from another file does not fit the one before it. Lines of
//! earlier versions have no link; they count into that of the first new one,
//! and none may follow it.
//!
//! Protocol of one event:
//!
//! | line | meaning | must be on disk before |
//! |--|--|--|
//! | `Received` | b24 has it | the handler sees it; the source is told so |
//! | `Started` | a worker has it | the handler sees it |
//! | `Ended` | what the handler made of it | the portal's row is cleared |
//! | `Buried` | its dead letter is on disk | the portal's row is cleared |
//! | `Settled` | the source was told; the event is over | - |
//!
//! A call that takes events from the portal is announced (`Calling`) before it
//! leaves and closed (`Called`) when its answer is in the inbox: what is left
//! open tells the next worker that an answer may have been lost.

use super::event::{EventKey, Origin};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::fmt;

/// One line. (Externally tagged: the other forms of serde lose the tokens of
/// numbers.)
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// An event was taken in.
    Received(Received),
    /// An event came again under another reservation.
    Moved { seq: u64, origin: Origin },
    /// A worker hands events to the handler; after `until` its claim has lapsed,
    /// whatever became of it.
    Started { worker: String, until: i64, seqs: Vec<u64> },
    /// A handler's verdict.
    Ended { seq: u64, worker: String, at: i64, verdict: Verdict },
    /// Nobody knows how far the handler came.
    Interrupted { seqs: Vec<u64> },
    /// The dead letters of these are on disk.
    Buried { seqs: Vec<u64> },
    /// The sources know that these are over.
    Settled { at: i64, seqs: Vec<u64> },
    /// Events came again.
    Known { count: u64 },
    /// An event that is over came again and must be settled again.
    Again { seq: u64, key: EventKey, origin: Origin, worker: String },
    /// A call to the offline queue is about to leave.
    Calling(OpenCall),
    /// Its outcome is known.
    Called { nonce: String },
    /// A reservation on the portal that is not ours was seen first.
    Foreign { process: String, at: i64 },
    /// A snapshot ends: the lines before it are what a compacted journal begins
    /// with.
    Snapshot { next_seq: u64, counters: Counters, keys: Vec<(EventKey, i64)> },
    /// State of an event within a snapshot.
    State { seq: u64, failures: u32, starts: u32, interrupted: u32, due: i64, phase: PhaseLine },
}

/// An event that was taken in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) seq: u64,
    pub(super) key: EventKey,
    pub(super) name: String,
    pub(super) entity: String,
    pub(super) order: u64,
    pub(super) at: i64,
    pub(super) due: i64,
    pub(super) origin: Origin,
    /// Last, so that what is looked for in a long line comes first.
    pub(super) payload: Box<RawValue>,
}

/// What a handler made of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    /// It is done.
    Done,
    /// It is to be tried later, which costs nothing.
    Later { due: i64 },
    /// It failed and is tried again.
    Failed { due: i64 },
    /// It failed for the last time.
    Dead { reason: String, error: String },
}

/// A call to the offline queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCall {
    /// What its ledger record is called by.
    pub nonce: String,
    /// What kind of call it is.
    pub kind: CallKind,
    /// The worker that makes it.
    pub worker: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// What a call to the offline queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallKind {
    /// Takes events: a lost answer hides them.
    Reserve,
    /// Reads again, marks or clears: harmless to repeat.
    Repeatable,
}

/// Phase of an event within a snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PhaseLine {
    Waiting,
    Running { worker: String, until: i64 },
    Done { worker: String },
    Dead { worker: String, reason: String, error: String, buried: bool },
}

/// What happened since the inbox was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Events taken in.
    pub received: u64,
    /// Deliveries of events that were known already.
    pub duplicates: u64,
    /// Events that the handler finished.
    pub handled: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts put off by the handler.
    pub later: u64,
    /// Events that went to the dead letters.
    pub dead: u64,
    /// Attempts broken off by a crash: each may have been handled twice.
    pub interrupted: u64,
}

/// Where a chain of lines has come to: a checksum over the checksums of all
/// lines so far. Two chains that differ in one line or its place differ in
/// every later tip, but for one case in 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tip(u32);

impl Tip {
    /// The beginning of the chain of one journal.
    pub(super) fn start(number: u64) -> Tip {
        Tip(crc32c::crc32c(&number.to_be_bytes()))
    }

    /// The chain with more bytes.
    pub(super) fn after(self, bytes: &[u8]) -> Tip {
        Tip(crc32c::crc32c_append(self.0, bytes))
    }

    /// Reads a tip as [`fmt::Display`] writes it.
    pub(super) fn parse(text: &[u8]) -> Option<Tip> {
        digits(text).map(Tip)
    }
}

impl fmt::Display for Tip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

/// Reads exactly eight hex digits in lower case: each number has one spelling.
fn digits(text: &[u8]) -> Option<u32> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 8 && text.bytes().all(|byte| is_digit(&byte)))?;
    u32::from_str_radix(text, 16).ok()
}

/// A line that was read.
pub(super) struct Parsed {
    pub(super) line: Line,
    sum: u32,
    link: Option<Tip>,
}

impl Parsed {
    /// Returns the chain with this line, and whether the line says the same;
    /// `None` where the line, being of an earlier version, does not say.
    pub(super) fn follow(&self, tip: Tip) -> (Tip, Option<bool>) {
        let next = tip.after(&self.sum.to_be_bytes());
        (next, self.link.map(|link| link == next))
    }
}

/// Bytes before the JSON of a line, and before that of a line of an earlier
/// version.
const HEADER: usize = 17;
const OLD_HEADER: usize = 9;

impl Line {
    /// Appends the line's bytes as the next one of a chain, which is carried
    /// on.
    pub(super) fn write(&self, buffer: &mut Vec<u8>, tip: &mut Tip) {
        let start = buffer.len();
        buffer.extend_from_slice(b"0000000000000000 ");
        // Writing a line into memory cannot fail: no map has other keys than
        // texts.
        let _ = serde_json::to_writer(&mut *buffer, self);
        let sum = crc32c::crc32c(&buffer[start + HEADER..]);
        *tip = tip.after(&sum.to_be_bytes());
        buffer[start..start + HEADER - 1].copy_from_slice(format!("{sum:08x}{tip}").as_bytes());
        buffer.push(b'\n');
    }

    /// Reads a line without its end; `None` when it is damaged.
    pub(super) fn parse(text: &[u8]) -> Option<Parsed> {
        let (header, link) = match text.get(OLD_HEADER - 1)? {
            b' ' => (OLD_HEADER, None),
            _ if *text.get(HEADER - 1)? == b' ' => (HEADER, Some(Tip::parse(&text[8..HEADER - 1])?)),
            _ => return None,
        };
        let (sum, json) = (digits(&text[..8])?, &text[header..]);
        if crc32c::crc32c(json) != sum {
            return None;
        }
        Some(Parsed { line: serde_json::from_slice(json).ok()?, sum, link })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert, proptest};

    #[test]
    fn a_line_keeps_the_tokens_of_the_portal() {
        let payload = r#"{"ID":"1","n":1.10,"big":123456789012345678901234567890}"#;
        let line = Line::Received(Received {
            seq: 1,
            key: EventKey::of("k"),
            name: "ONX".to_owned(),
            entity: "x:1".to_owned(),
            order: 1,
            at: 5,
            due: 0,
            origin: Origin::Online,
            payload: RawValue::from_string(payload.to_owned()).unwrap(),
        });
        let mut bytes = Vec::new();
        line.write(&mut bytes, &mut Tip::start(1));
        let Some(Line::Received(read)) = Line::parse(&bytes[..bytes.len() - 1]).map(|parsed| parsed.line) else { panic!("not read") };
        assert_eq!(read.payload.get(), payload);
    }

    proptest! {
        #[test]
        fn a_damaged_line_is_never_read(place in 0_usize..60, bit in 0_u8..8) {
            let mut bytes = Vec::new();
            Line::Buried { seqs: vec![1, 2, 3, 44, 555, 6666, 77777, 888_888, 9_999_999] }.write(&mut bytes, &mut Tip::start(1));
            bytes.pop();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            // What a change of the link says is seen by who follows the chain.
            let follows = Line::parse(&bytes).map(|parsed| parsed.follow(Tip::start(1)).1);
            prop_assert!(follows.is_none() || follows == Some(Some(false)));
        }
    }
}
