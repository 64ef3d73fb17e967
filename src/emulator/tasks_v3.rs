//! `tasks.task.*` of the third generation.

use super::envelope::{Answer, Refusal, Success};
use super::journal::ChangeKind;
use super::portal::Turn;
use super::query::value_text;
use super::query_v3::{Column, ListQuery};
use super::state::Row;
use super::system;
use super::tasks::{self, ENTITY, known_user};
use serde_json::{Map, Number, Value, json};

/// How a field of the third generation is stored.
#[derive(Clone, Copy)]
enum Kind {
    Integer,
    Text,
    Flag,
    Integers,
    Texts,
    /// A word for each stored number.
    Words(&'static [(&'static str, &'static str)]),
}

struct Field {
    name: &'static str,
    column: &'static str,
    kind: Kind,
    editable: bool,
}

const fn own(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field { name, column, kind, editable: true }
}

const fn fixed(name: &'static str, column: &'static str, kind: Kind) -> Field {
    Field { name, column, kind, editable: false }
}

const PRIORITIES: Kind = Kind::Words(&[("0", "low"), ("1", "average"), ("2", "high")]);
const STATUSES: Kind =
    Kind::Words(&[("2", "pending"), ("3", "in_progress"), ("4", "supposedly_completed"), ("5", "completed"), ("6", "deferred")]);
const MARKS: Kind = Kind::Words(&[("", "none"), ("P", "positive"), ("N", "negative")]);

const FIELDS: &[Field] = &[
    fixed("id", "ID", Kind::Integer),
    own("title", "TITLE", Kind::Text),
    own("description", "DESCRIPTION", Kind::Text),
    // Set on creation only.
    fixed("creatorId", "CREATED_BY", Kind::Integer),
    fixed("created", "CREATED_DATE", Kind::Text),
    own("responsibleId", "RESPONSIBLE_ID", Kind::Integer),
    own("deadline", "DEADLINE", Kind::Text),
    own("needsControl", "TASK_CONTROL", Kind::Flag),
    own("startPlan", "START_DATE_PLAN", Kind::Text),
    own("endPlan", "END_DATE_PLAN", Kind::Text),
    own("groupId", "GROUP_ID", Kind::Integer),
    own("stageId", "STAGE_ID", Kind::Integer),
    own("flowId", "FLOW_ID", Kind::Integer),
    own("priority", "PRIORITY", PRIORITIES),
    own("status", "STATUS", STATUSES),
    fixed("statusChanged", "STATUS_CHANGED_DATE", Kind::Text),
    own("accomplices", "ACCOMPLICES", Kind::Integers),
    own("auditors", "AUDITORS", Kind::Integers),
    own("parentId", "PARENT_ID", Kind::Integer),
    own("plannedDuration", "DURATION_PLAN", Kind::Integer),
    own("durationType", "DURATION_TYPE", Kind::Text),
    own("estimatedTime", "TIME_ESTIMATE", Kind::Integer),
    own("replicate", "REPLICATE", Kind::Flag),
    fixed("changed", "CHANGED_DATE", Kind::Text),
    fixed("changedById", "CHANGED_BY", Kind::Integer),
    fixed("closed", "CLOSED_DATE", Kind::Text),
    fixed("closedById", "CLOSED_BY", Kind::Integer),
    fixed("activity", "ACTIVITY_DATE", Kind::Text),
    fixed("guid", "GUID", Kind::Text),
    own("xmlId", "XML_ID", Kind::Text),
    own("mark", "MARK", MARKS),
    own("allowsChangeDeadline", "ALLOW_CHANGE_DEADLINE", Kind::Flag),
    own("allowsTimeTracking", "ALLOW_TIME_TRACKING", Kind::Flag),
    own("matchesWorkTime", "MATCH_WORK_TIME", Kind::Flag),
    own("isMultitask", "MULTITASK", Kind::Flag),
    own("siteId", "SITE_ID", Kind::Text),
    own("crmItemIds", "UF_CRM_TASK", Kind::Texts),
];

/// Related users, reachable as `responsible.name`.
const RELATIONS: &[(&str, &str)] =
    &[("creator", "CREATED_BY"), ("responsible", "RESPONSIBLE_ID"), ("changedBy", "CHANGED_BY"), ("closedBy", "CLOSED_BY")];

/// Answers `tasks.task.*`; `None` for any other method.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Option<Answer> {
    Some(match method {
        "tasks.task.add" => add(turn, method, params),
        "tasks.task.get" => get(turn, params),
        "tasks.task.list" => list(turn, params),
        "tasks.task.update" => update(turn, method, params),
        "tasks.task.delete" => delete(turn, method, params),
        _ => return None,
    })
}

