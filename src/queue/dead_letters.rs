//! The dead letters: events that failed for the last time, one JSON object a
//! line, with the fields of the Python worker's file and some more.
//!
//! The file is only ever appended to, and every line that b24 writes holds the
//! hash of the one before, so that a letter that was taken out by hand shows.
//! What became of a letter is a further line: `action` is `retried` or
//! `dropped`, `ref` the letter. The inbox is the truth about which events are
//! dead; a letter that a crash kept from being written is written by the next
//! worker, once.

use super::commit::Dead;
use crate::crash;
use crate::host::{self, Clock};
use crate::json::{canonical, sha256_hex};
use crate::store::create_folder;
use crate::store::locked::{self, Locked, Mode, StoreError};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LOCK_WAIT: Duration = Duration::from_secs(30);

/// The hash before the first line.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The dead letters of an inbox.
pub struct DeadLetters {
    path: PathBuf,
    tenant: String,
    clock: Arc<dyn Clock>,
    /// Everything before this offset is in `letters`.
    position: u64,
    tip: String,
    letters: HashMap<String, Status>,
    order: Vec<String>,
}

/// What is known of a letter.
#[derive(Debug, Clone, PartialEq)]
enum Status {
    Open { offset: u64, length: usize },
    Closed,
}

/// What is done with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It went back to the inbox.
    Retried,
    /// It is not wanted any more.
    Dropped,
}

impl Action {
    fn text(self) -> &'static str {
        match self {
            Action::Retried => "retried",
            Action::Dropped => "dropped",
        }
    }
}

impl DeadLetters {
    /// Names the dead letters of a file. Nothing is created yet.
    #[must_use]
    pub fn new(path: PathBuf, tenant: String, clock: Arc<dyn Clock>) -> DeadLetters {
        let (letters, order) = (HashMap::new(), Vec::new());
        DeadLetters { path, tenant, clock, position: 0, tip: GENESIS.to_owned(), letters, order }
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes letters that are not there yet; durable when it returns.
    pub fn write(&mut self, dead: &[Dead]) -> Result<(), StoreError> {
        let mut file = self.open()?;
        let mut bytes = Vec::new();
        for letter in dead {
            if self.letters.contains_key(&letter.job.key.to_string()) {
                continue;
            }
            let row = self.row(letter);
            self.chain(row, &mut bytes);
        }
        self.append(&mut file, &bytes)
    }

    fn row(&self, dead: &Dead) -> Map<String, Value> {
        let now = self.clock.now();
        let row = json!({
            "tenant": self.tenant, "event": dead.job.name, "message_id": dead.message, "retry_count": dead.failures, "error": dead.error,
            "payload": serde_json::from_str::<Value>(dead.job.payload.get()).unwrap_or_default(), "ts": now.timestamp(),
            "id": dead.job.key.to_string(), "reason": dead.reason, "attempts": dead.job.attempt, "interrupted": dead.job.interrupted,
            "entity": dead.job.entity, "source": dead.job.source, "received_ms": dead.job.received_ms,
        });
        match row {
            Value::Object(row) => row,
            _ => Map::new(),
        }
    }

    fn chain(&mut self, mut row: Map<String, Value>, bytes: &mut Vec<u8>) {
        row.insert("prev".to_owned(), Value::from(self.tip.as_str()));
        self.tip = hash(&row);
        row.insert("h".to_owned(), Value::from(self.tip.as_str()));
        bytes.extend_from_slice(Value::Object(row).to_string().as_bytes());
        bytes.push(b'\n');
    }

    fn append(&mut self, file: &mut Locked, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let appended = file.append(bytes).and_then(|()| {
            crash::point("queue.after_dead_letter");
            file.sync_data()
        });
        // What was written is read like what others write; after a failure
        // everything is read anew.
        match appended.and_then(|()| self.refresh(file)) {
            Ok(()) => Ok(()),
            Err(error) => {
                (self.position, self.tip) = (0, GENESIS.to_owned());
                self.letters.clear();
                self.order.clear();
                Err(error)
            }
        }
    }

    fn open(&mut self) -> Result<Locked, StoreError> {
        let is_new = !self.path.exists();
        if is_new {
            create_folder(self.path.parent().unwrap_or(Path::new("/")))?;
        }
        let mut file = Locked::open(&self.path, Mode::Exclusive, LOCK_WAIT)?;
        if is_new {
            locked::sync_parent(&self.path)?;
        }
        self.refresh(&mut file)?;
        Ok(file)
    }

    fn refresh(&mut self, file: &mut Locked) -> Result<(), StoreError> {
        if file.length()? < self.position {
            return Err(StoreError::unusable(&self.path, "is shorter than before; dead letters are never taken out of the file"));
        }
        let mut tail = file.read_from(self.position)?;
        let is_whole = |line: &[u8]| serde_json::from_slice::<Map<String, Value>>(line).is_ok();
        if tail.rsplit(|byte| *byte == b'\n').next().is_some_and(is_whole) {
            // Only its end is missing: the letter is not lost with it.
            file.append(b"\n")?;
            tail.push(b'\n');
        }
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        for text in tail[..complete].split_inclusive(|byte| *byte == b'\n') {
            self.learn(text)?;
            self.position += text.len() as u64;
        }
        if complete < tail.len() {
            file.truncate(self.position)?;
        }
        Ok(())
    }

    /// Takes over what a line says. A line without a hash is one of the Python
    /// worker's.
    fn learn(&mut self, text: &[u8]) -> Result<(), StoreError> {
        let at = self.position;
        let row: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|_| StoreError::unusable(&self.path, format!("has a line that is no JSON object at byte {at}")))?;
        let own = row.get("h").and_then(Value::as_str);
        let id = match (own, row.get("ref").and_then(Value::as_str)) {
            (Some(_), Some(letter)) => {
                self.letters.insert(letter.to_owned(), Status::Closed);
                self.order.retain(|id| id != letter);
                None
            }
            (Some(_), None) => row.get("id").and_then(Value::as_str).map(str::to_owned),
            (None, _) => Some(sha256_hex(text)[..32].to_owned()),
        };
        if let Some(own) = own {
            own.clone_into(&mut self.tip);
        }
        if let Some(id) = id.filter(|id| !self.letters.contains_key(id)) {
            self.order.push(id.clone());
            self.letters.insert(id, Status::Open { offset: at, length: text.len() });
        }
        Ok(())
    }

