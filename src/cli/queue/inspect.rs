//! `b24 queue status` and `b24 queue dlq`.

use super::super::args::{DeadLetterCommand, Global, InboxArgs};
use super::super::{Stop, notices, printed};
use super::{Owner, Place, letters, place};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::queue::{Action, DeadLetters, Inbox, NewEvent, entity_of, wake};
use crate::session;
use crate::settings;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// What the Python worker wrote of a dead letter.
const SEED_FIELDS: &[&str] = &["tenant", "event", "message_id", "retry_count", "error", "payload", "ts"];

pub(super) fn status(args: &InboxArgs, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let owner = owner(args, global, host, format)?;
    let place = place(args, &owner, host);
    let dead = letters(&place, &owner, host).count()?;
    let mut value = json!({
        "schema": "b24.queue-status/1", "portal": owner.identity, "source": args.source, "auth_connector": place.connector,
        "inbox": place.folder.display().to_string(), "dead_letters_file": place.dead_letters.display().to_string(), "dead_letters": dead,
    });
    if place.folder.exists() {
        let mut inbox = Inbox::open(&place.folder, Arc::clone(&host.clock), Arc::clone(&host.random))?;
        let depth = inbox.depth()?;
        let now = host.clock.now().timestamp_millis();
        value["depth"] = json!({
            "waiting": depth.waiting, "running": depth.running, "unsettled": depth.unsettled, "open_calls": depth.open_calls,
            "oldest_age_ms": depth.oldest_ms.map(|oldest| now - oldest), "workers": inbox.living_workers()?,
        });
        value["counters"] = json!(depth.counters);
    }
    printed(output::value(host, &value))
}

pub(super) fn dead_letters(command: &DeadLetterCommand, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let args = match command {
        DeadLetterCommand::List(inbox)
        | DeadLetterCommand::Export(inbox)
        | DeadLetterCommand::Verify(inbox)
        | DeadLetterCommand::Show { inbox, .. } => inbox,
        DeadLetterCommand::Retry(letters) | DeadLetterCommand::Drop { letters, .. } => &letters.inbox,
    };
    let owner = owner(args, global, host, format)?;
    let place = place(args, &owner, host);
    let mut file = letters(&place, &owner, host);
    match command {
        DeadLetterCommand::List(_) => {
            for row in file.list()? {
                printed(output::value(host, &row))?;
            }
            Ok(())
        }
        DeadLetterCommand::Export(_) => {
            for row in file.list()? {
                let row: Map<String, Value> =
                    SEED_FIELDS.iter().map(|name| ((*name).to_owned(), row.get(*name).cloned().unwrap_or_default())).collect();
                printed(output::value(host, &Value::Object(row)))?;
            }
            Ok(())
        }
        DeadLetterCommand::Show { id, .. } => {
            let row = chosen(&mut file, std::slice::from_ref(id), false)?.into_iter().next().unwrap_or_default();
            printed(output::value(host, &row))
        }
        DeadLetterCommand::Verify(_) => verify(&mut file, host),
        DeadLetterCommand::Retry(which) => {
            let rows = chosen(&mut file, &which.ids, which.all)?;
            let count = retry(&mut file, &rows, &place, &owner, host)?;
            printed(output::value(host, &json!({"schema": "b24.dead-letters-retried/1", "retried": count})))
        }
        DeadLetterCommand::Drop { letters: which, reason, confirm_destructive } => {
            let reason = owner.redactor.redact_text(reason);
            let ids = ids(&chosen(&mut file, &which.ids, which.all)?);
            if !confirm_destructive {
                return Err(unconfirmed(ids.len()).into());
            }
            record(&owner, host, "dead-letters-dropped", &ids)?;
            let count = file.close(&ids, Action::Dropped, &session::actor(host), Some(&reason))?;
            printed(output::value(host, &json!({"schema": "b24.dead-letters-dropped/1", "dropped": count})))
        }
    }
}

