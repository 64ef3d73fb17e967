//! What a record must at least hold.
//!
//! A record whose end was cut, which was emptied, deleted or replaced by an
//! older copy, can look like one that was never dispatched. So each dispatch
//! leaves, in `seen/`, which line of the record it is and what that line and
//! all before it add up to. Whoever reads the record compares: a line that is
//! not there, or another one in its place, is damage, and a witness without a
//! record means that the record is missing. Neither is ever executed; a person
//! settles it ([`Ledger::resolve`](super::Ledger::resolve)).
//!
//! The order, under the record's lock: `D` durable, witness, first byte. And
//! at the end: witness away, record away. A crash between two steps leaves a
//! record that says more than its witness, which is no contradiction; the next
//! reader brings the witness up to date. So it does for records of a version
//! that had no witnesses.
//!
//! | Lost or damaged | The record alone says | Record and witness say |
//! |--|--|--|
//! | everything behind `C` | claimed: execute | damaged |
//! | the second `D` of `C D N D` and what follows | not executed: execute | damaged |
//! | the second generation | the answer of the first | damaged |
//! | the file | nothing: execute | missing |
//! | the outcome only | unknown | unknown |
//!
//! The records of a worker's own calls have no witness: their keys are used
//! once, and the worker's journal knows them.

use super::chain::{self, Position};
use super::record::{Line, Record};
use super::{Ledger, LedgerError};
use crate::host::Random;
use crate::store::locked::{Locked, StoreError};
use crate::store::witness::Witness;
use std::path::{Path, PathBuf};

/// What the witness of a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Testimony {
    /// The generation of the dispatch.
    pub(super) generation: u32,
    /// Where its line stands.
    pub(super) position: Position,
}

impl Testimony {
    fn text(&self) -> String {
        format!("1.{}.{}.{}", self.generation, self.position.index, self.position.check)
    }

    fn parse(text: &str) -> Option<Testimony> {
        let mut parts = text.split('.');
        let (version, generation, index, check) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let position = Position { index: index.parse().ok()?, check: check.to_owned() };
        (version == "1" && parts.next().is_none()).then_some(Testimony { generation: generation.parse().ok()?, position })
    }

    /// Returns what the last dispatch of a record would have left.
    fn of(record: &Record) -> Option<Testimony> {
        let index = record.lines.iter().rposition(|line| matches!(line, Line::D(_)))?;
        let generation = record.lines[..index].iter().rev().find_map(|line| match line {
            Line::C(claim) => Some(claim.generation),
            _ => None,
        });
        Some(Testimony { generation: generation.unwrap_or(1), position: Position { index, check: record.checks[index].clone() } })
    }

    /// Says what the record lacks.
    fn contradicts(&self, record: &Record) -> Option<&'static str> {
        match record.checks.get(self.position.index) {
            None => Some("lost its end: it was dispatched, and does not say so"),
            Some(check) if *check != self.position.check => Some("is not the one that was dispatched: an older copy, or another record"),
            Some(_) => None,
        }
    }
}

/// The witness of one record.
#[derive(Debug)]
pub(super) struct RecordWitness(Witness);

impl RecordWitness {
    /// Returns what it tells; a text that cannot be read is an error of its
    /// own, because it proves that there was a dispatch.
    pub(super) fn read(&self) -> Result<Option<Result<Testimony, &'static str>>, StoreError> {
        let text = self.0.read()?;
        Ok(text.map(|text: String| Testimony::parse(&text).ok_or("has a witness that cannot be read")))
    }

    pub(super) fn write(&self, testimony: &Testimony, random: &dyn Random) -> Result<(), StoreError> {
        self.0.write(&testimony.text(), random)
    }

    pub(super) fn remove(&self) -> Result<(), StoreError> {
        self.0.remove()
    }
}

impl Ledger {
    pub(super) fn witness(&self, name: &str) -> RecordWitness {
        RecordWitness(Witness::at(self.seen.join(&name[..2]).join(&name[2..])))
    }

    /// Returns the place of the second witness of a marks file.
    pub(super) fn marks_witness(&self, scope: &str) -> Witness {
        Witness::at(self.seen.join("marks").join(scope))
    }

    /// Reads a record under its lock and compares it with its witness, which is
    /// brought up to date.
    pub(super) fn read_record(&self, file: &mut Locked, name: &str) -> Result<Record, LedgerError> {
        let bytes = file.read_all()?;
        let (record, known) = self.examine(&bytes, name)?.map_err(|problem| LedgerError::damaged(name, file.path(), problem))?;
        let own = Testimony::of(&record).filter(|_| !is_of_worker(&record));
        if let Some(own) = own
            && known.is_none_or(|known| known.position.index < own.position.index)
        {
            self.witness(name).write(&own, self.random.as_ref())?;
        }
        Ok(record)
    }

    /// Compares the bytes of a record with its witness.
    pub(super) fn examine(&self, bytes: &[u8], name: &str) -> Result<Result<(Record, Option<Testimony>), String>, StoreError> {
        let record = match chain::parse(bytes) {
            Ok(record) => record,
            Err(problem) => return Ok(Err(problem)),
        };
        if is_of_worker(&record) {
            return Ok(Ok((record, None)));
        }
        Ok(match self.witness(name).read()? {
            None => Ok((record, None)),
            Some(Err(problem)) => Err(problem.to_owned()),
            Some(Ok(known)) => match known.contradicts(&record) {
                Some(problem) => Err(problem.to_owned()),
                None => Ok((record, Some(known))),
            },
        })
    }

    /// Refuses a record that was just created although it was dispatched
    /// before, and takes it away again.
    pub(super) fn refuse_missing(&self, file: Locked, name: &str) -> Result<Locked, LedgerError> {
        match self.witness(name).read()? {
            None => Ok(file),
            Some(_) => {
                let path = file.path().to_owned();
                file.remove()?;
                Err(self.missing(name, &path))
            }
        }
    }

    pub(super) fn missing(&self, name: &str, path: &Path) -> LedgerError {
        LedgerError::damaged(name, path, "is missing although its write was dispatched".to_owned())
    }

    /// Returns the names of the records that have a witness and no file.
    pub(super) fn missing_records(&self) -> Result<Vec<String>, StoreError> {
        let mut missing = Vec::new();
        for shard in super::admin::names_in(&self.seen)?.into_iter().filter(|shard| shard.len() == 2) {
            for rest in super::admin::names_in(&self.seen.join(&shard))? {
                let name = format!("{shard}{rest}");
                if name.len() != 64 || self.record_path(&name).exists() {
                    continue;
                }
                // Its record may be on its way out: then the witness went first.
                if self.witness(&name).read()?.is_some() {
                    missing.push(name);
                }
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

fn is_of_worker(record: &Record) -> bool {
    record.claim().is_some_and(|claim| claim.key.starts_with(super::ONCE))
}
