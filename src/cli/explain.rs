//! `b24 explain CODE`: what a code, a status or an id means and what to do,
//! without asking a portal.

use super::args::Global;
use super::{Stop, plans, printed};
use crate::catalog::server_errors::{self, ServerError};
use crate::catalog::{self, events};
use crate::error::{Code, Coded, Exit, Failure};
use crate::host::Host;
use crate::ids::PlanId;
use crate::method;
use crate::output;
use crate::settings;
use serde_json::{Value, json};

/// Hexadecimal digits from which a word may be a record of the ledger.
const RECORD_DIGITS: usize = 8;

pub(super) fn run(code: &str, global: &Global, host: &mut Host) -> Result<(), Stop> {
    let code = code.trim();
    let mut meanings: Vec<Value> = Vec::new();
    meanings.extend(Code::ALL.iter().filter(|kind| kind.text().eq_ignore_ascii_case(code)).map(|kind| of_kind(*kind)));
    meanings.extend(Exit::ALL.iter().filter(|exit| is_exit(**exit, code)).map(|exit| of_exit(*exit)));
    meanings.extend(server_errors::find(code).iter().map(of_server_error));
    if let Some(id) = PlanId::parse(code) {
        meanings.push(of_plan(&id, global, host)?);
    }
    if let Some(event) = events::find(code) {
        meanings.push(json!({"is": "event", "code": event.name, "docs": super::describe::page(event.doc),
            "what_to_do": "event.bind subscribes an application to it"}));
    }
    if let Some(entry) = method::Method::parse(code).ok().and_then(|method| catalog::generations(&method).into_iter().flatten().next()) {
        meanings.push(json!({"is": "method", "code": entry.name, "what_to_do": format!("b24 describe {}", entry.name)}));
    }
    if code.to_ascii_lowercase().starts_with("auto:") || (meanings.is_empty() && is_record(code)) {
        meanings.push(of_ledger());
    }
    match meanings.is_empty() {
        true => Err(unknown(code).into()),
        false => printed(output::value(host, &json!({"schema": "b24.explain/1", "code": code, "meanings": meanings}))),
    }
}

fn is_exit(exit: Exit, text: &str) -> bool {
    text.parse() == Ok(exit.status()) || exit.name().eq_ignore_ascii_case(text)
}

fn is_record(text: &str) -> bool {
    text.len() >= RECORD_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn of_kind(kind: Code) -> Value {
    json!({"is": "kind", "code": kind.text(), "meaning": kind.meaning(), "exit": kind.exit().status(), "what_to_do": advice(kind.exit())})
}

fn of_exit(exit: Exit) -> Value {
    let kinds: Vec<&str> = Code::ALL.iter().filter(|kind| kind.exit() == exit).map(|kind| kind.text()).collect();
    json!({"is": "exit_status", "code": exit.status(), "name": exit.name(), "meaning": exit.when(),
        "portal_changed": exit.portal_changed(), "kinds": kinds, "what_to_do": advice(exit)})
}

/// Returns what to do after an exit status.
fn advice(exit: Exit) -> &'static str {
    match exit {
        Exit::Ok => "Nothing",
        Exit::ApiError => "Read `code` of the error object and explain that one",
        Exit::Usage => "Correct the command; `fields` of the error object names every problem",
        Exit::PolicyDenied => "Do not look for a way round; ask the person who keeps the profile",
        Exit::Auth => "Check the credential and its scopes; b24 profile shows whose it is",
        Exit::NotFound => "Check the name or the id; b24 search finds methods, list methods find objects",
        Exit::Partial => "Look at each command's own result; do not send the batch again as a whole",
        Exit::Temporary => "Try again as it is, after `retry.after_ms` if it is given",
        Exit::OutcomeUnknown => "Do not repeat; look on the portal whether it was done, then b24 ledger resolve, by a person",
        Exit::Conflict => "Do not repeat; `kind` and `hint` say which record or plan stands in the way",
        Exit::Confirmation => "Show the user what will change and ask; `gate` of the error object names the option",
        Exit::Changes => "Read the differences on standard output",
        Exit::LocalState => "Make the named file readable and writable, then try again",
        Exit::ExecutedUnrecorded => "Do not repeat: it was done; make room on the disk",
        Exit::Internal => "Report it; look at `sent` before repeating anything",
        Exit::Interrupted | Exit::Terminated => "`outcome` says whether something was sent; b24 ledger list shows what is open",
    }
}

fn of_server_error(error: &ServerError) -> Value {
    let mut value = json!({"is": "server_error", "code": error.code});
    let system = error.system.as_ref();
    value["meaning"] = json!(system.map_or("An error of these methods' own: they refused the request", |system| system.meaning));
    // A method that refuses has mostly done nothing; one that does several
    // things may have done the first.
    value["ran"] = json!(system.map_or("unlikely", |system| system.ran));
    value["what_to_do"] =
        json!(system.map_or("Read the text of the answer; b24 describe METHOD --full shows what the method takes", |system| system.advice));
    if !error.statuses.is_empty() {
        value["http_status"] = json!(error.statuses);
    }
    if error.method_count > 0 {
        value["methods"] = json!({"documented": error.method_count, "some": error.methods});
    }
    value
}

/// Reads the plan, if there is one. Where no plan was ever saved, nothing is
/// written either.
fn of_plan(id: &PlanId, global: &Global, host: &mut Host) -> Result<Value, Stop> {
    let settings = settings::resolve(&global.options(), host)?;
    let mut value = json!({"is": "plan_id", "code": id.as_str(), "meaning": "The id of a saved plan", "found": false,
        "what_to_do": format!("b24 plan show {id} prints what it would send, b24 ledger show {id} what came of it")});
    if !settings.plans_folder.is_dir() {
        return Ok(value);
    }
    match plans::folder(&settings, host)?.load(id.as_str()) {
        Ok((_, plan)) => {
            value["found"] = json!(true);
            value["plan"] = json!({"profile": plan.profile, "portal": plan.portal, "expires": plan.expires,
                "steps": plans::lines(&plan, &settings.policy)});
        }
        Err(error) => {
            if error.code() == Code::PlanChanged {
                value["state"] = json!("changed");
            }
            value["problem"] = json!(error.to_string());
        }
    }
    Ok(value)
}

fn of_ledger() -> Value {
    json!({"is": "ledger_record", "meaning": "A key or record of the ledger of writes",
        "what_to_do": "b24 ledger show KEY prints it with its history; b24 ledger list shows what is open"})
}

fn unknown(code: &str) -> Failure {
    let words = Code::ALL.iter().map(|kind| kind.text());
    let mut suggestions = catalog::closest(code, server_errors::codes().chain(words));
    suggestions.dedup();
    let hint = match suggestions.is_empty() {
        true => "b24 help exit-codes lists exit codes and kinds; b24 ledger show KEY shows an idempotency key".to_owned(),
        false => format!("Did you mean {}?", suggestions.join(", ")),
    };
    Failure::new(Code::UnknownCode, format!("{} is no code that is known", method::shown(code))).hint(hint).with("suggest", suggestions)
}
