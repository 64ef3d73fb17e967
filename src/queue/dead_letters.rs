//! The dead letters: events that failed for the last time, one JSON object a
//! line, with the fields of the Python worker's file and some more.
//!
//! The file is only ever appended to, and every line that b24 writes holds the
//! hash of the one before, so that a letter that was taken out by hand shows.
//! How far it was written stands in a witness beside it, `FILE.head`
//! ([`super::head`]): a file that was cut, emptied, removed or exchanged for an
//! older copy is refused, as is one whose chain does not hold.
//! What became of a letter is a further line: `action` is `retried` or
//! `dropped`, `ref` the letter. The inbox is the truth about which events are
//! dead; a letter that a crash kept from being written is written by the next
//! worker, once.

use super::commit::Dead;
use super::head::{Head, Mark, Witness};
use super::line::Tip;
use crate::crash;
use crate::host::{self, Clock, Random};
use crate::json::{canonical, sha256_hex};
use crate::store::create_folder;
use crate::store::locked::{self, Existing, Locked, Mode, StoreError};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const LOCK_WAIT: Duration = Duration::from_secs(30);

/// The hash before the first line.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Nothing was read yet.
fn beginning() -> Mark {
    Mark { length: 0, tip: Tip::start(0) }
}

/// The dead letters of an inbox.
pub struct DeadLetters {
    path: PathBuf,
    tenant: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// Everything before this is in `letters`; its tip is over all bytes.
    known: Mark,
    /// Which file that is.
    id: Option<(u64, u64)>,
    /// What the witness said or was told last.
    head: Option<Head>,
    /// The hash of the last line of b24, also of those that are being written.
    tip: String,
    /// The same, of those that were read.
    read_tip: String,
    letters: HashMap<String, Status>,
    order: Vec<String>,
}

/// The file in the hands of this process.
struct Opened {
    file: Locked,
    /// A file of an earlier version or of the Python worker has none yet.
    witness: Option<Witness>,
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
    pub fn new(path: PathBuf, tenant: String, (clock, random): (Arc<dyn Clock>, Arc<dyn Random>)) -> DeadLetters {
        let (letters, order) = (HashMap::new(), Vec::new());
        DeadLetters {
            path,
            tenant,
            clock,
            random,
            known: beginning(),
            id: None,
            head: None,
            tip: GENESIS.to_owned(),
            read_tip: GENESIS.to_owned(),
            letters,
            order,
        }
    }

    /// Returns the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what is there, so that damage shows before anything is begun.
    pub fn check(&mut self) -> Result<(), StoreError> {
        self.look().map(drop)
    }

