//! JSON as b24 needs it: values travel unchanged in both directions.
//!
//! Numbers keep their source tokens (`10.10` stays `10.10`; only an exponent
//! gets its sign, `1e+2`), objects keep their key order, and answers are handled as bytes: they are laid out anew
//! for the terminal or the pipe without being parsed into a tree, so that a
//! 60 MB answer costs its own size and a lone surrogate breaks nothing.

pub mod number;
mod unseen;

pub use unseen::{escape_deceptive, escape_deceptive_lines, is_unseen, turns_the_line};

use crate::method;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fmt;
use std::io::{self, Write};

/// Names that `serde_json` gives a private meaning; no caller's key may.
const RESERVED_KEY: &str = "$serde_json::private";
const NUMBER_KEY: &str = "$serde_json::private::Number";

/// Parses JSON and refuses an object that has one key twice: which of the two
/// values counts is decided differently by every reader.
pub fn parse_strict(text: &str) -> Result<Value, serde_json::Error> {
    if text.contains(RESERVED_KEY) {
        return Err(serde_json::Error::custom(format!("the key `{RESERVED_KEY}` is reserved")));
    }
    serde_json::from_str::<NoDuplicates>(text)?;
    serde_json::from_str(text)
}

/// A document without duplicate keys; keeps nothing.
struct NoDuplicates;

impl<'de> Deserialize<'de> for NoDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NoDuplicatesVisitor)
    }
}

struct NoDuplicatesVisitor;

impl<'de> Visitor<'de> for NoDuplicatesVisitor {
    type Value = NoDuplicates;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_bool<E>(self, _: bool) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_i64<E>(self, _: i64) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_u64<E>(self, _: u64) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_f64<E>(self, _: f64) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_str<E>(self, _: &str) -> Result<NoDuplicates, E> {
        Ok(NoDuplicates)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<NoDuplicates, A::Error> {
        while items.next_element::<NoDuplicates>()?.is_some() {}
        Ok(NoDuplicates)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<NoDuplicates, A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            // A number arrives as a map with this one key; all other reserved
            // names were written by the caller, spelled with escapes.
            if key.starts_with(RESERVED_KEY) && key != NUMBER_KEY {
                return Err(A::Error::custom(format!("the key `{RESERVED_KEY}` is reserved")));
            }
            if seen.contains(&key) {
                let short = method::short(&key);
                return Err(A::Error::custom(format!("the key `{short}` stands twice in one object")));
            }
            entries.next_value::<NoDuplicates>()?;
            seen.insert(key);
        }
        Ok(NoDuplicates)
    }
}

/// Returns the canonical text of a value: keys sorted, no white space, numbers
/// and strings as they are. (Not RFC 8785, which turns numbers into doubles.)
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut text = String::new();
    write_canonical(value, &mut text);
    text
}

fn write_canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            text.push('{');
            for (index, key) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                write_canonical(&map[key], text);
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_canonical(item, text);
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

/// Returns the SHA-256 of a text in lower-case hex digits.
#[must_use]
pub fn sha256_hex(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// How an answer is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One line, for pipes.
    Compact,
    /// Indented, for terminals.
    Pretty,
}

/// How a document is printed.
#[derive(Debug, Clone, Copy)]
pub struct Print<'a> {
    /// Its layout.
    pub layout: Layout,
    /// The last member `_b24` of a top-level object.
    pub note: Option<&'a Value>,
    /// Whether the values of secret-looking keys are masked.
    pub mask: bool,
}

/// Keys whose values look like secrets, besides the ones that b24 knows.
const SECRET_KEYS: &[&[u8]] = &[b"access_token", b"application_token", b"auth", b"client_secret", b"refresh_token", b"webhook_code"];

