//! Leads, deals, contacts and companies: the classic methods, and the work
//! that the universal methods share with them.

use super::envelope::{Answer, Refusal, Success, stamp};
use super::fields::{self, Kind};
use super::journal::ChangeKind;
use super::portal::Turn;
use super::query::{Page, Query, Schema, value_text};
use super::state::Row;
use super::system::param;
use serde_json::{Map, Value, json};

/// The entities of the classic methods.
pub(super) const ENTITIES: &[&str] = &["lead", "deal", "contact", "company"];

/// Answers `crm.<entity>.<action>`; `None` when there is no such method.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, target: (&str, &str), params: &Map<String, Value>) -> Option<Answer> {
    let (entity, action) = target;
    if !ENTITIES.contains(&entity) {
        return None;
    }
    Some(match action {
        "add" => given_fields(params).map(|given| Success::new(json!(add(turn, method, entity, given)))),
        "get" => find(turn, entity, params).map(|(_, row)| Success::new(Value::Object(row))),
        "list" => list(turn, entity, params),
        "update" => update_classic(turn, method, entity, params),
        "delete" => find(turn, entity, params).map(|(id, _)| {
            turn.change(method, entity, id, (ChangeKind::Delete, Row::new()));
            Success::new(json!(true))
        }),
        "fields" => Ok(Success::new(describe(entity))),
        _ => return None,
    })
}

/// Creates an object and returns its id.
pub(super) fn add(turn: &mut Turn<'_>, method: &str, entity: &str, given: &Map<String, Value>) -> u64 {
    let id = turn.state.table(entity).next_id();
    let mut row: Row = fields::of(entity)
        .filter(|field| field.kind != Kind::Multiple)
        .map(|field| (field.name.to_owned(), default(turn, (entity, id), field)))
        .collect();
    row.extend(stored_fields(turn, entity, given, &Row::new()));
    set_semantics(entity, &mut row);
    turn.change(method, entity, id, (ChangeKind::Add, row));
    id
}

/// Sets fields of an object.
pub(super) fn update(turn: &mut Turn<'_>, method: &str, target: (&str, u64), given: &Map<String, Value>) {
    let (entity, id) = target;
    let before = turn.state.row(entity, id).cloned().unwrap_or_default();
    let mut changed = stored_fields(turn, entity, given, &before);
    set_semantics(entity, &mut changed);
    let stage = stage_column(entity);
    if changed.get(stage).is_some_and(|value| before.get(stage) != Some(value)) {
        changed.insert("MOVED_BY_ID".to_owned(), json!(turn.caller.user.to_string()));
        changed.insert("MOVED_TIME".to_owned(), json!(stamp(turn.now)));
    }
    changed.insert("MODIFY_BY_ID".to_owned(), json!(turn.caller.user.to_string()));
    changed.insert("DATE_MODIFY".to_owned(), json!(stamp(turn.now)));
    turn.change(method, entity, id, (ChangeKind::Update, changed));
}

/// Returns the column of an entity's stage.
pub(super) fn stage_column(entity: &str) -> &'static str {
    if entity == "lead" { "STATUS_ID" } else { "STAGE_ID" }
}

/// Returns the page of an entity that a query asks for.
pub(super) fn page<'a>(turn: &'a mut Turn<'_>, entity: &str, query: &Query) -> Page<'a> {
    query.run(turn.state.table(entity).rows.values())
}

/// Returns the object in `fields`.
fn given_fields(params: &Map<String, Value>) -> Result<&Map<String, Value>, Refusal> {
    param(params, "fields").and_then(Value::as_object).ok_or_else(fields::not_an_object)
}

fn find(turn: &Turn<'_>, entity: &str, params: &Map<String, Value>) -> Result<(u64, Row), Refusal> {
    let id = param(params, "id").and_then(|id| value_text(id).trim().parse::<u64>().ok()).filter(|id| *id > 0);
    let id = id.ok_or_else(|| Refusal::v2(400, "", "ID is not defined or invalid."))?;
    let row = turn.state.row(entity, id).ok_or_else(|| Refusal::v2(400, "", "Not found"))?;
    Ok((id, row.clone()))
}

