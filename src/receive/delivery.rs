//! A delivery whose token was right, without any secret.
//!
//! Payload (b24restdocs: api-reference/events/index.md and the pages of the
//! events): `event`, `event_handler_id`, `data`, `ts`, `auth`. Tokens stand in
//! `auth`, and for chat bots in `data` as well (`data[BOT][ID][AUTH]`,
//! `data[bot][auth]`): what is handed on has none of them. Of `auth` a fixed
//! list of harmless members is kept; from everything else, what bears the name
//! of a secret is dropped.

use crate::json;
use serde_json::{Map, Value, json};

/// The members of `auth` that are handed on.
const KEPT_OF_AUTH: &[&str] = &["domain", "member_id", "user_id", "client_endpoint", "status", "scope", "expires"];

/// Words that make a name the name of a secret.
const SECRET_WORDS: &[&str] = &["token", "secret", "password", "passwd", "sessid"];

/// Longest name of an event, id or host that is taken for one.
const LONGEST_WORD: usize = 253;

/// One event, as it was delivered to this handler.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its name in upper case: `ONCRMDEALADD`.
    pub event: String,
    /// The portal's number of the subscription.
    pub handler_id: Option<String>,
    /// When the portal sent it, in seconds since 1970, as the portal wrote it.
    pub ts: Option<String>,
    /// The portal's lasting id.
    pub member_id: Option<String>,
    /// The portal's host, as the portal wrote it.
    pub domain: Option<String>,
    /// What happened; an empty list when the event carries nothing. Of a form,
    /// every plain value is a string.
    pub data: Value,
    /// `domain member_id user_id client_endpoint status scope expires`, as far
    /// as they are there; `client_endpoint` is its host only.
    pub auth: Value,
    /// SHA-256 in hex digits of the payload without tokens and their life
    /// times: a delivery that is repeated with renewed tokens has the same.
    pub body_digest: String,
}

impl Delivery {
    /// Makes a delivery from a decoded payload; `None` when there is no name
    /// of an event in it, or a word of the envelope is no word.
    pub(super) fn from_payload(mut payload: Map<String, Value>) -> Option<Delivery> {
        let event = event_name(payload.get("event")?.as_str()?)?;
        let auth = match payload.remove("auth") {
            Some(Value::Object(auth)) => kept_of_auth(&auth)?,
            _ => Map::new(),
        };
        scrub_members(&mut payload);
        payload.insert("event".to_owned(), Value::from(event.as_str()));
        let mut digested = payload.clone();
        let lasting: Map<String, Value> = auth.clone().into_iter().filter(|(name, _)| name != "expires").collect();
        digested.insert("auth".to_owned(), Value::Object(lasting));
        Some(Delivery {
            event,
            handler_id: word(payload.get("event_handler_id"))?,
            ts: word(payload.get("ts"))?,
            member_id: word(auth.get("member_id"))?,
            domain: word(auth.get("domain"))?,
            data: payload.remove("data").unwrap_or_else(|| json!([])),
            auth: Value::Object(auth),
            body_digest: json::sha256_hex(json::canonical(&Value::Object(digested))),
        })
    }
}

/// Returns the name of an event in upper case, if it can be one.
#[must_use]
pub fn event_name(text: &str) -> Option<String> {
    let is_name = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
    is_name.then(|| text.to_ascii_uppercase())
}

/// Returns a host as an alarm may show it, if it can be one.
pub(super) fn host_name(text: &str) -> Option<String> {
    let is_host =
        (1..=LONGEST_WORD).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
    is_host.then(|| text.to_ascii_lowercase())
}

/// Returns a short plain value as a text; the outer `None` says that something
/// else stands there.
#[expect(clippy::option_option, reason = "absent and wrong are different answers")]
fn word(value: Option<&Value>) -> Option<Option<String>> {
    let text = match value {
        None | Some(Value::Null) => return Some(None),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => return None,
    };
    (text.len() <= LONGEST_WORD && !text.chars().any(char::is_control)).then_some(Some(text))
}

/// Returns the harmless members of `auth`, all of them plain; `None` when one
/// of them is a list or too long.
fn kept_of_auth(auth: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut kept = Map::new();
    for name in KEPT_OF_AUTH {
        let Some(value) = auth.get(*name) else { continue };
        // A list of scopes is longer than any other word.
        let text = match value {
            Value::String(text) if *name == "scope" => text.clone(),
            other => word(Some(other))?.unwrap_or_default(),
        };
        let text = if *name == "client_endpoint" { endpoint_host(&text) } else { text };
        kept.insert((*name).to_owned(), Value::from(text));
    }
    Some(kept)
}

