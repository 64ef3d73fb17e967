//! How an event comes about and whom it reaches.
//!
//! Documented: what an event carries (the pages of
//! `api-reference/crm/**/events/` and `api-reference/tasks/events-tasks/`); an
//! event of items of any type exists beside one per type
//! (`api-reference/events/events.md`); a change whose request names a source
//! key does not come back to handlers with that key
//! (`api-reference/events/offline-events.md`); after rows were queued, each
//! handler of `ONOFFLINEEVENT` hears of it at most once in its pause, with a
//! pause of 0 once per request (`on-offline-event.md`).
//!
//! Our reading where the pages are silent: a row that became young again
//! counts as queued; nothing is signalled later for rows that came within the
//! pause; a handler of `ONOFFLINEEVENT` with a source key hears of that queue
//! only, one without hears of all.

use super::envelope::stamp;
use super::events::{self, Binding, OFFLINE_SIGNAL};
use super::journal::{ChangeKind, Record};
use super::oauth::{self, EventTokens};
use super::portal::Turn;
use super::query::value_text;
use super::queue::QueuedEvent;
use super::system;
use crate::json::sha256_hex;
use serde_json::{Map, Value, json};

/// Events that carry a refresh token, because their application lives long
/// on them (documented: `api-reference/events/index.md`).
const LONG_LIVED: &[&str] = &["ONAPPINSTALL", OFFLINE_SIGNAL];

/// Length of a `MESSAGE_ID`.
pub(super) const MESSAGE_ID: usize = 32;

/// Something that handlers can listen to.
pub(super) struct Happened {
    /// The event under every name that it can be listened to.
    pub(super) names: Vec<String>,
    /// What it happened to; `None` when it is like no other event.
    pub(super) object: Option<String>,
    pub(super) data: Value,
}

/// An event that an online handler must hear of. No `Debug`: it holds tokens.
pub(super) struct OnlineEvent {
    pub(super) handler: String,
    pub(super) event: String,
    binding: u64,
    data: Value,
    at: i64,
    tokens: Option<EventTokens>,
    member_id: String,
    application_token: String,
}

/// Raises the event of a change.
pub(super) fn changed(turn: &mut Turn<'_>, entity: &str, id: u64, kind: ChangeKind) {
    if turn.state.bindings.is_empty() {
        return;
    }
    let word = match kind {
        ChangeKind::Add => "ADD",
        ChangeKind::Update => "UPDATE",
        ChangeKind::Delete => "DELETE",
    };
    let (names, data) = match (entity, entity.strip_prefix("dynamic_")) {
        ("task", _) => (vec![format!("ONTASK{word}")], task_data(id, kind)),
        // Quotes are items of type 7 and have events of their own.
        (_, Some("7")) => (vec![format!("ONCRMQUOTE{word}")], json!({"FIELDS": {"ID": id.to_string()}})),
        (_, Some(item_type)) => {
            let name = format!("ONCRMDYNAMICITEM{word}");
            let fields = json!({"FIELDS": {"ID": id.to_string(), "ENTITY_TYPE_ID": item_type}});
            (vec![format!("{name}_{item_type}"), name], fields)
        }
        (other, None) => (vec![format!("ONCRM{}{word}", other.to_uppercase())], json!({"FIELDS": {"ID": id.to_string()}})),
    };
    let object = object(&data);
    raise(turn, &Happened { names, object, data });
}

/// What events of tasks carry: `undefined` is a word in them.
fn task_data(id: u64, kind: ChangeKind) -> Value {
    let task = json!({"ID": id});
    let (before, after, seen_before, seen_after) = match kind {
        ChangeKind::Add => (json!("undefined"), task, "N", "undefined"),
        ChangeKind::Update => (task.clone(), task, "undefined", "undefined"),
        ChangeKind::Delete => (task, json!("undefined"), "undefined", "N"),
    };
    json!({"FIELDS_BEFORE": before, "FIELDS_AFTER": after, "IS_ACCESSIBLE_BEFORE": seen_before, "IS_ACCESSIBLE_AFTER": seen_after})
}

/// Returns the event of that name and with that data; `None` when there is no
/// such event.
pub(super) fn named(name: &str, data: Value) -> Option<Happened> {
    let name = events::known(name)?;
    let mut names = vec![name];
    if let Some(item_type) = data.pointer("/FIELDS/ENTITY_TYPE_ID").map(value_text) {
        names.extend(events::known(&format!("{}_{item_type}", names[0])));
    }
    Some(Happened { names, object: object(&data), data })
}

