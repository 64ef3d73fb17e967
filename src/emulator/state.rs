//! The portal's memory, rebuilt by replaying the journal.

use super::events::Bindings;
use super::journal::{Change, ChangeKind, Genesis, Record};
use super::limits::LimitState;
use super::oauth::TokenState;
use super::queue::Queue;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// One object, with the field names and text values of the classic API.
pub(super) type Row = Map<String, Value>;

/// Rows of one kind, by id.
#[derive(Default)]
pub(super) struct Table {
    pub(super) rows: BTreeMap<u64, Row>,
    last_id: u64,
}

impl Table {
    /// Returns the id that a new row gets; ids of deleted rows do not return.
    pub(super) fn next_id(&self) -> u64 {
        self.last_id + 1
    }
}

/// An answer kept under an `Idempotency-Key`.
pub(super) struct StoredAnswer {
    pub(super) request_hash: String,
    pub(super) body: String,
    pub(super) until: i64,
}

/// Everything that the journal tells.
#[derive(Default)]
pub(super) struct State {
    pub(super) genesis: Option<Genesis>,
    pub(super) tokens: TokenState,
    pub(super) limits: LimitState,
    pub(super) answers: HashMap<String, StoredAnswer>,
    pub(super) bindings: Bindings,
    pub(super) queue: Queue,
    pub(super) last_seq: u64,
    /// The highest id of a phone number, address or other multiple value.
    pub(super) last_value_id: u64,
    tables: HashMap<String, Table>,
}

impl State {
    /// Returns the rows of an entity.
    pub(super) fn table(&mut self, entity: &str) -> &mut Table {
        if !self.tables.contains_key(entity) {
            self.tables.insert(entity.to_owned(), Table::default());
        }
        self.tables.get_mut(entity).expect("just inserted")
    }

    /// Returns one row.
    pub(super) fn row(&self, entity: &str, id: u64) -> Option<&Row> {
        self.tables.get(entity)?.rows.get(&id)
    }

    /// Takes over what a journal line says.
    pub(super) fn apply(&mut self, record: Record) {
        match record {
            Record::Genesis(genesis) => self.genesis = Some(genesis),
            Record::Tokens(tokens) => self.tokens.apply(tokens),
            Record::Change(change) => self.apply_change(change),
            Record::Bucket(bucket) => self.limits.bucket = Some(bucket),
            Record::Operating(charge) => self.limits.charge(charge),
            Record::Answer { key, request_hash, body, until } => {
                self.answers.insert(key, StoredAnswer { request_hash, body, until });
            }
            Record::Bound(binding) => self.bindings.bind(binding),
            Record::Unbound { ids } => self.bindings.unbind(&ids),
            Record::Signalled { binding, at_ms } => self.bindings.signal(binding, at_ms),
            Record::Queued(event) => self.queue.put(event),
            Record::Reserved { process_id, at, ids } => self.queue.reserve(&process_id, at, &ids),
            Record::Failed { ids } => self.queue.fail(&ids),
            Record::Unqueued { ids } => self.queue.remove(&ids),
        }
    }

    fn apply_change(&mut self, change: Change) {
        self.last_seq = self.last_seq.max(change.seq);
        let Value::Object(fields) = change.fields else { return };
        self.last_value_id = fields.values().filter_map(Value::as_array).flatten().filter_map(value_id).fold(self.last_value_id, u64::max);
        let table = self.table(&change.entity);
        table.last_id = table.last_id.max(change.id);
        match change.kind {
            ChangeKind::Add => {
                table.rows.insert(change.id, fields);
            }
            ChangeKind::Update => {
                if let Some(row) = table.rows.get_mut(&change.id) {
                    row.extend(fields);
                }
            }
            ChangeKind::Delete => {
                table.rows.remove(&change.id);
            }
        }
    }
}

fn value_id(value: &Value) -> Option<u64> {
    value.get("VALUE")?;
    value.get("ID")?.as_str()?.parse().ok()
}
