//! `tasks.task.*` of the second generation, and the rows of both generations.

use super::envelope::{Answer, Refusal, Success, stamp};
use super::journal::ChangeKind;
use super::names::{camel, upper};
use super::portal::Turn;
use super::query::{Query, Schema, value_text};
use super::state::Row;
use super::system::{self, param};
use serde_json::{Map, Value, json};

/// The entity of tasks in the journal.
pub(super) const ENTITY: &str = "task";

/// Columns of a task that a caller may set, and what a new task has there.
const COLUMNS: &[(&str, Option<&str>)] = &[
    ("PARENT_ID", None),
    ("TITLE", None),
    ("DESCRIPTION", Some("")),
    ("MARK", None),
    ("PRIORITY", Some("1")),
    ("STATUS", Some("2")),
    ("MULTITASK", Some("N")),
    ("REPLICATE", Some("N")),
    ("GROUP_ID", Some("0")),
    ("STAGE_ID", Some("0")),
    ("CREATED_BY", None),
    ("RESPONSIBLE_ID", None),
    ("DEADLINE", None),
    ("START_DATE_PLAN", None),
    ("END_DATE_PLAN", None),
    ("XML_ID", None),
    ("ALLOW_CHANGE_DEADLINE", Some("N")),
    ("ALLOW_TIME_TRACKING", Some("N")),
    ("TASK_CONTROL", Some("N")),
    ("ADD_IN_REPORT", Some("N")),
    ("MATCH_WORK_TIME", Some("N")),
    ("TIME_ESTIMATE", Some("0")),
    ("DURATION_PLAN", None),
    ("DURATION_TYPE", Some("days")),
    ("SITE_ID", Some("s1")),
    ("FLOW_ID", None),
];

/// Columns with several values.
const LISTS: &[&str] = &["AUDITORS", "ACCOMPLICES", "TAGS"];

/// Columns that the portal sets.
const FIXED: &[&str] =
    &["ID", "GUID", "CREATED_DATE", "CHANGED_DATE", "CHANGED_BY", "STATUS_CHANGED_DATE", "ACTIVITY_DATE", "CLOSED_DATE", "CLOSED_BY"];

/// Answers `tasks.task.<action>`; `None` when there is no such method.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, action: &str, params: &Map<String, Value>) -> Option<Answer> {
    Some(match action {
        "add" => add_classic(turn, method, params),
        "get" => get(turn, params),
        "list" => list(turn, params),
        "update" => update_classic(turn, method, params),
        "delete" => delete(turn, method, params),
        "getfields" => Ok(Success::new(json!({"fields": describe()}))),
        _ => return None,
    })
}

/// Creates a task and returns its id.
pub(super) fn add(turn: &mut Turn<'_>, method: &str, given: &Map<String, Value>) -> u64 {
    let id = turn.state.table(ENTITY).next_id();
    let now = stamp(turn.now);
    let mut row = Row::new();
    row.insert("ID".to_owned(), json!(id.to_string()));
    for (name, default) in COLUMNS {
        row.insert((*name).to_owned(), default.map_or(Value::Null, Value::from));
    }
    for name in ["CREATED_BY", "RESPONSIBLE_ID", "CHANGED_BY"] {
        row.insert(name.to_owned(), json!(turn.caller.user.to_string()));
    }
    for name in ["CREATED_DATE", "CHANGED_DATE", "STATUS_CHANGED_DATE", "ACTIVITY_DATE"] {
        row.insert(name.to_owned(), json!(now));
    }
    for name in LISTS {
        row.insert((*name).to_owned(), json!([]));
    }
    row.insert("CLOSED_DATE".to_owned(), Value::Null);
    row.insert("CLOSED_BY".to_owned(), Value::Null);
    row.insert("GUID".to_owned(), json!(turn.guid()));
    row.extend(stored_fields(given));
    turn.change(method, ENTITY, id, (ChangeKind::Add, row));
    id
}