/// Writes a JSON document anew: the same tokens, other white space. Characters
/// that have no visible form become `\u` escapes (see [`is_unseen`]).
///
/// The document must be valid JSON; an invalid one is copied as far as it makes
/// sense. Returns how many values were masked.
pub fn write_document(document: &[u8], print: Print, out: &mut impl Write) -> io::Result<usize> {
    let mut writer = DocumentWriter { layout: print.layout, depth: 0, empty: Vec::new(), out };
    let (mut masked, mut key, mut is_secret) = (0, &b""[..], false);
    let rest = document.trim_ascii();
    let last = rest.len().checked_sub(1);
    let mut position = 0;
    while let Some(&byte) = rest.get(position) {
        position += 1;
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' => {}
            b'{' | b'[' => {
                is_secret = false;
                writer.open(byte)?;
            }
            b'}' | b']' => {
                if let Some(note) = print.note.filter(|_| byte == b'}' && Some(position - 1) == last && writer.depth == 1) {
                    writer.member("_b24", note)?;
                }
                writer.close(byte)?;
            }
            b',' => writer.comma()?,
            b':' => {
                is_secret = print.mask && SECRET_KEYS.iter().any(|known| key.eq_ignore_ascii_case(known));
                writer.colon()?;
            }
            b'"' => {
                let end = string_end(rest, position);
                writer.scalar()?;
                let token = &rest[position - 1..end];
                if std::mem::take(&mut is_secret) && token.len() > 2 {
                    masked += 1;
                    writer.out.write_all(b"\"***\"")?;
                } else {
                    unseen::write(token, writer.out)?;
                }
                key = rest.get(position..end - 1).unwrap_or_default();
                position = end;
            }
            _ => {
                is_secret = false;
                let end = rest[position..]
                    .iter()
                    .position(|byte| matches!(byte, b',' | b']' | b'}' | b':' | b' ' | b'\t' | b'\n' | b'\r'))
                    .map_or(rest.len(), |offset| position + offset);
                writer.scalar()?;
                unseen::write(&rest[position - 1..end], writer.out)?;
                position = end;
            }
        }
    }
    writer.out.write_all(b"\n")?;
    Ok(masked)
}

/// Returns the position behind the closing quote of a string whose text begins
/// at `position`.
fn string_end(text: &[u8], mut position: usize) -> usize {
    while let Some(offset) = text[position..].iter().position(|byte| matches!(byte, b'"' | b'\\')) {
        position += offset + 1;
        if text[position - 1] == b'"' {
            return position;
        }
        position = (position + 1).min(text.len());
    }
    text.len()
}

/// Levels that are indented. With more, what is printed would grow with the
/// square of an answer that is nothing but brackets.
const DEEPEST_INDENT: usize = 64;

struct DocumentWriter<'a, W> {
    layout: Layout,
    depth: usize,
    /// For each open bracket, whether nothing stands in it yet.
    empty: Vec<bool>,
    out: &'a mut W,
}

