//! Parameters from the command line: `--params` first, then the items from
//! left to right, merged.
//!
//! | item | gives |
//! |--|--|
//! | `key[sub]=text` | a string |
//! | `key:=json` | a JSON value |
//! | `key[]=text` | one more entry of a list |
//! | `key@file` | a string from a file |
//! | `key:=@file` | a JSON value from a file |
//!
//! The separator is the first `=`, `:=` or `@` behind the last closing bracket
//! of the key, so that `'filter[>=DATE]=x'` and `'filter[@ID][]=5'` work. A
//! plain value is never a file, an address or a template.
//!
//! A file is read only if it is a regular one of no more than 64 MB, and none
//! of ours: configuration, state and secrets are not data.

use crate::error::{Code, Failure};
use crate::host::Host;
use crate::json;
use crate::settings::OwnFiles;
use crate::store::given::{GivenError, LONGEST_VALUE, read_given_file, read_stream};
use serde_json::{Map, Value};
use std::path::Path;

/// Parts of a key, as many as JSON may have levels.
const DEEPEST: usize = 128;

/// Where files of values are looked for, and which may not be any.
#[derive(Clone, Copy)]
pub(super) struct Files<'a> {
    pub(super) cwd: &'a Path,
    pub(super) own: &'a OwnFiles,
}

/// Reads all parameters of a call.
pub(super) fn read(params: Option<&str>, items: &[String], own: &OwnFiles, host: &mut Host) -> Result<Value, Failure> {
    let cwd = host.cwd.clone();
    let files = Files { cwd: &cwd, own };
    let mut value = match params {
        None => Value::Object(Map::new()),
        Some("-") => parse(&stdin(host)?, "standard input")?,
        Some(text) => match text.strip_prefix('@') {
            Some(path) => parse(&files.text(path)?, path)?,
            None => parse(text, "--params")?,
        },
    };
    apply(&mut value, items, files)?;
    Ok(value)
}

/// Adds items to a value, from left to right.
pub(super) fn apply(value: &mut Value, items: &[String], files: Files) -> Result<(), Failure> {
    items.iter().enumerate().try_for_each(|(index, item)| add(value, (index + 1, item), files))
}

/// Returns whether the value of an item comes from a file.
pub(super) fn reads_file(item: &str) -> bool {
    let rest = key_end(item).map_or("", |end| &item[end..]);
    rest.starts_with('@') || rest.starts_with(":=@")
}

fn usage(message: String) -> Failure {
    Failure::new(Code::Usage, message).hint("b24 help params shows how parameters are written")
}

fn parse(text: &str, source: &str) -> Result<Value, Failure> {
    json::parse_strict(text).map_err(|error| usage(format!("{source} is not JSON that can be sent: {error}")))
}

fn stdin(host: &mut Host) -> Result<String, Failure> {
    if host.stdin_is_terminal {
        return Err(usage("--params - reads standard input, which is a terminal".to_owned()));
    }
    let bytes = read_stream(&mut host.stdin, LONGEST_VALUE).map_err(|error| unreadable(&error))?;
    String::from_utf8(bytes).map_err(|_| usage("standard input is not UTF-8".to_owned()))
}

impl Files<'_> {
    /// Reads a file whose text is sent.
    fn text(&self, path: &str) -> Result<String, Failure> {
        let given = read_given_file(&self.cwd.join(path), LONGEST_VALUE).map_err(|error| unreadable(&error))?;
        if self.own.holds(&given) {
            return Err(Failure::new(Code::CredentialInParams, format!("the file {path} belongs to b24 or to the system and is not sent"))
                .hint("Configuration, state and secrets are no data; name a file with the value"));
        }
        given.into_text().map_err(|error| unreadable(&error))
    }
}

fn unreadable(error: &GivenError) -> Failure {
    usage(error.to_string())
}

/// Adds one item to the parameters. A wrong item is named by its number: what
/// stands there by mistake may be a secret.
fn add(params: &mut Value, (number, item): (usize, &str), files: Files) -> Result<(), Failure> {
    let malformed = || usage(format!("item {number} is not key=text, key:=json, key[]=text, key@file or key:=@file"));
    let (key, rest) = item.split_at(key_end(item).ok_or_else(malformed)?);
    let path = key_path(key).ok_or_else(malformed)?;
    if path.len() > DEEPEST {
        return Err(usage(format!("item {number} is nested deeper than {DEEPEST} levels")));
    }
    let value = if let Some(rest) = rest.strip_prefix(":=") {
        match rest.strip_prefix('@') {
            Some(path) => parse(&files.text(path)?, path)?,
            None => parse(rest, &format!("the value of {}", crate::method::shown(key)))?,
        }
    } else if let Some(text) = rest.strip_prefix('=') {
        Value::from(text)
    } else if let Some(path) = rest.strip_prefix('@') {
        Value::from(files.text(path)?)
    } else {
        return Err(malformed());
    };
    insert(params, &path, value).map_err(|problem| usage(format!("item {number} {problem}")))
}

