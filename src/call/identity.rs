//! What makes two calls the same write: what the portal will see.
//!
//! A portal is PHP. From whatever a call is written in, its method gets an
//! array of texts: a list is a map with the keys 0, 1, …, `true` is 1, a number
//! has one text ([`number::plain`]), and the order of keys says nothing. So the
//! fingerprint is made of that array, not of the caller's tokens, and is the
//! same for a single call, a plan and a command of a batch.
//!
//! Left out is what says nothing to the method:
//!
//! | what | why |
//! |--|--|
//! | `null`, empty lists and maps | no command of a v2 batch can carry them; kept for v3, which is JSON throughout |
//! | `auth_connector` | our own label; kept where it chooses a queue: its page documents it, or the method is one of `event.offline.` |
//! | `start`, `state` | the portal takes them away before it calls a method of v2 |
//! | the other members of [`PAGING`] | on a write whose page does not document them |
//!
//! Two more things are known of a method by its page: a parameter that is
//! documented as a number is one in a text as well (`5.00` is 5), and the case
//! of a parameter's name says nothing where the official examples use several.
//!
//! What a command refers to in a batch is part of it: `$result[a][ID]` stands
//! for the fingerprint of `a`, whatever it is called. A reference that leads to
//! no earlier command is told from the same text in a call that refers to
//! nothing.

use super::{Batch, Call, Form, Request, legacy};
use crate::catalog::{self, Api, Details};
use crate::json::{self, number};
use serde_json::{Map, Value};

/// Members of the top level that page through a result or steer a batch, folded.
const PAGING: &[&str] =
    &["start", "next", "limit", "offset", "page", "pagesize", "page_size", "pagination", "nav_params", "navparams", "navigation", "halt"];

/// Members of the top level that the portal itself takes away.
const TAKEN: &[&str] = &["start", "state"];

/// Our own label.
const LABEL: &str = "auth_connector";

/// What a reference begins with in a command of a v2 batch, in any case: the
/// portal looks into all five parts of what the batch has answered so far.
const REFERENCES: &[&str] = &["$result", "$error", "$total", "$next", "$time"];

/// Types of the documentation that are numbers.
const NUMBERS: &[&str] = &["integer", "double", "number", "float"];

/// What makes two calls the same write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The fingerprint by which writes are recorded.
    pub current: String,
    /// The one by which earlier versions recorded them.
    pub legacy: String,
}

impl Request {
    /// Returns the fingerprint of each call, in order.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        let (current, legacy) = match self {
            Request::Single(call) => (vec![call.fingerprint()], vec![legacy::of_call(call)]),
            Request::Batch(batch) => (batch.fingerprints(), legacy::of_batch(batch)),
        };
        current.into_iter().zip(legacy).map(|(current, legacy)| Fingerprint { current, legacy }).collect()
    }
}

impl Call {
    /// Returns what makes two calls the same write.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hashed(self, &Earlier::default())
    }
}

impl Batch {
    /// Returns the fingerprint of each command.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<String> {
        let mut earlier = Earlier { form: Some(self.form), named: Vec::new() };
        let mut fingerprints = Vec::new();
        for (index, command) in self.commands.iter().enumerate() {
            let fingerprint = hashed(&command.call, &earlier);
            // In a v3 batch, what has no alias cannot be referred to.
            if self.aliased.get(index).copied().unwrap_or(true) {
                earlier.named.push((&command.name, fingerprint.clone()));
            }
            fingerprints.push(fingerprint);
        }
        fingerprints
    }
}

/// What a command can refer to.
#[derive(Default)]
struct Earlier<'a> {
    /// The form of the batch; `None` outside of one, where nothing refers.
    form: Option<Form>,
    named: Vec<(&'a String, String)>,
}

impl Earlier<'_> {
    fn find(&self, name: &str) -> Value {
        self.named.iter().find(|(known, _)| *known == name).map_or(Value::Null, |(_, fingerprint)| Value::from(fingerprint.as_str()))
    }
}

fn hashed(call: &Call, earlier: &Earlier) -> String {
    let seen = Portal { api: call.api, earlier }.parameters(call);
    json::sha256_hex(format!("b24-fp-v2\0{}\0{}\0{}", call.method, call.api.text(), json::canonical(&seen)))
}

/// Sees parameters as a method of the portal gets them. Every array becomes an
/// object, so that a list in the result can stand for a reference.
struct Portal<'a> {
    api: Api,
    earlier: &'a Earlier<'a>,
}

