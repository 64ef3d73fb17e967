//! `batch` of the second generation: commands in order, references to earlier
//! results, partial success.

use super::envelope::{Answer, Api, Refusal, Success, time_object};
use super::limits;
use super::php;
use super::portal::Turn;
use super::query::value_text;
use super::system::param;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Most commands of a batch; a longer one is refused as a whole.
const LONGEST: usize = 50;

/// What begins a reference to an earlier result.
const REFERENCE: &str = "$result";

/// Runs a batch.
pub(super) fn call(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let commands: Vec<(String, Value)> = match param(params, "cmd") {
        Some(Value::Object(commands)) => commands.iter().map(|(name, command)| (name.clone(), command.clone())).collect(),
        Some(Value::Array(commands)) => commands.iter().enumerate().map(|(index, command)| (index.to_string(), command.clone())).collect(),
        _ => return Err(Refusal::v2(400, "ERROR_ARGUMENT", "Argument 'cmd' is null or empty")),
    };
    if commands.len() > LONGEST {
        return Err(Refusal::v2(400, "ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded"));
    }
    let halt = param(params, "halt").map(value_text).is_some_and(|halt| matches!(halt.as_str(), "1" | "Y" | "true"));
    let mut sections = Sections::default();
    for (name, command) in commands {
        let refused = sections.run(turn, &name, &command).is_err();
        if refused && halt {
            break;
        }
    }
    Ok(Success::new(sections.into_value()))
}

/// The parts of a batch answer, by command.
#[derive(Default)]
struct Sections {
    result: Map<String, Value>,
    error: Map<String, Value>,
    total: Map<String, Value>,
    next: Map<String, Value>,
    time: Map<String, Value>,
}

impl Sections {
    fn run(&mut self, turn: &mut Turn<'_>, name: &str, command: &Value) -> Result<(), ()> {
        let (method, params) = self.parse(command);
        let start = turn.clock.now();
        let begun_ns = turn.clock.boot_ns();
        let answer = check(turn, &method).and_then(|()| turn.call(Api::V2, &method, &params));
        match answer {
            Ok(success) => {
                let elapsed = Duration::from_nanos(turn.clock.boot_ns().saturating_sub(begun_ns));
                let operating = limits::charge_operating(turn, &method, elapsed);
                self.time.insert(name.to_owned(), time_object(start, turn.clock.now(), operating));
                if let Some(total) = success.total {
                    self.total.insert(name.to_owned(), json!(total));
                }
                if let Some(next) = success.next {
                    self.next.insert(name.to_owned(), json!(next));
                }
                self.result.insert(name.to_owned(), success.result);
                Ok(())
            }
            Err(refusal) => {
                self.error.insert(name.to_owned(), refusal.document());
                Err(())
            }
        }
    }

    /// Splits `method?query`; the query is decoded first, then references are
    /// replaced.
    fn parse(&self, command: &Value) -> (String, Map<String, Value>) {
        let command = value_text(command);
        let (method, query) = command.split_once('?').unwrap_or((&command, ""));
        let method = super::request::fold_method(method.trim_matches('/'));
        let mut params = php::parse_str(query);
        params.values_mut().for_each(|value| self.resolve(value));
        (method, params)
    }

    fn resolve(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.resolve(item)),
            Value::Object(entries) => entries.values_mut().for_each(|entry| self.resolve(entry)),
            Value::String(text) if text.contains(REFERENCE) => *value = self.resolve_text(text),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Replaces the references of a text. A text that is one reference becomes
    /// the value itself, also a whole list; a reference that leads nowhere
    /// stays as it is.
    fn resolve_text(&self, text: &str) -> Value {
        let mut replaced = String::new();
        let mut rest = text;
        while let Some(position) = rest.find(REFERENCE) {
            let (before, found) = rest.split_at(position);
            replaced.push_str(before);
            let (path, length) = reference(found);
            match self.look_up(&path) {
                Some(value) if length == text.len() => return value.clone(),
                Some(value) if !(value.is_array() || value.is_object()) => replaced.push_str(&scalar(value)),
                _ => replaced.push_str(&found[..length]),
            }
            rest = &found[length..];
        }
        replaced.push_str(rest);
        Value::String(replaced)
    }

    fn look_up(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.result.get(*first)?, |value, key| match value {
            Value::Object(entries) => entries.get(*key),
            Value::Array(items) => items.get(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    fn into_value(self) -> Value {
        json!({
            "result": php::array(self.result),
            "result_error": php::array(self.error),
            "result_total": php::array(self.total),
            "result_next": php::array(self.next),
            "result_time": php::array(self.time),
        })
    }
}

/// Refuses what must not run inside a batch, or not now.
fn check(turn: &Turn<'_>, method: &str) -> Result<(), Refusal> {
    if method == "batch" || method.contains("upload") || method.contains("download") {
        return Err(Refusal::v2(405, "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage"));
    }
    turn.faults.refuse_inner(method)?;
    limits::check_operating(turn, method)
}

/// Returns the keys of the reference that the text begins with, and its
/// length.
fn reference(text: &str) -> (Vec<&str>, usize) {
    let mut path = Vec::new();
    let mut length = REFERENCE.len();
    while let Some(inner) = text[length..].strip_prefix('[') {
        let Some(end) = inner.find(']') else { break };
        path.push(&inner[..end]);
        length += end + 2;
    }
    (path, length)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::Bool(flag) => if *flag { "1" } else { "" }.to_owned(),
        other => value_text(other),
    }
}
