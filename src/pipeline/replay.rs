//! Answers that the ledger keeps, and what it says when it kept none.
//!
//! An answer of more than 64 KiB is not kept: its digest and the ids in it are.
//! A replay then has no `result`, since `null` could be taken for the answer,
//! and does not end with status 0, since a script that goes on would go on
//! without the id it asked for. The same holds for a command of a batch.
//!
//! Two more answers are missing from a replay, and `_b24` says so, but the
//! status is 0: that of a read in a batch, which is not sent again, and that of
//! a write of which a person found out that it happened, so that what waited
//! for the person goes on.

use super::{Completed, Session, record};
use crate::error::{Code, Failure, Outcome};
use crate::store::ledger::record::KEPT_ANSWER;
use crate::store::ledger::{Done, Settlement};
use crate::wire::answer::Reading;
use serde_json::{Map, Value, json};

/// How many ids of a list are kept.
const MOST_IDS: usize = 500;

/// A text that is longer is no id.
const LONGEST_ID: usize = 128;

/// How deep ids are looked for: `result`, `result.item`, `result.items[].item`.
const DEPTH: usize = 3;

/// Returns an answer as the ledger keeps it: its digest, and its text without
/// secrets if that is short, else the ids in it.
pub(super) fn success(session: &Session, body: &[u8], part: Part) -> Settlement {
    let clean = session.redactor.redact(body);
    let digest = crate::json::sha256_hex(&clean);
    if clean.len() <= KEPT_ANSWER {
        return Settlement::Succeeded { digest, answer: Some(String::from_utf8_lossy(&clean).into_owned()), ids: None };
    }
    let result = match part {
        Part::Body => Reading::of(&clean).and_then(|reading| serde_json::from_str(reading.result?.get()).ok()),
        Part::Result => serde_json::from_slice::<Value>(&clean).ok(),
    };
    Settlement::Succeeded { digest, answer: None, ids: result.and_then(|result| ids(&result, DEPTH)) }
}

/// What the bytes of an answer are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// The body of a call.
    Body,
    /// The `result` of a command of a batch.
    Result,
}

/// Returns the ids in a result: the result itself when it is one, else what
/// its members called `id` hold, and those of the objects and lists in it.
fn ids(value: &Value, depth: usize) -> Option<Value> {
    match value {
        Value::Bool(_) | Value::Number(_) => Some(value.clone()),
        Value::String(text) => (text.len() <= LONGEST_ID).then(|| value.clone()),
        Value::Null => None,
        Value::Array(items) => {
            let found: Vec<Value> = items.iter().filter_map(|item| ids_of_item(item, depth)).take(MOST_IDS).collect();
            match found.len() {
                0 => None,
                count if count < items.len() => Some(json!({"first": found, "of": items.len()})),
                _ => Some(Value::from(found)),
            }
        }
        Value::Object(members) => {
            let mut found = Map::new();
            for (name, member) in members {
                let kept = match member {
                    Value::Object(_) | Value::Array(_) if depth > 0 => ids(member, depth - 1),
                    Value::Object(_) | Value::Array(_) | Value::Null => None,
                    scalar => is_id(name).then(|| ids(scalar, 0)).flatten(),
                };
                found.extend(kept.map(|kept| (name.clone(), kept)));
            }
            (!found.is_empty()).then_some(Value::Object(found))
        }
    }
}

/// An item of a list is its id where it has one.
fn ids_of_item(item: &Value, depth: usize) -> Option<Value> {
    let own =
        item.as_object().and_then(|members| members.iter().find(|(name, value)| is_id(name) && !value.is_object() && !value.is_array()));
    match own {
        Some((_, id)) => ids(id, 0),
        None if depth > 0 => ids(item, depth - 1),
        None => None,
    }
}

fn is_id(name: &str) -> bool {
    name.eq_ignore_ascii_case("id")
}

