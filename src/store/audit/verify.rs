//! Checking the chain from its first record to its last.
//!
//! Every line must have the one possible frame, the hash of its content, the
//! next number and the predecessor's hash; `segment_end` stands at the end of
//! each segment and nowhere else. Beyond the chain, outcomes are matched with
//! intents.
//!
//! The files are read in a stream, and what is kept of them is bounded, so that
//! a log of any length takes less than 16 MB: requests are kept as digests, and
//! of those that are closed only a filter is kept. What the filter takes for an
//! outcome too many is looked for in a second reading, which is exact.

use super::head::Head;
use super::line::{GENESIS, Line, SEGMENT_END};
use super::lines::Lines;
use super::{AuditLog, Receipt, spool};
use crate::store::locked::StoreError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What no verification of the files alone can see.
const LIMITS: &str = "Who shortens the log and takes its head away with it is not detectable without a checkpoint kept elsewhere";

/// More problems, open intents and repairs than this are only counted.
const MOST_PROBLEMS: usize = 1_000;

/// More open intents than this are not told apart; a log that ends well has as
/// many as there are processes.
const MOST_OPEN: usize = 30_000;

/// Longer request ids are shown as their digest.
const LONGEST_ID: usize = 64;

/// Bits of the filter of closed requests; 1 MB. With ten million requests it
/// takes most for closed, and the second reading decides more often.
const FILTER_BITS: usize = 1 << 23;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The number of the record, as far as the chain tells.
    pub seq: u64,
    /// The name of the file.
    pub file: String,
    /// What is wrong.
    pub text: String,
}

/// A write that was about to be sent and whose outcome is not recorded: it is
/// being sent now, or its process died.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpenIntent {
    /// The number of the record.
    pub seq: u64,
    /// The request.
    pub request_id: String,
}

/// What a verification found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// How many lines were read.
    pub records: u64,
    /// How many files were read.
    pub files: u64,
    /// The last record; keep it elsewhere to detect a shortened log.
    pub last: Option<Receipt>,
    /// What is wrong, the first thousand.
    pub problems: Vec<Problem>,
    /// How many problems there are.
    pub problem_count: u64,
    /// Intents without an outcome, the first thousand.
    pub open_intents: Vec<OpenIntent>,
    /// How many there are.
    pub open_intent_count: u64,
    /// Records before which a crash had left a torn line, the first thousand.
    pub repaired: Vec<u64>,
    /// Records that wait in the spool.
    pub spooled: usize,
    /// What this verification cannot see.
    pub limits: &'static str,
}

impl Report {
    /// Returns whether everything that can be checked is as it was written.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.problem_count == 0
    }
}

pub(super) fn verify(log: &AuditLog) -> Result<Report, StoreError> {
    // Before the files: the log may grow meanwhile, its head must not.
    let head = {
        let _lock = log.read_lock()?;
        Head::read(log)?
    };
    let mut verifier = Verifier::new();
    verifier.head = head;
    verifier.report.spooled = spool::count(log.place.spool())?;
    for name in spool::unreadable(log.place.spool())? {
        verifier.file = name;
        verifier.problem(0, "waits to be appended and cannot be read");
    }
    for file in open(log)? {
        verifier.file(file)?;
    }
    if !verifier.suspects.is_empty() {
        verifier.look_again(open(log)?)?;
    }
    Ok(verifier.finish())
}

/// A file of the log, as it was when it was opened.
struct Opened {
    lines: Lines,
    is_ended: bool,
}

/// Opens the files at one moment: what is written later is not looked at.
fn open(log: &AuditLog) -> Result<Vec<Opened>, StoreError> {
    let _lock = log.read_lock()?;
    let mut files = Vec::new();
    for number in log.place.segments()? {
        files.extend(Lines::open(&log.place.segment(number))?.map(|lines| Opened { lines, is_ended: true }));
    }
    files.extend(Lines::open(log.place.current())?.map(|lines| Opened { lines, is_ended: false }));
    Ok(files)
}

/// A digest of a request id.
type Id = [u8; 16];

fn id(request_id: &str) -> Id {
    let digest = Sha256::digest(request_id);
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    id
}