fn update_classic(turn: &mut Turn<'_>, method: &str, entity: &str, params: &Map<String, Value>) -> Answer {
    let (id, _) = find(turn, entity, params)?;
    update(turn, method, (entity, id), given_fields(params)?);
    Ok(Success::new(json!(true)))
}

fn list(turn: &mut Turn<'_>, entity: &str, params: &Map<String, Value>) -> Answer {
    let query = Query::parse(params, &Classic(entity))?;
    let columns = selected(entity, params);
    let page = page(turn, entity, &query);
    let rows = page.rows.iter().map(|row| Value::Object(project(row, &columns))).collect();
    Ok(Success { total: page.total, next: page.next, ..Success::new(Value::Array(rows)) })
}

/// The classic methods ignore names that they do not know.
struct Classic<'a>(&'a str);

impl Schema for Classic<'_> {
    fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
        let name = name.to_uppercase();
        let known = fields::find(self.0, &name).is_some() || fields::is_custom(&name);
        Ok(known.then_some(name))
    }
}

/// Which columns a list shows.
enum Columns {
    Standard { custom: bool },
    Named(Vec<String>),
}

/// Without `select`, or with `*`, a list shows the standard fields, but no
/// multiple ones; `UF_*` adds the custom ones.
fn selected(entity: &str, params: &Map<String, Value>) -> Columns {
    let names: Vec<String> = match param(params, "select") {
        Some(Value::Array(names)) => names.iter().map(|name| value_text(name).to_uppercase()).collect(),
        Some(Value::Object(names)) => names.values().map(|name| value_text(name).to_uppercase()).collect(),
        Some(Value::String(name)) if !name.is_empty() => vec![name.to_uppercase()],
        _ => Vec::new(),
    };
    if names.is_empty() {
        return Columns::Standard { custom: false };
    }
    if names.iter().any(|name| name == "*") {
        return Columns::Standard { custom: names.iter().any(|name| name == "UF_*") };
    }
    let known = |name: &String| fields::find(entity, name).is_some() || fields::is_custom(name);
    let mut columns: Vec<String> = names.into_iter().filter(known).collect();
    if !columns.iter().any(|name| name == "ID") {
        columns.insert(0, "ID".to_owned());
    }
    Columns::Named(columns)
}

fn project(row: &Row, columns: &Columns) -> Row {
    match columns {
        Columns::Standard { custom } => row
            .iter()
            .filter(|(name, value)| if fields::is_custom(name) { *custom } else { !value.is_array() })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
        Columns::Named(names) => {
            names.iter().filter(|name| *name != "UF_*").map(|name| (name.clone(), row.get(name).cloned().unwrap_or(Value::Null))).collect()
        }
    }
}

/// Returns the given fields as a row stores them. Unknown and read-only names
/// are ignored, as the portal does.
fn stored_fields(turn: &Turn<'_>, entity: &str, given: &Map<String, Value>, before: &Row) -> Row {
    let mut row = Row::new();
    let mut next_value_id = turn.state.last_value_id + 1;
    for (name, value) in given {
        let name = name.to_uppercase();
        match fields::find(entity, &name) {
            Some(field) if field.read_only => {}
            Some(field) if field.kind == Kind::Multiple => {
                let merged = merge_multiple(&name, value, before.get(&name), &mut next_value_id);
                row.insert(name, merged);
            }
            Some(field) => {
                row.insert(name, field.kind.stored(value));
            }
            None if fields::is_custom(&name) => {
                row.insert(name, fields::stored_custom(value));
            }
            None => {}
        }
    }
    row
}

