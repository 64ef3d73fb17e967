//! `event.offline.*`: changes that wait until the application asks for them.
//!
//! Documented (`api-reference/events/`: `offline-events.md` and the pages of
//! the four methods): only an administrator gets an answer; the queue keeps
//! one row of an event and an object, with the time of the last change; a
//! source key has a queue of its own; `get` deletes what it returns, or with
//! `clear=0` gives it to a process and hides it from other calls; `process_id`
//! selects the rows of a process again; `clear` ends a reservation, whole or
//! by `id` or `message_id`, of which `id` goes before; a reservation lives 30
//! days; `list` changes nothing.
//!
//! As self-hosted portals do where the pages are silent:
//! - A row that is young again keeps `ID` and `MESSAGE_ID`. The `MESSAGE_ID`
//!   has 32 characters and comes from event and object, so a row that is held
//!   and the next one of the same object share it.
//! - `get` with `process_id` takes no new rows and answers that id even with
//!   `clear=1`, which then ends the whole reservation, also what `limit`,
//!   `filter` or `error` kept out of the answer.
//! - `error` takes rows out of their reservation: they have no process any
//!   more, are returned by `get` with `error=1` only, which returns nothing
//!   else, and later changes of their objects only make them young. Clearing
//!   the reservation leaves them. Of a message that is named, every row that
//!   is not failed and that the process does not hold is deleted: one that
//!   waits, one of another process, and with a `process_id` that is none, all.
//! - The source key counts in all four methods: `clear` and `error` without
//!   it do not touch a queue that has one, and answer `true` all the same.
//! - What `clear` and `error` do not find is no error.
//!
//! Our reading: 30 days count from the reservation; what nobody takes waits
//! for ever; an empty list of ids means none; names that filter and order do
//! not know are refused, because without them `get` would delete other rows;
//! `error` without `message_id`, which its page allows, means every row of
//! the process; an empty selection with `clear=0` has a fresh `process_id`.

use super::envelope::{Answer, Refusal, Success};
use super::events::{denied, missing};
use super::journal::Record;
use super::portal::Turn;
use super::query::{Query, Schema, value_text};
use super::queue::{Lane, Queue, id_of};
use super::raise::MESSAGE_ID;
use super::state::Row;
use super::system::{ADMIN, param};
use serde_json::{Map, Value, json};

/// Life of a reservation.
const RESERVATION_LIFE_S: i64 = 30 * 24 * 3600;

/// Rows of `get` when it asks for no other number.
const LIMIT: usize = 50;

/// Columns that `get` shows, filters and orders by.
const OPEN: &[&str] = &["ID", "TIMESTAMP_X", "EVENT_NAME", "EVENT_DATA", "EVENT_ADDITIONAL", "MESSAGE_ID"];

/// Columns that no filter and no order knows.
const CONTENT: &[&str] = &["EVENT_DATA", "EVENT_ADDITIONAL"];

/// Columns that only `list` knows.
const INNER: &[&str] = &["PROCESS_ID", "ERROR"];

/// Answers `event.offline.*` for an application.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    if turn.caller.user != ADMIN {
        return Err(denied(""));
    }
    forget_old_reservations(turn);
    match method {
        "event.offline.get" => get(turn, params),
        "event.offline.clear" => clear(turn, params),
        "event.offline.error" => error(turn, params),
        _ => list(turn, params),
    }
}

fn forget_old_reservations(turn: &mut Turn<'_>) {
    let ids = turn.state.queue.reserved_before(turn.now.timestamp() - RESERVATION_LIFE_S);
    if !ids.is_empty() {
        turn.record(Record::Unqueued { ids });
    }
}

/// What filter and order may name.
struct QueueSchema {
    inner: &'static [&'static str],
}

impl Schema for QueueSchema {
    fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
        let column = name.to_uppercase();
        let known = OPEN.iter().chain(self.inner).any(|known| *known == column) && !CONTENT.contains(&column.as_str());
        if known {
            return Ok(Some(column));
        }
        Err(Refusal::v2(400, "ERROR_ARGUMENT", format!("Field `{name}` is not allowed in filter or order")))
    }
}

/// What `event.offline.get` asks for.
struct Selection {
    lane: Lane,
    query: Query,
    limit: usize,
    /// The process whose rows are selected again; `None` takes free ones.
    process_id: Option<String>,
    then: Then,
}

/// What happens to the rows that were selected.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Delete,
    Hold,
}

impl Selection {
    fn parse(turn: &Turn<'_>, params: &Map<String, Value>) -> Result<Selection, Refusal> {
        let limit = match param(params, "limit") {
            None | Some(Value::Null) => Some(LIMIT),
            Some(limit) => value_text(limit).trim().parse().ok().filter(|limit| *limit > 0),
        };
        let failed = param(params, "error").is_some_and(is_set);
        Ok(Selection {
            lane: Lane { connector: turn.caller.connector.clone(), failed },
            query: Query::parse(params, &QueueSchema { inner: &[] })?,
            limit: limit.ok_or_else(|| argument("Value must be positive integer"))?,
            process_id: param(params, "process_id").filter(|id| !id.is_null()).map(|_| process_id(params)).transpose()?,
            then: if param(params, "clear").is_none_or(|clear| clear.is_null() || is_set(clear)) { Then::Delete } else { Then::Hold },
        })
    }

