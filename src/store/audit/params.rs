//! What the audit log says about the parameters of a call: where values stood
//! and of which type, never the values.
//!
//! A value is represented by a keyed digest, so that who has the installation
//! key can tell whether two calls, or a suspected value, are the same; without
//! the key even short values such as ids cannot be guessed.

use crate::json::canonical;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// More values than this are only counted.
const MOST_VALUES: usize = 200;

/// Longer names are cut: a name is chosen by the caller, too.
const LONGEST_NAME: usize = 64;
const LONGEST_PATH: usize = 256;

/// Separates these digests from others made with the same key.
const DOMAIN: &[u8] = b"b24-param-v1\0";

/// Returns `{"values":[{"path":"/fields/TITLE","type":"string","hmac":"<16 hex
/// digits>"},…],"more":n}`; `more` is there when there are more than 200
/// values. Paths are JSON pointers. The digest is that of the canonical JSON.
#[must_use]
pub fn describe_params(params: &Value, key: &[u8; 32]) -> Value {
    let mut listing = Listing { key, values: Vec::new(), more: 0 };
    listing.add(params, "");
    let mut description = json!({ "values": listing.values });
    if listing.more > 0 {
        description["more"] = Value::from(listing.more);
    }
    description
}

struct Listing<'a> {
    key: &'a [u8; 32],
    values: Vec<Value>,
    more: u64,
}

impl Listing<'_> {
    fn add(&mut self, value: &Value, path: &str) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (name, member) in members {
                    self.add(member, &deeper(path, name));
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, item) in items.iter().enumerate() {
                    self.add(item, &deeper(path, &index.to_string()));
                }
            }
            _ if self.values.len() == MOST_VALUES => self.more += 1,
            Value::Object(_) => self.push("object", value, path),
            Value::Array(_) => self.push("array", value, path),
            Value::Null => self.push("null", value, path),
            Value::Bool(_) => self.push("boolean", value, path),
            Value::Number(_) => self.push("number", value, path),
            Value::String(_) => self.push("string", value, path),
        }
    }

    fn push(&mut self, kind: &str, value: &Value, path: &str) {
        self.values.push(json!({ "path": path, "type": kind, "hmac": digest(value, self.key) }));
    }
}

fn deeper(path: &str, name: &str) -> String {
    let name = shortened(name, LONGEST_NAME).replace('~', "~0").replace('/', "~1");
    shortened(&format!("{path}/{name}"), LONGEST_PATH)
}

fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn digest(value: &Value, key: &[u8; 32]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(DOMAIN);
    mac.update(canonical(value).as_bytes());
    hex::encode(&mac.finalize().into_bytes()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn paths_and_types_stand_there_and_values_do_not() {
        let params = json!({"fields": {"TITLE": "canary-secret", "a/b~": [1, null, {}], "OPENED": true}});
        let described = describe_params(&params, &KEY);
        let shown: Vec<(&str, &str)> = described["values"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| (value["path"].as_str().unwrap(), value["type"].as_str().unwrap()))
            .collect();
        let expected = [
            ("/fields/TITLE", "string"),
            ("/fields/a~1b~0/0", "number"),
            ("/fields/a~1b~0/1", "null"),
            ("/fields/a~1b~0/2", "object"),
            ("/fields/OPENED", "boolean"),
        ];
        assert_eq!(shown, expected);
        assert!(!described.to_string().contains("canary"));
        assert_eq!(described["values"][0]["hmac"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn equal_values_have_equal_digests_under_one_key_only() {
        let hmac = |value: Value, key: &[u8; 32]| describe_params(&value, key)["values"][0]["hmac"].clone();
        assert_eq!(hmac(json!({"a": 5}), &KEY), hmac(json!({"b": 5}), &KEY));
        assert_ne!(hmac(json!({"a": 5}), &KEY), hmac(json!({"a": "5"}), &KEY));
        assert_ne!(hmac(json!({"a": 5}), &KEY), hmac(json!({"a": 5}), &[8; 32]));
    }

    #[test]
    fn the_size_is_bounded() {
        let long = "n".repeat(10_000);
        let described = describe_params(&json!({ long: (0..5_000).collect::<Vec<_>>() }), &KEY);
        assert_eq!(described["values"].as_array().unwrap().len(), MOST_VALUES);
        assert_eq!(described["more"], 4_800);
        assert!(described.to_string().len() < 64 * 1024);
    }
}