fn unconfirmed(count: usize) -> Failure {
    Failure::new(Code::ConfirmationRequired, format!("{count} events would be given up for good, and that was not confirmed"))
        .with("gate", json!({"risk": "destructive", "option": "--confirm-destructive"}))
        .hint("Show them to the user; b24 queue dlq retry hands them over again instead")
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().filter_map(|row| row["id"].as_str()).map(str::to_owned).collect()
}

/// Returns the open dead letters that are meant; each id must name one.
fn chosen(file: &mut DeadLetters, ids: &[String], all: bool) -> Result<Vec<Value>, Stop> {
    let rows = file.list()?;
    if all {
        return Ok(rows);
    }
    let mut chosen = Vec::new();
    for id in ids {
        let named: Vec<&Value> = rows
            .iter()
            .filter(|row| row["id"].as_str().is_some_and(|row| row == id || (id.len() >= 8 && row.starts_with(id.as_str()))))
            .collect();
        match named[..] {
            [row] => chosen.push(row.clone()),
            [] => {
                let text = format!("no open dead letter is called {}", crate::method::shown(id));
                return Err(Failure::new(Code::NotFound, text)
                    .hint("b24 queue dlq list shows them; what was retried or dropped is closed")
                    .into());
            }
            _ => return Err(Failure::new(Code::Usage, "several dead letters begin with these digits").hint("Give more of them").into()),
        }
    }
    Ok(chosen)
}

/// Puts letters back into the inbox, then closes them: a crash in between
/// leaves them open, and putting one back twice changes nothing.
fn retry(file: &mut DeadLetters, rows: &[Value], place: &Place, owner: &Owner, host: &Host) -> Result<usize, Stop> {
    let events = rows.iter().map(|row| {
        let name = row["event"].as_str().or_else(|| row["payload"]["EVENT_NAME"].as_str()).unwrap_or("UNKNOWN").to_ascii_uppercase();
        let data = row["payload"].get("EVENT_DATA").or_else(|| row["payload"].get("data")).cloned().unwrap_or_default();
        let entity = row["entity"].as_str().map_or_else(|| entity_of(&name, &data), str::to_owned);
        NewEvent::revived(&name, &entity, row["id"].as_str().unwrap_or_default(), &row["payload"])
    });
    let events: Vec<NewEvent> = events.collect();
    let ids = ids(rows);
    record(owner, host, "dead-letters-retried", &ids)?;
    let mut inbox = Inbox::open(&place.folder, Arc::clone(&host.clock), Arc::clone(&host.random))?;
    inbox.commit(|commit| Ok(commit.receive(events)))?;
    crate::crash::point("queue.between_revival_and_letter");
    let count = file.close(&ids, Action::Retried, &session::actor(host), None)?;
    wake(&place.folder, host.clock.as_ref(), host.random.as_ref());
    Ok(count)
}

fn verify(file: &mut DeadLetters, host: &mut Host) -> Result<(), Stop> {
    match file.verify()? {
        Ok(lines) => printed(output::value(host, &json!({"schema": "b24.dead-letters-verified/1", "lines": lines}))),
        Err(line) => Err(Failure::new(Code::AuditBroken, format!("line {line} of {} is not what was written", file.path().display()))
            .hint("Somebody changed or removed a line; compare with a copy of the file")
            .into()),
    }
}

fn record(owner: &Owner, host: &Host, what: &str, ids: &[String]) -> Result<(), Stop> {
    let fields = json!({"type": what, "actor": session::actor(host), "portal": owner.identity, "ids": ids, "loosened": owner.loosened});
    let Value::Object(fields) = fields else { return Ok(()) };
    Ok(owner.record(&fields, host)?)
}

/// Finds the owner of the events, with the notices of the settings.
fn owner(args: &InboxArgs, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<Owner, Stop> {
    let settings = settings::resolve(&args.options(global.options()), host)?;
    notices(&settings, host, format);
    Owner::find(settings, host)
}