    /// Writes letters that are not there yet; durable when it returns.
    pub fn write(&mut self, dead: &[Dead]) -> Result<(), StoreError> {
        let mut opened = self.open()?;
        let mut bytes = Vec::new();
        for letter in dead {
            if self.letters.contains_key(&letter.job.key.to_string()) {
                continue;
            }
            let row = self.row(letter);
            self.chain(row, &mut bytes);
        }
        if bytes.is_empty() {
            // They are in the file; whoever wrote them may have died before
            // they were on disk.
            return opened.file.sync_data();
        }
        self.append(&mut opened, &bytes)
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

    fn append(&mut self, opened: &mut Opened, bytes: &[u8]) -> Result<(), StoreError> {
        if bytes.is_empty() {
            return Ok(());
        }
        let appended = opened.file.append(bytes).and_then(|()| {
            crash::point("queue.after_dead_letter");
            opened.file.sync_data()
        });
        // What was written is read like what others write; after a failure
        // everything is read anew. The hash of the last line went ahead.
        self.tip.clone_from(&self.read_tip);
        appended.and_then(|()| self.refresh(&mut opened.file, self.head)).inspect_err(|_| self.forget())?;
        let head = Head { number: 0, length: self.known.length, tip: self.known.tip, refused: false };
        self.head = Some(head);
        match &mut opened.witness {
            Some(witness) => witness.write(&head),
            None => Witness::create(&self.head_path(), &head, self.random.as_ref()).map(drop),
        }
    }

    fn forget(&mut self) {
        (self.known, self.id, self.head) = (beginning(), None, None);
        (self.tip, self.read_tip) = (GENESIS.to_owned(), GENESIS.to_owned());
        self.letters.clear();
        self.order.clear();
    }

    fn head_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".head");
        PathBuf::from(name)
    }

    /// Opens the file, or makes it.
    fn open(&mut self) -> Result<Opened, StoreError> {
        if let Some(opened) = self.look()? {
            return Ok(opened);
        }
        create_folder(self.path.parent().unwrap_or(Path::new("/")))?;
        // The witness first: lines without one are those of an earlier version.
        let head = Head::start(0);
        match Witness::open(&self.head_path())? {
            Some((mut witness, _)) => witness.write_durable(&head)?,
            None => drop(Witness::create(&self.head_path(), &head, self.random.as_ref())?),
        }
        drop(Locked::open(&self.path, Mode::Exclusive, LOCK_WAIT)?);
        locked::sync_parent(&self.path)?;
        self.look()?.ok_or_else(|| StoreError::unusable(&self.path, "was removed while it was made"))
    }

    /// Opens the file if it is there, and reads what is new.
    fn look(&mut self) -> Result<Option<Opened>, StoreError> {
        for _ in 0..2 {
            let file = match Locked::open_existing(&self.path, Mode::Exclusive, LOCK_WAIT)? {
                Existing::Locked(file) => Some(file),
                Existing::Held => return Err(StoreError::Busy(self.path.clone())),
                Existing::Absent => None,
            };
            let opened = Witness::open(&self.head_path())?;
            let Some(file) = file else {
                match opened {
                    // Another process may just have made the file.
                    Some((_, head)) if head.length > 0 && !head.refused => continue,
                    Some(_) | None => {
                        self.forget();
                        return Ok(None);
                    }
                }
            };
            let (witness, head) = opened.unzip();
            let mut opened = Opened { file, witness };
            if let Err(error) = self.refresh(&mut opened.file, head) {
                self.forget();
                if let (Some(witness), Some(head), StoreError::Unusable { .. }) = (&mut opened.witness, head, &error) {
                    let _ = witness.mark_refused(head);
                }
                return Err(error);
            }
            if let (Some(witness), Some(head)) = (&mut opened.witness, head.filter(|head| head.refused)) {
                witness.write(&Head { refused: false, ..head })?;
            }
            return Ok(Some(opened));
        }
        let problem = format!("is gone; dead letters were written to it, and {} still says so", self.head_path().display());
        Err(StoreError::unusable(&self.path, problem))
    }

    fn refresh(&mut self, file: &mut Locked, head: Option<Head>) -> Result<(), StoreError> {
        let id = file.id()?;
        let mut marks = Vec::new();
        if self.id.is_some_and(|known| known != id) {
            marks.push(self.known);
            self.forget();
        }
        self.id = Some(id);
        marks.extend(head.filter(|_| head != self.head).map(|head| Mark { length: head.length, tip: head.tip }));
        marks.retain(|mark| mark.length >= self.known.length);
        if file.length()? < self.known.length {
            return Err(StoreError::unusable(&self.path, "is shorter than before; dead letters are never taken out of the file"));
        }
        let mut tail = file.read_from(self.known.length)?;
        let is_whole = |line: &[u8]| serde_json::from_slice::<Map<String, Value>>(line).is_ok();
        // Only its end is missing: the letter is not lost with it.
        let lacks_end = tail.rsplit(|byte| *byte == b'\n').next().is_some_and(is_whole);
        if lacks_end {
            tail.push(b'\n');
        }
        let complete = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1);
        self.pass(&mut marks)?;
        for text in tail[..complete].split_inclusive(|byte| *byte == b'\n') {
            self.learn(text)?;
            self.known = Mark { length: self.known.length + text.len() as u64, tip: self.known.tip.after(text) };
            self.pass(&mut marks)?;
        }
        if let Some(mark) = marks.first() {
            let has = self.known.length + (tail.len() - complete) as u64;
            let problem = format!("has lost dead letters: it ends at byte {has}, and {} bytes of it were on disk", mark.length);
            return Err(StoreError::unusable(&self.path, problem));
        }
        if lacks_end {
            file.append(b"\n")?;
        } else if complete < tail.len() {
            file.truncate(self.known.length)?;
        }
        self.head = head;
        self.read_tip.clone_from(&self.tip);
        Ok(())
    }

    /// Takes out the marks that the reading has come to.
    fn pass(&self, marks: &mut Vec<Mark>) -> Result<(), StoreError> {
        let Mark { length, tip } = self.known;
        if marks.iter().any(|mark| mark.length < length || mark.check(length, tip) == Some(false)) {
            let problem = format!("is not what was written up to byte {length}: an older copy, or lines were changed");
            return Err(StoreError::unusable(&self.path, problem));
        }
        marks.retain(|mark| mark.length != length);
        Ok(())
    }

    /// Takes over what a line says. A line without a hash is one of the Python
    /// worker's.
    fn learn(&mut self, text: &[u8]) -> Result<(), StoreError> {
        let at = self.known.length;
        let row: Map<String, Value> = serde_json::from_slice(text)
            .map_err(|_| StoreError::unusable(&self.path, format!("has a line that is no JSON object at byte {at}")))?;
        let (own, refers) = (row.get("h").and_then(Value::as_str), row.get("ref").and_then(Value::as_str));
        let id = match (own, refers) {
            (Some(_), Some(letter)) => {
                self.letters.insert(letter.to_owned(), Status::Closed);
                self.order.retain(|id| id != letter);
                None
            }
            (Some(_), None) => row.get("id").and_then(Value::as_str).map(str::to_owned),
            (None, _) => Some(sha256_hex(text)[..32].to_owned()),
        };
        if own.is_some() {
            self.tip = follow(row, &self.tip).ok_or_else(|| {
                let problem = format!("has a line at byte {at} that was changed, or does not follow the one before it");
                StoreError::unusable(&self.path, problem)
            })?;
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
        let Some(Opened { mut file, .. }) = self.look()? else { return Ok(Vec::new()) };
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
        let changed = || StoreError::unusable(&self.path, format!("was changed behind b24's back at byte {offset}"));
        let row: Map<String, Value> = serde_json::from_slice(&text).map_err(|_| changed())?;
        let prev = row.get("prev").and_then(Value::as_str).map(str::to_owned);
        if prev.is_some_and(|prev| follow(row.clone(), &prev).is_none()) {
            return Err(changed());
        }
        let mut row = Value::Object(row);
        row["id"] = Value::from(id);
        Ok(Some(row))
    }

    /// Notes what was done with letters; durable when it returns.
    pub fn close(&mut self, ids: &[String], action: Action, actor: &str, reason: Option<&str>) -> Result<usize, StoreError> {
        let mut opened = self.open()?;
        let mut bytes = Vec::new();
        let open: Vec<&String> = ids.iter().filter(|id| matches!(self.letters.get(*id), Some(Status::Open { .. }))).collect();
        for id in &open {
            let row = json!({"action": action.text(), "ref": id, "by": actor, "why": reason, "at": host::timestamp(self.clock.now())});
            if let Value::Object(row) = row {
                self.chain(row, &mut bytes);
            }
        }
        let count = open.len();
        self.append(&mut opened, &bytes)?;
        Ok(count)
    }

    /// Returns how many letters are open.
    pub fn count(&mut self) -> Result<usize, StoreError> {
        self.look()?;
        Ok(self.order.len())
    }

    /// Checks the chain of hashes. Returns how many lines it covers, or the
    /// number of the first line, counted from 1, that does not fit.
    pub fn verify(&mut self) -> Result<Result<usize, usize>, StoreError> {
        let content = locked::read_if_exists(&self.path)?.unwrap_or_default();
        let (mut tip, mut count, mut lines) = (GENESIS.to_owned(), 0, 0);
        // Bytes behind the last line end are being written, or the rest of a
        // killed writer.
        let complete = content.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for (index, text) in content[..complete].split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
            lines = index + 1;
            let Ok(row) = serde_json::from_slice::<Map<String, Value>>(text) else { return Ok(Err(lines)) };
            if !row.get("h").is_some_and(Value::is_string) {
                continue;
            }
            let Some(next) = follow(row, &tip) else { return Ok(Err(lines)) };
            (tip, count) = (next, count + 1);
        }
        let head = Witness::open(&self.head_path())?.map(|(_, head)| head);
        let is_there = |head: Head| {
            let begin = usize::try_from(head.length).ok().and_then(|length| content.get(..length));
            begin.is_some_and(|begin| Tip::start(0).after(begin) == head.tip)
        };
        // Lines at the end that are gone, or were put in again as they had been.
        Ok(if head.is_none_or(is_there) { Ok(count) } else { Err(lines + 1) })
    }
}

/// Returns the hash of a line if it is right and the line follows the one with
/// the hash `tip`.
fn follow(mut row: Map<String, Value>, tip: &str) -> Option<String> {
    let Some(Value::String(own)) = row.remove("h") else { return None };
    (row.get("prev").and_then(Value::as_str) == Some(tip) && hash(&row) == own).then_some(own)
}

fn hash(row: &Map<String, Value>) -> String {
    sha256_hex(canonical(&Value::Object(row.clone())))
}

#[cfg(test)]
mod tests;
