//! Checking the chain from its first record to its last.
//!
//! Every line must have the one possible frame, the hash of its content, the
//! next number and the predecessor's hash; `segment_end` stands at the end of
//! each segment and nowhere else. Beyond the chain, outcomes are matched with
//! intents.

use super::line::{GENESIS, Line, SEGMENT_END};
use super::{AuditLog, Receipt, spool};
use crate::store::locked::{StoreError, read_if_exists};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};

/// What no verification of the files alone can see.
const LIMITS: &str = "Records missing at the end are not detectable without a checkpoint kept elsewhere";

/// More problems than this are only counted.
const MOST_PROBLEMS: usize = 1_000;

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
    /// Intents without an outcome.
    pub open_intents: Vec<OpenIntent>,
    /// Records before which a crash had left a torn line.
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
    let (segments, current) = {
        let _lock = log.read_lock()?;
        (log.place.segments()?, read_if_exists(log.place.current())?)
    };
    let mut verifier = Verifier::new();
    verifier.report.spooled = spool::count(log.place.spool())?;
    for number in segments {
        let path = log.place.segment(number);
        let bytes = read_if_exists(&path)?.unwrap_or_default();
        verifier.file(&format!("seg-{number}.jsonl"), &bytes);
        verifier.end_of_segment();
    }
    if let Some(bytes) = current {
        let name = log.place.current().file_name().unwrap_or_default().to_string_lossy().into_owned();
        verifier.file(&name, &bytes);
    }
    Ok(verifier.finish())
}

struct Verifier {
    report: Report,
    file: String,
    next_seq: u64,
    /// The hash that the next record must name; `None` after a line that
    /// could not be read.
    prev: Option<String>,
    segment_ended: bool,
    open: BTreeMap<String, Vec<u64>>,
    /// Digests of the request ids whose intent has its outcome; the ids
    /// themselves would fill the memory with a long log.
    closed: HashSet<[u8; 16]>,
}

impl Verifier {
    fn new() -> Verifier {
        Verifier {
            report: Report { limits: LIMITS, ..Report::default() },
            file: String::new(),
            next_seq: 1,
            prev: Some(GENESIS.to_owned()),
            segment_ended: false,
            open: BTreeMap::new(),
            closed: HashSet::new(),
        }
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        name.clone_into(&mut self.file);
        self.report.files += 1;
        self.segment_ended = false;
        let mut lines = bytes.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            if lines.peek().is_some() {
                self.line(line);
            } else if !line.is_empty() {
                self.problem(self.next_seq, format!("{} bytes without a line end follow the last record", line.len()));
            }
        }
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
        self.next_seq = head.seq.saturating_add(1);
        self.report.last = Some(Receipt { seq: head.seq, hash: hash.to_owned(), issued: super::Issued });
        self.segment_ended = head.is(SEGMENT_END);
        if head.follows_repair() {
            self.report.repaired.push(head.seq);
        }
        let Some(request_id) = head.request_id() else { return };
        if head.is("intent") {
            self.open.entry(request_id.to_owned()).or_default().push(head.seq);
        } else if head.is("outcome") {
            self.outcome(request_id, head.seq, head.is_spooled());
        }
    }

    /// Matches an outcome with the oldest open intent of its request. One that
    /// went through the spool may stand there twice.
    fn outcome(&mut self, request_id: &str, seq: u64, spooled: bool) {
        let digest = Sha256::digest(request_id);
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        match self.open.get_mut(request_id) {
            Some(open) => {
                open.remove(0);
                if open.is_empty() {
                    self.open.remove(request_id);
                }
                self.closed.insert(key);
            }
            None if self.closed.contains(&key) && !spooled => {
                self.problem(seq, format!("is one outcome too many for request {request_id}"));
            }
            None => {}
        }
    }

    fn end_of_segment(&mut self) {
        if !self.segment_ended {
            self.problem(self.next_seq, "is missing: the segment has no end");
        }
    }

    fn problem(&mut self, seq: u64, text: impl Into<String>) {
        self.report.problem_count += 1;
        if self.report.problems.len() < MOST_PROBLEMS {
            self.report.problems.push(Problem { seq, file: self.file.clone(), text: text.into() });
        }
    }

    fn finish(mut self) -> Report {
        let open = self.open.into_iter();
        self.report.open_intents = open
            .flat_map(|(request_id, seqs)| seqs.into_iter().map(move |seq| OpenIntent { seq, request_id: request_id.clone() }))
            .collect();
        self.report.open_intents.sort_by_key(|intent| intent.seq);
        self.report
    }
}
