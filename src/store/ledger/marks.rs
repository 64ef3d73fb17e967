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
//! A marks file that was lost or changed would let an unknown write go out
//! under another key. So each mark stands in a second place: the marked record
//! has another name, a hard link `open/<fingerprint>.<record>`, which costs no
//! new file and is given after the line was written. Whoever looks takes the
//! names of both, and whoever writes puts back the lines that are missing. A
//! name too many costs one look.
//!
//! Two processes that claim the same write under different keys at once must
//! not both go on. Both publish first and look second: one whose key is not
//! automatic writes its mark (under the lock of the marks file) and then looks
//! at the automatic record and at the other marks; one whose key is automatic
//! has published its record, locked, and then reads the marks. Whoever looks
//! last sees the other one's lock, and refuses.

use super::record::{Line, Record};
use super::witness::missing;
use super::{Key, Ledger, LedgerError, Write};
use crate::crash;
use crate::json;
use crate::store::locked::{self, Existing, Locked, Mode, StoreError};
use crate::store::{create_folder, disk};
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How long a process may keep a marks file; it holds no more than two syncs.
const MARKS_WAIT: Duration = Duration::from_secs(30);

/// Length of a record's name, and of its line in a marks file.
const NAME: usize = 64;
const LINE: usize = NAME + 1;

/// The mark of a claim whose key is not automatic.
#[derive(Debug)]
pub(super) struct Mark {
    marks: Marks,
    name: String,
}

impl Mark {
    /// Takes the mark away. Neither durable nor certain: left behind, a mark
    /// costs the next claimant one look.
    pub(super) fn remove(self) {
        let _ = self.marks.remove(&self.name);
    }
}

/// The marks of one write.
#[derive(Debug)]
struct Marks {
    path: PathBuf,
    ledger: PathBuf,
}

impl Marks {
    /// Returns the names in both places.
    fn read(&self) -> Result<Vec<String>, StoreError> {
        match Locked::open_existing(&self.path, Mode::Shared, MARKS_WAIT)? {
            Existing::Absent => self.witnessed(),
            Existing::Held => Err(StoreError::Busy(self.path.clone())),
            Existing::Locked(mut file) => {
                let witnessed = self.witnessed()?;
                let mut names: Vec<String> = read_lines(&mut file)?.into_iter().flatten().collect();
                // Written by a version that knew no second place, or lost.
                names.iter().filter(|name| !witnessed.contains(name)).try_for_each(|name| self.testify(name))?;
                let unread: Vec<String> = witnessed.into_iter().filter(|name| !names.contains(name)).collect();
                names.extend(unread);
                Ok(names)
            }
        }
    }

    /// Adds a name, durably, and returns the ones there were.
    fn add(&self, name: &str) -> Result<Vec<String>, StoreError> {
        create_folder(self.path.parent().unwrap_or(&self.path))?;
        let mut file = Locked::open(&self.path, Mode::Exclusive, MARKS_WAIT)?;
        let mut lines = read_lines(&mut file)?;
        let witnessed = self.witnessed()?;
        crash::point("ledger.before_mark");
        for wanted in witnessed.iter().map(String::as_str).chain([name]) {
            if !lines.iter().flatten().any(|other| other == wanted) {
                let index = lines.iter().position(Option::is_none).unwrap_or(lines.len());
                file.write_at(offset(index), format!("{wanted}\n").as_bytes())?;
                match lines.get_mut(index) {
                    Some(line) => *line = Some(wanted.to_owned()),
                    None => lines.push(Some(wanted.to_owned())),
                }
            }
        }
        crash::point("ledger.after_mark");
        file.sync_data()?;
        locked::sync_parent(&self.path)?;
        self.testify(name)?;
        let names: Vec<String> = lines.into_iter().flatten().collect();
        Ok(names.into_iter().filter(|other| other != name).collect())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Existing::Locked(mut file) = Locked::open_existing(&self.path, Mode::Exclusive, MARKS_WAIT)? else { return Ok(()) };
        let link = self.link(name);
        match crash::fault("store.witness_remove").and_then(|()| disk::remove(&link)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(StoreError::io("delete", &link)(error)),
            _ => {}
        }
        crash::point("store.witness.removed");
        let lines = read_lines(&mut file)?;
        let index = lines.iter().position(|line| line.as_deref() == Some(name));
        if lines.iter().flatten().all(|other| other == name) {
            return file.remove();
        }
        index.map_or(Ok(()), |index| file.write_at(offset(index), "-".repeat(NAME).as_bytes()))
    }