/// Merges multiple values: a row with a known `ID` replaces that value, with
/// an empty `VALUE` or `DELETE` removes it; a row without `ID` is added; the
/// others stay.
fn merge_multiple(name: &str, given: &Value, before: Option<&Value>, next_id: &mut u64) -> Value {
    let mut rows: Vec<Value> = before.and_then(Value::as_array).cloned().unwrap_or_default();
    let given: Vec<&Value> = match given {
        Value::Array(items) => items.iter().collect(),
        Value::Object(items) => items.values().collect(),
        _ => Vec::new(),
    };
    for item in given {
        let text = |key: &str| item.get(key).map(value_text).unwrap_or_default();
        let value = if item.is_object() { text("VALUE") } else { value_text(item) };
        let old = rows.iter().position(|row| row.get("ID").map(value_text) == Some(text("ID")));
        let remove = value.is_empty() || text("DELETE") == "Y";
        let mut kind = text("VALUE_TYPE");
        if kind.is_empty() {
            "WORK".clone_into(&mut kind);
        }
        match old {
            Some(position) if remove => {
                rows.remove(position);
            }
            Some(position) => rows[position]["VALUE"] = json!(value),
            None if remove => {}
            None => {
                rows.push(json!({"ID": next_id.to_string(), "VALUE_TYPE": kind, "VALUE": value, "TYPE_ID": name}));
                *next_id += 1;
            }
        }
    }
    Value::Array(rows)
}

fn default(turn: &Turn<'_>, target: (&str, u64), field: &fields::Field) -> Value {
    let (entity, id) = target;
    let user = || json!(turn.caller.user.to_string());
    match (field.name, field.kind) {
        ("ID", _) => json!(id.to_string()),
        ("ASSIGNED_BY_ID" | "CREATED_BY_ID" | "MODIFY_BY_ID" | "MOVED_BY_ID" | "LAST_ACTIVITY_BY", _) => user(),
        ("DATE_CREATE" | "DATE_MODIFY" | "MOVED_TIME" | "LAST_ACTIVITY_TIME", _) => json!(stamp(turn.now)),
        ("TITLE", _) if entity == "deal" => json!(format!("Deal #{id}")),
        ("TITLE", _) if entity == "lead" => json!(format!("Lead #{id}")),
        ("STATUS_ID" | "STAGE_ID", _) => json!(if entity.starts_with("dynamic_") { dynamic_stage(entity) } else { "NEW".to_owned() }),
        ("CATEGORY_ID", _) => json!("0"),
        ("CURRENCY_ID", _) => json!("USD"),
        ("OPENED" | "EXPORT", _) => json!("Y"),
        (_, Kind::Char) => json!("N"),
        (_, Kind::Double) => json!("0.00"),
        _ => Value::Null,
    }
}

fn dynamic_stage(entity: &str) -> String {
    format!("DT{}_1:NEW", entity.trim_start_matches("dynamic_"))
}

/// Sets what follows from a stage: P in work, S won, F lost.
fn set_semantics(entity: &str, row: &mut Row) {
    let column = stage_column(entity);
    let Some(stage) = row.get(column).map(value_text) else { return };
    let word = stage.rsplit(':').next().unwrap_or(&stage);
    let semantics = match word {
        "WON" | "CONVERTED" | "SUCCESS" => "S",
        "LOSE" | "JUNK" | "FAIL" | "APOLOGY" => "F",
        _ => "P",
    };
    let name = column.replace("_ID", "_SEMANTIC_ID");
    if fields::find(entity, &name).is_some() {
        row.insert(name, json!(semantics));
    }
    if entity == "deal" {
        row.insert("CLOSED".to_owned(), json!(if semantics == "P" { "N" } else { "Y" }));
    }
}

fn describe(entity: &str) -> Value {
    let described = fields::of(entity).map(|field| {
        let about = json!({
            "type": field.kind.word(), "isRequired": false, "isReadOnly": field.read_only, "isImmutable": false,
            "isMultiple": field.kind == Kind::Multiple, "isDynamic": false, "title": field.name,
        });
        (field.name.to_owned(), about)
    });
    Value::Object(described.collect())
}