/// Returns whether a method changes data, so that an `Idempotency-Key` counts.
pub(super) fn is_write(method: &str) -> bool {
    matches!(method, "tasks.task.add" | "tasks.task.update" | "tasks.task.delete")
}

fn add(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let given = object(params, "fields")?;
    for name in ["title", "creatorId", "responsibleId"] {
        if given.get(name).is_none_or(Value::is_null) {
            return Err(Refusal::field(name, format!("Required field `{name}` is not specified")));
        }
    }
    check_users(given)?;
    let row = stored(given, true)?;
    let id = tasks::add(turn, method, &row);
    let item = turn.state.row(ENTITY, id).map(|row| show(row, &all_names())).transpose()?;
    Ok(Success::new(json!({"item": item})))
}

fn get(turn: &Turn<'_>, params: &Map<String, Value>) -> Answer {
    let id = integer(params, "id")?;
    let names = select(params)?.unwrap_or_else(all_names);
    let unknown = || Refusal::v3(400, "ENTITYNOTFOUNDEXCEPTION", format!("Record with ID = `{id}` not found"));
    let row = u64::try_from(id).ok().and_then(|id| turn.state.row(ENTITY, id)).ok_or_else(unknown)?;
    Ok(Success::new(json!({"item": show(row, &names)?})))
}

fn list(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let names = select(params)?.unwrap_or_else(|| vec!["id".to_owned()]);
    let query = ListQuery::parse(params, &column)?;
    let rows = query.run(turn.state.table(ENTITY).rows.values());
    let items = rows.into_iter().map(|row| show(row, &names)).collect::<Result<Vec<_>, _>>()?;
    Ok(Success::new(json!({"items": items})))
}

fn update(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let id = integer(params, "id")?;
    let given = object(params, "fields")?;
    check_users(given)?;
    let row = stored(given, false)?;
    let id = existing(turn, id)?;
    tasks::update(turn, method, id, &row);
    Ok(Success::new(json!({"result": true})))
}

fn delete(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Answer {
    let id = integer(params, "id")?;
    let id = existing(turn, id)?;
    turn.change(method, ENTITY, id, (ChangeKind::Delete, Row::new()));
    Ok(Success::new(json!({"result": true})))
}

/// The pages of update and delete name no other error for a missing task.
fn existing(turn: &Turn<'_>, id: i64) -> Result<u64, Refusal> {
    let id = u64::try_from(id).ok().filter(|id| turn.state.row(ENTITY, *id).is_some());
    id.ok_or_else(|| Refusal::v3(400, "ACCESSDENIEDEXCEPTION", "Access denied"))
}

fn integer(params: &Map<String, Value>, name: &str) -> Result<i64, Refusal> {
    match params.get(name) {
        None | Some(Value::Null) => Err(Refusal::field(name, format!("Required field `{name}` is not specified"))),
        Some(Value::Number(number)) if number.as_i64().is_some() => Ok(number.as_i64().unwrap_or_default()),
        Some(_) => Err(Refusal::field(name, format!("Field `{name}` requires data type `int` for this request"))),
    }
}

fn object<'a>(params: &'a Map<String, Value>, name: &str) -> Result<&'a Map<String, Value>, Refusal> {
    let value = params.get(name).ok_or_else(|| Refusal::field(name, format!("Required field `{name}` is not specified")))?;
    value.as_object().ok_or_else(|| Refusal::field(name, format!("Field `{name}` requires data type `array` for this request")))
}

fn check_users(given: &Map<String, Value>) -> Result<(), Refusal> {
    for name in ["responsibleId", "creatorId"] {
        if given.contains_key(name) && known_user(given, name).is_none() {
            return Err(Refusal::field(name, "User specified in the field not found"));
        }
    }
    Ok(())
}

fn field(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|field| field.name == name)
}

/// Returns the given fields under the names of rows.
fn stored(given: &Map<String, Value>, new: bool) -> Result<Map<String, Value>, Refusal> {
    let mut row = Map::new();
    for (name, value) in given {
        let known = field(name)
            .ok_or_else(|| Refusal::v3(400, "UNKNOWNDTOPROPERTYEXCEPTION", format!("Unknown field `{name}` for entity `TaskDto`")))?;
        let settable = known.editable || (new && name == "creatorId");
        if !settable {
            let message =
                format!("In DTO `TaskDto`, the field `{name}` requires the presence of the `Editable` attribute for such a request");
            return Err(Refusal::field(name, message));
        }
        row.insert(known.column.to_owned(), known.kind.stored(name, value)?);
    }
    Ok(row)
}