    /// Returns the records that have a second name as marks of this write. The
    /// folder holds what is open, and is short.
    fn witnessed(&self) -> Result<Vec<String>, StoreError> {
        let (Some(folder), Some(scope)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str())) else {
            return Ok(Vec::new());
        };
        crash::fault("store.witness_read").map_err(StoreError::io("read", folder))?;
        let names = super::admin::names_in(folder)?.into_iter().filter_map(|name| {
            let name = name.strip_prefix(scope)?.strip_prefix('.')?;
            is_name(name.as_bytes()).then(|| name.to_owned())
        });
        Ok(names.collect())
    }

    fn link(&self, name: &str) -> PathBuf {
        let mut link = self.path.as_os_str().to_owned();
        link.push(format!(".{name}"));
        PathBuf::from(link)
    }

    /// Gives a record its second name; one that is gone gets none.
    fn testify(&self, name: &str) -> Result<(), StoreError> {
        let link = self.link(name);
        let record = self.ledger.join(&name[..2]).join(&name[2..]);
        match crash::fault("store.witness").and_then(|()| disk::link(&record, &link)) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {
                Err(StoreError::io("create", &link)(error))
            }
            _ => Ok(()),
        }
    }
}

fn is_name(text: &[u8]) -> bool {
    text.len() == NAME && text.iter().all(u8::is_ascii_hexdigit)
}

/// Reads the lines of a marks file; `None` stands for a line that is free:
/// taken away, or torn by a crash.
fn read_lines(file: &mut Locked) -> Result<Vec<Option<String>>, StoreError> {
    let bytes = file.read_all()?;
    let name = |line: &[u8]| {
        let (name, end) = line.split_at_checked(NAME)?;
        (end == b"\n" && is_name(name)).then(|| String::from_utf8_lossy(name).into_owned())
    };
    Ok(bytes.chunks(LINE).map(name).collect())
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
        let marks = self.marks(&write.fingerprint);
        let is_implicit = write.key == Key::Auto(1);
        let (mark, mut others) = match is_implicit {
            true => (None, marks.read()?),
            false => marks.add(name).map(|others| (Some(Mark { marks, name: name.to_owned() }), others))?,
        };
        if !is_implicit {
            others.push(self.record_name(&Key::Auto(1).text(&write.fingerprint)));
        }
        for other in others.iter().filter(|other| *other != name && !siblings.contains(other)) {
            if let Err(error) = self.check_other(other, write) {
                if let Some(mark) = mark {
                    mark.remove();
                }
                return Err(error);
            }
        }
        crash::point("ledger.after_marks");
        Ok(mark)
    }

    /// Returns the marked records of a fingerprint.
    pub(super) fn marked(&self, fingerprint: &str) -> Result<Vec<String>, StoreError> {
        self.marks(fingerprint).read()
    }

    fn marks(&self, fingerprint: &str) -> Marks {
        let scope = json::sha256_hex(format!("b24-open-v1\0{}\0{}\0{fingerprint}", self.portal, self.principal));
        Marks { path: self.folder.join("open").join(scope), ledger: self.folder.join("ledger") }
    }

    /// Refuses when the record is one of this write and somebody holds it or
    /// its outcome is unknown. The key of a mark that was left behind may stand
    /// for another write by now.
    pub(super) fn check_other(&self, name: &str, write: &Write) -> Result<(), LedgerError> {
        let path = self.record_path(name);
        let is_same =
            |record: &Record| record.claim().is_none_or(|claim| claim.fingerprint.is_empty() || write.has_fingerprint(&claim.fingerprint));
        match Locked::try_open_existing(&path, Mode::Shared)? {
            Existing::Absent => match self.was_dispatched(name)? {
                false => Ok(()),
                true => Err(missing(name, &path)),
            },
            // The fingerprint of a record never changes: reading it needs no lock.
            Existing::Held => match locked::read_if_exists(&path)?.and_then(|bytes| Record::parse(&bytes)) {
                Some(record) if !is_same(&record) => Ok(()),
                Some(_) | None => Err(LedgerError::InProgress(name.to_owned())),
            },
            Existing::Locked(mut file) => {
                let record = self.read_record(&mut file, name)?;
                match is_same(&record) && record.last().is_some_and(Line::is_open) {
                    true => Err(LedgerError::Unknown { record: name.to_owned() }),
                    false => Ok(()),
                }
            }
        }
    }
}
