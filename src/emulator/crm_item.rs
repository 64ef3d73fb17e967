//! `crm.item.*`: the universal methods. Leads, deals, contacts and companies
//! are the rows of the classic methods under other names.

use super::crm::{self, stage_column};
use super::envelope::{Answer, Refusal, Success};
use super::fields::{self, Field, Kind};
use super::journal::ChangeKind;
use super::names::{camel, upper};
use super::portal::Turn;
use super::query::{Query, Schema, value_text};
use super::state::Row;
use super::system::param;
use serde_json::{Map, Value, json};

/// Names that are no plain change of spelling: column and universal name.
const RENAMED: &[(&str, &str)] = &[
    ("DATE_CREATE", "createdTime"),
    ("DATE_MODIFY", "updatedTime"),
    ("CREATED_BY_ID", "createdBy"),
    ("MODIFY_BY_ID", "updatedBy"),
    ("MOVED_BY_ID", "movedBy"),
];

/// Answers `crm.item.<action>`; `None` when there is no such method.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, action: &str, params: &Map<String, Value>) -> Option<Answer> {
    if !["add", "get", "list", "update", "delete", "fields"].contains(&action) {
        return None;
    }
    Some(run(turn, method, action, params))
}

fn run(turn: &mut Turn<'_>, method: &str, action: &str, params: &Map<String, Value>) -> Answer {
    let kind = ItemType::parse(params)?;
    match action {
        "add" => {
            let id = crm::add(turn, method, &kind.entity, &kind.columns(given_fields(params)?));
            Ok(kind.item(turn, id))
        }
        "get" => kind.find(turn, params).map(|id| kind.item(turn, id)),
        "list" => list(turn, &kind, params),
        "update" => {
            let id = kind.find(turn, params)?;
            crm::update(turn, method, (&kind.entity, id), &kind.columns(given_fields(params)?));
            Ok(kind.item(turn, id))
        }
        "delete" => {
            let id = kind.find(turn, params)?;
            turn.change(method, &kind.entity, id, (ChangeKind::Delete, Row::new()));
            Ok(Success::new(json!([])))
        }
        _ => Ok(Success::new(json!({"fields": kind.describe()}))),
    }
}

/// A type of items and its rows.
struct ItemType {
    id: u64,
    entity: String,
}

impl ItemType {
    fn parse(params: &Map<String, Value>) -> Result<ItemType, Refusal> {
        let id = param(params, "entityTypeId").ok_or_else(|| missing("entityTypeId"))?;
        let unknown = || Refusal::v2(400, "NOT_FOUND", "Smart process not found");
        let id = value_text(id).trim().parse::<u64>().map_err(|_| unknown())?;
        let entity = match id {
            1 => "lead".to_owned(),
            2 => "deal".to_owned(),
            3 => "contact".to_owned(),
            4 => "company".to_owned(),
            7 | 31 | 128.. => format!("dynamic_{id}"),
            _ => return Err(unknown()),
        };
        Ok(ItemType { id, entity })
    }

    fn find(&self, turn: &Turn<'_>, params: &Map<String, Value>) -> Result<u64, Refusal> {
        let id = value_text(param(params, "id").ok_or_else(|| missing("id"))?).trim().parse::<u64>().unwrap_or(0);
        turn.state.row(&self.entity, id).map(|_| id).ok_or_else(|| Refusal::v2(400, "NOT_FOUND", "Element not found"))
    }

    fn item(&self, turn: &Turn<'_>, id: u64) -> Success {
        let item = turn.state.row(&self.entity, id).map(|row| self.show(row, None)).unwrap_or_default();
        Success::new(json!({"item": item}))
    }

    /// Returns the column of a universal name.
    fn column(&self, name: &str) -> String {
        if let Some((column, _)) = RENAMED.iter().find(|(_, renamed)| *renamed == name) {
            return (*column).to_owned();
        }
        match name {
            "stageId" => stage_column(&self.entity).to_owned(),
            "stageSemanticId" => stage_column(&self.entity).replace("_ID", "_SEMANTIC_ID"),
            other => upper(other),
        }
    }

    /// Returns the universal name of a column.
    fn name(&self, column: &str) -> String {
        if let Some((_, renamed)) = RENAMED.iter().find(|(known, _)| *known == column) {
            return (*renamed).to_owned();
        }
        match column {
            "STATUS_ID" if self.entity == "lead" => "stageId".to_owned(),
            "STATUS_SEMANTIC_ID" => "stageSemanticId".to_owned(),
            other => camel(other),
        }
    }

