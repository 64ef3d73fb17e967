//! The rows of the offline event queue and the indexes over them.
//!
//! A row lies in one lane: a source key, and whether it is marked as failed.
//! While no process holds it, it also stands in the order of its lane, so that
//! the next rows are found without looking at the others. Its `MESSAGE_ID`
//! says which event of which object it is; of one message a queue has at most
//! one row that no process holds.

use super::query::{Query, value_text};
use super::state::Row;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// An event on its way into the queue.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct QueuedEvent {
    pub(super) id: u64,
    pub(super) connector: String,
    pub(super) event: String,
    pub(super) message_id: String,
    /// When, in seconds since 1970 and as the portal shows it.
    pub(super) at: i64,
    pub(super) stamp: String,
    pub(super) data: Value,
    pub(super) additional: Value,
}

/// The offline queue of the application.
#[derive(Default)]
pub(super) struct Queue {
    entries: BTreeMap<u64, Entry>,
    last_id: u64,
    /// Rows that no process holds, the least recently changed first.
    free: HashMap<Lane, BTreeSet<(i64, u64)>>,
    /// The free row of a message, by source key and `MESSAGE_ID`.
    by_message: HashMap<(String, String), u64>,
    processes: HashMap<String, Process>,
}

/// Which rows a call of `event.offline.get` can see.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) connector: String,
    pub(super) failed: bool,
}

struct Entry {
    lane: Lane,
    at: i64,
    message_id: String,
    process: Option<String>,
    /// The columns as `event.offline.list` shows them.
    row: Row,
}

struct Process {
    at: i64,
    ids: BTreeSet<u64>,
}

impl Queue {
    /// Returns the id for a message: of the row that waits for it, or a new
    /// one.
    pub(super) fn id_for(&self, connector: &str, message_id: &str) -> u64 {
        let key = (connector.to_owned(), message_id.to_owned());
        self.by_message.get(&key).copied().unwrap_or(self.last_id + 1)
    }

    /// Returns the first free rows of a lane that a query asks for.
    pub(super) fn next_free(&self, lane: &Lane, query: &Query, limit: usize) -> Vec<&Row> {
        let ids = self.free.get(lane).into_iter().flatten().map(|(_, id)| id);
        query.first(ids.filter_map(|id| Some(&self.entries.get(id)?.row)), "TIMESTAMP_X", limit)
    }

    /// Returns the first rows of a process that a query asks for.
    pub(super) fn held(&self, process_id: &str, lane: &Lane, query: &Query, limit: usize) -> Vec<&Row> {
        let mut held: Vec<&Entry> = self.entries_of(process_id).map(|(_, entry)| entry).filter(|entry| entry.lane == *lane).collect();
        held.sort_by_key(|entry| entry.at);
        query.first(held.into_iter().map(|entry| &entry.row), "TIMESTAMP_X", limit)
    }

    /// Returns every row of a source key by ascending id.
    pub(super) fn of_connector(&self, connector: &str) -> impl Iterator<Item = &Row> {
        self.entries.values().filter(move |entry| entry.lane.connector == connector).map(|entry| &entry.row)
    }

    /// Returns id and `MESSAGE_ID` of the rows that a process holds under a
    /// source key.
    pub(super) fn messages_of(&self, process_id: &str, connector: &str) -> Vec<(u64, &str)> {
        let entries = self.entries_of(process_id).filter(|(_, entry)| entry.lane.connector == connector);
        entries.map(|(id, entry)| (id, entry.message_id.as_str())).collect()
    }

    /// Returns the rows of some messages that are not failed, whoever holds
    /// them.
    pub(super) fn unfailed_of(&self, messages: &[String], connector: &str) -> Vec<u64> {
        let is_meant = |entry: &Entry| entry.lane.connector == connector && !entry.lane.failed && messages.contains(&entry.message_id);
        self.entries.iter().filter(|(_, entry)| is_meant(entry)).map(|(id, _)| *id).collect()
    }

