//! Parameters as PHP reads and writes them: `parse_str` with brackets, and
//! arrays that turn into lists or objects by their keys.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, utf8_percent_encode};
use serde_json::{Map, Value};

/// What PHP's URL encoder leaves as it is, besides letters and digits.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Variables that PHP reads; it drops the rest (`max_input_vars`).
const MOST_VARIABLES: usize = 1000;

/// Brackets that a name may have (`max_input_nesting_level`).
const DEEPEST: usize = 64;

/// Parses a query or a form as PHP 8 does, oddities included: it reads
/// [`MOST_VARIABLES`], counts those that it drops, and forgets a variable of
/// which one name is nested too deep. `a[]` appends, `a[b][c]` nests, keys that
/// count from 0 make a list; `+` is a space.
#[must_use]
pub fn parse_str(text: &str) -> Map<String, Value> {
    let text = text.split('\0').next().unwrap_or_default();
    let mut root = Node::default();
    for pair in text.split('&').filter(|pair| !pair.is_empty()).take(MOST_VARIABLES) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        match path_of(&decode(name)) {
            Path::None => {}
            Path::TooDeep(name) => root.children.retain(|(known, _)| *known != name),
            Path::Keys(path) => root.insert(&path, decode(value)),
        }
    }
    root.children.into_iter().map(|(key, child)| (key, child.into_value())).collect()
}

/// Decodes JSON as PHP does into arrays: of a key that stands twice the last
/// value counts. Numbers keep their tokens, where PHP has integers of 64 bits
/// and doubles, so that a test can see what was sent.
#[must_use]
pub fn json_decode(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
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
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned()
}

/// Writes a form: nested keys in brackets, every value a text, a flag as `1`
/// or `0`. What is `null` or empty leaves no trace, as in PHP.
#[must_use]
pub fn build_query(entries: &Map<String, Value>) -> String {
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
    /// The largest integer key so far.
    largest: Option<i64>,
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
            // Behind the largest integer there is no next one: dropped.
            Key::Next => match self.largest.map_or(Some(0), |largest| largest.checked_add(1)) {
                Some(next) => next.to_string(),
                None => return,
            },
            Key::Name(name) => name.clone(),
        };
        if let Some(index) = key.parse::<i64>().ok().filter(|index| index.to_string() == key) {
            self.largest = Some(self.largest.map_or(index, |largest| largest.max(index)));
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

/// What a name leads to.
enum Path {
    /// Nothing: PHP passes over it.
    None,
    /// Too many brackets behind this name.
    TooDeep(String),
    /// A value below these keys.
    Keys(Vec<Key>),
}

/// Splits `a[b][]` into its keys. What stands behind a closing bracket is cut,
/// brackets that contain one white space append, and a first bracket that is
/// not closed belongs to the name.
fn path_of(name: &str) -> Path {
    let name = name.split('\0').next().unwrap_or_default().trim_start_matches(' ');
    let (head, mut rest) = name.split_at(name.find('[').unwrap_or(name.len()));
    if head.is_empty() {
        return Path::None;
    }
    let renamed = |text: &str, from: &[char]| text.replace(from, "_");
    let head = renamed(head, &['.', ' ']);
    let mut path = vec![Key::Name(head.clone())];
    while let Some(inner) = rest.strip_prefix('[') {
        if path.len() > DEEPEST {
            return Path::TooDeep(head);
        }
        let unspaced = inner.strip_prefix([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']).unwrap_or(inner);
        if let Some(tail) = unspaced.strip_prefix(']') {
            path.push(Key::Next);
            rest = tail;
            continue;
        }
        let Some((_, tail)) = unspaced.split_once(']') else {
            if path.len() == 1 {
                path = vec![Key::Name(head + &renamed(rest, &['.', ' ', '[']))];
            }
            break;
        };
        path.push(Key::Name(inner[..inner.len() - tail.len() - 1].to_owned()));
        rest = tail;
    }
    Path::Keys(path)
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
        assert_eq!(Value::Object(parse_str("a.b=1&[x]=2&c[d=3&a=1&a[q]=2&&=5")), json!({"a_b": "1", "c_d": "3", "a": {"q": "2"}}));
        assert_eq!(
            Value::Object(parse_str("a[ ]=1&a[]=2&b[c]d[e]=3&f[-5]=4&f[]=5")),
            json!({"a": ["1", "2"], "b": {"c": "3"}, "f": {"-5": "4", "-4": "5"}})
        );
    }

    #[test]
    fn what_is_beyond_the_limits_is_dropped() {
        let many = parse_str(&"a[]=1&".repeat(1_100));
        assert_eq!(many["a"].as_array().map(Vec::len), Some(1_000));
        assert_eq!(parse_str(&format!("{}a=1", "=&".repeat(1_000))), Map::new());
        assert!(parse_str(&format!("a{}=1", "[b]".repeat(64))).contains_key("a"));
        assert_eq!(Value::Object(parse_str(&format!("a=1&a{}=1&b=2", "[b]".repeat(65)))), json!({"b": "2"}));
    }
}