    fn columns(&self, given: &Map<String, Value>) -> Map<String, Value> {
        given.iter().map(|(name, value)| (self.column(name), value.clone())).collect()
    }

    /// Returns an item: all of it, or the selected columns and the id.
    fn show(&self, row: &Row, columns: Option<&[String]>) -> Map<String, Value> {
        let mut item = Map::new();
        for (column, value) in row {
            let field = fields::find(&self.entity, column);
            let wanted = columns.is_none_or(|columns| column == "ID" || columns.contains(column));
            if wanted && field.is_none_or(|field| field.kind != Kind::Multiple) {
                item.insert(self.name(column), field.map_or_else(|| value.clone(), |field| field.kind.shown(value)));
            }
        }
        if columns.is_none() {
            item.insert("fm".to_owned(), multiple_values(row));
            item.insert("entityTypeId".to_owned(), json!(self.id));
        }
        item
    }

    fn is_known(&self, column: &str) -> bool {
        fields::find(&self.entity, column).is_some() || fields::is_custom(column)
    }

    fn describe(&self) -> Map<String, Value> {
        let about = |field: &Field| {
            json!({
                "type": field.kind.word(), "isRequired": false, "isReadOnly": field.read_only, "isImmutable": false,
                "isMultiple": field.kind == Kind::Multiple, "isDynamic": false, "title": field.name, "upperName": field.name,
            })
        };
        fields::of(&self.entity).map(|field| (self.name(field.name), about(field))).collect()
    }
}

impl Schema for ItemType {
    fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
        let column = ItemType::column(self, name);
        if self.is_known(&column) {
            return Ok(Some(column));
        }
        Err(Refusal::v2(400, "INVALID_ARG_VALUE", format!("Invalid filter: field '{name}' is not allowed in filter")))
    }

    fn check_order(&self, name: &str, direction: &str) -> Result<(), Refusal> {
        if !self.is_known(&ItemType::column(self, name)) {
            return Err(Refusal::v2(400, "INVALID_ARG_VALUE", format!("Invalid order: field '{name}' is not allowed in order")));
        }
        if !matches!(direction, "ASC" | "DESC") {
            let message = format!("Invalid order: allowed sort directions are `ASC, DESC`. But got '{direction}' for field '{name}'");
            return Err(Refusal::v2(400, "INVALID_ARG_VALUE", message));
        }
        Ok(())
    }
}

fn list(turn: &mut Turn<'_>, kind: &ItemType, params: &Map<String, Value>) -> Answer {
    let query = Query::parse(params, kind)?;
    let names: Vec<String> = match param(params, "select") {
        Some(Value::Array(names)) => names.iter().map(value_text).collect(),
        Some(Value::Object(names)) => names.values().map(value_text).collect(),
        _ => Vec::new(),
    };
    let all = names.is_empty() || names.iter().any(|name| name == "*");
    let columns: Vec<String> = names.iter().map(|name| kind.column(name)).collect();
    let page = crm::page(turn, &kind.entity, &query);
    let items: Vec<_> = page.rows.iter().map(|row| kind.show(row, (!all).then_some(&columns))).collect();
    Ok(Success { total: page.total, next: page.next, ..Success::new(json!({"items": items})) })
}

fn given_fields(params: &Map<String, Value>) -> Result<&Map<String, Value>, Refusal> {
    param(params, "fields").and_then(Value::as_object).ok_or_else(|| missing("fields"))
}

fn missing(name: &str) -> Refusal {
    Refusal::v2(400, "100", format!("Could not find value for parameter {{{name}}}"))
}

/// Returns phone numbers and the like in the one list of the universal
/// methods.
fn multiple_values(row: &Row) -> Value {
    let mut values = Vec::new();
    for item in row.values().filter_map(Value::as_array).flatten() {
        if let (Some(id), Some(value)) = (item.get("ID"), item.get("VALUE")) {
            values.push(json!({
                "id": Kind::Integer.shown(id), "valueType": item.get("VALUE_TYPE"), "value": value, "typeId": item.get("TYPE_ID"),
            }));
        }
    }
    Value::Array(values)
}