/// An outcome that may be one too many.
struct Suspect {
    seq: u64,
    id: Id,
    request_id: String,
    file: String,
}

/// Remembers what was put in, and now and then something that was not.
struct Filter(Vec<u64>);

impl Filter {
    fn places(id: &Id) -> [usize; 4] {
        std::array::from_fn(|index| {
            let part = [id[4 * index], id[4 * index + 1], id[4 * index + 2], id[4 * index + 3]];
            u32::from_le_bytes(part) as usize % FILTER_BITS
        })
    }

    fn put(&mut self, id: &Id) {
        if self.0.is_empty() {
            self.0 = vec![0; FILTER_BITS / 64];
        }
        Filter::places(id).into_iter().for_each(|place| self.0[place / 64] |= 1 << (place % 64));
    }

    fn may_hold(&self, id: &Id) -> bool {
        !self.0.is_empty() && Filter::places(id).into_iter().all(|place| self.0[place / 64] & (1 << (place % 64)) != 0)
    }
}

struct Verifier {
    report: Report,
    file: String,
    next_seq: u64,
    /// The hash that the next record must name; `None` after a line that
    /// could not be read.
    prev: Option<String>,
    segment_ended: bool,
    /// How far the log is known to reach.
    head: Option<Head>,
    open: BTreeMap<String, Vec<u64>>,
    open_known: usize,
    /// Intents beyond [`MOST_OPEN`] that no outcome was found for.
    further_open: u64,
    closed: Filter,
    suspects: Vec<Suspect>,
}

impl Verifier {
    fn new() -> Verifier {
        Verifier {
            report: Report { limits: LIMITS, ..Report::default() },
            file: String::new(),
            next_seq: 1,
            prev: Some(GENESIS.to_owned()),
            segment_ended: false,
            head: None,
            open: BTreeMap::new(),
            open_known: 0,
            further_open: 0,
            closed: Filter(Vec::new()),
            suspects: Vec::new(),
        }
    }

    fn file(&mut self, file: Opened) -> Result<(), StoreError> {
        self.file = file.lines.name();
        self.report.files += 1;
        self.segment_ended = false;
        let torn = file.lines.torn();
        file.lines.each(|line| {
            self.line(line.unwrap_or_default());
            Ok::<(), StoreError>(())
        })?;
        if torn > 0 {
            self.problem(self.next_seq, format!("{torn} bytes without a line end follow the last record"));
        }
        if file.is_ended && !self.segment_ended {
            self.problem(self.next_seq, "is missing: the segment has no end");
        }
        Ok(())
    }

    fn line(&mut self, bytes: &[u8]) {
        self.report.records += 1;
        if std::mem::take(&mut self.segment_ended) {
            self.problem(self.next_seq, "stands behind the end of its segment");
        }
        let Some(line) = Line::parse(bytes) else {
            self.problem(self.next_seq, "cannot be read");
            self.next_seq += 1;
            self.prev = None;
            return;
        };
        let hash = line.hash.to_owned();
        if line.is_genuine() {
            self.genuine(&line, &hash);
        } else {
            self.problem(self.next_seq, "was changed: its hash does not fit");
            self.next_seq += 1;
        }
        self.prev = Some(hash);
    }

    fn genuine(&mut self, line: &Line<'_>, hash: &str) {
        let head = &line.head;
        if head.seq > self.next_seq {
            self.problem(self.next_seq, format!("is missing: record {} follows", head.seq));
        } else if head.seq < self.next_seq {
            self.problem(head.seq, format!("was repeated or moved: it stands where record {} belongs", self.next_seq));
        } else if self.prev.as_ref().is_some_and(|prev| *prev != head.prev) {
            self.problem(head.seq, "does not follow the record before it");
        }
        if self.head.as_ref().is_some_and(|known| known.seq == head.seq && known.hash != hash) {
            self.problem(head.seq, "is not the record that was written");
        }
        self.next_seq = head.seq.saturating_add(1);
        self.report.last = Some(Receipt { seq: head.seq, hash: hash.to_owned(), issued: super::Issued });
        self.segment_ended = head.is(SEGMENT_END);
        if head.follows_repair() && self.report.repaired.len() < MOST_PROBLEMS {
            self.report.repaired.push(head.seq);
        }
        let Some(request_id) = head.request_id() else { return };
        if head.is("intent") {
            self.intent(&named(request_id), head.seq);
        } else if head.is("outcome") {
            self.outcome(&named(request_id), head.seq, head.is_spooled());
        }
    }

