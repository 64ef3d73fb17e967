//! Which events the application listens to: `event.bind`, `event.unbind`,
//! `event.get`, `events` and `event.test`.
//!
//! Documented (`api-reference/events/`: `event-bind.md`, `event-get.md`,
//! `event-unbind.md`, `events.md`, `test-handler.md`): the methods answer
//! applications only; an offline handler needs an administrator; whoever is
//! none listens under his own name only and sees only his own handlers; names
//! are compared without case and shown in upper case.
//!
//! As self-hosted portals do where the pages are silent: an offline handler
//! has no address and no user, `event.get` shows its source key as
//! `connector_id`; `event.unbind` needs the address of an online handler and
//! the source key of an offline one; `ONOFFLINEEVENT` cannot be offline.
//!
//! Rules of the emulator: every documented event can be listened to, also one
//! outside the application's scopes; an address must be on loopback.

use super::deliver::Target;
use super::envelope::{Answer, Refusal, Success};
use super::journal::Record;
use super::portal::Turn;
use super::query::value_text;
use super::raise::{self, Happened};
use super::system::{ADMIN, SCOPES, param};
use super::{offline, system};
use crate::catalog;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// The parameter that names the source of a call.
pub(super) const CONNECTOR: &str = "auth_connector";

/// The event that tells of rows in the offline queue.
pub(super) const OFFLINE_SIGNAL: &str = "ONOFFLINEEVENT";

/// The event of `event.test`.
const TEST: &str = "ONAPPTEST";

/// Seconds between two signals of the offline queue when a handler asks for
/// nothing else.
const SIGNAL_PAUSE_S: i64 = 1;

/// The methods of events.
pub(super) const METHODS: &[&str] = &[
    "event.bind",
    "event.get",
    "event.offline.clear",
    "event.offline.error",
    "event.offline.get",
    "event.offline.list",
    "event.test",
    "event.unbind",
    "events",
];

/// One handler of the application.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Binding {
    pub(super) id: u64,
    /// In upper case.
    pub(super) event: String,
    /// Where an online handler is; `None` for the offline queue.
    pub(super) handler: Option<String>,
    /// Whose token an event carries; 0 for whoever caused it.
    pub(super) user: u64,
    /// The source key, or nothing.
    pub(super) connector: String,
    /// Least seconds between two signals of the offline queue.
    pub(super) pause_s: i64,
}

/// All handlers.
#[derive(Default)]
pub(super) struct Bindings {
    by_id: BTreeMap<u64, Binding>,
    last_id: u64,
    signalled_at_ms: HashMap<u64, i64>,
}

impl Bindings {
    pub(super) fn all(&self) -> impl Iterator<Item = &Binding> {
        self.by_id.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn bind(&mut self, binding: Binding) {
        self.last_id = self.last_id.max(binding.id);
        self.by_id.insert(binding.id, binding);
    }

    pub(super) fn unbind(&mut self, ids: &[u64]) {
        for id in ids {
            self.by_id.remove(id);
            self.signalled_at_ms.remove(id);
        }
    }

    pub(super) fn signal(&mut self, binding: u64, at_ms: i64) {
        self.signalled_at_ms.insert(binding, at_ms);
    }

    /// Returns whether a handler may be told of the queue again.
    pub(super) fn may_signal(&self, binding: &Binding, now_ms: i64) -> bool {
        let last = self.signalled_at_ms.get(&binding.id);
        binding.pause_s <= 0 || last.is_none_or(|last| now_ms - last >= binding.pause_s.saturating_mul(1000))
    }
}

/// Returns the source key among the parameters of a call.
pub(super) fn connector(params: &Map<String, Value>) -> Option<String> {
    Some(value_text(param(params, CONNECTOR)?))
}

/// Returns an event's name as the portal shows it, when there is such an
/// event.
pub(super) fn known(name: &str) -> Option<String> {
    let name = name.trim().to_uppercase();
    catalog::events::is_known(&name).then_some(name)
}

/// Returns the scope that an event belongs to; nothing for those of every
/// application.
pub(super) fn scope(name: &str) -> &'static str {
    if name.starts_with("ONCRM") {
        return "crm";
    }
    let Some(event) = catalog::events::find(name) else { return "" };
    match event.doc.split('/').nth(1).unwrap_or_default() {
        "tasks" => "task",
        "common" => {
            if name == "ONUSERADD" {
                "user"
            } else {
                ""
            }
        }
        "chat-bots" => "imbot",
        "sonet-group" => "sonet_group",
        other => other,
    }
}