impl<W: Write> DocumentWriter<'_, W> {
    fn open(&mut self, bracket: u8) -> io::Result<()> {
        self.scalar()?;
        self.depth += 1;
        self.empty.push(true);
        self.out.write_all(&[bracket])
    }

    fn close(&mut self, bracket: u8) -> io::Result<()> {
        self.depth = self.depth.saturating_sub(1);
        if self.empty.pop() == Some(false) {
            self.line()?;
        }
        self.out.write_all(&[bracket])
    }

    fn comma(&mut self) -> io::Result<()> {
        self.out.write_all(b",")?;
        self.line()
    }

    fn colon(&mut self) -> io::Result<()> {
        self.out.write_all(if self.layout == Layout::Pretty { b": " } else { b":" })
    }

    /// Prepares for a key, a value or a bracket: the first one in its bracket
    /// starts a line.
    fn scalar(&mut self) -> io::Result<()> {
        if self.empty.last() == Some(&true) {
            *self.empty.last_mut().expect("just seen") = false;
            self.line()?;
        }
        Ok(())
    }

    fn member(&mut self, key: &str, value: &Value) -> io::Result<()> {
        if self.empty.last() == Some(&false) {
            self.comma()?;
        } else {
            self.scalar()?;
        }
        unseen::write(Value::from(key).to_string().as_bytes(), self.out)?;
        self.colon()?;
        unseen::write(value.to_string().as_bytes(), self.out)
    }

    fn line(&mut self) -> io::Result<()> {
        if self.layout == Layout::Pretty {
            self.out.write_all(b"\n")?;
            for _ in 0..self.depth.min(DEEPEST_INDENT) {
                self.out.write_all(b"  ")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn written(document: &str, layout: Layout, note: Option<&Value>) -> String {
        let mut out = Vec::new();
        write_document(document.as_bytes(), Print { layout, note, mask: false }, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_document_cannot_hide_in_a_string_under_a_reserved_key() {
        for key in ["$serde_json::private::RawValue", "\\u0024serde_json::private::RawValue", "$\\u0073erde_json::private::RawValue"] {
            let text = format!("{{\"a\":{{\"{key}\":\"{{\\\"b\\\":1,\\\"b\\\":2}}\"}}}}");
            assert!(parse_strict(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused() {
        assert!(parse_strict(r#"{"a":{"b":1,"b":2}}"#).is_err());
        assert!(parse_strict(r#"{"a":[{"b":1},{"b":2.50}],"c":-1e400}"#).is_ok());
        assert!(parse_strict(r#"{"$serde_json::private::Number":"1"}"#).is_err());
    }

    #[test]
    fn tokens_survive_every_layout() {
        let document = r#" { "b" : 10.10 , "a":[12345678901234567890, "\ud800", {}, [] ] } "#;
        assert_eq!(written(document, Layout::Compact, None), "{\"b\":10.10,\"a\":[12345678901234567890,\"\\ud800\",{},[]]}\n");
        assert_eq!(
            written(document, Layout::Pretty, None),
            "{\n  \"b\": 10.10,\n  \"a\": [\n    12345678901234567890,\n    \"\\ud800\",\n    {},\n    []\n  ]\n}\n"
        );
    }

    #[test]
    fn what_is_printed_grows_as_the_answer_does() {
        let brackets = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
        assert!(written(&brackets, Layout::Pretty, None).len() < 40_000 * 200);
    }

    #[test]
    fn a_note_is_the_last_member() {
        let note = json!({"replayed": true});
        assert_eq!(written("{}", Layout::Compact, Some(&note)), "{\"_b24\":{\"replayed\":true}}\n");
        assert_eq!(written("{\"a\":{}}", Layout::Compact, Some(&note)), "{\"a\":{},\"_b24\":{\"replayed\":true}}\n");
        assert_eq!(written("[{}]", Layout::Compact, Some(&note)), "[{}]\n");
    }

    #[test]
    fn a_note_shows_what_it_holds() {
        let note = json!({"ledger": "k\u{3164}"});
        assert_eq!(written("{}", Layout::Compact, Some(&note)), "{\"_b24\":{\"ledger\":\"k\\u3164\"}}\n");
    }

    #[test]
    fn values_of_secret_looking_keys_are_masked_when_asked() {
        let document = r#"{"AUTH":{"access_token":"x","expires":1},"auth":"y","author":"z","refresh_token":"","list":["auth","q"]}"#;
        let mut out = Vec::new();
        let print = Print { layout: Layout::Compact, note: None, mask: true };
        assert_eq!(write_document(document.as_bytes(), print, &mut out).unwrap(), 2);
        let expected = r#"{"AUTH":{"access_token":"***","expires":1},"auth":"***","author":"z","refresh_token":"","list":["auth","q"]}"#;
        assert_eq!(String::from_utf8(out).unwrap().trim_end(), expected);
    }

    #[test]
    fn deceptive_characters_become_escapes() {
        assert_eq!(written("\"a\u{202e}b\u{7f}\u{e0001}é\"", Layout::Compact, None), "\"a\\u202eb\\u007f\\udb40\\udc01é\"\n");
    }

    #[test]
    fn canonical_text_sorts_keys_and_keeps_tokens() {
        let value = parse_strict(r#"{"b":1.50,"a":{"d":1e+2,"c":null}}"#).unwrap();
        assert_eq!(canonical(&value), r#"{"a":{"c":null,"d":1e+2},"b":1.50}"#);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..5).prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_document_means_the_same_in_every_layout(value in any_json()) {
            for layout in [Layout::Compact, Layout::Pretty] {
                let text = written(&value.to_string(), layout, None);
                prop_assert_eq!(&serde_json::from_str::<Value>(&text).unwrap(), &value);
            }
        }
    }
}