    fn intent(&mut self, request_id: &str, seq: u64) {
        if self.open_known == MOST_OPEN {
            self.further_open += 1;
            return;
        }
        self.open_known += 1;
        self.open.entry(request_id.to_owned()).or_default().push(seq);
    }

    /// Matches an outcome with the oldest open intent of its request. One that
    /// went through the spool may stand there twice.
    fn outcome(&mut self, request_id: &str, seq: u64, spooled: bool) {
        let id = id(request_id);
        if let Some(open) = self.open.get_mut(request_id) {
            open.remove(0);
            if open.is_empty() {
                self.open.remove(request_id);
            }
            self.open_known -= 1;
            self.closed.put(&id);
        } else if self.closed.may_hold(&id) && !spooled {
            match self.suspects.len() < MOST_PROBLEMS {
                true => self.suspects.push(Suspect { seq, id, request_id: request_id.to_owned(), file: self.file.clone() }),
                // So many are no accident.
                false => self.report.problem_count += 1,
            }
        } else if self.further_open > 0 && !spooled {
            self.further_open -= 1;
            self.closed.put(&id);
        }
    }

    /// Reads the log once more and looks at the suspects alone.
    fn look_again(&mut self, files: Vec<Opened>) -> Result<(), StoreError> {
        let suspects = std::mem::take(&mut self.suspects);
        let mut seen: HashMap<Id, (u64, bool)> = suspects.iter().map(|suspect| (suspect.id, (0, false))).collect();
        let mut too_many = HashSet::new();
        for file in files {
            file.lines.each(|line| {
                let Some(line) = line.and_then(Line::parse).filter(Line::is_genuine) else { return Ok(()) };
                let Some((open, is_closed)) = line.head.request_id().and_then(|request_id| seen.get_mut(&id(&named(request_id)))) else {
                    return Ok(());
                };
                if line.head.is("intent") {
                    *open += 1;
                } else if line.head.is("outcome") && *open > 0 {
                    (*open, *is_closed) = (*open - 1, true);
                } else if line.head.is("outcome") && *is_closed && !line.head.is_spooled() {
                    too_many.insert(line.head.seq);
                }
                Ok::<(), StoreError>(())
            })?;
        }
        for suspect in suspects.into_iter().filter(|suspect| too_many.contains(&suspect.seq)) {
            self.file = suspect.file;
            self.problem(suspect.seq, format!("is one outcome too many for request {}", suspect.request_id));
        }
        Ok(())
    }

    fn problem(&mut self, seq: u64, text: impl Into<String>) {
        self.report.problem_count += 1;
        if self.report.problems.len() < MOST_PROBLEMS {
            self.report.problems.push(Problem { seq, file: self.file.clone(), text: text.into() });
        }
    }

    fn finish(mut self) -> Report {
        self.report.open_intent_count = self.open_known as u64 + self.further_open;
        let reached = self.report.last.as_ref().map_or(0, |last| last.seq);
        if let Some(known) = self.head.take().filter(|known| known.seq > reached) {
            self.problem(known.seq, format!("is missing: the log was known to reach it, and ends with record {reached}"));
        }
        let open = self.open.into_iter();
        let mut open: Vec<OpenIntent> = open
            .flat_map(|(request_id, seqs)| seqs.into_iter().map(move |seq| OpenIntent { seq, request_id: request_id.clone() }))
            .collect();
        open.sort_by_key(|intent| intent.seq);
        open.truncate(MOST_PROBLEMS);
        self.report.open_intents = open;
        self.report
    }
}

/// Returns a request id as it is kept.
fn named(request_id: &str) -> Cow<'_, str> {
    match request_id.len() <= LONGEST_ID {
        true => Cow::Borrowed(request_id),
        false => Cow::Owned(format!("sha256:{}", hex::encode(Sha256::digest(request_id)))),
    }
}
