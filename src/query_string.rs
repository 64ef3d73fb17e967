//! The bracket syntax of PHP query strings: `fields[TITLE]=Acme&select[]=ID`.
//!
//! Commands of a v2 batch travel in it. A command is decoded to a value,
//! checked, and encoded anew from that value; the caller's string itself never
//! travels. Decoding follows PHP's `parse_str` for what callers write in good
//! faith, and refuses what `parse_str` would quietly turn into something else
//! (b24restdocs: settings/how-to-call-rest-api/data-encoding.md).

use crate::method::short;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};

/// Everything but the unreserved characters of RFC 3986 is encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Why a query string cannot be taken apart, or a value not be put in one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum QueryError {
    /// The key is not `name[part][part]`.
    #[error("the key `{0}` is not of the form name[part][part]")]
    Key(String),
    /// Percent-encoding that is no UTF-8.
    #[error("`{0}` is not percent-encoded UTF-8")]
    Encoding(String),
    /// One key is used as a value and as a list or map.
    #[error("the key `{0}` stands for a value and for a list at once")]
    Mixed(String),
    /// `null` has no form in a query string.
    #[error("`{0}` is null, which a batch command cannot carry; send it as a call of its own")]
    Null(String),
    /// An empty list or map has no form in a query string.
    #[error("`{0}` is an empty list, which a batch command cannot carry; send it as a call of its own")]
    Empty(String),
}

/// Takes a query string apart. All values are strings; keys `0`, `1`, … in
/// this order make a list.
pub fn decode(query: &str) -> Result<Map<String, Value>, QueryError> {
    let mut root = Map::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = key_path(&unescape(key)?)?;
        insert(&mut root, &path, unescape(value)?, key)?;
    }
    for value in root.values_mut() {
        make_lists(value);
    }
    Ok(root)
}

fn unescape(text: &str) -> Result<String, QueryError> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| QueryError::Encoding(short(text)))
}

/// Splits `a[b][]` into `a`, `b` and the empty part that appends.
fn key_path(key: &str) -> Result<Vec<String>, QueryError> {
    let invalid = || QueryError::Key(short(key));
    let (name, mut rest) = key.split_at(key.find('[').unwrap_or(key.len()));
    // PHP renames keys with these characters, and cuts leading white space.
    if name.is_empty() || name.contains(['.', ' ', ']']) || name.chars().any(char::is_control) {
        return Err(invalid());
    }
    let mut path = vec![name.to_owned()];
    while !rest.is_empty() {
        let inner = rest.strip_prefix('[').ok_or_else(invalid)?;
        let end = inner.find(']').ok_or_else(invalid)?;
        if inner[..end].contains('[') || inner[..end].chars().any(char::is_control) {
            return Err(invalid());
        }
        path.push(inner[..end].to_owned());
        rest = &inner[end + 1..];
    }
    Ok(path)
}

fn insert(map: &mut Map<String, Value>, path: &[String], value: String, key: &str) -> Result<(), QueryError> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let name = if first.is_empty() { next_index(map) } else { first.clone() };
    if rest.is_empty() {
        return match map.insert(name, Value::String(value)) {
            None => Ok(()),
            Some(_) => Err(QueryError::Mixed(short(key))),
        };
    }
    match map.entry(name).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => insert(inner, rest, value, key),
        _ => Err(QueryError::Mixed(short(key))),
    }
}

fn next_index(map: &Map<String, Value>) -> String {
    map.keys().filter_map(|key| key.parse::<u64>().ok()).max().map_or(0, |last| last + 1).to_string()
}

fn make_lists(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.values_mut().for_each(make_lists);
    if map.keys().enumerate().all(|(index, key)| *key == index.to_string()) {
        *value = Value::Array(std::mem::take(map).into_iter().map(|(_, item)| item).collect());
    }
}