impl Kind {
    fn stored(self, name: &str, value: &Value) -> Result<Value, Refusal> {
        let wrong = |kind: &str| Refusal::field(name, format!("Field `{name}` requires data type `{kind}` for this request"));
        match (self, value) {
            (_, Value::Null) => Ok(Value::Null),
            (Kind::Integer, Value::Number(number)) if number.is_i64() => Ok(json!(number.to_string())),
            (Kind::Integer, _) => Err(wrong("int")),
            (Kind::Text, Value::String(_)) | (Kind::Integers | Kind::Texts, Value::Array(_)) => Ok(value.clone()),
            (Kind::Flag, Value::Bool(flag)) => Ok(json!(if *flag { "Y" } else { "N" })),
            (Kind::Flag, _) => Err(wrong("bool")),
            (Kind::Integers | Kind::Texts, _) => Err(wrong("array")),
            (Kind::Words(words), Value::String(text)) => {
                words.iter().find(|(_, word)| word == text).map(|(stored, _)| json!(stored)).ok_or_else(|| wrong("string"))
            }
            (Kind::Text | Kind::Words(_), _) => Err(wrong("string")),
        }
    }

    fn shown(self, value: &Value) -> Value {
        let integer = |value: &Value| value_text(value).parse::<Number>().map_or(Value::Null, Value::Number);
        match self {
            Kind::Integer => integer(value),
            Kind::Text => value.clone(),
            Kind::Flag => json!(value_text(value) == "Y"),
            Kind::Integers => value.as_array().map_or_else(|| json!([]), |items| items.iter().map(integer).collect()),
            Kind::Texts => value.as_array().map_or_else(|| json!([]), |items| json!(items)),
            Kind::Words(words) => {
                words.iter().find(|(stored, _)| *stored == value_text(value)).map_or(Value::Null, |(_, word)| json!(word))
            }
        }
    }
}

fn all_names() -> Vec<String> {
    FIELDS.iter().map(|field| field.name.to_owned()).collect()
}

/// Reads `select`. An unknown field of the task itself is dropped in silence,
/// one of a related object is an error.
fn select(params: &Map<String, Value>) -> Result<Option<Vec<String>>, Refusal> {
    let bad = || Refusal::v3(400, "INVALIDSELECTEXCEPTION", "Unable to recognize the select parameter");
    let names = match params.get("select") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(names)) => {
            names.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(bad)).collect::<Result<Vec<_>, _>>()?
        }
        Some(_) => return Err(bad()),
    };
    Ok((!names.is_empty()).then_some(names))
}

fn show(row: &Row, names: &[String]) -> Result<Map<String, Value>, Refusal> {
    let mut item = Map::new();
    for name in names {
        if let Some((relation, inner)) = name.split_once('.') {
            let related = related(row, relation, inner)?;
            let object = item.entry(relation.to_owned()).or_insert_with(|| json!({}));
            object[inner] = related;
        } else if let Some(field) = field(name) {
            item.insert(name.clone(), field.kind.shown(row.get(field.column).unwrap_or(&Value::Null)));
        }
    }
    Ok(item)
}

fn related(row: &Row, relation: &str, name: &str) -> Result<Value, Refusal> {
    let unknown =
        |name: &str, entity: &str| Refusal::v3(400, "UNKNOWNDTOPROPERTYEXCEPTION", format!("Unknown field `{name}` for entity `{entity}`"));
    let (_, column) = RELATIONS.iter().find(|(known, _)| *known == relation).ok_or_else(|| unknown(relation, "TaskDto"))?;
    let user = row.get(*column).and_then(|id| value_text(id).parse().ok()).and_then(system::user);
    let value = |text: &dyn Fn(&system::User) -> Value| Ok(user.map_or(Value::Null, text));
    match name {
        "id" => value(&|user| json!(user.id)),
        "name" => value(&|user| json!(user.name)),
        "lastName" => value(&|user| json!(user.last_name)),
        "email" => value(&|user| json!(user.email)),
        _ => Err(unknown(name, "UserDto")),
    }
}

/// Tells what a filter or an order may do with a field: a filter knows `id`
/// only.
fn column(name: &str) -> Option<Column> {
    field(name).map(|field| Column { name: field.column, filterable: field.name == "id" })
}
