//! What a batch's answer says about each of its commands.
//!
//! A v2 batch is answered with HTTP 200 even if every command failed, with `[]`
//! for empty sections and lists for numeric names; commands behind a `halt` are
//! in neither section. A v3 batch is all or nothing in its answer, and whether
//! earlier commands are rolled back is not documented
//! (b24restdocs: settings/how-to-call-rest-api/batch.md, api-reference/rest-v3.md).

use super::answer::{Form as ErrorForm, ServerError, Time, server_error};
use super::judge::{Obstacle, Verdict, judge_error};
use crate::call::{Batch, Form};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::collections::HashSet;
use std::fmt;

/// The answer's shape is not that of an answer to a batch.
const UNREADABLE: &str = "an answer to the batch that cannot be understood";

/// How one command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandResult<'a> {
    /// Whether it ran.
    pub verdict: Verdict,
    /// Its result's text, on success.
    pub result: Option<&'a str>,
}

/// What a batch's answer says.
#[derive(Debug, Default)]
pub struct BatchReading<'a> {
    /// One entry a command, in order.
    pub commands: Vec<CommandResult<'a>>,
    /// The timing of each command, as far as it was given.
    pub times: Vec<Option<Time>>,
}

impl<'a> BatchReading<'a> {
    /// Reads the result of a batch that was answered without a top-level
    /// error.
    ///
    /// # Errors
    /// Says why the answer as a whole proves nothing: it cannot be understood,
    /// or it speaks of commands that were not sent.
    pub fn of(batch: &Batch, result: &'a RawValue) -> Result<BatchReading<'a>, &'static str> {
        match batch.form {
            Form::V3 => read_v3(batch, result),
            Form::Named | Form::Listed => read_v2(batch, result),
        }
    }

    /// Returns the commands that failed, by name.
    #[must_use]
    pub fn failures<'b>(&'b self, batch: &'b Batch) -> Vec<(&'b str, &'b Verdict)> {
        let named = batch.commands.iter().zip(&self.commands);
        named
            .filter(|(_, result)| result.verdict != Verdict::Success)
            .map(|(command, result)| (command.name.as_str(), &result.verdict))
            .collect()
    }
}

/// A JSON object as its pairs. A key that stands twice is an error: of two
/// answers to one command either may be the true one.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<'de>, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Pairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object with each key once")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<'de>, A::Error> {
                let (mut pairs, mut seen) = (Vec::new(), HashSet::new());
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(key.clone()) {
                        return Err(serde::de::Error::custom("a key stands twice"));
                    }
                    pairs.push((key, value));
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

impl<'a> Pairs<'a> {
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// A section of a batch answer: a map, a list, or `[]` for an empty map.
fn section<'a>(raw: Option<&'a RawValue>) -> Result<Pairs<'a>, &'static str> {
    let Some(raw) = raw else { return Ok(Pairs(Vec::new())) };
    if let Ok(pairs) = serde_json::from_str::<Pairs>(raw.get()) {
        return Ok(pairs);
    }
    let list: Vec<&'a RawValue> = serde_json::from_str(raw.get()).map_err(|_| UNREADABLE)?;
    Ok(Pairs(list.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()))
}

/// Refuses an answer about commands that were not sent: it is one to another
/// request.
fn check_names(batch: &Batch, section: &Pairs) -> Result<(), &'static str> {
    let sent: HashSet<&str> = batch.commands.iter().map(|command| command.name.as_str()).collect();
    match section.names().all(|name| sent.contains(name)) {
        true => Ok(()),
        false => Err("an answer about commands that were not sent"),
    }
}