/// Returns which object the data of an event is about.
fn object(data: &Value) -> Option<String> {
    let id = ["/FIELDS/ID", "/FIELDS_AFTER/ID", "/FIELDS_BEFORE/ID"].iter().find_map(|path| data.pointer(path));
    let id = id.map(value_text).filter(|id| !id.is_empty())?;
    let item_type = data.pointer("/FIELDS/ENTITY_TYPE_ID").map(value_text).unwrap_or_default();
    Some(format!("{item_type}/{id}"))
}

/// Puts an event into the offline queues and the outbox; returns how many
/// rows were written.
pub(super) fn raise(turn: &mut Turn<'_>, happened: &Happened) -> usize {
    let source = turn.caller.connector.clone();
    let hears =
        |binding: &&Binding| happened.names.contains(&binding.event) && (binding.connector.is_empty() || binding.connector != source);
    let listening: Vec<Binding> = turn.state.bindings.all().filter(hears).cloned().collect();
    let mut rows = 0;
    for binding in listening {
        match binding.handler.clone() {
            Some(handler) => send(turn, &binding, handler, happened.data.clone()),
            None => {
                queue(turn, &binding, happened);
                rows += 1;
            }
        }
    }
    rows
}

fn queue(turn: &mut Turn<'_>, binding: &Binding, happened: &Happened) {
    let identity = happened.object.clone().unwrap_or_else(|| turn.random_hex(16));
    let mut message_id = sha256_hex(format!("{}|{identity}", binding.event));
    message_id.truncate(MESSAGE_ID);
    let event = QueuedEvent {
        id: turn.state.queue.id_for(&binding.connector, &message_id),
        connector: binding.connector.clone(),
        event: binding.event.clone(),
        message_id,
        at: turn.now.timestamp(),
        stamp: stamp(turn.now),
        data: happened.data.clone(),
        additional: json!({"user_id": turn.caller.user.to_string()}),
    };
    turn.record(Record::Queued(event));
    turn.queued.push(binding.connector.clone());
}

/// Puts an event for one handler into the outbox. It carries tokens of the
/// user that the handler asked for, or of whoever caused it.
fn send(turn: &mut Turn<'_>, binding: &Binding, handler: String, data: Value) {
    let user = if binding.user == 0 { turn.caller.user } else { binding.user };
    let tokens = system::user(user).map(|user| oauth::event_tokens(turn, user.id));
    let genesis = turn.genesis();
    turn.outbox.push(OnlineEvent {
        handler,
        event: binding.event.clone(),
        binding: binding.id,
        data,
        at: turn.now.timestamp(),
        tokens,
        member_id: genesis.member_id,
        application_token: genesis.application_token,
    });
}

/// Tells the handlers of `ONOFFLINEEVENT` that this turn queued rows.
pub(super) fn signal(turn: &mut Turn<'_>) {
    let queued = std::mem::take(&mut turn.queued);
    if queued.is_empty() {
        return;
    }
    let now_ms = turn.now.timestamp_millis();
    let bindings = &turn.state.bindings;
    let waiting = bindings.all().filter(|binding| binding.event == OFFLINE_SIGNAL && bindings.may_signal(binding, now_ms));
    let waiting: Vec<Binding> =
        waiting.filter(|binding| binding.connector.is_empty() || queued.contains(&binding.connector)).cloned().collect();
    for binding in waiting {
        let Some(handler) = binding.handler.clone() else { continue };
        send(turn, &binding, handler, json!([]));
        if binding.pause_s > 0 {
            turn.record(Record::Signalled { binding: binding.id, at_ms: now_ms });
        }
    }
}

impl OnlineEvent {
    /// Returns what the handler gets, from a server at an address.
    pub(super) fn parameters(&self, origin: &str) -> Map<String, Value> {
        let mut auth = Map::new();
        if let Some(tokens) = &self.tokens {
            auth.insert("access_token".to_owned(), json!(tokens.access));
            auth.insert("expires_in".to_owned(), json!(tokens.expires_at - self.at));
        }
        for (name, value) in [
            ("scope", events::granted(&self.event)),
            ("domain", origin.trim_start_matches("http://").to_owned()),
            ("server_endpoint", format!("{origin}/rest/")),
            ("status", "L".to_owned()),
            ("client_endpoint", format!("{origin}/rest/")),
            ("member_id", self.member_id.clone()),
        ] {
            auth.insert(name.to_owned(), json!(value));
        }
        if let Some(tokens) = self.tokens.as_ref().filter(|_| LONG_LIVED.contains(&self.event.as_str())) {
            auth.insert("refresh_token".to_owned(), json!(tokens.refresh));
        }
        auth.insert("application_token".to_owned(), json!(self.application_token));
        let parameters = [
            ("event", json!(self.event)),
            ("event_handler_id", json!(self.binding)),
            ("data", self.data.clone()),
            ("ts", json!(self.at)),
            ("auth", Value::Object(auth)),
        ];
        parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}