/// Answers the methods of events; `None` for any other.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Option<Answer> {
    if !METHODS.contains(&method) {
        return None;
    }
    if !turn.caller.is_application() {
        return Some(Err(Refusal::v2(403, "WRONG_AUTH_TYPE", "Current authorization type is denied for this method")));
    }
    Some(match method {
        "event.bind" => bind(turn, params),
        "event.unbind" => unbind(turn, params),
        "event.get" => Ok(Success::new(list(turn))),
        "events" => Ok(Success::new(names(params))),
        "event.test" => {
            let happened = Happened { names: vec![TEST.to_owned()], object: None, data: json!({"QUERY": params}) };
            raise::raise(turn, &happened);
            Ok(Success::new(json!(1)))
        }
        offline => offline::call(turn, offline, params),
    })
}

/// Returns the refusal of a parameter that is not there.
pub(super) fn missing(name: &str) -> Refusal {
    Refusal::v2(400, "ERROR_ARGUMENT", format!("Argument '{name}' is null or empty"))
}

/// Returns a refusal for want of rights.
pub(super) fn denied(why: &str) -> Refusal {
    Refusal::v2(403, "ACCESS_DENIED", format!("Access denied!{}{why}", if why.is_empty() { "" } else { " " }))
}

fn text(params: &Map<String, Value>, name: &str) -> String {
    param(params, name).map(value_text).unwrap_or_default().trim().to_owned()
}

/// Where the events of a handler go.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Online,
    Offline,
}

fn way(params: &Map<String, Value>) -> Result<Way, Refusal> {
    match text(params, "event_type").to_lowercase().as_str() {
        "" | "online" => Ok(Way::Online),
        "offline" => Ok(Way::Offline),
        _ => Err(Refusal::v2(400, "ERROR_ARGUMENT", "Value must be one of {online|offline}")),
    }
}

fn bind(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let acting = turn.caller.user;
    let mut user = text(params, "auth_type").parse::<u64>().unwrap_or(0);
    if acting != ADMIN {
        if user > 0 && user != acting {
            return Err(denied("Event binding with AUTH_TYPE requires administrator access rights"));
        }
        user = acting;
    }
    let name = text(params, "event");
    if name.is_empty() {
        return Err(missing("EVENT"));
    }
    let handler = match way(params)? {
        Way::Offline if acting != ADMIN => return Err(denied("Offline events binding requires administrator access rights")),
        Way::Offline => {
            user = 0;
            None
        }
        Way::Online => {
            Some(text(params, "handler")).filter(|handler| !handler.is_empty()).map_or_else(|| Err(missing("HANDLER")), checked)?
        }
    };
    let event = known(&name).ok_or_else(|| Refusal::v2(400, "ERROR_EVENT_NOT_FOUND", "Event not found"))?;
    if handler.is_none() && event == OFFLINE_SIGNAL {
        return Err(Refusal::v2(400, "ERROR_ARGUMENT", "Offline event cannot be registered for this event."));
    }
    let pause = param(params, "options").and_then(|options| param(options.as_object()?, "minTimeout"));
    let pause_s = pause.and_then(|pause| value_text(pause).trim().parse().ok()).unwrap_or(SIGNAL_PAUSE_S);
    let connector = turn.caller.connector.clone();
    let id = turn.state.bindings.last_id + 1;
    let binding = Binding { id, event, handler, user, connector, pause_s };
    if turn.state.bindings.all().any(|known| is_same(known, &binding)) {
        return Err(Refusal::v2(400, "ERROR_CORE", "Unable to set event handler: Handler already binded"));
    }
    turn.record(Record::Bound(binding));
    Ok(Success::new(json!(true)))
}