    fn rows<'a>(&self, queue: &'a Queue) -> Vec<&'a Row> {
        match &self.process_id {
            Some(process_id) => queue.held(process_id, &self.lane, &self.query, self.limit),
            None => queue.next_free(&self.lane, &self.query, self.limit),
        }
    }
}

fn get(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let selection = Selection::parse(turn, params)?;
    let rows = selection.rows(&turn.state.queue);
    let shown = |row: &&Row| OPEN.iter().map(|name| ((*name).to_owned(), row.get(*name).cloned().unwrap_or_default())).collect();
    let events: Vec<Map<String, Value>> = rows.iter().map(shown).collect();
    let ids: Vec<u64> = rows.into_iter().filter_map(id_of).collect();
    let process_id = match (selection.process_id, selection.then) {
        (Some(process_id), then) => {
            if then == Then::Delete && !ids.is_empty() {
                let held = turn.state.queue.messages_of(&process_id, &selection.lane.connector);
                let ids = held.into_iter().map(|(id, _)| id).collect();
                turn.record(Record::Unqueued { ids });
            }
            Some(process_id)
        }
        (None, Then::Hold) => {
            let process_id = turn.random_hex(16);
            if !ids.is_empty() {
                turn.record(Record::Reserved { process_id: process_id.clone(), at: turn.now.timestamp(), ids });
            }
            Some(process_id)
        }
        (None, Then::Delete) => {
            if !ids.is_empty() {
                turn.record(Record::Unqueued { ids });
            }
            None
        }
    };
    Ok(Success::new(json!({"process_id": process_id, "events": events})))
}

fn list(turn: &Turn<'_>, params: &Map<String, Value>) -> Answer {
    let query = Query::parse(params, &QueueSchema { inner: INNER })?;
    let page = query.run(turn.state.queue.of_connector(&turn.caller.connector));
    let rows = page.rows.into_iter().map(|row| Value::Object(row.clone())).collect();
    Ok(Success { total: page.total, next: page.next, ..Success::new(Value::Array(rows)) })
}

fn clear(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let process_id = process_id(params)?;
    let ids =
        list_of(params, "id")?.map(|ids| ids.iter().map(|id| id.parse::<u64>().ok().filter(|id| *id > 0)).collect::<Option<Vec<_>>>());
    let ids = ids.map(|ids| ids.ok_or_else(|| argument("Value must be array of integers"))).transpose()?;
    let messages = if ids.is_none() { messages(params)? } else { None };
    let held = turn.state.queue.messages_of(&process_id, &turn.caller.connector);
    let wanted = |(id, message): &(u64, &str)| match (&ids, &messages) {
        (Some(ids), _) => ids.contains(id),
        (None, Some(messages)) => messages.iter().any(|wanted| wanted == message),
        (None, None) => true,
    };
    let ids: Vec<u64> = held.into_iter().filter(wanted).map(|(id, _)| id).collect();
    if !ids.is_empty() {
        turn.record(Record::Unqueued { ids });
    }
    Ok(Success::new(json!(true)))
}

fn error(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let process_id = process_id(params)?;
    let messages = messages(params)?;
    let held = turn.state.queue.messages_of(&process_id, &turn.caller.connector);
    let wanted = |message: &str| messages.as_ref().is_none_or(|messages| messages.iter().any(|wanted| wanted == message));
    let ids: Vec<u64> = held.into_iter().filter(|(_, message)| wanted(message)).map(|(id, _)| id).collect();
    let named = messages.as_deref().unwrap_or_default();
    let others = turn.state.queue.unfailed_of(named, &turn.caller.connector);
    let others: Vec<u64> = others.into_iter().filter(|id| !ids.contains(id)).collect();
    if !others.is_empty() {
        turn.record(Record::Unqueued { ids: others });
    }
    if !ids.is_empty() {
        turn.record(Record::Failed { ids });
    }
    Ok(Success::new(json!(true)))
}

fn process_id(params: &Map<String, Value>) -> Result<String, Refusal> {
    let id = param(params, "process_id").map(value_text).unwrap_or_default().trim().to_owned();
    if id.is_empty() { Err(missing("PROCESS_ID")) } else { Ok(id) }
}

fn messages(params: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let messages = list_of(params, "message_id")?;
    if messages.iter().flatten().any(|message| message.len() != MESSAGE_ID) {
        return Err(argument("Value must be array of MESSAGE_ID values"));
    }
    Ok(messages)
}

/// Returns the texts of a list; `None` when the parameter is not there.
fn list_of(params: &Map<String, Value>, name: &str) -> Result<Option<Vec<String>>, Refusal> {
    let texts = |item: &Value| value_text(item).trim().to_owned();
    match param(params, name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(items)) => Ok(Some(items.iter().map(texts).collect())),
        Some(Value::Object(items)) => Ok(Some(items.values().map(texts).collect())),
        Some(_) => Err(argument(&format!("Value of `{name}` must be an array"))),
    }
}

fn argument(message: &str) -> Refusal {
    Refusal::v2(400, "ERROR_ARGUMENT", message)
}

/// Returns whether a flag is set, as PHP turns a value into a number.
fn is_set(flag: &Value) -> bool {
    match flag {
        Value::Bool(flag) => *flag,
        other => value_text(other).trim().parse::<i64>().is_ok_and(|number| number != 0),
    }
}
