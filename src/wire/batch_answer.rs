//! What a batch's answer says about each of its commands.
//!
//! A v2 batch is answered with HTTP 200 even if every command failed, with `[]`
//! for empty sections and lists for numeric names; commands behind a `halt` are
//! in neither section. A v3 batch is all or nothing in its answer, and whether
//! earlier commands are rolled back is not documented
//! (b24restdocs: settings/how-to-call-rest-api/batch.md, api-reference/rest-v3.md).

use super::answer::{Obstacle, ServerError, Time, Verdict, judge_error, server_error};
use crate::call::{Batch, Form};
use serde_json::value::RawValue;
use std::collections::HashMap;

/// How one command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult {
    /// Whether it ran.
    pub verdict: Verdict,
    /// Its result's text, on success.
    pub result: Option<String>,
}

/// What a batch's answer says.
#[derive(Debug, Default)]
pub struct BatchReading {
    /// One entry a command, in order.
    pub commands: Vec<CommandResult>,
    /// The timing of each command, as far as it was given.
    pub times: Vec<Option<Time>>,
}

impl BatchReading {
    /// Reads the result of a batch that was answered without a top-level
    /// error; `None` when it cannot be understood.
    #[must_use]
    pub fn of(batch: &Batch, result: &RawValue) -> Option<BatchReading> {
        match batch.form {
            Form::V3 => read_v3(batch, result),
            Form::Named | Form::Listed => read_v2(batch, result),
        }
    }

    /// Returns the commands that failed, by name.
    #[must_use]
    pub fn failures<'a>(&'a self, batch: &'a Batch) -> Vec<(&'a str, &'a Verdict)> {
        let named = batch.commands.iter().zip(&self.commands);
        named
            .filter(|(_, result)| result.verdict != Verdict::Success)
            .map(|(command, result)| (command.name.as_str(), &result.verdict))
            .collect()
    }
}

/// A section of a v2 batch answer: a map, a list, or `[]` for an empty map.
fn section<'a>(parts: &HashMap<String, &'a RawValue>, name: &str) -> Option<HashMap<String, &'a RawValue>> {
    let Some(raw) = parts.get(name) else { return Some(HashMap::new()) };
    if let Ok(map) = serde_json::from_str::<HashMap<String, &'a RawValue>>(raw.get()) {
        return Some(map);
    }
    let list: Vec<&'a RawValue> = serde_json::from_str(raw.get()).ok()?;
    Some(list.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect())
}

fn read_v2(batch: &Batch, result: &RawValue) -> Option<BatchReading> {
    let parts: HashMap<String, &RawValue> = serde_json::from_str(result.get()).ok()?;
    parts.get("result")?;
    let results = section(&parts, "result")?;
    let errors = section(&parts, "result_error")?;
    let times = section(&parts, "result_time")?;
    let mut reading = BatchReading::default();
    for command in &batch.commands {
        reading.times.push(times.get(&command.name).and_then(|raw| serde_json::from_str(raw.get()).ok()));
        reading.commands.push(match (errors.get(&command.name), results.get(&command.name)) {
            (Some(error), _) => CommandResult { verdict: judge_error(&command_error(error), 400), result: None },
            (None, Some(result)) => CommandResult { verdict: Verdict::Success, result: Some(result.get().to_owned()) },
            (None, None) => missing(batch),
        });
    }
    Some(reading)
}

/// A command that the answer does not mention: behind a `halt` it was not run;
/// without one nobody can say.
fn missing(batch: &Batch) -> CommandResult {
    let verdict = if batch.halt {
        let error = ServerError { code: "HALTED".to_owned(), text: "an earlier command failed".to_owned() };
        Verdict::NotExecuted(Obstacle::MethodNotFound(error))
    } else {
        Verdict::Maybe("the answer does not mention the command".to_owned())
    };
    CommandResult { verdict, result: None }
}

fn command_error(raw: &RawValue) -> ServerError {
    #[derive(serde::Deserialize)]
    struct Row<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
        #[serde(borrow)]
        error_description: Option<&'a RawValue>,
    }
    match serde_json::from_str::<Row>(raw.get()) {
        Ok(row) => server_error(row.error, row.error_description),
        Err(_) => server_error(raw, None),
    }
}

fn read_v3(batch: &Batch, result: &RawValue) -> Option<BatchReading> {
    let results: Vec<&RawValue> = serde_json::from_str(result.get()).ok()?;
    if results.len() != batch.commands.len() {
        return None;
    }
    let commands = results.iter().map(|raw| CommandResult { verdict: Verdict::Success, result: Some(raw.get().to_owned()) }).collect();
    Some(BatchReading { commands, times: vec![None; results.len()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Request;
    use crate::catalog::Api;
    use serde_json::json;

    fn read(halt: u8, result: &str) -> Option<Vec<Verdict>> {
        let params = json!({"halt": halt, "cmd": {"a": "user.current", "b": "crm.lead.add"}});
        let Ok(Request::Batch(batch)) = Request::parse("batch", params, Api::V2) else { panic!() };
        let raw: &RawValue = serde_json::from_str(result).unwrap();
        BatchReading::of(&batch, raw).map(|reading| reading.commands.into_iter().map(|command| command.verdict).collect())
    }

    #[test]
    fn every_command_gets_its_own_verdict() {
        let verdicts = read(0, r#"{"result":{"a":1},"result_error":{"b":{"error":"X","error_description":"y"}}}"#).unwrap();
        assert_eq!(verdicts[0], Verdict::Success);
        assert!(matches!(verdicts[1], Verdict::Refused(_)));
        let verdicts =
            read(0, r#"{"result":{"b":null},"result_error":{"a":{"error":"INTERNAL_SERVER_ERROR","error_description":""}}}"#).unwrap();
        assert!(matches!(verdicts[0], Verdict::Maybe(_)));
        assert_eq!(verdicts[1], Verdict::Success);
    }

    #[test]
    fn a_command_that_is_not_mentioned_was_halted_or_is_unknown() {
        assert!(matches!(read(1, r#"{"result":[],"result_error":{"a":{"error":"X"}}}"#).unwrap()[1], Verdict::NotExecuted(_)));
        assert!(matches!(read(0, r#"{"result":[],"result_error":[]}"#).unwrap()[1], Verdict::Maybe(_)));
        assert_eq!(read(0, r#"{"x":1}"#), None);
        assert_eq!(read(0, "[]"), None);
    }
}
