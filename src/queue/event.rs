//! One event on its way to the handler: what it is called, what it concerns,
//! and how it is told from others.

use crate::json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::fmt;

/// What makes two deliveries the same event: the first 16 bytes of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey(u128);

impl EventKey {
    /// Derives the key from a text that names the event.
    #[must_use]
    pub fn of(text: &str) -> EventKey {
        let digest = json::sha256_hex(text);
        EventKey(u128::from_str_radix(&digest[..32], 16).unwrap_or_default())
    }

    /// Reads a key as it was written.
    #[must_use]
    pub fn parse(text: &str) -> Option<EventKey> {
        (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(EventKey)).flatten()
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Serialize for EventKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EventKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<EventKey, D::Error> {
        let text = String::deserialize(deserializer)?;
        EventKey::parse(&text).ok_or_else(|| serde::de::Error::custom("not an event key"))
    }
}

/// Where an event came from, and what its source must still be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The offline queue: the reservation is cleared when the event is done.
    Offline(Reservation),
    /// A delivery to the receiver: nothing more to tell.
    Online,
    /// Taken back from the dead letters: nothing more to tell.
    Revived,
}

/// The portal's row of an offline event, as it is named in
/// `event.offline.clear` and `event.offline.error`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// `process_id` of the call that took it.
    pub process: String,
    /// `ID` of the row; empty when the portal gave none.
    pub row: String,
    /// `MESSAGE_ID` of the row.
    pub message: String,
}

/// An event that is to be taken in.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// What it is told from others by.
    pub key: EventKey,
    /// Its name, in upper case.
    pub name: String,
    /// What it concerns: events of one entity are handled one after another.
    pub entity: String,
    /// Position among the events of its entity; the order of arrival if it has
    /// none.
    pub order: Option<u64>,
    /// Where it came from.
    pub origin: Origin,
    /// Milliseconds before which it is not handed over.
    pub hold_ms: i64,
    /// What the source gave, without secrets.
    pub payload: Box<RawValue>,
    /// Why it goes straight to the dead letters.
    pub unusable: Option<String>,
}

impl NewEvent {
    /// Reads a row of the offline queue, as `event.offline.get` returns it
    /// (b24restdocs: api-reference/events/event-offline-get.md). A row that
    /// cannot be an event is taken in all the same, as unusable: it must not
    /// vanish, and not block the others.
    #[must_use]
    pub fn of_row(row: &Value, process: &str) -> NewEvent {
        let text = |name: &str| row.get(name).map(plain).unwrap_or_default();
        let (id, message, stamp, name) = (text("ID"), text("MESSAGE_ID"), text("TIMESTAMP_X"), text("EVENT_NAME"));
        let data = row.get("EVENT_DATA").unwrap_or(&Value::Null);
        let unusable = match (id.is_empty(), name.is_empty()) {
            (true, _) => Some("the row has no ID".to_owned()),
            (_, true) => Some("the row has no EVENT_NAME".to_owned()),
            (false, false) => None,
        };
        let key = match id.is_empty() {
            false => EventKey::of(&format!("evt:{id}\0{message}\0{stamp}")),
            true => EventKey::of(&format!("row:{}", json::canonical(row))),
        };
        let name = if name.is_empty() { "UNKNOWN".to_owned() } else { name.to_ascii_uppercase() };
        NewEvent {
            key,
            entity: entity_of(&name, data),
            order: id.parse().ok(),
            origin: Origin::Offline(Reservation { process: process.to_owned(), row: id, message }),
            hold_ms: 0,
            payload: raw(row),
            unusable,
            name,
        }
    }

    /// Takes an event back from the dead letters. `grave` names the dead
    /// letter, so that one cannot be taken back twice.
    #[must_use]
    pub fn revived(name: &str, entity: &str, grave: &str, payload: &Value) -> NewEvent {
        NewEvent {
            key: EventKey::of(&format!("revived:{grave}")),
            name: name.to_owned(),
            entity: entity.to_owned(),
            order: None,
            origin: Origin::Revived,
            hold_ms: 0,
            payload: raw(payload),
            unusable: None,
        }
    }
}

/// Returns the source's form of a value. Every [`Value`] can be written.
pub(super) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_default()
}

/// What a verb at the end of an event's name is called; without it, the name
/// says which kind of object the event is about.
const VERBS: &[&str] =
    &["ADD", "UPDATE", "DELETE", "REGISTER", "MOVETOCATEGORY", "MOVED", "RESTORE", "START", "FINISH", "JOIN", "LEAVE", "CLOSE", "OPEN"];

/// Returns what an event concerns: the kind of object from its name, and the
/// object's id from its data. Without an id the kind alone is returned: such
/// events are handled one after another, which is slow and right.
#[must_use]
pub fn entity_of(name: &str, data: &Value) -> String {
    let upper = name.to_ascii_uppercase();
    let kind = upper.strip_prefix("ON").unwrap_or(&upper);
    // Smart-process events may carry their type behind an underscore.
    let kind = kind.split_once('_').filter(|(_, rest)| rest.bytes().all(|byte| byte.is_ascii_digit())).map_or(kind, |(kind, _)| kind);
    let kind = VERBS.iter().find_map(|verb| kind.strip_suffix(verb)).filter(|kind| !kind.is_empty()).unwrap_or(kind);
    let fields = ["FIELDS", "FIELDS_AFTER", "FIELDS_BEFORE"].iter().filter_map(|part| data.get(part)).chain([data]);
    let id = fields.clone().find_map(|part| part.get("ID").or_else(|| part.get("id")).map(plain).filter(|id| !id.is_empty()));
    let sort = fields.clone().find_map(|part| part.get("ENTITY_TYPE_ID").map(plain).filter(|sort| !sort.is_empty()));
    let sort = sort.map_or_else(String::new, |sort| format!("-{sort}"));
    let id = id.map_or_else(String::new, |id| format!(":{id}"));
    format!("{}{sort}{id}", kind.to_ascii_lowercase())
}

