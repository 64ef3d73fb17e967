//! Looking at the ledger and deciding what a machine must not decide.

use super::record::{Line, Record};
use super::witness::missing;
use super::{Ledger, LedgerError, age_of};
use crate::error::{Code, Coded};
use crate::store::locked::{Existing, Locked, Mode, StoreError, read_if_exists};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Longest life of a plan that settings allow.
const LONGEST_PLAN: Duration = Duration::from_secs(86_400);

/// Why a record cannot be administered.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No record has this key.
    #[error("no ledger record is called {0}")]
    NotFound(String),
    /// Several records begin with these digits.
    #[error("several ledger records begin with {0}")]
    Ambiguous(String),
    /// The record has an outcome already.
    #[error("the record is {0}, not unknown; there is nothing to resolve")]
    NotOpen(&'static str),
    /// The record has no outcome yet.
    #[error("the record has an unknown outcome and cannot be forgotten")]
    Open,
    /// It is what tells that a plan was used.
    #[error("the record says that plan {0} was used, and is kept as long as the plan could be executed")]
    OfPlan(String),
    /// Its owner is alive.
    #[error("another process is sending this write now")]
    Held,
    /// The ledger itself.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for AdminError {
    fn code(&self) -> Code {
        match self {
            AdminError::NotFound(_) => Code::NotFound,
            AdminError::Ambiguous(_) => Code::Usage,
            AdminError::NotOpen(_) | AdminError::Open | AdminError::Held => Code::InProgress,
            AdminError::OfPlan(_) => Code::PlanUsed,
            AdminError::Ledger(error) => error.code(),
            AdminError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            AdminError::NotFound(_) => "b24 ledger list --all shows the records of this portal and user".to_owned(),
            AdminError::Ambiguous(_) => "Give more digits of the record".to_owned(),
            AdminError::NotOpen(_) => "b24 ledger show prints its history".to_owned(),
            AdminError::Open => "b24 ledger resolve settles it".to_owned(),
            AdminError::OfPlan(_) => "A plan lives for a day at most; forget the record then".to_owned(),
            AdminError::Held => "Wait until it has finished".to_owned(),
            AdminError::Ledger(error) => return error.hint(),
            AdminError::Store(error) => return error.hint(),
        })
    }
}

impl Ledger {
    /// Returns the records, newest first; without `all` only the ones whose
    /// outcome is unknown or pending, and those that are damaged or missing.
    pub fn list(&self, all: bool) -> Result<Vec<Value>, StoreError> {
        let mut records = Vec::new();
        self.walk(|name, record| {
            let value = match &record {
                Err(problem) => serde_json::json!({"record": name, "state": "damaged", "at": null, "problem": problem}),
                Ok(record) if all || record.last().is_some_and(Line::is_open) => record.to_value(name),
                Ok(_) => return,
            };
            records.push(value);
        })?;
        for name in self.missing_records()? {
            records.push(serde_json::json!({"record": name, "state": "missing", "at": null}));
        }
        for ledger in &self.earlier {
            records.extend(ledger.list(all)?);
        }
        records.sort_by_key(|value| std::cmp::Reverse(value["at"].as_str().unwrap_or_default().to_owned()));
        Ok(records)
    }

    /// Returns a record with all its lines; of a damaged one what it still
    /// says, and what is wrong with it.
    pub fn show(&self, key: &str) -> Result<Value, AdminError> {
        let name = self.find(key)?;
        let Some(bytes) = read_if_exists(&self.record_path(&name))? else {
            return Ok(serde_json::json!({"record": name, "state": "missing", "problem": "is missing although its write was dispatched"}));
        };
        let mut value = match self.examine(&bytes, &name)? {
            Ok(record) => {
                let mut value = record.to_value(&name);
                value["lines"] = serde_json::to_value(&record.lines).unwrap_or_default();
                return Ok(value);
            }
            Err(problem) => serde_json::json!({"record": name, "state": "damaged", "problem": problem}),
        };
        value["text"] = Value::from(String::from_utf8_lossy(&bytes).lines().collect::<Vec<_>>());
        Ok(value)
    }

    /// Deletes a record whose outcome is known.
    pub fn forget(&self, key: &str) -> Result<String, AdminError> {
        let (name, file, record) = self.own(key)?;
        if record.last().is_none_or(Line::is_open) {
            return Err(AdminError::Open);
        }
        if let Some(plan) = self.plan_used(&record) {
            return Err(AdminError::OfPlan(plan));
        }
        self.discard(file, &name, &record)?;
        Ok(name)
    }

    /// Returns the plan that a record keeps from being executed again, while
    /// it could be.
    fn plan_used(&self, record: &Record) -> Option<String> {
        let is_used = !matches!(record.last(), Some(Line::C(_) | Line::N(_)));
        let claim = record.claim().filter(|claim| is_used && age_of(&claim.at, self.clock.as_ref()) < LONGEST_PLAN)?;
        // A record that was written anew after its loss may have been a plan's.
        claim.plan.clone().or_else(|| claim.key.is_empty().then(|| "(unknown)".to_owned()))
    }

    fn own(&self, key: &str) -> Result<(String, Locked, Record), AdminError> {
        let name = self.find(key)?;
        let path = self.record_path(&name);
        match Locked::try_open_existing(&path, Mode::Exclusive)? {
            Existing::Absent => Err(missing(&name, &path).into()),
            Existing::Held => Err(AdminError::Held),
            Existing::Locked(mut file) => {
                let record = self.read_record(&mut file, &name)?;
                Ok((name, file, record))
            }
        }
    }

    /// Returns the record that a person means: by its key, or by at least
    /// eight digits of its name.
    pub(super) fn find(&self, key: &str) -> Result<String, AdminError> {
        let by_key = self.record_name(key);
        if self.record_path(&by_key).exists() || self.was_dispatched(&by_key)? {
            return Ok(by_key);
        }
        let digits = key.to_ascii_lowercase();
        if !(8..=64).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(AdminError::NotFound(key.escape_default().to_string()));
        }
        let mut found = Vec::new();
        for rest in names_in(&self.folder.join("ledger").join(&digits[..2]))? {
            if rest.starts_with(&digits[2..]) {
                found.push(format!("{}{rest}", &digits[..2]));
            }
        }
        found.extend(self.missing_records()?.into_iter().filter(|name| name.starts_with(&digits)));
        found.sort_unstable();
        found.dedup();
        match found.len() {
            0 => Err(AdminError::NotFound(digits)),
            1 => Ok(found.remove(0)),
            _ => Err(AdminError::Ambiguous(digits)),
        }
    }

    fn walk(&self, mut visit: impl FnMut(&str, Result<Record, String>)) -> Result<(), StoreError> {
        let root = self.folder.join("ledger");
        for shard in names_in(&root)? {
            for entry in names_in(&root.join(&shard))? {
                let name = format!("{shard}{entry}");
                if name.len() != 64 {
                    continue;
                }
                if let Some(bytes) = read_if_exists(&root.join(&shard).join(&entry))? {
                    visit(&name, self.examine(&bytes, &name)?);
                }
            }
        }
        Ok(())
    }
}

pub(super) fn names_in(folder: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(StoreError::io("read", folder)(error)),
    };
    let mut names: Vec<String> = entries.filter_map(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}
