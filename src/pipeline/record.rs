//! What the audit says about a call.

use super::Session;
use crate::call::Request;
use crate::error::{Failure, Outcome};
use crate::gate::ClearedCall;
use crate::risk::Risk;
use crate::store::audit::describe_params;
use crate::store::audit::{Durability, Receipt};
use crate::store::locked::StoreError;
use serde_json::{Map, Value, json};
use std::path::Path;

/// Longer error texts are cut.
const LONGEST_ERROR: usize = 200;

/// Fields that every record of a session has.
fn base(session: &Session, kind: &str, method: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    add("type", Value::from(kind));
    add("actor", Value::from(session.tools.actor.as_str()));
    add("uid", Value::from(rustix::process::getuid().as_raw()));
    add("pid", Value::from(std::process::id()));
    add("profile", Value::from(session.settings.profile.as_str()));
    add("portal", Value::from(session.identity.as_str()));
    add("principal", Value::from(session.authorizer.principal().map(|principal| principal.to_string())));
    add("method", Value::from(method));
    if !session.settings.loosened.is_empty() {
        add("loosened", Value::from(session.settings.loosened.clone()));
    }
    fields
}

/// Appends a record; nothing leaves without passing the redactor.
fn append(session: &Session, fields: Map<String, Value>, durability: Durability) -> Result<Receipt, StoreError> {
    session.audit.append(&redacted(session, fields), durability, session.settings.limits.max_wait)
}

fn redacted(session: &Session, fields: Map<String, Value>) -> Map<String, Value> {
    let text = Value::Object(fields).to_string();
    let clean = session.redactor.redact_text(&text);
    let mut fields: Map<String, Value> = serde_json::from_str(&clean).unwrap_or_default();
    // Cut only now: half a secret would not be known as one.
    if let Some(Value::String(error)) = fields.get_mut("error") {
        *error = error.chars().take(LONGEST_ERROR).collect();
    }
    fields
}

/// What one attempt is called in every record.
pub(super) struct Attempt<'a> {
    /// The request id that the portal also sees.
    pub(super) request_id: &'a str,
    /// Its number, from 1.
    pub(super) number: u32,
    /// The plan, if one is executed.
    pub(super) plan: Option<&'a str>,
}

fn describe(session: &Session, fields: &mut Map<String, Value>, call: &ClearedCall, attempt: &Attempt) {
    let request = call.request();
    let params = |params: &Value| describe_params(params, &session.install_key);
    fields.insert("request_id".to_owned(), Value::from(attempt.request_id));
    fields.insert("attempt".to_owned(), Value::from(attempt.number));
    fields.insert("api".to_owned(), Value::from(request.api().text()));
    fields.insert("risk".to_owned(), Value::from(call.risk().text()));
    match request {
        Request::Single(single) => fields.insert("params".to_owned(), params(&single.params)),
        Request::Batch(batch) => {
            let commands = batch
                .commands
                .iter()
                .map(|command| json!({"name": command.name, "method": command.call.name, "params": params(&command.call.params)}));
            fields.insert("commands".to_owned(), commands.collect())
        }
    };
    if call.risk() > Risk::Read {
        fields.insert("ledger".to_owned(), Value::from(call.records()));
        fields.insert("packs".to_owned(), Value::from(session.settings.policy.allowlist.packs()));
    }
    if let Some(plan) = attempt.plan {
        fields.insert("plan_id".to_owned(), Value::from(plan));
    }
}

/// Records that a write is about to be sent; durable when it returns.
pub(super) fn intent(session: &Session, call: &ClearedCall, attempt: &Attempt) -> Result<Receipt, StoreError> {
    let mut fields = base(session, "intent", call.request().wire_name());
    describe(session, &mut fields, call, attempt);
    append(session, fields, Durability::Durable)
}

/// How an attempt ended.
pub(super) struct End<'a> {
    pub(super) outcome: Outcome,
    pub(super) status: Option<u16>,
    /// The portal's error code, or what is wrong.
    pub(super) error: Option<&'a str>,
}

/// Records how a write ended; kept aside for the next run when it cannot be
/// appended now.
pub(super) fn outcome(session: &Session, method: &str, request_id: &str, end: &End) -> Result<(), StoreError> {
    let mut fields = base(session, "outcome", method);
    fields.insert("request_id".to_owned(), Value::from(request_id));
    add_end(&mut fields, end);
    let met = crate::crash::fault("audit.outcome").map_err(StoreError::io("write", Path::new("audit")));
    met.and_then(|()| append(session, fields.clone(), Durability::Durable)).map(drop).inspect_err(|_| {
        let _ = session.audit.spool(&redacted(session, fields));
    })
}

/// Records a read after its last attempt.
pub(super) fn read(session: &Session, method: &str, attempt: &Attempt, end: &End) -> Result<(), StoreError> {
    if !session.settings.audit_reads {
        return Ok(());
    }
    let mut fields = base(session, "read", method);
    fields.insert("request_id".to_owned(), Value::from(attempt.request_id));
    fields.insert("attempts".to_owned(), Value::from(attempt.number));
    add_end(&mut fields, end);
    append(session, fields, Durability::Lazy).map(drop)
}

fn add_end(fields: &mut Map<String, Value>, end: &End) {
    fields.insert("outcome".to_owned(), Value::from(end.outcome.text()));
    fields.insert("status".to_owned(), Value::from(end.status));
    if let Some(error) = end.error {
        fields.insert("error".to_owned(), Value::from(error));
    }
}

/// Records that a gate refused.
pub(super) fn denied(session: &Session, method: &str, step: &str, failure: &Failure) -> Result<(), StoreError> {
    let mut fields = base(session, "denied", method);
    fields.insert("step".to_owned(), Value::from(step));
    fields.insert("kind".to_owned(), Value::from(failure.code.text()));
    append(session, fields, Durability::Lazy).map(drop)
}

/// Records that the ledger answered.
pub(super) fn replayed(session: &Session, method: &str, note: &Value) -> Result<(), StoreError> {
    let mut fields = base(session, "replayed", method);
    fields.insert("ledger".to_owned(), note["ledger"].clone());
    append(session, fields, Durability::Lazy).map(drop)
}
