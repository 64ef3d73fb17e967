//! `batch` of the third generation: a bare list of commands, one envelope. An
//! error ends it and is all that comes back; what ran before stays done, since
//! no source promises that it is undone.

use super::envelope::{Answer, Api, Refusal, Success};
use super::limits;
use super::portal::Turn;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Most commands of a batch (the ceiling of the JS SDK; the portal's own is
/// not documented).
const LONGEST: usize = 50;

/// Runs a batch.
pub(super) fn call(turn: &mut Turn<'_>, body: &Value) -> Answer {
    let commands = parse(body)?;
    let mut named: Map<String, Value> = Map::new();
    let mut results = Vec::new();
    for command in commands {
        let mut query = Value::Object(command.query);
        resolve(&mut query, &named)?;
        let Value::Object(query) = query else { return Err(malformed()) };
        let result = run(turn, &command.method, &query)?;
        if let Some(alias) = command.alias {
            named.insert(alias, result.clone());
        }
        results.push(result);
    }
    Ok(Success::new(Value::Array(results)))
}

struct Command {
    method: String,
    alias: Option<String>,
    query: Map<String, Value>,
}

fn parse(body: &Value) -> Result<Vec<Command>, Refusal> {
    let items: Vec<&Value> = match body {
        Value::Array(items) => items.iter().collect(),
        Value::Object(items) if items.keys().enumerate().all(|(index, key)| *key == index.to_string()) => items.values().collect(),
        _ => return Err(malformed()),
    };
    if items.len() > LONGEST {
        return Err(Refusal::v3(400, "INVALIDSELECTEXCEPTION", format!("A batch has at most {LONGEST} requests")));
    }
    items
        .into_iter()
        .map(|item| {
            let method = item.get("method").and_then(Value::as_str).ok_or_else(malformed)?;
            let query = match item.get("query").ok_or_else(malformed)? {
                Value::Object(query) => query.clone(),
                Value::Array(query) if query.is_empty() => Map::new(),
                _ => return Err(malformed()),
            };
            let alias = item.get("as").and_then(Value::as_str).map(str::to_owned);
            Ok(Command { method: super::request::fold_method(method), alias, query })
        })
        .collect()
}

fn run(turn: &mut Turn<'_>, method: &str, query: &Map<String, Value>) -> Result<Value, Refusal> {
    turn.faults.refuse_inner(method)?;
    limits::check_operating(turn, method)?;
    let begun_ns = turn.clock.boot_ns();
    let success = turn.call(Api::V3, method, query)?;
    limits::charge_operating(turn, method, Duration::from_nanos(turn.clock.boot_ns().saturating_sub(begun_ns)));
    Ok(success.result)
}

fn malformed() -> Refusal {
    Refusal::v3(400, "INVALIDSELECTEXCEPTION", "Each request item must have a \"method\" and \"query\" attribute")
}

/// Replaces `{"$ref": "alias.item.id"}` by one value and `{"$refArray":
/// "alias.id"}` by the values of all items.
fn resolve(value: &mut Value, named: &Map<String, Value>) -> Result<(), Refusal> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(|item| resolve(item, named)),
        Value::Object(entries) => {
            let target = |name: &str| entries.get(name).and_then(Value::as_str).filter(|_| entries.len() == 1);
            let replacement = match (target("$ref"), target("$refArray")) {
                (Some(path), _) => Some(one(path, named).ok_or_else(|| unresolved(path))?),
                (None, Some(path)) => Some(many(path, named).ok_or_else(|| unresolved(path))?),
                (None, None) => None,
            };
            match replacement {
                Some(replacement) => *value = replacement,
                None => entries.values_mut().try_for_each(|entry| resolve(entry, named))?,
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn one(path: &str, named: &Map<String, Value>) -> Option<Value> {
    let (alias, rest) = path.split_once('.')?;
    let result = named.get(alias)?;
    walk(result, rest).or_else(|| walk(result.get("item")?, rest)).cloned()
}

fn many(path: &str, named: &Map<String, Value>) -> Option<Value> {
    let (alias, rest) = path.split_once('.')?;
    let result = named.get(alias)?;
    let items: Vec<&Value> = match (result.get("items"), result.get("item")) {
        (Some(items), _) => items.as_array()?.iter().collect(),
        (None, Some(item)) => vec![item],
        (None, None) => return None,
    };
    let values = items.into_iter().map(|item| walk(item, rest).cloned()).collect::<Option<Vec<_>>>()?;
    Some(json!(values))
}

fn walk<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| match value {
        Value::Object(entries) => entries.get(key),
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        _ => None,
    })
}

fn unresolved(path: &str) -> Refusal {
    Refusal::v3(400, "INVALIDSELECTEXCEPTION", format!("Reference `{path}` cannot be resolved"))
}
