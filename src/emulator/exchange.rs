//! The life of one request: arrival, latency, fault, execution, answer.

use super::deliver::Deliveries;
use super::envelope::Api;
use super::execute::{self, Ask, Reply};
use super::faults::{FaultBook, FaultKind};
use super::limits::Limits;
use super::portal::{Caller, Portal};
use super::request::{Address, Call, Incoming, Target};
use super::seen::{SeenLog, SeenRequest, SeenStatus};
use crate::host::Clock;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// What all connections of a server share.
pub(super) struct Shared {
    pub(super) portal: Mutex<Portal>,
    pub(super) faults: FaultBook,
    pub(super) seen: SeenLog,
    pub(super) deliveries: Deliveries,
    pub(super) limits: Limits,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) origin: String,
    /// Set when the server ends: nothing is executed any more.
    pub(super) stopping: AtomicBool,
}

/// How a request is answered.
pub(super) enum Answered {
    Whole(Reply),
    /// The headers announce all of it, half of it is sent.
    Truncated(Reply),
    /// As many more bytes of white space stand before it, announced or not.
    Padded(Reply, u64, Announced),
    /// The connection is closed without a byte.
    Dropped,
}

/// Whether the length of an answer is told before it.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Announced {
    Yes,
    No,
}

/// Carries a request through.
pub(super) async fn exchange(shared: Arc<Shared>, incoming: Incoming) -> Answered {
    let address = Address::parse(&incoming.path);
    let call = Call::parse(&incoming, &address);
    let number = shared.seen.arrive(seen(&shared, &incoming, &address, &call));
    let echo = echoed_headers(&incoming, &address);
    let job = Job {
        number,
        method: address.method.clone(),
        target: address.target,
        call,
        request_id: incoming.header("x-request-id"),
        key: incoming.header("idempotency-key"),
    };
    let mut answered = perform(&shared, job).await;
    let status = match &mut answered {
        Answered::Whole(reply) | Answered::Truncated(reply) | Answered::Padded(reply, ..) => {
            reply.headers.extend(echo);
            SeenStatus::Answered(reply.status)
        }
        Answered::Dropped => SeenStatus::Dropped,
    };
    shared.seen.end(number, status);
    answered
}

/// What is left of a request when it has been read.
struct Job {
    number: usize,
    method: String,
    target: Target,
    call: Call,
    request_id: Option<String>,
    key: Option<String>,
}

async fn perform(shared: &Arc<Shared>, job: Job) -> Answered {
    if job.target == Target::Nothing {
        return Answered::Whole(Reply::page(404, "Not Found"));
    }
    wait(shared, shared.limits.latency).await;
    let fault = shared.faults.meet(&job.method);
    if let Some(answered) = refused(fault.as_ref()) {
        return answered;
    }
    if let Some(FaultKind::SlowBefore { ms }) = fault {
        wait(shared, Duration::from_millis(ms)).await;
    }
    if fault == Some(FaultKind::HeldBefore) {
        return hold_then_execute(shared, job).await;
    }
    let worker = shared.clone();
    let Ok(Some(reply)) = tokio::task::spawn_blocking(move || executed(&worker, &job)).await else {
        return Answered::Dropped;
    };
    if let Some(FaultKind::Slow { ms }) = fault {
        wait(shared, Duration::from_millis(ms)).await;
    }
    if fault == Some(FaultKind::Held) {
        return std::future::pending().await;
    }
    spoiled(fault.as_ref(), reply)
}

/// Executes when the client has left: then this future is dropped, and with it
/// `_here`.
async fn hold_then_execute(shared: &Arc<Shared>, job: Job) -> Answered {
    let (_here, left) = oneshot::channel::<()>();
    let worker = shared.clone();
    tokio::spawn(async move {
        let _ = left.await;
        let _ = tokio::task::spawn_blocking(move || executed(&worker, &job)).await;
    });
    std::future::pending().await
}

/// Waits on the portal's clock, without the lock of the data and without
/// holding up other requests.
async fn wait(shared: &Arc<Shared>, time: Duration) {
    if time.is_zero() {
        return;
    }
    let clock = shared.clock.clone();
    // A wait that was broken off by the end of the server needs no answer.
    let _ = tokio::task::spawn_blocking(move || clock.sleep(time)).await;
}

/// Works on the portal; `None` when the server is ending.
fn executed(shared: &Shared, job: &Job) -> Option<Reply> {
    let mut portal = shared.portal.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.stopping.load(Ordering::SeqCst) {
        return None;
    }
    let caller = Caller::unknown(job.request_id.clone());
    let reply = portal.turn(caller, &shared.faults, |turn| match job.target {
        Target::Rest(api) => execute::rest(turn, &Ask { api, method: &job.method, call: &job.call, idempotency_key: job.key.as_deref() }),
        Target::Token => execute::token(turn, &job.call, &shared.origin),
        Target::Nothing => Reply::page(404, "Not Found"),
    });
    let reply =
        reply.unwrap_or_else(|error| Reply::json(500, &json!({"error": "INTERNAL_SERVER_ERROR", "error_description": error.to_string()})));
    // Under the portal's lock: events leave in the order of the journal.
    shared.deliveries.take(portal.take_outbox(), &shared.origin);
    if reply.executed {
        shared.seen.executed(job.number);
    }
    Some(reply)
}

