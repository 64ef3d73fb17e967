//! `b24 ledger`, `b24 audit`, `b24 limits`: what b24 remembers.

use super::args::{Audit, Global, Ledger as LedgerCommand};
use super::connect::connect;
use super::{Stop, printed};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::output::{self, ErrorFormat};
use crate::pipeline;
use crate::session::{self, Session};
use crate::settings::{self, Settings};
use crate::store::audit::{AuditLog, Durability, Tail, TailLine};
use crate::store::guard::Guard;
use crate::store::ledger::record::Verdict;
use crate::store::locked::StoreError;
use crate::store::patience;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Every command that changes state of ours, and what it asks for. The calls
/// themselves are not listed: they pass the gate.
///
/// | command | consent | lock | audited before |
/// |--|--|--|--|
/// | `ledger forget` | a person, or `--confirm-destructive` | `no-idempotency` | `forget` |
/// | `ledger resolve` | a person | none: it needs one | `resolve` |
/// | `limits reset` | a person, or `--confirm-write` | `rate-limiter` | `limits-reset` |
/// | `plan create`, `--plan-only` | none: a plan is executed with consent | `plan-file`, `plan-ttl` for place and life | at its execution |
/// | `plan cancel` | none: it takes away | none | `plan-cancelled` |
/// | `plan prune` | none: what it deletes cannot be executed any more | none | `plans-pruned` |
/// | `queue dlq drop` | `--confirm-destructive` | `state-file` for the place | `dead-letters-dropped` |
/// | `queue dlq retry` | none: a worker's handler was started for them | `state-file` | `dead-letters-retried` |
/// | `queue work`, `listen` | standing: for exactly that | `state-file` | each call |
/// | `emulator serve`, `trigger` in the built-in portal | none: a toy | none | none |
///
/// `queue bind` and `unbind` change the portal and are calls like others.
/// Tests: `locks.rs`.
pub(super) fn ledger(command: &LedgerCommand, global: &Global, host: &mut Host) -> Result<(), Stop> {
    let settings = settings::resolve(&global.options(), host)?;
    if let LedgerCommand::Forget { confirm_destructive, .. } = command {
        settings.refuse_if_locked(Guard::NoIdempotency)?;
        let what = "the same write could then run again";
        refuse_unconfirmed(*confirm_destructive, ("destructive", "--confirm-destructive"), what, host)?;
    }
    let _patience = patience::begin(settings.limits.max_wait);
    let mut connected = connect(settings, host)?;
    let principal = pipeline::principal(&mut connected.session)?;
    let ledger = connected.session.ledger(&principal);
    let ledger = match command {
        LedgerCommand::List { .. } => &ledger,
        LedgerCommand::Show { key } | LedgerCommand::Forget { key, .. } | LedgerCommand::Resolve { key, .. } => ledger.holding(key),
    };
    let value = match command {
        LedgerCommand::List { all } => {
            json!({"schema": "b24.ledger/1", "portal": connected.session.identity, "records": ledger.list(*all)?})
        }
        LedgerCommand::Show { key } => json!({"schema": "b24.ledger-record/1", "record": ledger.show(key)?}),
        LedgerCommand::Forget { key, .. } => {
            let fields = json!({"type": "forget", "actor": session::actor(host), "portal": connected.session.identity, "key": key,
                "loosened": loosened(&connected.session.settings, Guard::NoIdempotency)});
            record(&connected.session, &fields)?;
            json!({"schema": "b24.ledger-forgotten/1", "record": ledger.forget(key)?})
        }
        LedgerCommand::Resolve { key, verdict, reason } => {
            if !session::is_person(host) {
                return Err(Failure::new(Code::PolicyDenied, "an unknown outcome is resolved by a person at a terminal")
                    .hint("Ask the user to look on the portal and to run the command")
                    .into());
            }
            let verdict = match verdict.as_str() {
                "executed" => Verdict::Executed,
                "not-executed" => Verdict::NotExecuted,
                _ => Verdict::Abandoned,
            };
            let reason = connected.session.redactor.redact_text(reason);
            let fields = json!({"type": "resolve", "actor": session::actor(host), "portal": connected.session.identity,
                "key": key, "as": verdict, "reason": reason});
            record(&connected.session, &fields)?;
            json!({"schema": "b24.ledger-resolved/1", "record": ledger.resolve(key, verdict, &reason, &session::actor(host))?})
        }
    };
    printed(output::value(host, &value))
}

/// Lets pass what a person at a terminal does, or whom the flag of this
/// invocation gives consent for.
fn refuse_unconfirmed(is_given: bool, (risk, option): (&str, &str), what: &str, host: &Host) -> Result<(), Failure> {
    if is_given || session::is_person(host) {
        return Ok(());
    }
    Err(Failure::new(Code::ConfirmationRequired, format!("{what}, and that was not confirmed"))
        .with("gate", json!({"risk": risk, "option": option}))
        .hint("Show the user what it is about, and ask"))
}