fn read_v2<'a>(batch: &Batch, result: &'a RawValue) -> Result<BatchReading<'a>, &'static str> {
    let parts: Pairs = serde_json::from_str(result.get()).map_err(|_| UNREADABLE)?;
    let results = section(Some(parts.get("result").ok_or(UNREADABLE)?))?;
    let errors = section(parts.get("result_error"))?;
    let times = section(parts.get("result_time"))?;
    check_names(batch, &results)?;
    check_names(batch, &errors)?;
    let is_told = |name: &str| errors.get(name).is_some() || results.get(name).is_some();
    let last_told = batch.commands.iter().rposition(|command| is_told(&command.name));
    let mut reading = BatchReading::default();
    let mut has_failed = false;
    for (index, command) in batch.commands.iter().enumerate() {
        reading.times.push(times.get(&command.name).and_then(|raw| serde_json::from_str(raw.get()).ok()));
        let told = match (errors.get(&command.name), results.get(&command.name)) {
            (Some(_), Some(_)) => maybe("both a result and an error for the command"),
            (Some(error), None) => match command_error(error) {
                Ok(error) => CommandResult { verdict: judge_error(&error, 400), result: None },
                Err(why) => maybe(why),
            },
            (None, Some(result)) => CommandResult { verdict: Verdict::Success, result: Some(result.get()) },
            // Behind a `halt` nothing is run, and nothing is said of it.
            (None, None) if batch.halt && has_failed && last_told < Some(index) => halted(),
            (None, None) => maybe("the answer does not mention the command"),
        };
        has_failed |= errors.get(&command.name).is_some();
        reading.commands.push(told);
    }
    Ok(reading)
}

fn maybe<'a>(why: &str) -> CommandResult<'a> {
    CommandResult { verdict: Verdict::Maybe(why.to_owned()), result: None }
}

fn halted<'a>() -> CommandResult<'a> {
    let error = ServerError { code: "HALTED".to_owned(), text: "an earlier command failed".to_owned(), form: ErrorForm::Code };
    CommandResult { verdict: Verdict::NotExecuted(Obstacle::MethodNotFound(error)), result: None }
}

fn command_error(raw: &RawValue) -> Result<ServerError, &'static str> {
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

