//! A person's decision about a write whose outcome nobody knows.
//!
//! It ends an unknown outcome, and it is the only way out for a record that is
//! damaged or missing: then the record is written anew, with what can be saved
//! of its claim and with the decision, and the old bytes are put aside. The new
//! record is durable before the names of the old one's dispatches go: a crash
//! in between leaves a damaged record, to be resolved again.

use super::admin::AdminError;
use super::chain::{self, Chain};
use super::record::{ClaimLine, Line, Owner, Record, ResolutionLine, Verdict};
use super::{Ledger, LedgerError};
use crate::host;
use crate::ids::PlanId;
use crate::store::locked::{self, Existing, Locked, Mode};
use crate::store::{create_folder, temporary_name};
use serde_json::Value;

impl Ledger {
    /// Writes an operator's decision about an unknown outcome.
    pub fn resolve(&self, key: &str, verdict: Verdict, reason: &str, actor: &str) -> Result<Value, AdminError> {
        let name = self.find(key)?;
        let path = self.record_path(&name);
        let decision =
            Line::R(ResolutionLine { at: host::timestamp(self.clock.now()), verdict, reason: reason.to_owned(), actor: actor.to_owned() });
        let mut file = match Locked::try_open_existing(&path, Mode::Exclusive)? {
            Existing::Held => return Err(AdminError::Held),
            Existing::Absent => return self.resolve_missing(&name, key, &decision),
            Existing::Locked(file) => file,
        };
        let record = match self.read_record(&mut file, &name) {
            Ok(record) => record,
            Err(LedgerError::Damaged { .. }) => return self.resolve_damaged(file, &name, key, &decision),
            Err(error) => return Err(error.into()),
        };
        match record.last() {
            Some(last) if last.is_open() => {}
            last => return Err(AdminError::NotOpen(last.map_or("empty", Line::state))),
        }
        file.truncate(record.valid)?;
        file.append(&Chain::behind(&record).push(&decision))?;
        file.sync_data()?;
        Ok(self.read_record(&mut file, &name)?.to_value(&name))
    }

    fn resolve_missing(&self, name: &str, key: &str, decision: &Line) -> Result<Value, AdminError> {
        let path = self.record_path(name);
        create_folder(path.parent().unwrap_or(&self.folder))?;
        let names = self.names_of_dispatches(name)?;
        let remains = self.remains(name, &names);
        let bytes = self.anew(name, key, &remains, decision)?;
        let Some(file) = Locked::create_new(&path, &bytes, &temporary_name(self.random.as_ref()))? else {
            return Err(AdminError::Held);
        };
        locked::sync_parent(&path)?;
        self.confirm(file, name, &remains)
    }

    fn resolve_damaged(&self, mut file: Locked, name: &str, key: &str, decision: &Line) -> Result<Value, AdminError> {
        let damaged = file.read_all()?;
        let bytes = self.anew(name, key, &damaged, decision)?;
        // Kept before it is overwritten.
        let place = self.keep_aside(name, &damaged)?;
        file.truncate(0)?;
        file.append(&bytes)?;
        file.sync_data()?;
        let mut value = self.confirm(file, name, &[])?;
        value["damaged_bytes"] = Value::from(place.display().to_string());
        Ok(value)
    }

    /// Returns a record that holds a claim and the decision about it. Each
    /// generation was dispatched, so there were no more of them than that.
    fn anew(&self, name: &str, key: &str, old: &[u8], decision: &Line) -> Result<Vec<u8>, AdminError> {
        let dispatches = u32::try_from(self.names_of_dispatches(name)?.len()).unwrap_or(u32::MAX);
        let claim = chain::salvage(old).unwrap_or_else(|| self.unknown_claim(name, key));
        let claim = ClaimLine { generation: claim.generation.max(dispatches), ..claim };
        let mut chain = Chain::default();
        let first = chain.push(&Line::C(claim));
        Ok([first, chain.push(decision)].concat())
    }

    /// Returns a claim of which no more is known than its record's name, and
    /// the key if the person gave it.
    fn unknown_claim(&self, name: &str, key: &str) -> ClaimLine {
        let key = if self.record_name(key) == name { key } else { "" };
        ClaimLine {
            v: 1,
            generation: 1,
            key: key.to_owned(),
            fingerprint: String::new(),
            method: String::new(),
            api: String::new(),
            risk: String::new(),
            plan: PlanId::parse(key).map(|id| id.to_string()),
            owner: Owner { pid: std::process::id(), boot: self.clock.boot_id(), b24: env!("CARGO_PKG_VERSION").to_owned() },
            at: host::timestamp(self.clock.now()),
        }
    }

    /// Makes the names fit the new record, and puts aside what is left of the
    /// old one.
    fn confirm(&self, mut file: Locked, name: &str, remains: &[u8]) -> Result<Value, AdminError> {
        let bytes = file.read_all()?;
        let record = Record::parse(&bytes).ok_or_else(|| LedgerError::damaged(name, file.path(), "cannot be written anew".to_owned()))?;
        if !remains.is_empty() {
            self.keep_aside(name, remains)?;
        }
        let forgotten = self.forget_dispatches(name, self.names_of_dispatches(name)?.into_iter())?;
        self.sync_names(forgotten)?;
        Ok(record.to_value(name))
    }
}
