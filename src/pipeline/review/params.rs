//! What a call is given, in the order in which a person needs it: what it acts
//! on, then what names other things or marks something for deletion, then the
//! rest. Each value is shortened for itself, and what is left out is counted.

use super::quoted;
use crate::catalog::Details;
use crate::json;
use serde_json::{Value, json};

/// Characters of a value that are shown.
const VALUE: usize = 80;

/// Characters of a key or of a command's name that are shown.
const KEY: usize = 60;

/// Levels of a parameter that are taken apart.
const LEVELS: usize = 8;

/// Parameters that a call acts on, of which so many are shown.
const TARGETS: usize = 20;

/// Further parameters that are shown of a single call.
const PARAMS: usize = 24;

/// And of each command, however many there are.
const FEWEST_PARAMS: usize = 4;

/// How much is shown of one call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    params: usize,
}

impl Room {
    /// Shares the room among the calls of a request.
    pub(super) fn of(calls: usize) -> Room {
        Room { params: (2 * PARAMS / calls.max(2)).max(FEWEST_PARAMS) }
    }
}

/// What a call is given, as far as it is shown.
#[derive(Debug)]
pub(super) struct Given {
    targets: Vec<Param>,
    more_targets: usize,
    params: Vec<Param>,
    more_params: usize,
}

/// One parameter, or one member of a nested one.
#[derive(Debug)]
struct Param {
    /// Where it stands, quoted where that is needed.
    path: String,
    /// The value as JSON, or the beginning of it.
    text: String,
    /// What is left out.
    more: Option<More>,
}

/// What is left out of a value.
#[derive(Debug, Clone, Copy)]
enum More {
    Characters(usize),
    Items(usize),
}

impl More {
    fn text(self) -> String {
        match self {
            More::Characters(count) => format!("{count} more characters"),
            More::Items(count) => format!("{count} more items"),
        }
    }
}

/// A value that is not taken apart further, with the way to it.
struct Leaf<'a> {
    path: Vec<Part<'a>>,
    value: &'a Value,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Key(&'a str),
    Index(usize),
}

impl Given {
    pub(super) fn of(params: &Value, details: Option<&Details>, room: Room) -> Given {
        let mut leaves = Vec::new();
        match params {
            // Nothing given is nothing to show.
            Value::Object(map) if map.is_empty() => {}
            Value::Array(items) => items.iter().enumerate().for_each(|(index, item)| collect(&[Part::Index(index)], item, &mut leaves)),
            other => collect(&[], other, &mut leaves),
        }
        let (targets, mut others): (Vec<Leaf>, Vec<Leaf>) = leaves.into_iter().partition(|leaf| is_target(leaf, details));
        // Stable: the order of the caller's among equals.
        others.sort_by_key(|leaf| rank(leaf, details));
        Given {
            more_targets: targets.len().saturating_sub(TARGETS),
            targets: targets.iter().take(TARGETS).map(Param::of).collect(),
            more_params: others.len().saturating_sub(room.params),
            params: others.iter().take(room.params).map(Param::of).collect(),
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.targets.iter().map(|param| format!("acts on {}", param.line())).collect();
        if self.more_targets > 0 {
            lines.push(format!("acts on {} more; b24 plan show ID prints all", self.more_targets));
        }
        lines.extend(self.params.iter().map(|param| format!("with {}", param.line())));
        if self.more_params > 0 {
            lines.push(format!("with {} more parameters; b24 plan show ID prints all", self.more_params));
        }
        if lines.is_empty() {
            lines.push("with no parameters".to_owned());
        }
        lines
    }

    pub(super) fn add_to(&self, value: &mut Value) {
        for (key, params) in [("targets", &self.targets), ("params", &self.params)] {
            value[key] = params.iter().map(Param::to_value).collect();
        }
        for (key, count) in [("more_targets", self.more_targets), ("more_params", self.more_params)] {
            if count > 0 {
                value[key] = json!(count);
            }
        }
    }
}

impl Param {
    fn of(leaf: &Leaf) -> Param {
        let (text, more) = shortened(leaf.value);
        let parts = leaf.path.iter().map(|part| match part {
            Part::Key(key) => key_text(key),
            Part::Index(index) => index.to_string(),
        });
        let parts = parts.enumerate().map(|(level, part)| if level == 0 { part } else { format!("[{part}]") });
        Param { path: parts.collect::<Vec<_>>().concat(), text, more }
    }

    fn line(&self) -> String {
        let more = self.more.map_or_else(String::new, |more| format!(" … {} of {}", more.text(), self.path));
        format!("{} = {}{more}", self.path, self.text)
    }