/// Returns the answer of a fault that lets nothing be executed.
fn refused(fault: Option<&FaultKind>) -> Option<Answered> {
    let fault = fault?;
    if let Some(refusal) = fault.refusal() {
        let mut reply = Reply::refusal(&refusal);
        if let FaultKind::Error { after: Some(seconds), .. } = fault {
            reply.headers.push(("Retry-After", seconds.to_string()));
        }
        return Some(Answered::Whole(reply));
    }
    match fault {
        FaultKind::DropBeforeExecuting => Some(Answered::Dropped),
        FaultKind::Html502 => Some(Answered::Whole(Reply::page(502, "Bad Gateway"))),
        FaultKind::Html403 => Some(Answered::Whole(Reply::page(403, "Forbidden"))),
        FaultKind::Redirect { status, location } => {
            let mut reply = Reply::page(*status, "Found");
            reply.headers.push(("Location", location.clone()));
            Some(Answered::Whole(reply))
        }
        FaultKind::QueryLimit
        | FaultKind::Overload
        | FaultKind::OperationTimeLimit
        | FaultKind::ExpiredToken
        | FaultKind::MethodConfirm
        | FaultKind::Error { .. }
        | FaultKind::ExecuteThenDrop
        | FaultKind::ExecuteThen500
        | FaultKind::ExecuteThenHtml502
        | FaultKind::TruncatedJson
        | FaultKind::Slow { .. }
        | FaultKind::SlowBefore { .. }
        | FaultKind::Held
        | FaultKind::HeldBefore
        | FaultKind::InternalError
        | FaultKind::EmptyBody200
        | FaultKind::Garbage200
        | FaultKind::Answer { .. }
        | FaultKind::Padded { .. }
        | FaultKind::LoneSurrogate => None,
    }
}

/// Spoils the answer of a call that was executed.
fn spoiled(fault: Option<&FaultKind>, mut reply: Reply) -> Answered {
    let Some(fault) = fault else { return Answered::Whole(reply) };
    match fault {
        FaultKind::ExecuteThenDrop => return Answered::Dropped,
        FaultKind::TruncatedJson => return Answered::Truncated(reply),
        FaultKind::Padded { mib, announced } => {
            let announced = if *announced { Announced::Yes } else { Announced::No };
            return Answered::Padded(reply, u64::from(*mib) << 20, announced);
        }
        FaultKind::Answer { status, body } => {
            reply.status = *status;
            reply.body = body.clone().unwrap_or(reply.body);
        }
        FaultKind::ExecuteThen500 => reply = Reply { body: String::new(), ..Reply::page(500, "") },
        FaultKind::ExecuteThenHtml502 => reply = Reply::page(502, "Bad Gateway"),
        FaultKind::InternalError => {
            reply = Reply::json(500, &json!({"error": "INTERNAL_SERVER_ERROR", "error_description": "Internal server error"}));
        }
        FaultKind::EmptyBody200 => reply.body.clear(),
        FaultKind::Garbage200 => "<br />\n<b>Notice</b>: {\"result\":".clone_into(&mut reply.body),
        // No JSON writer makes such an escape, so it is put in as text.
        FaultKind::LoneSurrogate => reply.body = reply.body.replacen('{', "{\"note\":\"half a character: \\ud800\",", 1),
        FaultKind::Slow { .. }
        | FaultKind::SlowBefore { .. }
        | FaultKind::Held
        | FaultKind::HeldBefore
        | FaultKind::DropBeforeExecuting
        | FaultKind::Html502
        | FaultKind::Html403
        | FaultKind::Redirect { .. }
        | FaultKind::QueryLimit
        | FaultKind::Overload
        | FaultKind::OperationTimeLimit
        | FaultKind::ExpiredToken
        | FaultKind::MethodConfirm
        | FaultKind::Error { .. } => {}
    }
    Answered::Whole(reply)
}

fn seen(shared: &Shared, incoming: &Incoming, address: &Address, call: &Call) -> SeenRequest {
    let params = match address.target {
        // Holds the client's secret.
        Target::Token => Value::Null,
        Target::Rest(_) | Target::Nothing => call.params.clone().unwrap_or(Value::Null),
    };
    SeenRequest {
        at: shared.clock.now(),
        boot_ns: shared.clock.boot_ns(),
        verb: incoming.verb.clone(),
        path: address.shown.clone(),
        method: address.method.clone(),
        api: match address.target {
            Target::Rest(api) => Some(api),
            Target::Token | Target::Nothing => None,
        },
        request_id: incoming.header("x-request-id"),
        idempotency_key: incoming.header("idempotency-key"),
        params,
        status: SeenStatus::Pending,
        executed: false,
    }
}

/// Returns the headers that come back as they were sent.
fn echoed_headers(incoming: &Incoming, address: &Address) -> Vec<(&'static str, String)> {
    let mut echo = Vec::new();
    if let Some(id) = incoming.header("x-request-id") {
        echo.push(("X-Request-ID", id));
    }
    if let (Target::Rest(Api::V3), Some(key)) = (address.target, incoming.header("idempotency-key")) {
        echo.push(("Idempotency-Key", key));
    }
    echo
}
