//! One request under the lock of the data: limits, credential, idempotency,
//! method, envelope - in this order.

use super::envelope::{Answer, Api, OperatingTime, Refusal, success_document, time_object};
use super::journal::Record;
use super::portal::Turn;
use super::request::Call;
use super::{batch, batch_v3, events, limits, oauth, tasks_v3};
use crate::json::{canonical, sha256_hex};
use serde_json::{Map, Value};
use std::time::Duration;

/// Life of an answer under an `Idempotency-Key`.
const ANSWER_LIFE_S: i64 = 24 * 3600;

/// Longest `Idempotency-Key`.
const LONGEST_KEY: usize = 255;

/// A response in the making.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) content_type: &'static str,
    pub(super) body: String,
    /// Whether the method ran and was not refused.
    pub(super) executed: bool,
}

impl Reply {
    pub(super) fn json(status: u16, document: &Value) -> Reply {
        Reply { status, headers: Vec::new(), content_type: "application/json; charset=utf-8", body: document.to_string(), executed: false }
    }

    pub(super) fn page(status: u16, title: &str) -> Reply {
        let body =
            format!("<html>\r\n<head><title>{status} {title}</title></head>\r\n<body><h1>{status} {title}</h1></body>\r\n</html>\r\n");
        Reply { status, headers: Vec::new(), content_type: "text/html", body, executed: false }
    }

    pub(super) fn refusal(refusal: &Refusal) -> Reply {
        Reply::json(refusal.status, &refusal.document())
    }
}

/// What is asked of the portal.
pub(super) struct Ask<'a> {
    pub(super) api: Api,
    pub(super) method: &'a str,
    pub(super) call: &'a Call,
    pub(super) idempotency_key: Option<&'a str>,
}

/// Answers a REST call.
pub(super) fn rest(turn: &mut Turn<'_>, ask: &Ask<'_>) -> Reply {
    match admitted(turn, ask) {
        Ok(reply) => reply,
        Err(refusal) => Reply::refusal(&refusal),
    }
}

/// Answers the token endpoint.
pub(super) fn token(turn: &mut Turn<'_>, call: &Call, origin: &str) -> Reply {
    let params = call.params.as_ref().ok().and_then(Value::as_object).cloned().unwrap_or_default();
    let (status, document) = oauth::token(turn, &params, origin);
    let executed = document.get("access_token").is_some();
    Reply { executed, ..Reply::json(status, &document) }
}

fn admitted(turn: &mut Turn<'_>, ask: &Ask<'_>) -> Result<Reply, Refusal> {
    limits::pass_bucket(turn)?;
    turn.authorize(&ask.call.credential)?;
    let params = ask.call.params.as_ref().map_err(Clone::clone)?;
    let stored = match ask.idempotency_key {
        Some(key) if ask.api == Api::V3 && tasks_v3::is_write(ask.method) => Some(StoredKey::new(turn, ask, key, params)?),
        _ => None,
    };
    if let Some(reply) = stored.as_ref().map(|stored| stored.replay(turn)).transpose()?.flatten() {
        return Ok(reply);
    }
    let begun_ns = turn.clock.boot_ns();
    let success = run(turn, ask, params)?;
    let elapsed = Duration::from_nanos(turn.clock.boot_ns().saturating_sub(begun_ns));
    let operating: Option<OperatingTime> = if ask.method == "batch" { None } else { limits::charge_operating(turn, ask.method, elapsed) };
    let document = success_document(success, time_object(turn.now, turn.clock.now(), operating));
    let reply = Reply { executed: true, ..Reply::json(200, &document) };
    if let Some(stored) = stored {
        let until = turn.now.timestamp() + ANSWER_LIFE_S;
        turn.record(Record::Answer { key: stored.key, request_hash: stored.request_hash, body: reply.body.clone(), until });
    }
    Ok(reply)
}

fn run(turn: &mut Turn<'_>, ask: &Ask<'_>, params: &Value) -> Answer {
    let empty = Map::new();
    match (ask.api, ask.method) {
        (Api::V3, "batch") => batch_v3::call(turn, params),
        (Api::V2, "batch") => {
            let params = params.as_object().unwrap_or(&empty);
            turn.caller.connector = events::connector(params).unwrap_or_default();
            batch::call(turn, params)
        }
        (api, method) => {
            limits::check_operating(turn, method)?;
            turn.call(api, method, params.as_object().unwrap_or(&empty))
        }
    }
}

/// An `Idempotency-Key` in its scope: credential, user and method.
struct StoredKey {
    key: String,
    request_hash: String,
}

impl StoredKey {
    fn new(turn: &Turn<'_>, ask: &Ask<'_>, key: &str, params: &Value) -> Result<StoredKey, Refusal> {
        let printable = key.bytes().all(|byte| (0x20..0x7F).contains(&byte));
        if key.is_empty() || key.len() > LONGEST_KEY || !printable {
            let message = "The idempotency key must be a string of 1 to 255 printable ASCII characters";
            return Err(Refusal::v3(400, "INVALIDIDEMPOTENCYKEYEXCEPTION", message));
        }
        let key = format!("{} {} {} {key}", turn.caller.credential, turn.caller.user, ask.method);
        Ok(StoredKey { key, request_hash: sha256_hex(canonical(params)) })
    }

    /// Returns the stored answer, if there is one that still lives.
    fn replay(&self, turn: &Turn<'_>) -> Result<Option<Reply>, Refusal> {
        let live = turn.state.answers.get(&self.key).filter(|answer| answer.until > turn.now.timestamp());
        let Some(answer) = live else { return Ok(None) };
        if answer.request_hash != self.request_hash {
            let message = "The idempotency key was already used with a different request body";
            return Err(Refusal::v3(422, "IDEMPOTENCYKEYREUSEDEXCEPTION", message));
        }
        let mut reply = Reply::json(200, &Value::Null);
        reply.body.clone_from(&answer.body);
        reply.headers.push(("Idempotent-Replayed", "true".to_owned()));
        Ok(Some(reply))
    }
}