    fn to_value(&self) -> Value {
        let mut value = json!({"path": self.path});
        match self.more {
            // The text is JSON unless something is left out.
            None => value["value"] = serde_json::from_str(&self.text).unwrap_or_else(|_| json!(self.text)),
            Some(more) => {
                value["begins"] = json!(self.text);
                match more {
                    More::Characters(count) => value["more_characters"] = json!(count),
                    More::Items(count) => value["more_items"] = json!(count),
                }
            }
        }
        value
    }
}

/// Takes a value apart as far as it helps the reader: a list of plain values
/// is one thing, and so is what lies very deep.
fn collect<'a>(path: &[Part<'a>], value: &'a Value, leaves: &mut Vec<Leaf<'a>>) {
    let mut descend = |part: Part<'a>, item: &'a Value| collect(&[path, &[part]].concat(), item, leaves);
    match value {
        Value::Object(map) if !map.is_empty() && path.len() < LEVELS => map.iter().for_each(|(key, item)| descend(Part::Key(key), item)),
        Value::Array(items) if path.len() < LEVELS && items.iter().any(|item| item.is_array() || item.is_object()) => {
            items.iter().enumerate().for_each(|(index, item)| descend(Part::Index(index), item));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            leaves.push(Leaf { path: path.to_vec(), value });
        }
    }
}

/// Returns whether a parameter says what the call acts on: an id, one that the
/// method cannot do without, one of a positional list, or a filter.
fn is_target(leaf: &Leaf, details: Option<&Details>) -> bool {
    match leaf.path.first() {
        Some(Part::Index(_)) => true,
        Some(Part::Key(key)) => {
            let is_required = || {
                let mut params = details.into_iter().flat_map(|details| &details.params);
                params.any(|(name, _, is_required)| *is_required && name.eq_ignore_ascii_case(key))
            };
            names_a_thing(key) || key.eq_ignore_ascii_case("filter") || (leaf.path.len() == 1 && is_required())
        }
        None => false,
    }
}

/// Returns the place of a parameter among those that are no target.
fn rank(leaf: &Leaf, details: Option<&Details>) -> u8 {
    let keys = || leaf.path.iter().filter_map(|part| if let Part::Key(key) = part { Some(*key) } else { None });
    let is_documented = |key: &str| {
        let params = details.map(|details| (details.params.iter().any(|(name, ..)| name.eq_ignore_ascii_case(key)), &details.extra));
        params.is_some_and(|(is_named, extra)| is_named || extra.iter().any(|name| name.eq_ignore_ascii_case(key)))
    };
    match keys().next() {
        _ if keys().any(marks_an_end) => 0,
        _ if keys().next_back().is_some_and(names_a_thing) => 1,
        Some(key) if is_documented(key) => 2,
        _ => 3,
    }
}

/// Returns whether a key is that of an id: `id`, `ENTITY_ID`, `entityTypeId`,
/// `ids`.
fn names_a_thing(key: &str) -> bool {
    let folded = key.to_ascii_lowercase();
    let stem = folded.strip_suffix('s').unwrap_or(&folded);
    let Some(before) = stem.strip_suffix("id") else { return false };
    // `taskId`, not `PAID`.
    let begins_a_word = || key.as_bytes()[before.len()] == b'I' && key.as_bytes()[before.len() - 1].is_ascii_lowercase();
    before.is_empty() || before.ends_with('_') || begins_a_word()
}

/// Returns whether a key may mark something for deletion.
fn marks_an_end(key: &str) -> bool {
    let folded = key.to_ascii_lowercase();
    ["del", "delete", "deleted", "remove", "clear", "replace", "force", "recursive"].contains(&folded.as_str())
}

/// Returns a value as JSON that is fit to be shown, and what is left out.
fn shortened(value: &Value) -> (String, Option<More>) {
    match value {
        Value::String(text) => {
            let (shown, more) = cut(text, VALUE);
            (quoted(&shown), more)
        }
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) && begins_short(items) => {
            let mut text = String::new();
            for (index, item) in items.iter().enumerate() {
                let item = json::escape_deceptive(&item.to_string());
                // An item that does not fit is none of those that are shown.
                if text.chars().count() + item.chars().count() > VALUE {
                    return (format!("[{text}"), Some(More::Items(items.len() - index)));
                }
                text.push_str(if index == 0 { "" } else { ", " });
                text.push_str(&item);
            }
            (format!("[{text}]"), None)
        }
        other => {
            let (shown, more) = cut(&other.to_string(), VALUE);
            (json::escape_deceptive(&shown), more)
        }
    }
}

/// Returns whether the first item can be shown whole; else the list is shown
/// as the text that it is.
fn begins_short(items: &[Value]) -> bool {
    items.first().is_none_or(|item| json::escape_deceptive(&item.to_string()).chars().count() <= VALUE)
}

fn cut(text: &str, room: usize) -> (String, Option<More>) {
    let left = text.chars().count().saturating_sub(room);
    (text.chars().take(room).collect(), (left > 0).then_some(More::Characters(left)))
}

/// Returns a key as it is, or quoted when it is more than a plain word.
fn key_text(key: &str) -> String {
    let is_plain = !key.is_empty() && key.len() <= KEY && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_plain { key.to_owned() } else { name(key) }
}

/// Returns a name of the caller's in quotes, without letters that would turn
/// the order of what stands beside them.
pub(super) fn name(text: &str) -> String {
    let (shown, more) = cut(text, KEY);
    let straight: String = quoted(&shown).chars().map(|c| if json::turns_the_line(c) { escaped(c) } else { c.to_string() }).collect();
    more.map_or_else(|| straight.clone(), |more| format!("{straight} … {}", more.text()))
}

fn escaped(character: char) -> String {
    let mut units = [0; 2];
    character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat()
}
