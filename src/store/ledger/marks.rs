//! The same write under another key.
//!
//! An unknown outcome blocks a write under every key, so a claimant must find
//! the other records of its fingerprint. The record of the automatic key has a
//! name that follows from the fingerprint; every other record leaves a mark,
//! its name, in `open/<fingerprint>` before its dispatch. A mark is a hint
//! only: what counts is the state of the record that it names.
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

/// The mark of a claim whose key is not automatic.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    name: String,
}

impl Mark {
    /// Takes the mark away. Not durable: a mark that comes back is harmless.
    pub(super) fn remove(self) -> Result<(), StoreError> {
        // Left behind, the mark costs the next claimant one look.
        let Ok(mut file) = Locked::open(&self.path, Mode::Exclusive, MARKS_WAIT) else { return Ok(()) };
        let names: Vec<String> = read_names(&mut file)?.into_iter().filter(|name| *name != self.name).collect();
        if names.is_empty() {
            return file.remove();
        }
        file.truncate(0)?;
        file.append(names.concat_lines().as_bytes())
    }
}

trait ConcatLines {
    fn concat_lines(&self) -> String;
}

impl ConcatLines for Vec<String> {
    fn concat_lines(&self) -> String {
        self.iter().flat_map(|name| [name.as_str(), "\n"]).collect()
    }
}

fn read_names(file: &mut Locked) -> Result<Vec<String>, StoreError> {
    let text = String::from_utf8_lossy(&file.read_all()?).into_owned();
    Ok(text.lines().filter(|name| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())).map(str::to_owned).collect())
}

impl Ledger {
    /// Refuses a write that another record may have executed. `siblings` are
    /// the records of the same request.
    pub(super) fn check_marks(&self, write: &Write, name: &str, siblings: &[String]) -> Result<Option<Mark>, LedgerError> {
        let path = self.marks_path(&write.fingerprint);
        let is_implicit = write.key == Key::Auto(1);
        let (mark, mut others) =
            if is_implicit { (None, read_marks(&path)?) } else { write_mark(&path, name).map(|(mark, names)| (Some(mark), names))? };
        if !is_implicit {
            others.push(self.record_name(&Key::Auto(1).text(&write.fingerprint)));
        }
        for other in others.iter().filter(|other| *other != name && !siblings.contains(other)) {
            if let Err(error) = self.check_other(other) {
                if let Some(mark) = mark {
                    mark.remove()?;
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

    fn check_other(&self, name: &str) -> Result<(), LedgerError> {
        let path = self.record_path(name);
        match Locked::try_open_existing(&path, Mode::Shared)? {
            Existing::Absent => Ok(()),
            Existing::Held => Err(LedgerError::InProgress(name.to_owned())),
            Existing::Locked(mut file) => match Record::read(&mut file)? {
                None => Err(LedgerError::Corrupt(path)),
                Some(record) if record.last().is_some_and(Line::is_open) => Err(LedgerError::Unknown { record: name.to_owned() }),
                Some(_) => Ok(()),
            },
        }
    }
}

fn read_marks(path: &Path) -> Result<Vec<String>, StoreError> {
    match locked::read_if_exists(path)? {
        None => Ok(Vec::new()),
        Some(_) => read_names(&mut Locked::open(path, Mode::Shared, MARKS_WAIT)?),
    }
}

/// Adds a name to the marks, durably, and returns the ones there were.
fn write_mark(path: &Path, name: &str) -> Result<(Mark, Vec<String>), StoreError> {
    create_folder(path.parent().unwrap_or(path))?;
    let mut file = Locked::open(path, Mode::Exclusive, MARKS_WAIT)?;
    let others: Vec<String> = read_names(&mut file)?.into_iter().filter(|other| other != name).collect();
    let mut names = others.clone();
    names.push(name.to_owned());
    file.truncate(0)?;
    file.append(names.concat_lines().as_bytes())?;
    file.sync_data()?;
    locked::sync_parent(path)?;
    Ok((Mark { path: path.to_owned(), name: name.to_owned() }, others))
}
