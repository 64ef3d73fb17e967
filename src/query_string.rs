//! The bracket syntax of PHP query strings: `fields[TITLE]=Acme&select[]=ID`.
//!
//! Commands of a v2 batch travel in it. A command is decoded to a value,
//! checked, and encoded anew from that value; the caller's string itself never
//! travels. Decoding follows PHP's `parse_str` for what callers write in good
//! faith, and refuses what `parse_str` would quietly turn into something else
//! (b24restdocs: settings/how-to-call-rest-api/data-encoding.md). That goes for
//! its limits, too: of one text PHP reads 1000 values and drops the rest, and of
//! a key with more than 64 brackets it drops the whole variable. Events are
//! delivered as forms of the same syntax (b24restdocs:
//! api-reference/events/index.md).

use crate::json::number;
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
    /// A command has more values than PHP surely reads.
    #[error(
        "the command has {0} values; PHP reads 1000 and drops the rest in silence, so at most {MOST_PAIRS} go in one command: \
         divide it, or send it as a call of its own"
    )]
    CommandPairs(usize),
    /// A key of a command has more brackets than PHP surely reads.
    #[error(
        "the command has a key with {0} levels; PHP drops what has more than 64 in silence, so at most {MOST_LEVELS} go in one \
         command: send it as a call of its own"
    )]
    CommandLevels(usize),
    /// A number that PHP would change.
    #[error("the number at `{0}` is outside of what PHP can hold; write it as a text")]
    Number(String),
    /// There are more pairs than the reader takes.
    #[error("there are more than {0} values")]
    TooMany(usize),
    /// A key has more brackets than the reader takes.
    #[error("a key is nested deeper than {0}")]
    TooDeep(usize),
}

/// Values of one command. PHP's own limit is 1000 (`max_input_vars`); a
/// portal's may be set lower, and the portal adds some of its own.
pub const MOST_PAIRS: usize = 900;

/// Brackets of one key of a command; PHP's own limit is 64
/// (`max_input_nesting_level`).
pub const MOST_LEVELS: usize = 60;

/// What a reader takes of a text that anybody may have written: work and
/// memory stay in proportion.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Values in all.
    pub pairs: usize,
    /// Parts of a key, its name included.
    pub depth: usize,
}

/// Takes the query string of a command apart. All values are strings; keys
/// `0`, `1`, … in this order make a list.
pub fn decode(query: &str) -> Result<Map<String, Value>, QueryError> {
    // As PHP counts: a pair without a name counts, an empty one does not.
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    let levels =
        |pair: &str| pair.split('=').next().map_or(0, |key| key.matches('[').count() + key.to_ascii_lowercase().matches("%5b").count());
    check_limits(pairs().count(), pairs().map(levels).max().unwrap_or_default())?;
    decode_within(query, Bounds { pairs: MOST_PAIRS, depth: MOST_LEVELS + 2 })
}

fn check_limits(pairs: usize, levels: usize) -> Result<(), QueryError> {
    if pairs > MOST_PAIRS {
        return Err(QueryError::CommandPairs(pairs));
    }
    if levels > MOST_LEVELS { Err(QueryError::CommandLevels(levels)) } else { Ok(()) }
}

/// Takes a query string of a stranger apart: as [`decode`], within bounds.
pub fn decode_within(query: &str, bounds: Bounds) -> Result<Map<String, Value>, QueryError> {
    let mut root = Map::new();
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    if pairs().nth(bounds.pairs).is_some() {
        return Err(QueryError::TooMany(bounds.pairs));
    }
    for pair in pairs() {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = unescape(key)?;
        // Before it is split: a key may be as long as the whole text.
        if name.matches('[').count() >= bounds.depth {
            return Err(QueryError::TooDeep(bounds.depth));
        }
        let path = key_path(&name)?;
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
        if !is_part(&inner[..end]) && !inner[..end].is_empty() {
            return Err(invalid());
        }
        path.push(inner[..end].to_owned());
        rest = &inner[end + 1..];
    }
    Ok(path)
}

/// Whether PHP reads a part of a key as it is: it cuts it at a NUL, ends it at
/// a bracket, and takes one white space for nothing, which appends.
fn is_part(name: &str) -> bool {
    !name.is_empty() && name != " " && !name.contains(['[', ']']) && !name.chars().any(char::is_control)
}