/// The results stand in the order of the calls, or under their aliases.
fn read_v3<'a>(batch: &Batch, result: &'a RawValue) -> Result<BatchReading<'a>, &'static str> {
    let results = section(Some(result))?;
    if results.0.len() != batch.commands.len() {
        return Err("an answer to another number of commands");
    }
    let is_list = result.get().starts_with('[');
    let read = |(index, command): (usize, &crate::call::Command)| {
        let raw = if is_list { results.0.get(index).map(|(_, raw)| *raw) } else { results.get(&command.name) };
        let raw = raw.ok_or("an answer about commands that were not sent")?;
        let has_error =
            serde_json::from_str::<Pairs>(raw.get()).is_ok_and(|pairs| pairs.get("error").is_some_and(|error| error.get() != "null"));
        Ok(match has_error {
            true => maybe("an error in the place of a result"),
            false => CommandResult { verdict: Verdict::Success, result: Some(raw.get()) },
        })
    };
    let commands = batch.commands.iter().enumerate().map(read).collect::<Result<Vec<_>, &'static str>>()?;
    Ok(BatchReading { commands, times: vec![None; batch.commands.len()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Request;
    use crate::catalog::Api;
    use serde_json::json;

    fn read(halt: u8, result: &str) -> Result<Vec<Verdict>, &'static str> {
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
        assert_eq!(read(0, r#"{"x":1}"#), Err(UNREADABLE));
        assert_eq!(read(0, "[]"), Err(UNREADABLE));
    }

    #[test]
    fn a_halt_explains_only_what_stands_behind_a_failure() {
        for result in [
            r#"{"result":{"a":1},"result_error":[]}"#,
            r#"{"result":{"b":1},"result_error":[]}"#,
            r#"{"result":[],"result_error":{"b":{"error":"X"}}}"#,
        ] {
            let maybes = read(1, result).unwrap().into_iter().filter(|verdict| matches!(verdict, Verdict::Maybe(_))).count();
            assert_eq!(maybes, 1, "{result}");
        }
    }

    #[test]
    fn an_answer_that_says_two_things_of_a_command_says_nothing() {
        for (result, unsure) in [
            (r#"{"result":{"a":1,"b":2},"result_error":{"b":{"error":"X","error_description":"y"}}}"#, 1),
            (r#"{"result":{"a":1},"result_error":{"b":{"error":["X"]}}}"#, 1),
            (r#"{"result":{"a":1},"result_error":{"b":{"error":"X","error":"Y"}}}"#, 1),
            (r#"{"result":{"a":1},"result_error":{"b":{"error":{"code":"X"},"error_description":"y"}}}"#, 1),
            (r#"{"result":{"a":1},"result_error":{"b":null}}"#, 1),
        ] {
            let verdicts = read(0, result).unwrap();
            assert_eq!(verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Maybe(_))).count(), unsure, "{result}");
        }
        for result in [
            r#"{"result":{"a":1,"b":2,"c":3},"result_error":[]}"#,
            r#"{"result":{"a":1,"b":2},"result_error":{"c":{"error":"X"}}}"#,
            r#"{"result":{"a":1,"b":2,"b":2},"result_error":[]}"#,
            r#"{"result":{"a":1,"b":2},"result_error":{},"result_error":{"b":{"error":"X"}}}"#,
            r#"{"result":{"a":1,"b":2},"result_error":"X"}"#,
            r#"{"result":[1,2],"result_error":[]}"#,
        ] {
            assert!(read(0, result).is_err(), "{result}");
        }
    }

    #[test]
    fn a_batch_of_the_third_generation_is_read_by_place_or_by_alias() {
        let params =
            json!([{"method": "tasks.task.get", "as": "one", "query": {"id": 1}}, {"method": "tasks.task.get", "query": {"id": 2}}]);
        let Ok(Request::Batch(batch)) = Request::parse("batch", params, Api::V3) else { panic!() };
        let read = |text: &'static str| BatchReading::of(&batch, serde_json::from_str(text).unwrap());
        for text in [r#"[{"item":{}},{"item":{}}]"#, r#"{"1":{"item":{}},"one":{"item":{}}}"#] {
            assert!(read(text).unwrap().failures(&batch).is_empty(), "{text}");
        }
        for text in ["[1]", "[1,2,3]", r#"{"one":1,"two":2}"#, r#"{"one":1,"one":2}"#, "1"] {
            assert!(read(text).is_err(), "{text}");
        }
        assert_eq!(read(r#"[{"item":{}},{"error":{"code":"X"}}]"#).unwrap().failures(&batch).len(), 1);
    }

    #[test]
    fn a_v3_answer_is_about_the_commands_that_were_sent_and_all_of_them() {
        let item = |name: &str| json!({"method": "tasks.task.get", "as": name, "query": {"id": 1}});
        let Ok(Request::Batch(batch)) = Request::parse("batch", json!([item("a"), item("b")]), Api::V3) else { panic!() };
        let verdicts = |result: &str| {
            let raw: &RawValue = serde_json::from_str(result).unwrap();
            let reading = BatchReading::of(&batch, raw).ok()?;
            Some(reading.commands.iter().map(|command| command.verdict == Verdict::Success).collect::<Vec<_>>())
        };
        for (result, expected) in [
            ("[1,2]", Some(vec![true, true])),
            (r#"{"a":1,"b":2}"#, Some(vec![true, true])),
            (r#"[1,{"error":{"code":"X"}}]"#, Some(vec![true, false])),
            (r#"[{"error":null},2]"#, Some(vec![true, true])),
            ("[1]", None),
            ("[]", None),
            ("[1,2,3]", None),
            (r#"{"a":1}"#, None),
            (r#"{"a":1,"c":2}"#, None),
            (r#"{"a":1,"b":2,"c":3}"#, None),
            ("1", None),
            ("null", None),
        ] {
            assert_eq!(verdicts(result), expected, "{result}");
        }
    }
}