    /// Returns the rows whose reservation began before a moment.
    pub(super) fn reserved_before(&self, moment: i64) -> Vec<u64> {
        self.processes.values().filter(|process| process.at < moment).flat_map(|process| process.ids.iter().copied()).collect()
    }

    /// Takes an event in; a row with its id is changed to it.
    pub(super) fn put(&mut self, event: QueuedEvent) {
        self.last_id = self.last_id.max(event.id);
        let refreshed = self.detach(event.id);
        let failed = refreshed.is_some_and(|entry| entry.lane.failed);
        let row = row(&event, failed);
        let lane = Lane { connector: event.connector, failed };
        self.attach(event.id, Entry { lane, at: event.at, message_id: event.message_id, process: None, row });
    }

    /// Gives rows to a process.
    pub(super) fn reserve(&mut self, process_id: &str, at: i64, ids: &[u64]) {
        for id in ids {
            let Some(mut entry) = self.detach(*id) else { continue };
            entry.process = Some(process_id.to_owned());
            entry.row.insert("PROCESS_ID".to_owned(), json!(process_id));
            self.processes.entry(process_id.to_owned()).or_insert_with(|| Process { at, ids: BTreeSet::new() });
            self.attach(*id, entry);
        }
    }

    /// Marks rows as failed and takes them from their process. A free row of
    /// the same message goes: the failed one stands for it.
    pub(super) fn fail(&mut self, ids: &[u64]) {
        for id in ids {
            let Some(mut entry) = self.detach(*id) else { continue };
            if let Some(other) = self.by_message.get(&(entry.lane.connector.clone(), entry.message_id.clone())) {
                self.detach(*other);
            }
            entry.lane.failed = true;
            entry.process = None;
            entry.row.insert("PROCESS_ID".to_owned(), json!(""));
            entry.row.insert("ERROR".to_owned(), json!("1"));
            self.attach(*id, entry);
        }
    }

    /// Takes rows out for good.
    pub(super) fn remove(&mut self, ids: &[u64]) {
        for id in ids {
            self.detach(*id);
        }
    }

    fn entries_of(&self, process_id: &str) -> impl Iterator<Item = (u64, &Entry)> {
        let ids = self.processes.get(process_id).into_iter().flat_map(|process| process.ids.iter());
        ids.filter_map(|id| Some((*id, self.entries.get(id)?)))
    }

    fn attach(&mut self, id: u64, entry: Entry) {
        match &entry.process {
            None => {
                self.free.entry(entry.lane.clone()).or_default().insert((entry.at, id));
                self.by_message.insert((entry.lane.connector.clone(), entry.message_id.clone()), id);
            }
            Some(process_id) => {
                if let Some(process) = self.processes.get_mut(process_id) {
                    process.ids.insert(id);
                }
            }
        }
        self.entries.insert(id, entry);
    }

    fn detach(&mut self, id: u64) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        match &entry.process {
            None => {
                if let Some(lane) = self.free.get_mut(&entry.lane) {
                    lane.remove(&(entry.at, id));
                }
                self.by_message.remove(&(entry.lane.connector.clone(), entry.message_id.clone()));
            }
            Some(process_id) => {
                if let Some(process) = self.processes.get_mut(process_id) {
                    process.ids.remove(&id);
                    if process.ids.is_empty() {
                        self.processes.remove(process_id);
                    }
                }
            }
        }
        Some(entry)
    }
}

fn row(event: &QueuedEvent, failed: bool) -> Row {
    let columns = [
        ("ID", json!(event.id.to_string())),
        ("TIMESTAMP_X", json!(event.stamp)),
        ("EVENT_NAME", json!(event.event)),
        ("EVENT_DATA", event.data.clone()),
        ("EVENT_ADDITIONAL", event.additional.clone()),
        ("MESSAGE_ID", json!(event.message_id)),
        ("PROCESS_ID", json!("")),
        ("ERROR", json!(if failed { "1" } else { "0" })),
    ];
    columns.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the id of a row.
pub(super) fn id_of(row: &Row) -> Option<u64> {
    value_text(row.get("ID")?).parse().ok()
}