fn insert(map: &mut Map<String, Value>, path: &[String], value: String, key: &str) -> Result<(), QueryError> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let name = if first.is_empty() { next_index(map).ok_or_else(|| QueryError::Key(short(key)))? } else { first.clone() };
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

/// Returns the key behind the largest integer; `None` where versions of PHP
/// differ (behind a negative one) or there is none.
fn next_index(map: &Map<String, Value>) -> Option<String> {
    let is_integer = |key: &&String| key.parse::<i64>().is_ok_and(|index| index.to_string() == **key);
    let largest = map.keys().filter(is_integer).filter_map(|key| key.parse::<i64>().ok()).max();
    match largest {
        None => Some("0".to_owned()),
        Some(largest) => largest.checked_add(1).filter(|next| *next > 0).map(|next| next.to_string()),
    }
}

fn make_lists(value: &mut Value) {
    let Value::Object(map) = value else { return };
    map.values_mut().for_each(make_lists);
    if map.keys().enumerate().all(|(index, key)| *key == index.to_string()) {
        *value = Value::Array(std::mem::take(map).into_iter().map(|(_, item)| item).collect());
    }
}

/// Writes the query string of a command. Numbers are written plainly, as the
/// portal reads them from a call of its own (10.10 is `10.1`); `true` and
/// `false` as `1` and `0` (as PHP's `http_build_query` does).
pub fn encode(params: &Map<String, Value>) -> Result<String, QueryError> {
    let mut pairs = Vec::new();
    for (key, value) in params {
        if key.is_empty() || key.contains(['.', ' ', '[', ']']) || key.chars().any(char::is_control) {
            return Err(QueryError::Key(short(key)));
        }
        check_limits(0, levels(value))?;
        encode_value(&escape(key), key, value, &mut pairs)?;
    }
    check_limits(pairs.len(), 0)?;
    Ok(pairs.join("&"))
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(entries) => 1 + entries.values().map(levels).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
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
            if let Some(name) = entries.keys().find(|name| !is_part(name)) {
                return Err(QueryError::Key(short(name)));
            }
            return entries
                .iter()
                .try_for_each(|(name, item)| encode_value(&format!("{key}[{}]", escape(name)), &format!("{label}[{name}]"), item, pairs));
        }
        Value::Bool(true) => "1".to_owned(),
        Value::Bool(false) => "0".to_owned(),
        Value::Number(number) => number::plain(&number.to_string()).ok_or_else(|| QueryError::Number(short(label)))?,
        Value::String(text) => escape(text),
    };
    pairs.push(format!("{key}={text}"));
    Ok(())
}

/// Flattens an object to the pairs of a form, as events are written: `true` is
/// `1`, `false` is `0`, `null` is empty, and an empty list or object leaves no
/// trace (b24restdocs: api-reference/chat-bots/chat-bots-v2/imbot.v2/events/events.md).
#[must_use]
pub fn form_pairs(payload: &Value) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (name, value) in payload.as_object().into_iter().flatten() {
        flatten(name.clone(), value, &mut pairs);
    }
    pairs
}

fn flatten(key: String, value: &Value, pairs: &mut Vec<(String, String)>) {
    let text = match value {
        Value::Object(entries) => return entries.iter().for_each(|(name, item)| flatten(format!("{key}[{name}]"), item, pairs)),
        Value::Array(items) => return items.iter().enumerate().for_each(|(index, item)| flatten(format!("{key}[{index}]"), item, pairs)),
        Value::Null => String::new(),
        Value::Bool(is_set) => u8::from(*is_set).to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
    };
    pairs.push((key, text));
}