/// Of an address, the host is enough: a path of it can be a webhook's.
fn endpoint_host(address: &str) -> String {
    url::Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// Drops what bears the name of a secret, at every depth, and with a token
/// what is said about its life time.
fn scrub(value: &mut Value) {
    match value {
        Value::Object(members) => scrub_members(members),
        Value::Array(items) => items.iter_mut().for_each(scrub),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn scrub_members(members: &mut Map<String, Value>) {
    let before = members.len();
    members.retain(|name, value| !is_secret(name, value));
    if members.len() < before {
        members.retain(|name, _| !["expires", "expires_in"].contains(&name.to_ascii_lowercase().as_str()));
    }
    members.values_mut().for_each(scrub);
}

fn is_secret(name: &str, value: &Value) -> bool {
    let name = name.to_ascii_lowercase();
    let is_plain = !value.is_object() && !value.is_array();
    let has_word = name.split(['_', '-', '.', ' ']).any(|word| SECRET_WORDS.contains(&word));
    has_word || SECRET_WORDS.iter().any(|word| name.ends_with(word)) || (is_plain && ["auth", "webhook_code"].contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(payload: Value) -> Option<Delivery> {
        let Value::Object(payload) = payload else { return None };
        Delivery::from_payload(payload)
    }

    fn bot_message(tag: &str) -> Value {
        let auth = json!({
            "access_token": format!("canary-a-{tag}"), "refresh_token": format!("canary-r-{tag}"), "application_token": "canary-t",
            "expires": tag, "expires_in": "3600", "domain": "acme.bitrix24.com", "member_id": "m1", "user_id": "27", "scope": "imbot",
            "client_endpoint": "https://acme.bitrix24.com/rest/", "server_endpoint": "https://oauth.bitrix.info/rest/", "status": "F",
        });
        let bot = json!({"access_token": format!("canary-b-{tag}"), "AUTH": auth, "expires": tag, "BOT_ID": "567", "SECRETARY": "9"});
        json!({
            "event": "onImBotMessageAdd", "event_handler_id": 403, "ts": "1771928985", "auth": auth,
            "data": {"BOT": {"567": bot}, "bot": {"auth": auth}, "TOKEN": "canary-c", "PARAMS": {"MESSAGE": "Hello", "botToken": "canary-d"}},
        })
    }

    #[test]
    fn no_secret_is_handed_on() {
        let delivery = delivery(bot_message("1")).unwrap();
        assert!(!format!("{delivery:?}").contains("canary"), "{delivery:?}");
        assert_eq!(delivery.event, "ONIMBOTMESSAGEADD");
        assert_eq!((delivery.handler_id.as_deref(), delivery.ts.as_deref()), (Some("403"), Some("1771928985")));
        assert_eq!((delivery.member_id.as_deref(), delivery.domain.as_deref()), (Some("m1"), Some("acme.bitrix24.com")));
        let auth = json!({
            "domain": "acme.bitrix24.com", "member_id": "m1", "user_id": "27", "client_endpoint": "acme.bitrix24.com",
            "status": "F", "scope": "imbot", "expires": "1",
        });
        assert_eq!(delivery.auth, auth);
        assert_eq!(delivery.data["BOT"]["567"]["SECRETARY"], "9");
        assert_eq!(delivery.data["PARAMS"], json!({"MESSAGE": "Hello"}));
    }

    #[test]
    fn a_repetition_with_renewed_tokens_has_the_same_digest() {
        let digest = |payload| delivery(payload).unwrap().body_digest;
        assert_eq!(digest(bot_message("1")), digest(bot_message("2")));
        for (path, value) in [("/ts", "1"), ("/data/PARAMS/MESSAGE", "Bye"), ("/auth/member_id", "m2"), ("/event", "ONX")] {
            let mut other = bot_message("1");
            *other.pointer_mut(path).unwrap() = Value::from(value);
            assert_ne!(digest(bot_message("1")), digest(other), "{path}");
        }
    }

    #[test]
    fn an_envelope_without_an_event_is_none() {
        for payload in [
            json!({}),
            json!({"event": ""}),
            json!({"event": ["ONX"]}),
            json!({"event": "ON X"}),
            json!({"event": "ONX\n"}),
            json!({"event": "ONX", "ts": {"a": 1}}),
            json!({"event": "ONX", "auth": {"member_id": ["a"]}}),
            json!({"event": "ONX", "ts": "1".repeat(300)}),
        ] {
            assert_eq!(delivery(payload.clone()), None, "{payload}");
        }
        assert_eq!(delivery(json!({"event": "onOfflineEvent"})).unwrap().data, json!([]));
    }
}