impl Portal<'_> {
    fn parameters(&self, call: &Call) -> Value {
        let entries: Vec<(String, &Value)> = match &call.params {
            Value::Object(entries) => entries.iter().map(|(key, value)| (key.clone(), value)).collect(),
            Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        let page = catalog::find(&call.method, call.api).and_then(|entry| entry.details()).filter(|page| !page.params.is_empty());
        let page = page.as_ref();
        let kept = entries.into_iter().filter(|(key, _)| !is_meaningless(call, page, key));
        let seen = kept.filter_map(|(key, value)| {
            let seen = match page.map(|page| Kinds::of(page, &key)) {
                Some(kinds) => self.typed(value, &kinds)?,
                None => self.value(value)?,
            };
            Some((folded(page, key), seen))
        });
        Value::Object(seen.collect())
    }

    /// Sees the value of a documented parameter.
    fn typed(&self, value: &Value, kinds: &Kinds) -> Option<Value> {
        match value {
            Value::String(text) if kinds.is_number => match number::plain_of_text(text) {
                Some(number) => Some(Value::from(number)),
                None => self.value(value),
            },
            Value::Object(members) if !kinds.numbers.is_empty() => {
                let is_number = |name: &String| kinds.numbers.contains(&name.as_str());
                let seen = members.iter().filter_map(|(name, member)| {
                    let kinds = Kinds { is_number: is_number(name), numbers: Vec::new() };
                    Some((name.clone(), self.typed(member, &kinds)?))
                });
                self.array(seen.collect())
            }
            other => self.value(other),
        }
    }

    fn value(&self, value: &Value) -> Option<Value> {
        match value {
            Value::Null if self.api == Api::V3 => Some(Value::Null),
            Value::Null => None,
            Value::Bool(is_set) => Some(Value::from(u8::from(*is_set).to_string())),
            Value::Number(token) => {
                let token = token.to_string();
                Some(Value::from(number::plain(&token).unwrap_or(token)))
            }
            Value::String(text) => Some(self.text(text)),
            Value::Array(items) => {
                let seen = items.iter().enumerate().filter_map(|(index, item)| Some((index.to_string(), self.value(item)?)));
                self.array(seen.collect())
            }
            Value::Object(members) => match self.reference_v3(members) {
                Some(reference) => Some(reference),
                None => self.array(members.iter().filter_map(|(name, member)| Some((name.clone(), self.value(member)?))).collect()),
            },
        }
    }

    fn array(&self, entries: Map<String, Value>) -> Option<Value> {
        (self.api == Api::V3 || !entries.is_empty()).then_some(Value::Object(entries))
    }

    /// Sees a text with its references: what stands before each, the command
    /// that it leads to, and where in its result.
    fn text(&self, text: &str) -> Value {
        if !matches!(self.earlier.form, Some(Form::Named | Form::Listed)) {
            return Value::from(text);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, reference, behind)) = next_reference(rest) {
            let path = path_of(reference);
            parts.push(Value::from(before));
            parts.push(path.first().map_or(Value::Null, |name| self.earlier.find(name)));
            // The name of a command that is found says nothing.
            let is_found = !parts.last().is_none_or(Value::is_null);
            parts.push(if is_found { path[1..].iter().copied().collect() } else { Value::from(reference) });
            rest = behind;
        }
        if parts.is_empty() {
            return Value::from(text);
        }
        parts.push(Value::from(rest));
        Value::Array(parts)
    }

    /// Sees `{"$ref": "alias.item.id"}` and `{"$refArray": …}` of a v3 batch.
    fn reference_v3(&self, members: &Map<String, Value>) -> Option<Value> {
        let (kind, Value::String(path)) = members.iter().next().filter(|_| self.earlier.form == Some(Form::V3) && members.len() == 1)?
        else {
            return None;
        };
        if !["$ref", "$refArray"].contains(&kind.as_str()) {
            return None;
        }
        let (alias, rest) = path.split_once('.').unwrap_or((path, ""));
        let found = self.earlier.find(alias);
        let path = if found.is_null() { path } else { rest };
        Some(Value::Array(vec![Value::from(kind.as_str()), found, Value::from(path)]))
    }
}

/// What is a number in a parameter, by its page.
struct Kinds<'a> {
    is_number: bool,
    /// The members that are numbers.
    numbers: Vec<&'a str>,
}

impl Kinds<'_> {
    fn of<'a>(page: &'a Details, key: &str) -> Kinds<'a> {
        let is_number = |kind: &String| kind.split('|').all(|kind| NUMBERS.contains(&kind));
        let members = page.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key)).flat_map(|(_, members)| members);
        Kinds {
            is_number: page.params.iter().any(|(name, kind, _)| name.eq_ignore_ascii_case(key) && is_number(kind)),
            numbers: members.filter(|(_, kind, _)| is_number(kind)).map(|(name, ..)| name.as_str()).collect(),
        }
    }
}

fn is_meaningless(call: &Call, page: Option<&Details>, key: &str) -> bool {
    let is = |name: &str| key.eq_ignore_ascii_case(name);
    let is_documented = page.is_some_and(|page| {
        let names = page.params.iter().map(|(name, ..)| name).chain(&page.extra).chain(&page.any_case);
        names.into_iter().any(|name| is(name))
    });
    if is_documented || (is(LABEL) && call.method.as_str().starts_with("event.offline.")) {
        return false;
    }
    let is_paging = page.is_some() && PAGING.iter().any(|name| is(name));
    is(LABEL) || is_paging || (call.api == Api::V2 && TAKEN.contains(&key))
}

/// Folds the case of a parameter's name where it says nothing.
fn folded(page: Option<&Details>, key: String) -> String {
    let is_any = page.is_some_and(|page| page.any_case.iter().any(|name| name.eq_ignore_ascii_case(&key)));
    if is_any { key.to_ascii_lowercase() } else { key }
}

/// Finds the next reference as the portal does: from its sign to the next
/// white space. Returns what stands before it, itself, and what stands behind.
fn next_reference(text: &str) -> Option<(&str, &str, &str)> {
    let begins = |at: usize| {
        let tail = &text.as_bytes()[at..];
        REFERENCES.iter().any(|sign| tail.get(..sign.len()).is_some_and(|head| head.eq_ignore_ascii_case(sign.as_bytes())))
    };
    let references = text.match_indices('$').filter(|(at, _)| begins(*at)).filter_map(|(at, _)| {
        let end = text[at..].find(|c: char| c.is_ascii_whitespace()).map_or(text.len(), |length| at + length);
        // Without a part in brackets it is a text like any other.
        (!path_of(&text[at..end]).is_empty()).then(|| (&text[..at], &text[at..end], &text[end..]))
    });
    references.into_iter().next()
}

/// Returns the parts in brackets, wherever they stand in a reference.
fn path_of(reference: &str) -> Vec<&str> {
    let parts = reference.split('[').skip(1).filter_map(|part| part.split_once(']')).map(|(part, _)| part);
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests;