/// Writes the body of a form.
#[must_use]
pub fn encode_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    pairs.into_iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect::<Vec<_>>().join("&")
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
        for query in [
            "a[b=1",
            "a]=1",
            "[a]=1",
            "access.token=1",
            "+auth=1",
            "a[b[c]]=1",
            "a[b]c=1",
            "a=1&a=2",
            "a=1&a[b]=2",
            "a%00=1",
            "a=%ff",
            "a[ ]=1",
            "a[+]=1",
            "a[%20][b]=1",
            "a[-5]=1&a[]=2",
            "a[9223372036854775807]=1&a[]=2",
        ] {
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
    fn a_strangers_text_is_read_within_bounds() {
        let bounds = Bounds { pairs: 3, depth: 2 };
        assert!(decode_within("a[b]=1&c=2&&d=3&", bounds).is_ok());
        assert_eq!(decode_within("a=1&b=2&c=3&d=4", bounds), Err(QueryError::TooMany(3)));
        for query in ["a[b][c]=1", "a%5Bb%5D%5bc%5d=1", &format!("a{}=1", "[]".repeat(100_000))] {
            assert_eq!(decode_within(query, bounds), Err(QueryError::TooDeep(2)));
        }
    }

    #[test]
    fn a_form_is_flattened_as_php_does_it() {
        let payload = json!({"event": "X", "data": {"a": [1, {"b": true}], "c": false, "d": null, "e": [], "f": {}, "g": "x y&z"}});
        let pairs = form_pairs(&payload);
        let expected =
            [("event", "X"), ("data[a][0]", "1"), ("data[a][1][b]", "1"), ("data[c]", "0"), ("data[d]", ""), ("data[g]", "x y&z")];
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(pairs, expected);
        let read = decode(&encode_pairs(pairs)).unwrap();
        assert_eq!(Value::Object(read), json!({"event": "X", "data": {"a": ["1", {"b": "1"}], "c": "0", "d": "", "g": "x y&z"}}));
        assert!(form_pairs(&json!([1])).is_empty());
    }

    #[test]
    fn numbers_are_written_as_they_arrive_in_a_call_of_its_own() {
        let params = crate::json::parse_strict(r#"{"a": 10.10, "b": true, "c": "$result[x][0]", "d": 1e3, "e": "10.10"}"#).unwrap();
        assert_eq!(encode(params.as_object().unwrap()).unwrap(), "a=10.1&b=1&c=%24result%5Bx%5D%5B0%5D&d=1000&e=10.10");
        let long = crate::json::parse_strict(r#"{"a": [12345678901234567890]}"#).unwrap();
        assert_eq!(encode(long.as_object().unwrap()).unwrap(), "a[0]=12345678901234567890");
        let huge = crate::json::parse_strict(r#"{"a": [1e400]}"#).unwrap();
        assert_eq!(encode(huge.as_object().unwrap()), Err(QueryError::Number("a[0]".to_owned())));
    }

    #[test]
    fn what_php_would_drop_is_refused_with_its_number() {
        let listed = |count: usize| json!({"a": vec!["1"; count - 1], "b": "1"}).as_object().unwrap().clone();
        let text = |count: usize| "a[]=1&&".repeat(count);
        assert!(encode(&listed(900)).is_ok() && decode(&text(900)).is_ok());
        assert_eq!(encode(&listed(901)), Err(QueryError::CommandPairs(901)));
        assert_eq!(decode(&text(1_100)), Err(QueryError::CommandPairs(1_100)));
        assert_eq!(decode(&format!("{}a=1", "=&".repeat(900))), Err(QueryError::CommandPairs(901)));
        let nested = |levels: usize| (0..levels).fold(json!("1"), |inner, _| json!({"b": inner}));
        let deep = |levels: usize| json!({"a": nested(levels)}).as_object().unwrap().clone();
        for open in ["[", "%5b", "%5B"] {
            assert!(decode(&format!("a{}=1", format!("{open}b]").repeat(60))).is_ok());
            assert_eq!(decode(&format!("a{}=1", format!("{open}b]").repeat(61))), Err(QueryError::CommandLevels(61)));
        }
        assert!(encode(&deep(60)).is_ok());
        assert_eq!(encode(&deep(61)), Err(QueryError::CommandLevels(61)));
        assert!(decode(&"a[b]".repeat(100_000)).is_err());
    }

    fn any_params() -> impl Strategy<Value = Value> {
        let leaf = any::<String>().prop_map(Value::from);
        let inner = leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 1..4).prop_map(Value::from),
                prop::collection::vec(("[a-zA-Z_>%!@=&+é][a-zA-Z_>%!@=&+ é]{0,5}", inner), 1..4)
                    .prop_map(|e| Value::Object(e.into_iter().collect())),
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
