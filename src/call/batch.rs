//! A batch: taken apart into its calls, and written anew from them.

use super::{BATCH_LIMIT, Batch, Call, Command, Form, ShapeError, check_keys, kind};
use crate::catalog::Api;
use crate::method::{self, Method, short};
use crate::query_string;
use serde_json::{Map, Value};

impl Batch {
    pub(super) fn body(&self) -> Result<Value, ShapeError> {
        if self.form == Form::V3 {
            let items = self.commands.iter().zip(&self.aliased).map(|(command, aliased)| {
                let mut item = Map::new();
                item.insert("method".to_owned(), Value::from(command.call.name.clone()));
                if *aliased {
                    item.insert("as".to_owned(), Value::from(command.name.clone()));
                }
                item.insert("query".to_owned(), command.call.params.clone());
                Value::Object(item)
            });
            return Ok(Value::Array(items.collect()));
        }
        let lines = self.commands.iter().map(|command| Ok((command.name.clone(), Value::from(command.line()?))));
        let lines = lines.collect::<Result<Vec<(String, Value)>, ShapeError>>()?;
        let cmd = match self.form {
            Form::Listed => Value::Array(lines.into_iter().map(|(_, line)| line).collect()),
            Form::Named | Form::V3 => Value::Object(lines.into_iter().collect()),
        };
        let mut body = Map::new();
        body.insert("halt".to_owned(), Value::from(u8::from(self.halt)));
        body.insert("cmd".to_owned(), cmd);
        Ok(Value::Object(body))
    }
}

impl Command {
    /// Returns `method?query`, written anew.
    fn line(&self) -> Result<String, ShapeError> {
        let query = match &self.call.params {
            Value::Object(params) => query_string::encode(params),
            Value::Array(items) => {
                query_string::encode(&items.iter().enumerate().map(|(index, item)| (index.to_string(), item.clone())).collect())
            }
            _ => Ok(String::new()),
        };
        let query = query.map_err(|source| self.wrong(source.into()))?;
        Ok(if query.is_empty() { self.call.name.clone() } else { format!("{}?{query}", self.call.name) })
    }

    fn wrong(&self, source: ShapeError) -> ShapeError {
        in_command(&self.name)(source)
    }
}

fn in_command(name: &str) -> impl Fn(ShapeError) -> ShapeError + use<> {
    let name = short(name);
    move |source| match source {
        ShapeError::NestedBatch(_) => ShapeError::NestedBatch(name.clone()),
        other => ShapeError::Command { name: name.clone(), source: Box::new(other) },
    }
}

fn malformed(text: impl Into<String>) -> ShapeError {
    ShapeError::Batch(text.into())
}

pub(super) fn parse_batch_v2(params: Value) -> Result<Batch, ShapeError> {
    let Value::Object(mut params) = params else {
        return Err(malformed("batch takes an object with `cmd` and `halt`; only a v3 batch is an array (--api v3)"));
    };
    check_keys(&params)?;
    let halt = match params.shift_remove("halt") {
        None => false,
        Some(value) => parse_halt(&value)?,
    };
    let cmd = params.shift_remove("cmd").ok_or_else(|| malformed("batch needs `cmd`, an object or array of commands"))?;
    if let Some(key) = params.keys().next() {
        return Err(malformed(format!("batch takes `cmd` and `halt` only, not `{}`", short(key))));
    }
    let (form, entries) = match cmd {
        Value::Object(entries) => {
            check_keys(&entries)?;
            (Form::Named, entries.into_iter().collect::<Vec<_>>())
        }
        Value::Array(items) => (Form::Listed, items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect()),
        other => return Err(malformed(format!("`cmd` is {}, not an object or array of commands", kind(&other)))),
    };
    check_count(entries.len())?;
    let commands = entries.into_iter().map(|(name, value)| parse_command_v2(name, value)).collect::<Result<Vec<_>, _>>()?;
    let batch = Batch { form, halt, aliased: Vec::new(), commands };
    // A value that a command line cannot carry is refused now, not at the end.
    batch.body()?;
    Ok(batch)
}

fn check_count(count: usize) -> Result<(), ShapeError> {
    match count {
        0 => Err(malformed("the batch has no commands")),
        1..=BATCH_LIMIT => Ok(()),
        more => Err(malformed(format!("the batch has {more} commands; {BATCH_LIMIT} is the limit"))),
    }
}