/// Returns a text or number as text; anything else as nothing.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

/// An event in the hands of a handler.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its number in the inbox.
    pub seq: u64,
    /// Its key.
    pub key: EventKey,
    /// Its name.
    pub name: String,
    /// What it concerns.
    pub entity: String,
    /// Which attempt this is, counted from 1.
    pub attempt: u32,
    /// How many attempts were broken off by a crash of b24 or of the handler.
    pub interrupted: u32,
    /// When it was taken in, in milliseconds since 1970.
    pub received_ms: i64,
    /// Where it came from.
    pub source: &'static str,
    /// What the source gave.
    pub payload: Box<RawValue>,
}

impl Job {
    /// Returns what the handler reads: one JSON object on one line. `data` is
    /// the event's data, wherever the source has it; `payload` is everything
    /// that the source gave.
    #[must_use]
    pub fn to_line(&self, portal: &str) -> String {
        let payload: Value = serde_json::from_str(self.payload.get()).unwrap_or_default();
        let data = payload.get("EVENT_DATA").or_else(|| payload.get("data")).cloned().unwrap_or_default();
        let line = json!({
            "schema": "b24.event/1", "id": self.key.to_string(), "event": self.name, "entity": self.entity, "source": self.source,
            "portal": portal, "attempt": self.attempt, "interrupted": self.interrupted, "received_ms": self.received_ms,
            "data": data, "payload": payload,
        });
        json::escape_deceptive(&line.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_events_of_an_object_concern_the_same_entity() {
        let data = json!({"FIELDS": {"ID": "42"}});
        for name in ["ONCRMDEALADD", "ONCRMDEALUPDATE", "OnCrmDealDelete"] {
            assert_eq!(entity_of(name, &data), "crmdeal:42");
        }
        assert_eq!(entity_of("ONTASKUPDATE", &json!({"FIELDS_BEFORE": {"ID": 7}, "FIELDS_AFTER": {"ID": 7}})), "task:7");
        assert_eq!(entity_of("ONTASKDELETE", &json!({"FIELDS_BEFORE": {"ID": "7"}, "FIELDS_AFTER": "undefined"})), "task:7");
        let smart = json!({"FIELDS": {"ID": 3, "ENTITY_TYPE_ID": "147"}});
        assert_eq!(entity_of("ONCRMDYNAMICITEMADD_147", &smart), entity_of("ONCRMDYNAMICITEMUPDATE", &smart));
        assert_ne!(entity_of("ONCRMDEALADD", &data), entity_of("ONCRMLEADADD", &data));
        assert_eq!(entity_of("ONCRMDEALADD", &Value::Bool(false)), "crmdeal");
    }

    #[test]
    fn a_row_is_told_from_others_by_id_message_and_time() {
        let row =
            |id: Value, message: &str, at: &str| json!({"ID": id, "MESSAGE_ID": message, "TIMESTAMP_X": at, "EVENT_NAME": "ONCRMLEADADD"});
        let key = |row: &Value| NewEvent::of_row(row, "p").key;
        let first = row(json!("1"), "m", "t");
        assert_eq!(key(&first), key(&row(json!(1), "m", "t")));
        for other in [row(json!("2"), "m", "t"), row(json!("1"), "n", "t"), row(json!("1"), "m", "u")] {
            assert_ne!(key(&first), key(&other));
        }
    }

    #[test]
    fn a_row_that_is_no_event_is_kept_as_unusable() {
        for row in [json!({}), json!({"ID": "1"}), json!({"EVENT_NAME": "X"}), json!({"ID": [], "EVENT_NAME": "X"}), json!("text")] {
            assert!(NewEvent::of_row(&row, "p").unusable.is_some(), "{row}");
        }
    }

    #[test]
    fn a_key_is_read_as_it_was_written() {
        let key = EventKey::of("x");
        assert_eq!(EventKey::parse(&key.to_string()), Some(key));
        assert_eq!(EventKey::parse("x"), None);
    }

    #[test]
    fn a_job_is_one_line_whatever_the_portal_says() {
        let payload = json!({"EVENT_DATA": {"FIELDS": {"TITLE": "a\nb\u{202e}"}}});
        let new = NewEvent::of_row(&payload, "p");
        let job = Job {
            seq: 1,
            key: new.key,
            name: new.name,
            entity: new.entity,
            attempt: 1,
            interrupted: 0,
            received_ms: 0,
            source: "offline",
            payload: new.payload,
        };
        let line = job.to_line("portal");
        assert!(!line.contains('\n') && !line.contains('\u{202e}'));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["data"], payload["EVENT_DATA"]);
    }
}