    /// Returns the letters that nobody retried or dropped, oldest first, each
    /// with its `id`.
    pub fn list(&mut self) -> Result<Vec<Value>, StoreError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let mut file = self.open()?;
        let mut rows = Vec::new();
        for id in self.order.clone() {
            if let Some(row) = self.read(&mut file, &id)? {
                rows.push(row);
            }
        }
        Ok(rows)
    }

    fn read(&self, file: &mut Locked, id: &str) -> Result<Option<Value>, StoreError> {
        let Some(Status::Open { offset, length }) = self.letters.get(id) else { return Ok(None) };
        let text = file.read_range(*offset, *length)?;
        let mut row: Value =
            serde_json::from_slice(&text).map_err(|_| StoreError::unusable(&self.path, "was changed while it was read"))?;
        row["id"] = Value::from(id);
        Ok(Some(row))
    }

    /// Notes what was done with letters; durable when it returns.
    pub fn close(&mut self, ids: &[String], action: Action, actor: &str, reason: Option<&str>) -> Result<usize, StoreError> {
        let mut file = self.open()?;
        let mut bytes = Vec::new();
        let open: Vec<&String> = ids.iter().filter(|id| matches!(self.letters.get(*id), Some(Status::Open { .. }))).collect();
        for id in &open {
            let row = json!({"action": action.text(), "ref": id, "by": actor, "why": reason, "at": host::timestamp(self.clock.now())});
            if let Value::Object(row) = row {
                self.chain(row, &mut bytes);
            }
        }
        let count = open.len();
        self.append(&mut file, &bytes)?;
        Ok(count)
    }

    /// Returns how many letters are open.
    pub fn count(&mut self) -> Result<usize, StoreError> {
        if !self.path.exists() {
            return Ok(0);
        }
        self.open()?;
        Ok(self.order.len())
    }

    /// Checks the chain of hashes. Returns how many lines it covers, or the
    /// number of the first line, counted from 1, that does not fit.
    pub fn verify(&mut self) -> Result<Result<usize, usize>, StoreError> {
        let content = locked::read_if_exists(&self.path)?.unwrap_or_default();
        let (mut tip, mut count) = (GENESIS.to_owned(), 0);
        // Bytes behind the last line end are being written, or the rest of a
        // killed writer.
        let complete = content.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for (index, text) in content[..complete].split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
            let Ok(mut row) = serde_json::from_slice::<Map<String, Value>>(text) else { return Ok(Err(index + 1)) };
            let Some(Value::String(own)) = row.remove("h") else { continue };
            if row.get("prev").and_then(Value::as_str) != Some(&tip) || hash(&row) != own {
                return Ok(Err(index + 1));
            }
            (tip, count) = (own, count + 1);
        }
        Ok(Ok(count))
    }
}

fn hash(row: &Map<String, Value>) -> String {
    sha256_hex(canonical(&Value::Object(row.clone())))
}

#[cfg(test)]
mod tests;
