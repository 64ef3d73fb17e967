//! The same write under another key.
//!
//! An unknown outcome blocks a write under every key, so a claimant must find
//! the other records of its fingerprint. The record of the automatic key has a
//! name that follows from the fingerprint; every other record leaves a mark,
//! its name, in `open/<fingerprint>` before its dispatch. A mark is a hint
//! only: what counts is the state of the record that it names.
//!
//! A marks file has lines of one length. A mark is written over a free line or
//! behind the last one, and taken away by overwriting it: no moment of a crash,
//! and no full disk, can take away the mark of another record.
//!
//! Two processes that claim the same write under different keys at once must
//! not both go on. Both publish first and look second: one whose key is not
//! automatic writes its mark (under the lock of the marks file) and then looks
//! at the automatic record and at the other marks; one whose key is automatic
//! has published its record, locked, and then reads the marks. Whoever looks
//! last sees the other one's lock, and refuses.

use super::record::{Line, Record};
use super::{Key, Ledger, LedgerError, Write};
use crate::crash;
use crate::json;
use crate::store::create_folder;
use crate::store::locked::{self, Existing, Locked, Mode, StoreError};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a process may keep a marks file; it holds no more than two syncs.
const MARKS_WAIT: Duration = Duration::from_secs(30);

/// Length of a record's name, and of its line in a marks file.
const NAME: usize = 64;
const LINE: usize = NAME + 1;

/// The mark of a claim whose key is not automatic.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    name: String,
}

impl Mark {
    /// Takes the mark away. Neither durable nor certain: left behind, a mark
    /// costs the next claimant one look.
    pub(super) fn remove(self) {
        let Ok(Existing::Locked(mut file)) = Locked::open_existing(&self.path, Mode::Exclusive, MARKS_WAIT) else { return };
        let Ok(lines) = read_lines(&mut file) else { return };
        let is_mine = |line: &Option<String>| line.as_ref() == Some(&self.name);
        if lines.iter().flatten().all(|name| *name == self.name) {
            let _ = file.remove();
        } else if let Some(index) = lines.iter().position(is_mine) {
            let _ = file.write_at(offset(index), "-".repeat(NAME).as_bytes());
        }
    }
}

/// Reads the lines of a marks file; `None` stands for a line that is free:
/// taken away, or torn by a crash.
fn read_lines(file: &mut Locked) -> Result<Vec<Option<String>>, StoreError> {
    let bytes = file.read_all()?;
    let name = |line: &[u8]| {
        let (name, end) = line.split_at_checked(NAME)?;
        let is_name = end == b"\n" && name.iter().all(u8::is_ascii_hexdigit);
        is_name.then(|| String::from_utf8_lossy(name).into_owned())
    };
    Ok(bytes.chunks(LINE).map(name).collect())
}

fn read_marks(path: &Path) -> Result<Vec<String>, StoreError> {
    match Locked::open_existing(path, Mode::Shared, MARKS_WAIT)? {
        Existing::Absent => Ok(Vec::new()),
        Existing::Held => Err(StoreError::Busy(path.to_owned())),
        Existing::Locked(mut file) => Ok(read_lines(&mut file)?.into_iter().flatten().collect()),
    }
}

/// Adds a name to the marks, durably, and returns the ones there were.
fn write_mark(path: &Path, name: &str) -> Result<(Mark, Vec<String>), StoreError> {
    create_folder(path.parent().unwrap_or(path))?;
    let mut file = Locked::open(path, Mode::Exclusive, MARKS_WAIT)?;
    let lines = read_lines(&mut file)?;
    let is_free = |line: &Option<String>| line.as_ref().is_none_or(|other| other == name);
    let index = lines.iter().position(is_free).unwrap_or(lines.len());
    crash::point("ledger.before_mark");
    file.write_at(offset(index), format!("{name}\n").as_bytes())?;
    crash::point("ledger.after_mark");
    file.sync_data()?;
    locked::sync_parent(path)?;
    let others = lines.into_iter().flatten().filter(|other| other != name).collect();
    Ok((Mark { path: path.to_owned(), name: name.to_owned() }, others))
}

fn offset(index: usize) -> u64 {
    (index * LINE) as u64
}

impl Ledger {
    /// Refuses a write that another record may have executed. `siblings` are
    /// the records of the same request.
    pub(super) fn check_marks(&self, write: &Write, name: &str, siblings: &[String]) -> Result<Option<Mark>, LedgerError> {
        if matches!(write.key, Key::Once(_)) {
            // No other record has its fingerprint.
            return Ok(None);
        }
        let path = self.marks_path(&write.fingerprint);
        let is_implicit = write.key == Key::Auto(1);
        let (mark, mut others) =
            if is_implicit { (None, read_marks(&path)?) } else { write_mark(&path, name).map(|(mark, names)| (Some(mark), names))? };
        if !is_implicit {
            others.push(self.record_name(&Key::Auto(1).text(&write.fingerprint)));
        }
        for other in others.iter().filter(|other| *other != name && !siblings.contains(other)) {
            if let Err(error) = self.check_other(other, &write.fingerprint) {
                if let Some(mark) = mark {
                    mark.remove();
                }
                return Err(error);
            }
        }
        crash::point("ledger.after_marks");
        Ok(mark)
    }

    fn marks_path(&self, fingerprint: &str) -> PathBuf {
        let scope = json::sha256_hex(format!("b24-open-v1\0{}\0{}\0{fingerprint}", self.portal, self.principal));
        self.folder.join("open").join(scope)
    }

    /// Refuses when the record is one of this write and somebody holds it or
    /// its outcome is unknown. The key of a mark that was left behind may stand
    /// for another write by now.
    fn check_other(&self, name: &str, fingerprint: &str) -> Result<(), LedgerError> {
        let path = self.record_path(name);
        let is_same = |record: &Record| record.claim().is_none_or(|claim| claim.fingerprint == fingerprint);
        match Locked::try_open_existing(&path, Mode::Shared)? {
            Existing::Absent => Ok(()),
            // The fingerprint of a record never changes: reading it needs no lock.
            Existing::Held => match locked::read_if_exists(&path)?.and_then(|bytes| Record::parse(&bytes)) {
                Some(record) if !is_same(&record) => Ok(()),
                Some(_) | None => Err(LedgerError::InProgress(name.to_owned())),
            },
            Existing::Locked(mut file) => match Record::read(&mut file)? {
                None => Err(LedgerError::Corrupt(path)),
                Some(record) if is_same(&record) && record.last().is_some_and(Line::is_open) => {
                    Err(LedgerError::Unknown { record: name.to_owned() })
                }
                Some(_) => Ok(()),
            },
        }
    }
}