/// Sets fields of a task.
pub(super) fn update(turn: &mut Turn<'_>, method: &str, id: u64, given: &Map<String, Value>) {
    let mut changed = stored_fields(given);
    let now = json!(stamp(turn.now));
    let user = json!(turn.caller.user.to_string());
    if let Some(status) = changed.get("STATUS").map(value_text) {
        let closed = status == "5";
        changed.insert("STATUS_CHANGED_DATE".to_owned(), now.clone());
        changed.insert("CLOSED_DATE".to_owned(), if closed { now.clone() } else { Value::Null });
        changed.insert("CLOSED_BY".to_owned(), if closed { user.clone() } else { Value::Null });
    }
    changed.insert("CHANGED_DATE".to_owned(), now.clone());
    changed.insert("ACTIVITY_DATE".to_owned(), now);
    changed.insert("CHANGED_BY".to_owned(), user);
    turn.change(method, ENTITY, id, (ChangeKind::Update, changed));
}

fn stored_fields(given: &Map<String, Value>) -> Row {
    let mut row = Row::new();
    for (name, value) in given {
        let name = upper(name);
        if LISTS.contains(&name.as_str()) || (name.starts_with("UF_") && !value.is_string()) {
            let items = value.as_array().map(|items| items.iter().map(|item| json!(value_text(item))).collect()).unwrap_or_default();
            row.insert(name, Value::Array(items));
        } else if COLUMNS.iter().any(|(column, _)| *column == name) || name.starts_with("UF_") {
            row.insert(name, if value.is_null() { Value::Null } else { json!(value_text(value)) });
        }
    }
    row
}

/// Returns the named employee of a field.
pub(super) fn known_user(given: &Map<String, Value>, name: &str) -> Option<u64> {
    let id = value_text(given.get(name)?).parse::<u64>().ok()?;
    system::user(id).map(|user| user.id)
}

fn given_fields(params: &Map<String, Value>) -> Result<Map<String, Value>, Refusal> {
    let given = param(params, "fields").and_then(Value::as_object).filter(|fields| !fields.is_empty());
    let given = given.ok_or_else(|| Refusal::v2(400, "100", "Could not find value for parameter {fields} (internal error)"))?;
    Ok(given.iter().map(|(name, value)| (upper(name), value.clone())).collect())
}

fn core(message: &str) -> Refusal {
    Refusal::v2(400, "ERROR_CORE", format!("{message}<br>"))
}

fn add_classic(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let given = given_fields(params)?;
    if given.get("TITLE").map(value_text).unwrap_or_default().trim().is_empty() {
        return Err(core("Task title not specified"));
    }
    if !given.contains_key("RESPONSIBLE_ID") {
        return Err(core("Assignee not specified"));
    }
    if known_user(&given, "RESPONSIBLE_ID").is_none() {
        return Err(core("User specified in the \"Assignee\" field not found"));
    }
    let id = add(turn, method, &given);
    Ok(task(turn, id))
}

fn update_classic(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let id = task_id(params)?;
    let given = given_fields(params)?;
    if turn.state.row(ENTITY, id).is_none() {
        return Err(Refusal::v2(400, "0", "Action on the task is not allowed (internal error)"));
    }
    if given.contains_key("RESPONSIBLE_ID") && known_user(&given, "RESPONSIBLE_ID").is_none() {
        return Err(core("The user specified in the \"Responsible\" field was not found"));
    }
    update(turn, method, id, &given);
    Ok(task(turn, id))
}

fn delete(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let id = task_id(params)?;
    if turn.state.row(ENTITY, id).is_none() {
        return Err(Refusal::v2(400, "1048582", "No access to delete the task"));
    }
    turn.change(method, ENTITY, id, (ChangeKind::Delete, Row::new()));
    Ok(Success::new(json!({"task": true})))
}

