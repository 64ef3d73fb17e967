//! Parameters as PHP reads and writes them: `parse_str` with brackets, and
//! arrays that turn into lists or objects by their keys.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde_json::{Map, Value};

/// What PHP's URL encoder leaves as it is, besides letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// PHP ignores deeper nesting (`max_input_nesting_level`).
const DEEPEST: usize = 64;

/// Parses a query or a form. `a[]` appends, `a[b][c]` nests, keys that count
/// from 0 make a list; `+` is a space.
pub(super) fn parse_str(text: &str) -> Map<String, Value> {
    let mut root = Node::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let path = path_of(&decode(name));
        if !path.is_empty() && path.len() <= DEEPEST {
            root.insert(&path, decode(value));
        }
    }
    root.children.into_iter().map(|(key, child)| (key, child.into_value())).collect()
}

/// Turns an object with the keys 0, 1, … n-1 into a list, and an empty one
/// into `[]`, as PHP's JSON encoder does.
pub(super) fn array(entries: Map<String, Value>) -> Value {
    if entries.keys().enumerate().all(|(index, key)| *key == index.to_string()) {
        Value::Array(entries.into_iter().map(|(_, value)| value).collect())
    } else {
        Value::Object(entries)
    }
}

/// Decodes percent signs and `+`; bytes that are no UTF-8 are replaced.
pub(super) fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned()
}

/// Writes a form: nested keys in brackets, every value a text, a flag as `1`
/// or `0`. What is `null` or empty leaves no trace, as in PHP.
pub(super) fn build_query(entries: &Map<String, Value>) -> String {
    let mut pairs = Vec::new();
    for (name, value) in entries {
        write_pairs(&encode(name), value, &mut pairs);
    }
    pairs.join("&")
}

fn write_pairs(name: &str, value: &Value, pairs: &mut Vec<String>) {
    let mut nested = |key: &str, value: &Value| write_pairs(&format!("{name}%5B{}%5D", encode(key)), value, pairs);
    match value {
        Value::Null => {}
        Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| nested(&index.to_string(), item)),
        Value::Object(entries) => entries.iter().for_each(|(key, entry)| nested(key, entry)),
        Value::Bool(flag) => pairs.push(format!("{name}={}", u8::from(*flag))),
        Value::Number(number) => pairs.push(format!("{name}={number}")),
        Value::String(text) => pairs.push(format!("{name}={}", encode(text))),
    }
}

fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string().replace("%20", "+")
}

/// One value or one array of a query under construction.
#[derive(Default)]
struct Node {
    leaf: Option<String>,
    children: Vec<(String, Node)>,
    next_index: u64,
}

impl Node {
    fn insert(&mut self, path: &[Key], value: String) {
        let Some((first, rest)) = path.split_first() else {
            *self = Node { leaf: Some(value), ..Node::default() };
            return;
        };
        // A later array replaces an earlier plain value.
        self.leaf = None;
        let key = match first {
            Key::Next => self.next_index.to_string(),
            Key::Name(name) => name.clone(),
        };
        if let Ok(index) = key.parse::<u64>() {
            self.next_index = self.next_index.max(index.saturating_add(1));
        }
        let position = self.children.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
            self.children.push((key, Node::default()));
            self.children.len() - 1
        });
        self.children[position].1.insert(rest, value);
    }

    fn into_value(self) -> Value {
        match self.leaf {
            Some(text) => Value::String(text),
            None => array(self.children.into_iter().map(|(key, child)| (key, child.into_value())).collect()),
        }
    }
}

enum Key {
    Next,
    Name(String),
}

/// Splits `a[b][]` into its keys. An unclosed bracket belongs to the name.
fn path_of(name: &str) -> Vec<Key> {
    let name = name.trim_start_matches(' ');
    let (head, mut rest) = match name.find('[') {
        Some(position) if position > 0 => name.split_at(position),
        Some(_) => return Vec::new(),
        None => (name, ""),
    };
    let mut path = vec![Key::Name(head.replace(['.', ' '], "_"))];
    while let Some(inner) = rest.strip_prefix('[') {
        let Some((key, tail)) = inner.split_once(']') else { break };
        path.push(if key.is_empty() { Key::Next } else { Key::Name(key.to_owned()) });
        rest = tail;
    }
    if head.is_empty() { Vec::new() } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn brackets_make_lists_and_maps() {
        let parsed = parse_str("fields[TITLE]=a%26b+c&filter[>ID]=5&select[]=ID&select[]=TITLE&fields[PHONE][0][VALUE]=1&e=&k[5]=x");
        assert_eq!(
            Value::Object(parsed),
            json!({
                "fields": {"TITLE": "a&b c", "PHONE": [{"VALUE": "1"}]},
                "filter": {">ID": "5"},
                "select": ["ID", "TITLE"],
                "e": "",
                "k": {"5": "x"},
            })
        );
    }

    #[test]
    fn what_is_written_is_read_again() {
        let Value::Object(form) =
            json!({"event": "ONX", "data": {"FIELDS": {"ID": 7, "A b": "x&y=z ü"}, "LIST": ["1", true], "NONE": null, "EMPTY": []}})
        else {
            unreachable!()
        };
        let text = build_query(&form);
        assert!(text.starts_with("event=ONX&data%5BFIELDS%5D%5BID%5D=7&"), "{text}");
        assert_eq!(
            Value::Object(parse_str(&text)),
            json!({"event": "ONX", "data": {"FIELDS": {"ID": "7", "A b": "x&y=z ü"}, "LIST": ["1", "1"]}})
        );
    }

    #[test]
    fn odd_names_are_taken_as_php_takes_them() {
        assert_eq!(Value::Object(parse_str("a.b=1&[x]=2&c[d=3&a=1&a[q]=2&&=5")), json!({"a_b": "1", "c": "3", "a": {"q": "2"}}));
    }
}
