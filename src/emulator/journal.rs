//! The one file of a data set: JSON Lines, only ever appended to.
//!
//! Protocol: whoever works on the data holds the exclusive lock of this file
//! from reading the lines that others appended to appending his own. A line
//! counts when its line feed is there; bytes behind the last line feed are the
//! rest of a killed writer and are cut by the next holder of the lock. A line
//! is not synchronised to disk: it survives the death of the process, which is
//! what tests of a client need, and the machine's death ends the test anyway.

use super::EmulatorError;
use super::events::Binding;
use super::limits::{BucketLevel, Charge};
use super::oauth::IssuedTokens;
use super::queue::QueuedEvent;
use super::state::State;
use crate::store::locked::{Locked, Mode, StoreError, read_if_exists};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The journal's name in the data folder.
const FILE: &str = "journal.jsonl";

/// How long a request waits for the data.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// What is fixed when a data set is made. No `Debug`: it holds secrets.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Genesis {
    pub(super) data_id: String,
    pub(super) member_id: String,
    pub(super) created_at: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
    pub(super) application_token: String,
    pub(super) webhooks: Vec<(u64, String)>,
}

/// One line. (Externally tagged: the other forms of serde lose the tokens of
/// numbers.)
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Genesis(Genesis),
    Tokens(IssuedTokens),
    Change(Change),
    Bucket(BucketLevel),
    Operating(Charge),
    Answer {
        key: String,
        request_hash: String,
        body: String,
        until: i64,
    },
    Bound(Binding),
    Unbound {
        ids: Vec<u64>,
    },
    /// A handler was told that the queue has rows.
    Signalled {
        binding: u64,
        at_ms: i64,
    },
    /// A row of the offline queue; a known id makes that row young again.
    Queued(QueuedEvent),
    Reserved {
        process_id: String,
        at: i64,
        ids: Vec<u64>,
    },
    /// Rows are marked as failed and leave their reservation.
    Failed {
        ids: Vec<u64>,
    },
    /// Rows left the offline queue for good.
    Unqueued {
        ids: Vec<u64>,
    },
}

/// One change of the portal's data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Position in the log, counted from 1 over all processes.
    pub seq: u64,
    /// When, in server time.
    pub at: String,
    /// `X-Request-ID` of the request.
    pub request_id: Option<String>,
    /// The user whose credential was used.
    pub user: u64,
    /// The method that did it; inside a batch, the inner method.
    pub method: String,
    /// `lead`, `deal`, `contact`, `company`, `task`, `dynamic_128`, …
    pub entity: String,
    /// The object.
    pub id: u64,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The whole row after an addition, the new values after an update.
    pub fields: Value,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It was created.
    Add,
    /// Some of its fields were set.
    Update,
    /// It was deleted.
    Delete,
}

/// The journal as one process has read it.
pub(super) struct Journal {
    path: PathBuf,
    /// Everything before this offset is in the state.
    position: u64,
}

impl Journal {
    pub(super) fn new(folder: &Path) -> Journal {
        Journal { path: folder.join(FILE), position: 0 }
    }

    /// Forgets what was read; the next lock reads everything.
    pub(super) fn rewind(&mut self) {
        self.position = 0;
    }

    /// Takes the data lock and brings the state up to date.
    pub(super) fn lock(&mut self, state: &mut State) -> Result<Locked, EmulatorError> {
        let mut file = Locked::open(&self.path, Mode::Exclusive, LOCK_WAIT)?;
        let length = file.length()?;
        if length < self.position {
            return Err(StoreError::unusable(&self.path, "is shorter than before; the emulator's data was replaced").into());
        }
        if length > self.position {
            let tail = file.read_from(self.position)?;
            let complete = complete_length(&tail);
            for line in lines(&tail[..complete]) {
                state.apply(parse(line, &self.path)?);
            }
            self.position += complete as u64;
            if complete < tail.len() {
                file.truncate(self.position)?;
            }
        }
        Ok(file)
    }

    /// Appends lines that are in the state already.
    pub(super) fn append(&mut self, file: &mut Locked, records: &[Record]) -> Result<(), EmulatorError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for record in records {
            serde_json::to_writer(&mut text, record).map_err(|error| StoreError::unusable(&self.path, error.to_string()))?;
            text.push(b'\n');
        }
        file.append(&text)?;
        self.position += text.len() as u64;
        Ok(())
    }
}

/// Reads every change, also while servers run.
pub(super) fn read_changes(folder: &Path) -> Result<Vec<Change>, EmulatorError> {
    let path = folder.join(FILE);
    let content = read_if_exists(&path)?.unwrap_or_default();
    let mut changes = Vec::new();
    for line in lines(&content[..complete_length(&content)]) {
        if let Record::Change(change) = parse(line, &path)? {
            changes.push(change);
        }
    }
    Ok(changes)
}

fn complete_length(content: &[u8]) -> usize {
    content.iter().rposition(|byte| *byte == b'\n').map_or(0, |position| position + 1)
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn parse(line: &[u8], path: &Path) -> Result<Record, EmulatorError> {
    serde_json::from_slice(line).map_err(|error| StoreError::unusable(path, format!("has a line that cannot be read: {error}")).into())
}