/// A task that is not there is an empty result, not an error.
fn get(turn: &Turn<'_>, params: &Map<String, Value>) -> Answer {
    let id = task_id(params)?;
    let columns = selected(params);
    let row = turn.state.row(ENTITY, id);
    Ok(Success::new(row.map_or_else(|| json!([]), |row| json!({"task": show(row, columns.as_deref())}))))
}

fn list(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let query = Query::parse(params, &TaskSchema)?;
    let columns = selected(params);
    let page = query.run(turn.state.table(ENTITY).rows.values());
    let rows: Vec<_> = page.rows.iter().map(|row| show(row, columns.as_deref())).collect();
    Ok(Success { total: page.total, next: page.next, ..Success::new(json!({"tasks": rows})) })
}

fn task(turn: &Turn<'_>, id: u64) -> Success {
    let row = turn.state.row(ENTITY, id).map(|row| show(row, None));
    Success::new(json!({"task": row}))
}

fn task_id(params: &Map<String, Value>) -> Result<u64, Refusal> {
    let missing = "CTaskItem All parameters in the constructor must have real class type (internal error)";
    let id = param(params, "taskId").ok_or_else(|| Refusal::v2(400, "100", missing))?;
    value_text(id).trim().parse().map_err(|_| Refusal::v2(400, "0", "wrong task id"))
}

fn selected(params: &Map<String, Value>) -> Option<Vec<String>> {
    let names: Vec<String> = match param(params, "select") {
        Some(Value::Array(names)) => names.iter().map(|name| upper(&value_text(name))).collect(),
        Some(Value::Object(names)) => names.values().map(|name| upper(&value_text(name))).collect(),
        _ => Vec::new(),
    };
    (!names.is_empty() && !names.iter().any(|name| name == "*")).then_some(names)
}

/// Returns a row as the second generation shows it: lower camel case, every
/// scalar a string.
fn show(row: &Row, columns: Option<&[String]>) -> Map<String, Value> {
    let mut task = Map::new();
    for (column, value) in row {
        if columns.is_none_or(|columns| column == "ID" || columns.contains(column)) && (columns.is_some() || !column.starts_with("UF_")) {
            task.insert(camel(column), value.clone());
        }
    }
    for (column, name) in [("CREATED_BY", "creator"), ("RESPONSIBLE_ID", "responsible")] {
        let id = row.get(column).map(value_text).unwrap_or_default();
        let user =
            id.parse().ok().and_then(system::user).filter(|_| columns.is_none_or(|columns| columns.iter().any(|name| name == column)));
        if let Some(user) = user {
            let link = format!("/company/personal/user/{}/", user.id);
            task.insert(name.to_owned(), json!({"id": id, "name": format!("{} {}", user.name, user.last_name), "link": link}));
        }
    }
    task
}

fn describe() -> Map<String, Value> {
    let own = COLUMNS.iter().map(|(name, _)| (*name, false)).chain(LISTS.iter().map(|name| (*name, false)));
    own.chain(FIXED.iter().map(|name| (*name, true)))
        .map(|(name, fixed)| (name.to_owned(), json!({"title": name, "type": "string", "required": name == "TITLE", "readonly": fixed})))
        .collect()
}

/// Filter and order take upper-case names; an unknown one is ignored in a
/// filter and refused in an order.
struct TaskSchema;

impl Schema for TaskSchema {
    fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
        let name = upper(name);
        let known = is_single(&name) || LISTS.contains(&name.as_str()) || name.starts_with("UF_");
        Ok(known.then_some(name))
    }

    fn check_order(&self, name: &str, _direction: &str) -> Result<(), Refusal> {
        if is_single(&upper(name)) { Ok(()) } else { Err(Refusal::v2(400, "0", "Invalid sorting key (internal error)")) }
    }
}

/// Returns whether a column holds one value.
fn is_single(column: &str) -> bool {
    COLUMNS.iter().any(|(known, _)| *known == column) || FIXED.contains(&column)
}
