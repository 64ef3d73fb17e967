//! Records that count although a write made now would be recorded elsewhere:
//! those of earlier versions, under their fingerprint, and those of a portal
//! that earlier versions called by another name.
//!
//! They are looked up and never written, except that a person can resolve or
//! forget them. There is no end to it: a write with an unknown outcome blocks
//! until somebody says what became of it, however long ago it was. The price
//! is that of looking for two files that are not there.

use super::witness::missing;
use super::{Decision, Done, Key, Ledger, LedgerError, Reuse, Write, decide};
use crate::store::locked::{Existing, Locked, Mode};
use std::path::PathBuf;
use std::sync::Arc;

impl Write {
    /// Returns whether a fingerprint is one of this write's.
    pub(super) fn has_fingerprint(&self, fingerprint: &str) -> bool {
        self.fingerprint == fingerprint || self.legacy_fingerprint.as_deref() == Some(fingerprint)
    }
}

impl Ledger {
    /// Adds the ledger of the same user under another name of the portal.
    #[must_use]
    pub fn with_earlier_name(mut self, folder: PathBuf, portal: String) -> Ledger {
        let (clock, random) = (Arc::clone(&self.clock), Arc::clone(&self.random));
        self.earlier.push(Ledger::new(folder, portal, self.principal.clone(), clock, random));
        self
    }

    /// Returns the ledger that has a record: this one, or one under another
    /// name of the portal.
    #[must_use]
    pub fn holding(&self, key: &str) -> &Ledger {
        let earlier = || self.earlier.iter().find(|ledger| ledger.find(key).is_ok());
        if self.find(key).is_ok() { self } else { earlier().unwrap_or(self) }
    }

    /// Says what earlier records mean for a write that is about to be claimed.
    /// `siblings` are the records of the same request.
    pub(super) fn ask_earlier(&self, write: &Write, siblings: &[String], reuse: &Reuse) -> Result<Option<Done>, LedgerError> {
        let Some(legacy) = write.legacy_fingerprint.as_deref().filter(|_| !matches!(write.key, Key::Once(_))) else { return Ok(None) };
        if matches!(write.key, Key::Auto(_))
            && let Some(done) = self.ask_record(&write.key.text(legacy), write, reuse)?
        {
            return Ok(Some(done));
        }
        self.ask_marks(legacy, write, siblings)?;
        for ledger in &self.earlier {
            // A version that wrote this fingerprint called no portal by two names.
            if let Some(done) = ledger.ask_record(&write.key.text(legacy), write, reuse)? {
                return Ok(Some(done));
            }
            ledger.ask_marks(legacy, write, siblings)?;
        }
        Ok(None)
    }

    /// Looks at the record of one key.
    fn ask_record(&self, key: &str, write: &Write, reuse: &Reuse) -> Result<Option<Done>, LedgerError> {
        let name = self.record_name(key);
        let path = self.record_path(&name);
        let mut file = match Locked::open_existing(&path, Mode::Shared, reuse.wait)? {
            Existing::Absent => {
                return match self.was_dispatched(&name)? {
                    false => Ok(None),
                    true => Err(missing(&name, &path)),
                };
            }
            Existing::Held => return Err(LedgerError::InProgress(name)),
            Existing::Locked(file) => file,
        };
        let record = self.read_record(&mut file, &name)?;
        match decide(&record, &name, write, reuse, self.clock.as_ref()) {
            Decision::Continue | Decision::Anew => Ok(None),
            Decision::Orphan => Err(LedgerError::Unknown { record: name }),
            Decision::Done(done) => Ok(Some(done)),
            Decision::Refuse(error) => Err(error),
        }
    }

    /// Looks at the records of the fingerprint under all other keys.
    fn ask_marks(&self, legacy: &str, write: &Write, siblings: &[String]) -> Result<(), LedgerError> {
        let mut names = self.marked(legacy)?;
        names.push(self.record_name(&Key::Auto(1).text(legacy)));
        names.iter().filter(|name| !siblings.contains(name)).try_for_each(|name| self.check_other(name, write))
    }
}