fn parse_halt(value: &Value) -> Result<bool, ShapeError> {
    match value.to_string().trim_matches('"') {
        "1" | "true" | "Y" => Ok(true),
        "0" | "false" | "N" => Ok(false),
        other => Err(malformed(format!("`halt` is {}, not 0 or 1", method::shown(other)))),
    }
}

fn parse_command_v2(name: String, value: Value) -> Result<Command, ShapeError> {
    if name.is_empty() || name.len() > 100 || name.contains(['[', ']']) || name.chars().any(char::is_control) {
        return Err(malformed(format!("the command name {} cannot be used", method::shown(&name))));
    }
    let wrong = in_command(&name);
    let (method, params) = split_command(value).map_err(&wrong)?;
    let call = parse_inner(&method, params, Api::V2).map_err(&wrong)?;
    Ok(Command { name, call })
}

/// Splits the three ways of writing a command: `method?query`,
/// `{"method": …, "params": …}` and `[method, params]`.
fn split_command(value: Value) -> Result<(String, Value), ShapeError> {
    let expected = || malformed("a command is `method?query`, {\"method\":…,\"params\":…} or [method, params]");
    match value {
        Value::String(line) => {
            let (method, query) = line.split_once('?').unwrap_or((&line, ""));
            Ok((method.to_owned(), Value::Object(query_string::decode(query)?)))
        }
        Value::Object(mut fields) => {
            let method = fields.shift_remove("method").ok_or_else(expected)?;
            let params = fields.shift_remove("params").unwrap_or_else(|| Value::Object(Map::new()));
            match (method, fields.is_empty()) {
                (Value::String(method), true) => Ok((method, params)),
                _ => Err(expected()),
            }
        }
        Value::Array(parts) => {
            let mut parts = parts.into_iter();
            match (parts.next(), parts.next(), parts.next()) {
                (Some(Value::String(method)), params, None) => Ok((method, params.unwrap_or_else(|| Value::Object(Map::new())))),
                _ => Err(expected()),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Err(expected()),
    }
}

fn parse_inner(name: &str, params: Value, api: Api) -> Result<Call, ShapeError> {
    let method = Method::parse(name)?;
    if method.is_batch() {
        return Err(ShapeError::NestedBatch(String::new()));
    }
    // PHP gives `[]` for an empty map.
    let params = match params {
        Value::Array(items) if items.is_empty() => Value::Object(Map::new()),
        other => other,
    };
    Call::parse(method, name, params, api)
}

pub(super) fn parse_batch_v3(params: Value) -> Result<Batch, ShapeError> {
    let Value::Array(items) = params else {
        return Err(malformed("a v3 batch is an array of objects with `method` and `query`"));
    };
    check_count(items.len())?;
    let mut batch = Batch { form: Form::V3, halt: true, aliased: Vec::new(), commands: Vec::new() };
    for (index, item) in items.into_iter().enumerate() {
        let position = index.to_string();
        let wrong = in_command(&position);
        let (alias, call) = parse_item_v3(item).map_err(&wrong)?;
        batch.aliased.push(alias.is_some());
        let name = alias.unwrap_or(position);
        if batch.commands.iter().any(|command| command.name.eq_ignore_ascii_case(&name)) {
            return Err(malformed(format!("two commands are called {}", method::shown(&name))));
        }
        batch.commands.push(Command { name, call });
    }
    Ok(batch)
}

fn parse_item_v3(item: Value) -> Result<(Option<String>, Call), ShapeError> {
    let expected = || malformed("a v3 command is {\"method\":…,\"query\":{…}} with an optional `as`");
    let Value::Object(mut fields) = item else { return Err(expected()) };
    let method = fields.shift_remove("method").ok_or_else(expected)?;
    let query = fields.shift_remove("query").ok_or_else(expected)?;
    let alias = match fields.shift_remove("as") {
        None => None,
        Some(Value::String(alias)) if !alias.is_empty() && alias.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => Some(alias),
        Some(_) => return Err(malformed("`as` is a name of letters, digits and `_`")),
    };
    match (method, fields.is_empty()) {
        (Value::String(method), true) => Ok((alias, parse_inner(&method, query, Api::V3)?)),
        _ => Err(expected()),
    }
}