/// Writes a query string. Numbers are written as their source tokens, `true`
/// and `false` as `1` and `0` (as PHP's `http_build_query` does).
pub fn encode(params: &Map<String, Value>) -> Result<String, QueryError> {
    let mut pairs = Vec::new();
    for (key, value) in params {
        if key.is_empty() || key.contains(['.', ' ', '[', ']']) {
            return Err(QueryError::Key(short(key)));
        }
        encode_value(&escape(key), key, value, &mut pairs)?;
    }
    Ok(pairs.join("&"))
}

fn encode_value(key: &str, label: &str, value: &Value, pairs: &mut Vec<String>) -> Result<(), QueryError> {
    let text = match value {
        Value::Null => return Err(QueryError::Null(label.to_owned())),
        Value::Array(items) if items.is_empty() => return Err(QueryError::Empty(label.to_owned())),
        Value::Object(entries) if entries.is_empty() => return Err(QueryError::Empty(label.to_owned())),
        Value::Array(items) => {
            return items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| encode_value(&format!("{key}[{index}]"), &format!("{label}[{index}]"), item, pairs));
        }
        Value::Object(entries) => {
            if let Some(name) = entries.keys().find(|name| name.is_empty() || name.contains(['[', ']'])) {
                return Err(QueryError::Key(short(name)));
            }
            return entries
                .iter()
                .try_for_each(|(name, item)| encode_value(&format!("{key}[{}]", escape(name)), &format!("{label}[{name}]"), item, pairs));
        }
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) => "0".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => escape(text),
    };
    pairs.push(format!("{key}={text}"));
    Ok(())
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn brackets_make_maps_and_lists() {
        let decoded = decode("fields[TITLE]=a%26b+c&select[]=ID&select[]=TITLE&filter[>ID]=5&x[0][y]=1&z").unwrap();
        assert_eq!(
            Value::Object(decoded),
            json!({"fields": {"TITLE": "a&b c"}, "select": ["ID", "TITLE"], "filter": {">ID": "5"}, "x": [{"y": "1"}], "z": ""})
        );
    }

    #[test]
    fn keys_that_php_would_rename_are_refused() {
        for query in
            ["a[b=1", "a]=1", "[a]=1", "access.token=1", "+auth=1", "a[b[c]]=1", "a[b]c=1", "a=1&a=2", "a=1&a[b]=2", "a%00=1", "a=%ff"]
        {
            assert!(decode(query).is_err(), "{query}");
        }
    }

    #[test]
    fn what_a_query_cannot_carry_is_refused() {
        assert_eq!(encode(json!({"a": {"b": null}}).as_object().unwrap()), Err(QueryError::Null("a[b]".to_owned())));
        assert!(encode(json!({"a": {"b]": 1}}).as_object().unwrap()).is_err());
        assert_eq!(encode(json!({"a": []}).as_object().unwrap()), Err(QueryError::Empty("a".to_owned())));
    }

    #[test]
    fn numbers_keep_their_tokens() {
        let params = crate::json::parse_strict(r#"{"a": 10.10, "b": true, "c": "$result[x][0]"}"#).unwrap();
        assert_eq!(encode(params.as_object().unwrap()).unwrap(), "a=10.10&b=1&c=%24result%5Bx%5D%5B0%5D");
    }

    fn any_params() -> impl Strategy<Value = Value> {
        let leaf = any::<String>().prop_map(Value::from);
        let inner = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
                prop::collection::vec(("[a-zA-Z_>%!@=&+ é]{1,6}", inner), 1..4).prop_map(|e| Value::Object(e.into_iter().collect())),
            ]
        });
        prop::collection::vec(("[a-zA-Z_>%!@=&é]{1,6}", inner), 1..4).prop_map(|e| Value::Object(e.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(params in any_params()) {
            let params = params.as_object().unwrap().clone();
            let decoded = decode(&encode(&params).unwrap()).unwrap();
            prop_assert_eq!(Value::Object(decoded), Value::Object(params));
        }

        #[test]
        fn decoding_never_panics(query in "\\PC{0,40}") {
            let _ = decode(&query);
        }
    }
}