/// Returns the guards that are loosened, one more among them.
fn loosened(settings: &Settings, guard: Guard) -> Vec<&'static str> {
    let mut names = settings.loosened.clone();
    names.push(guard.name());
    names.sort_unstable();
    names.dedup();
    names
}

/// Audits a change of state that needs no session, before it is made.
pub(super) fn note_change(settings: &Settings, host: &Host, mut fields: Value) -> Result<(), Stop> {
    settings.state.prepare()?;
    fields["actor"] = Value::from(session::actor(host));
    fields["profile"] = Value::from(settings.profile.as_str());
    fields["loosened"] = Value::from(settings.loosened.clone());
    let text = settings.redactor().redact_text(&fields.to_string());
    let fields: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    let log = AuditLog::open(settings.audit.clone(), Arc::clone(&host.clock), Arc::clone(&host.random));
    Ok(log.append(&fields, Durability::Durable, settings.limits.max_wait).map(drop)?)
}

/// Audits a change of what b24 knows, before it is made.
fn record(session: &Session, fields: &Value) -> Result<(), StoreError> {
    let text = session.redactor.redact_text(&fields.to_string());
    let fields: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    session.audit.append(&fields, Durability::Durable, session.settings.limits.max_wait).map(drop)
}

pub(super) fn audit(command: &Audit, global: &Global, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let settings = settings::resolve(&global.options(), host)?;
    let _patience = patience::begin(settings.limits.max_wait);
    let log = AuditLog::open(settings.audit, Arc::clone(&host.clock), Arc::clone(&host.random));
    match command {
        Audit::Tail { lines } => tail(log.tail(*lines)?, host, format),
        Audit::Verify => {
            let report = log.verify()?;
            let value = serde_json::to_value(&report).unwrap_or_default();
            printed(output::value(host, &json!({"schema": "b24.audit-report/1", "intact": report.is_intact(), "report": value})))?;
            match report.is_intact() {
                true => Ok(()),
                false => Err(Failure::new(Code::AuditBroken, format!("the audit log has {} problems", report.problem_count))
                    .hint("The report on standard output names the records")
                    .into()),
            }
        }
    }
}

/// Prints the records, and says what stands among them that is none.
fn tail(tail: Tail, host: &mut Host, format: ErrorFormat) -> Result<(), Stop> {
    let torn = tail.torn();
    let (mut unreadable, mut changed) = (0_u64, 0_u64);
    tail.each(|line| {
        let record = match line {
            TailLine::Record(record) => record,
            TailLine::Changed(record) => {
                changed += 1;
                record
            }
            TailLine::Unreadable => {
                unreadable += 1;
                return Ok(());
            }
        };
        printed(output::text(host, record))
    })?;
    if unreadable + changed > 0 {
        let text = format!("{unreadable} lines among them cannot be read, {changed} are not what was written; b24 audit verify names them");
        output::note(host, "warning", "audit_broken", &text, format);
    }
    if torn > 0 {
        let text = format!("{torn} bytes of a record that was not finished stand behind them; the next record takes them in");
        output::note(host, "notice", "audit_torn", &text, format);
    }
    Ok(())
}

pub(super) fn limits(action: &str, is_confirmed: bool, global: &Global, host: &mut Host) -> Result<(), Stop> {
    let settings = settings::resolve(&global.options(), host)?;
    let _patience = patience::begin(settings.limits.max_wait);
    if action == "reset" {
        settings.refuse_if_locked(Guard::RateLimiter)?;
        let what = "without its limit the portal may refuse everybody";
        refuse_unconfirmed(is_confirmed, ("write", "--confirm-write"), what, host)?;
    }
    let connected = connect(settings, host)?;
    let session = &connected.session;
    if action == "reset" {
        let fields = json!({"type": "limits-reset", "actor": session::actor(host), "portal": session.identity,
            "loosened": loosened(&session.settings, Guard::RateLimiter)});
        record(session, &fields)?;
        session.limiter.reset()?;
    }
    let rate = session.limiter.status()?.map(|status| {
        json!({"tokens": status.tokens, "rate": status.rate, "burst": status.burst, "effective_rate": status.effective_rate,
            "penalties": status.penalties, "next_free_ms": status.next_free_ms})
    });
    let operating: Vec<Value> = session
        .operating
        .list()?
        .into_iter()
        .map(|used| {
            json!({"principal": used.principal, "method": used.method, "operating_s": used.operating_s,
                "reset_in_s": used.reset_in.as_secs(), "blocked_for_s": used.blocked_for.as_secs()})
        })
        .collect();
    let value = json!({"schema": "b24.limits/1", "portal": session.identity, "rate_limit": rate, "operating": operating,
        "retry_budget": session.budget.tokens()?});
    printed(output::value(host, &value))
}