/// Returns where the key ends: at the first separator that is not inside
/// brackets.
fn key_end(item: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, c) in item.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth = depth.checked_sub(1)?,
            '=' | '@' if depth == 0 => return Some(index),
            ':' if depth == 0 && item[index + 1..].starts_with('=') => return Some(index),
            _ => {}
        }
    }
    None
}

/// Splits `a[b][]` into its parts; the empty part appends.
fn key_path(key: &str) -> Option<Vec<&str>> {
    let (name, mut rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    if name.is_empty() {
        return None;
    }
    let mut path = vec![name];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[')?;
        let end = inner.find(']')?;
        path.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    Some(path)
}

fn insert(target: &mut Value, path: &[&str], value: Value) -> Result<(), &'static str> {
    let Some((first, rest)) = path.split_first() else {
        *target = value;
        return Ok(());
    };
    let is_unset = target.is_null() || target.as_object().is_some_and(Map::is_empty);
    if first.is_empty() && is_unset {
        *target = Value::Array(Vec::new());
    }
    let next = || if rest.is_empty() { Value::Null } else { Value::Object(Map::new()) };
    match target {
        Value::Array(items) if first.is_empty() => {
            items.push(next());
            items.last_mut().map_or(Ok(()), |last| insert(last, rest, value))
        }
        Value::Array(items) => {
            let index: usize = first.parse().map_err(|_| "names a member of a list by a word")?;
            match items.get_mut(index) {
                Some(item) => insert(item, rest, value),
                None => Err("names a member that the list does not have"),
            }
        }
        Value::Object(_) if first.is_empty() => Err("appends to something that is no list"),
        Value::Object(map) => insert(map.entry(*first).or_insert_with(next), rest, value),
        Value::Null => {
            *target = Value::Object(Map::new());
            insert(target, path, value)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Err("goes into a plain value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn built(start: Value, items: &[&str]) -> Result<Value, Failure> {
        let mut value = start;
        for item in items {
            add(&mut value, (1, item), Files { cwd: Path::new("/nonexistent"), own: &OwnFiles::default() })?;
        }
        Ok(value)
    }

    #[test]
    fn items_build_the_documented_values() {
        let items = [
            "fields[TITLE]=Hello",
            "id:=42",
            "select[]=ID",
            "select[]=TITLE",
            "filter[>=DATE_CREATE]=2026-01-01",
            "filter[@ID][]=5",
            "filter[%TITLE]=x=y@z",
            "a:={\"b\":10.10}",
            "url=http://x/?a=b",
            "empty=",
        ];
        let expected = concat!(
            r#"{"fields":{"TITLE":"Hello"},"id":42,"select":["ID","TITLE"],"#,
            r#""filter":{">=DATE_CREATE":"2026-01-01","@ID":["5"],"%TITLE":"x=y@z"},"#,
            r#""a":{"b":10.10},"url":"http://x/?a=b","empty":""}"#
        );
        assert_eq!(built(json!({}), &items).unwrap().to_string(), expected);
    }

    #[test]
    fn items_are_merged_deep_into_params() {
        let start = json!({"fields": {"A": "1"}, "select": ["ID"]});
        let expected = json!({"fields": {"A": "3", "B": "2"}, "select": ["ID", "TITLE"]});
        assert_eq!(built(start, &["fields[B]=2", "select[]=TITLE", "fields[A]=3"]).unwrap(), expected);
    }

    #[test]
    fn malformed_items_are_refused() {
        for item in ["", "x", "=x", "[a]=x", "a]b=x", "a[b=x", "a[b]c=x", "a:=nope", "a@/no/such/file", "a:={\"b\":1,\"b\":2}"] {
            assert!(built(json!({}), &[item]).is_err(), "{item}");
        }
        assert!(built(json!({"a": 1}), &["a[b]=2"]).is_err());
        assert!(built(json!({"a": {"x": 1}}), &["a[]=2"]).is_err());
    }
}