/// Answers from the ledger. `commands` are the names of the request's calls.
pub(super) fn replay(session: &Session, name: &str, done: &[(String, Done)], commands: &[String]) -> Completed {
    let first = done.first().map(|(_, done)| done);
    let mut note = json!({"replayed": true, "ledger": first.map(|done| done.record.as_str()), "at": first.map(|done| done.at.as_str())});
    match done {
        [(command, only)] if command.is_empty() => {
            if let Some(Value::Object(lacks)) = lacks(only) {
                note.as_object_mut().into_iter().for_each(|note| note.extend(lacks.clone()));
            }
        }
        done => {
            let lacking = commands.iter().filter_map(|command| {
                let lacks = match done.iter().find(|(name, _)| name == command) {
                    Some((_, done)) => lacks(done)?,
                    None => json!({"answer": "not repeated", "why": "it only reads"}),
                };
                Some((command.clone(), lacks))
            });
            let lacking: Map<String, Value> = lacking.collect();
            if !lacking.is_empty() {
                note["answer"] = Value::from("not kept");
                note["commands"] = Value::Object(lacking);
            }
        }
    }
    let is_lost = done.iter().any(|(_, done)| done.answer.is_none() && done.digest.is_some());
    let failure = is_lost.then(|| not_kept(done, &note));
    let mut warnings = Vec::new();
    record::replayed(session, name, &note).unwrap_or_else(|error| warnings.push(("audit", error.to_string())));
    Completed { body: body(done).into_bytes(), note: Some(note), warnings, changed: false, failure }
}

/// Returns what is known of an answer that was not kept.
fn lacks(done: &Done) -> Option<Value> {
    match (&done.answer, &done.digest) {
        (Some(_), _) => None,
        (None, Some(digest)) => Some(json!({"answer": "not kept", "digest": digest, "ids": done.ids})),
        (None, None) => Some(json!({"answer": "not known", "why": "a person found out that it happened"})),
    }
}

/// Returns what is left of the body; a member that was not kept is not there.
fn body(done: &[(String, Done)]) -> String {
    match done {
        [(command, only)] if command.is_empty() => only.answer.clone().unwrap_or_else(|| "{}".to_owned()),
        commands => {
            let results: Vec<String> = commands
                .iter()
                .filter_map(|(name, done)| Some(format!("{}:{}", Value::from(name.as_str()), done.answer.as_deref()?)))
                .collect();
            format!(r#"{{"result":{{"result":{{{}}},"result_error":[]}}}}"#, results.join(","))
        }
    }
}

fn not_kept(done: &[(String, Done)], note: &Value) -> Failure {
    let mut failure = Failure::new(Code::AnswerNotKept, "the write was done before, and its answer is not here any more")
        .hint("Do not repeat it; read the object on the portal, `_b24` says what is known of the answer");
    failure.outcome = Outcome::Replayed;
    for key in ["digest", "ids", "commands"] {
        if let Some(value) = note.get(key) {
            failure = failure.with(key, value.clone());
        }
    }
    let records: Vec<&str> = done.iter().map(|(_, done)| done.record.as_str()).collect();
    match records.as_slice() {
        [only] => failure.with("ledger", *only),
        several => failure.with("ledger", several.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_of_every_form_of_result_are_found() {
        for (result, expected) in [
            (json!(17), json!(17)),
            (json!("17"), json!("17")),
            (json!(true), json!(true)),
            (json!({"ID": "5", "TITLE": "t"}), json!({"ID": "5"})),
            (json!({"item": {"id": 3, "title": "t"}}), json!({"item": {"id": 3}})),
            (json!({"task": {"id": "9", "group": {"id": "2"}}}), json!({"task": {"id": "9", "group": {"id": "2"}}})),
            (json!({"items": [{"id": 1, "x": 2}, {"id": 2}]}), json!({"items": [1, 2]})),
            (json!([{"ID": "1"}, {"ID": "2"}]), json!(["1", "2"])),
            (json!([1, 2]), json!([1, 2])),
            (json!([{"item": {"id": 4}}]), json!([{"item": {"id": 4}}])),
        ] {
            assert_eq!(ids(&result, DEPTH), Some(expected), "{result}");
        }
        assert_eq!(ids(&json!("x".repeat(1_000)), DEPTH), None);
        assert_eq!(ids(&json!({"text": "t", "n": 1}), DEPTH), None);
        let many: Vec<usize> = (0..2_000).collect();
        assert_eq!(ids(&json!(many), DEPTH).unwrap()["of"], 2_000);
    }
}