fn is_same(left: &Binding, right: &Binding) -> bool {
    let key = |binding: &Binding| (binding.event.clone(), binding.handler.clone(), binding.user, binding.connector.clone());
    key(left) == key(right)
}

/// Refuses an address that the emulator does not call.
fn checked(handler: String) -> Result<Option<String>, Refusal> {
    match Target::parse(&handler) {
        Ok(_) => Ok(Some(handler)),
        Err(error) => Err(Refusal::v2(400, error.code(), error.to_string())),
    }
}

fn unbind(turn: &mut Turn<'_>, params: &Map<String, Value>) -> Answer {
    let acting = turn.caller.user;
    let name = text(params, "event").to_uppercase();
    if name.is_empty() {
        return Err(missing("EVENT"));
    }
    let ids: Vec<u64> = match way(params)? {
        Way::Offline => {
            if acting != ADMIN {
                return Err(denied("Offline events unbinding requires administrator access rights"));
            }
            let connector = &turn.caller.connector;
            let offline = turn.state.bindings.all().filter(|binding| binding.event == name && binding.handler.is_none());
            offline.filter(|binding| binding.connector == *connector).map(|binding| binding.id).collect()
        }
        Way::Online => {
            let handler = Some(text(params, "handler"));
            if handler.as_deref() == Some("") {
                return Err(missing("HANDLER"));
            }
            let user = unbound_user(acting, params)?;
            let online = turn.state.bindings.all().filter(|binding| binding.event == name && binding.handler == handler);
            online.filter(|binding| user.is_none_or(|user| binding.user == user)).map(|binding| binding.id).collect()
        }
    };
    let count = ids.len();
    if count > 0 {
        turn.record(Record::Unbound { ids });
    }
    Ok(Success::new(json!({"count": count})))
}

/// Returns whose handlers `event.unbind` means; `None` for everybody's.
fn unbound_user(acting: u64, params: &Map<String, Value>) -> Result<Option<u64>, Refusal> {
    let given = param(params, "auth_type").map(|user| value_text(user).trim().parse::<u64>().unwrap_or(0));
    match given {
        Some(user) if acting != ADMIN && user != acting => {
            Err(denied("Event unbinding with AUTH_TYPE requires administrator access rights"))
        }
        Some(user) => Ok(Some(user)),
        None => Ok((acting != ADMIN).then_some(acting)),
    }
}

fn list(turn: &Turn<'_>) -> Value {
    let acting = turn.caller.user;
    let visible = turn.state.bindings.all().filter(|binding| acting == ADMIN || binding.user == acting);
    let rows = visible.map(|binding| match &binding.handler {
        Some(handler) => json!({"event": binding.event, "handler": handler, "auth_type": binding.user.to_string(), "offline": 0}),
        None => json!({"event": binding.event, "connector_id": binding.connector, "offline": 1}),
    });
    Value::Array(rows.collect())
}

fn names(params: &Map<String, Value>) -> Value {
    let all = || {
        catalog::events::SIGNALS.iter().map(|name| (*name).to_owned()).chain(catalog::events::all().map(|event| event.name.to_uppercase()))
    };
    let full =
        param(params, "full").is_some_and(|full| !matches!(full, Value::Bool(false)) && !matches!(value_text(full).as_str(), "" | "0"));
    let wanted = |name: &String| match param(params, "scope").map(value_text) {
        Some(wanted) => scope(name) == wanted,
        None => full || scope(name).is_empty() || SCOPES.contains(&scope(name)),
    };
    json!(all().filter(wanted).collect::<Vec<_>>())
}

/// Returns the scopes that an event's authorization is good for.
pub(super) fn granted(name: &str) -> String {
    match scope(name) {
        "" => system::SCOPES.join(","),
        scope => scope.to_owned(),
    }
}
