//! Finds the parameter of a call that breaks a rule of its method.
//!
//! What a parameter is depends on what carries the call. In a batch a text may
//! be a reference (`$result[a][b]` in any part of it, `{"$ref": …}` in REST
//! 3.0), which the portal replaces by anything, also by nothing or by a list. A
//! reference counts as the worst where a rule looks, above that place, and
//! among the keys. In a call of its own the same text is a text.

#![deny(clippy::wildcard_enum_match_arm)]

use super::rules::{self, Condition, Part, Place, Rule};
use super::{Carrier, Cause, How};
use crate::method::short;
use serde_json::Value;

/// What begins a reference, in lower case.
const REFERENCES: &[&str] = &["$result", "$ref"];

/// The keys that lead to a value.
type Keys = Vec<String>;

/// One call under the rules of its method.
pub(super) struct Walk<'a> {
    pub(super) carrier: Carrier<'a>,
    pub(super) rules: &'a [Rule],
}

impl Walk<'_> {
    /// Returns what breaks a rule.
    pub(super) fn broken(&self, rule: &Rule, params: &Value) -> Option<Cause> {
        match &rule.place {
            Place::Path(parts) => self.descend(rule, parts, params, &mut Keys::new()),
            Place::Marks => self.marked(rule, params, &mut Keys::new()),
        }
    }

    fn is_batch(&self) -> bool {
        matches!(self.carrier, Carrier::Batch(_))
    }

    fn descend(&self, rule: &Rule, parts: &[Part], value: &Value, keys: &mut Keys) -> Option<Cause> {
        if self.is_batch() && is_reference(value) {
            return Some(cause(rule, How::Reference, keys));
        }
        let Some((part, rest)) = parts.split_first() else {
            return (!meets(rule.condition, value)).then(|| cause(rule, How::With, keys));
        };
        let mut is_there = false;
        for (key, inner) in children(value) {
            // The milder class of `clear=0` is for the documented spelling only.
            let fits = match (rule.condition, *part) {
                (Condition::Zero, Part::Name(name)) => key == name,
                (_, part) => part.fits(&key),
            };
            if fits {
                is_there = true;
                keys.push(key);
                let found = self.descend(rule, rest, inner, keys);
                keys.pop();
                if found.is_some() {
                    return found;
                }
            }
        }
        let Part::Name(name) = part else { return None };
        let must_be_there = rest.is_empty() && matches!(rule.condition, Condition::Text | Condition::Zero);
        match value {
            Value::Object(_) | Value::Array(_) if must_be_there && !is_there => {
                keys.push((*name).to_owned());
                let found = cause(rule, How::Without, keys);
                keys.pop();
                Some(found)
            }
            // Some methods take a list or object as JSON in a text.
            Value::String(text) if text.trim_start().starts_with(['{', '[']) => Some(cause(rule, How::With, keys)),
            Value::Object(_) | Value::Array(_) | Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    /// Returns a key at any depth that takes something away, or a reference
    /// that may bring one along.
    fn marked(&self, rule: &Rule, value: &Value, keys: &mut Keys) -> Option<Cause> {
        for (key, inner) in children(value) {
            let is_odd_key = self.is_batch() && names_reference(&key) && !stands_for_a_value(value);
            keys.push(key);
            let found = if self.is_own(keys) {
                None
            } else if is_odd_key || self.may_bring_a_mark(inner, keys) {
                Some(cause(rule, How::Reference, keys))
            } else if keys.last().is_some_and(|key| rules::is_mark(key)) && !meets(rule.condition, inner) {
                Some(cause(rule, How::With, keys))
            } else {
                self.marked(rule, inner, keys)
            };
            keys.pop();
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// A reference is replaced by a list or an object only where it is the
    /// whole value; it matters where the page lets an object stand.
    fn may_bring_a_mark(&self, value: &Value, keys: &[String]) -> bool {
        match self.carrier {
            Carrier::Single => false,
            Carrier::Batch(holds_fields) => is_reference(value) && holds_fields(keys),
        }
    }

    fn is_own(&self, keys: &[String]) -> bool {
        let covers = |parts: &[Part]| parts.len() <= keys.len() && parts.iter().zip(keys).all(|(part, key)| part.fits(key));
        let own = self.rules.iter().filter(|rule| rule.condition == Condition::Own);
        own.into_iter().any(|rule| matches!(&rule.place, Place::Path(parts) if covers(parts)))
    }
}

fn cause(rule: &Rule, how: How, keys: &[String]) -> Cause {
    let names = keys.iter().enumerate().map(|(depth, key)| if depth == 0 { short(key) } else { format!("[{}]", short(key)) });
    Cause { place: names.collect(), how, why: rule.why }
}

fn children(value: &Value) -> Vec<(String, &Value)> {
    match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn names_reference(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    REFERENCES.iter().any(|reference| text.contains(reference))
}

fn is_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => names_reference(text),
        Value::Object(map) => map.keys().any(|key| names_reference(key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => false,
    }
}

/// Returns whether an object is how REST 3.0 writes a reference.
fn stands_for_a_value(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.keys().all(|key| key.starts_with("$ref")))
}

/// Returns whether a value that is there keeps the call in the milder class.
/// What a page does not show in this place does not.
fn meets(condition: Condition, value: &Value) -> bool {
    match condition {
        Condition::Absent => false,
        Condition::Blank => value.is_null() || value == "",
        Condition::Off => says_no(value),
        Condition::Kept => holds_something(value),
        Condition::Yes => match value {
            Value::Bool(is_set) => *is_set,
            Value::Number(number) => number.to_string() == "1",
            Value::String(text) => ["y", "1", "true"].contains(&text.to_ascii_lowercase().as_str()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        },
        Condition::Text | Condition::TextIfThere => match value {
            Value::String(text) => !text.trim().is_empty(),
            Value::Number(_) => true,
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        },
        Condition::Zero => match value {
            Value::Number(number) => number.to_string() == "0",
            Value::String(text) => text == "0",
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
        },
        Condition::Own => true,
    }
}

fn says_no(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_set) => !is_set,
        Value::Number(number) => number.to_string() == "0",
        Value::String(text) => ["", "0", "N", "n"].contains(&text.as_str()),
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// PHP takes `0`, `0.0`, an empty list and several texts for nothing.
fn holds_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => false,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => {
            let text = text.trim().to_ascii_lowercase();
            !["", "n", "no", "false", "null", "none", "off", "[]", "{}"].contains(&text.as_str()) && text.parse::<f64>() != Ok(0.0)
        }
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}
