//! How answers become ledger outcomes and failures.

use super::Session;
use super::replay::Part;
use crate::call::{Batch, Request};
use crate::error::{Code, Failure, Outcome};
use crate::risk::Risk;
use crate::store::ledger::Settlement;
use crate::store::operating::OperatingSeen;
use crate::wire::answer::{Answer, Reading, ServerError, Time, operating_reset_in};
use crate::wire::batch_answer::BatchReading;
use crate::wire::judge::{Obstacle, Verdict, refusal_code};
use serde_json::{Map, Value, json};

/// What to do about a write whose outcome nobody knows.
const LOOK: &str = "Look on the portal whether it happened; then a person runs b24 ledger resolve";

/// Turns the verdict about one call into its ledger line.
pub(super) fn settlement(verdict: &Verdict, status: u16, success: impl FnOnce() -> Settlement) -> Settlement {
    match verdict {
        Verdict::Success => success(),
        Verdict::Refused(error) => {
            Settlement::Refused { status, kind: refusal_code(error), code: error.code.clone(), text: error.text.clone() }
        }
        Verdict::NotExecuted(obstacle) => Settlement::NotExecuted(obstacle_name(obstacle)),
        Verdict::Maybe(why) => Settlement::Unknown(why.clone()),
    }
}

fn obstacle_name(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::QueryLimit => "QUERY_LIMIT_EXCEEDED".to_owned(),
        Obstacle::OperatingLimit => "OPERATION_TIME_LIMIT".to_owned(),
        Obstacle::ExpiredToken => "expired_token".to_owned(),
        Obstacle::Moved(_) => "portal_moved".to_owned(),
        Obstacle::Auth(error) | Obstacle::MethodNotFound(error) | Obstacle::Overload(error) => error.code.clone(),
    }
}

/// Makes the failure of an obstacle that repeating does not remove.
pub(super) fn obstacle_failure(obstacle: &Obstacle, status: u16) -> Failure {
    let failure = match obstacle {
        Obstacle::QueryLimit => Failure::new(Code::RateLimited, "the portal's rate limit is used up")
            .hint("Other programs of this address use the same limit; b24 limits shows ours")
            .with("code", "QUERY_LIMIT_EXCEEDED"),
        Obstacle::OperatingLimit => Failure::new(Code::OperatingLimited, "the method used up its operating time on the portal")
            .hint("Other methods go on working; b24 limits shows when this one is free")
            .with("code", "OPERATION_TIME_LIMIT"),
        Obstacle::ExpiredToken => Failure::new(Code::LoginNeeded, "the renewed access token is not accepted")
            .hint("Log in to the application again")
            .with("code", "expired_token"),
        Obstacle::Moved(host) => {
            let host = host.as_deref().unwrap_or_default();
            let place = if host.is_empty() { String::new() } else { format!(" to {}", crate::method::shown(host)) };
            Failure::new(Code::PortalMoved, format!("the portal redirects{place}; redirects are not followed"))
                .hint("If the portal was renamed, a person changes the address")
        }
        Obstacle::Auth(error) => from_server(Code::Auth, error, "Check the credential, its scopes and the rights of its user"),
        Obstacle::MethodNotFound(error) => {
            from_server(Code::NotFound, error, "The portal does not have the method, or the credential lacks its scope")
        }
        Obstacle::Overload(error) => from_server(Code::ApiError, error, "Bitrix24 blocked the portal by hand; ask its support"),
    };
    failure.with("http_status", status).sent(Outcome::NotApplied)
}

/// Makes the failure of a refusal by the method itself.
pub(super) fn refused(error: &ServerError, status: u16) -> Failure {
    from_server(refusal_code(error), error, "b24 help exit-codes explains the statuses")
        .with("http_status", status)
        .sent(Outcome::NotApplied)
}

fn from_server(code: Code, error: &ServerError, hint: &str) -> Failure {
    let message = match error.text.trim() {
        "" => format!("the portal answered {}", crate::method::shown(&error.code)),
        text => text.to_owned(),
    };
    Failure::new(code, message).hint(hint).with("code", error.code.as_str())
}

/// What a batch's answer means: one settlement a command, and what failed.
pub(super) struct BatchEnd {
    pub(super) settlements: Vec<Option<Settlement>>,
    pub(super) outcome: Outcome,
    pub(super) failure: Option<Failure>,
}

/// Reads the answer of a batch that was answered with success.
pub(super) fn batch_end(session: &Session, batch: &Batch, risks: &[Risk], answer: &Answer) -> BatchEnd {
    let result = Reading::of(&answer.body).and_then(|reading| reading.result);
    let reading = result.and_then(|result| BatchReading::of(batch, result).ok());
    let Some(reading) = reading else {
        let why = "the answer to the batch cannot be understood";
        let settlements = risks.iter().map(|_| Some(Settlement::Unknown(why.to_owned()))).collect();
        return BatchEnd { settlements, outcome: Outcome::Unknown, failure: Some(unknown(why)) };
    };
    let settlements = reading.commands.iter().zip(risks).map(|(command, risk)| {
        let success = || super::replay::success(session, command.result.unwrap_or("null").as_bytes(), Part::Result);
        (*risk > Risk::Read).then(|| settlement(&command.verdict, answer.status, success))
    });
    let settlements = settlements.collect();
    let failures = reading.failures(batch);
    if failures.is_empty() {
        return BatchEnd { settlements, outcome: Outcome::Applied, failure: None };
    }
    let is_unknown =
        reading.commands.iter().zip(risks).any(|(command, risk)| *risk > Risk::Read && matches!(command.verdict, Verdict::Maybe(_)));
    let errors: Map<String, Value> = failures.iter().map(|(name, verdict)| ((*name).to_owned(), describe(verdict))).collect();
    let names: Vec<String> = failures.iter().map(|(name, _)| crate::method::shown(name)).collect();
    let (code, outcome) = if is_unknown { (Code::OutcomeUnknown, Outcome::Unknown) } else { (Code::Partial, Outcome::Partial) };
    let failure = Failure::new(code, format!("{} of {} commands failed: {}", names.len(), batch.commands.len(), names.join(", ")))
        .with("errors", errors)
        .sent(outcome);
    let failure = match is_unknown {
        true => failure.hint(LOOK).with("retry", json!({"safe": false})),
        false => failure.hint("Send only the failed commands again"),
    };
    BatchEnd { settlements, outcome, failure: Some(failure) }
}

fn describe(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Success => Value::Null,
        Verdict::Refused(error) => json!({"code": error.code, "message": error.text}),
        Verdict::NotExecuted(obstacle) => json!({"code": obstacle_name(obstacle), "message": "not executed"}),
        Verdict::Maybe(why) => json!({"code": "", "message": why}),
    }
}

/// Makes the failure of a write whose outcome nobody knows.
pub(super) fn unknown(why: &str) -> Failure {
    Failure::new(Code::OutcomeUnknown, format!("the write was sent and no trustworthy answer came: {why}"))
        .hint(LOOK)
        .with("retry", json!({"safe": false}))
        .sent(Outcome::Unknown)
}

/// Keeps the operating time that an answer tells, for the method and, in a
/// batch, for each nested one.
pub(super) fn note_operating(session: &Session, principal: &str, request: &Request, answer: &Answer) {
    let Some(reading) = Reading::of(&answer.body) else { return };
    let keep = |method: &str, time: &Time| {
        if let (Some(operating_s), Some(reset_in_s)) = (time.operating, operating_reset_in(time)) {
            // What is not kept is learned again from the next answer.
            let _ = session.operating.record(principal, method, OperatingSeen { operating_s, reset_in_s });
        }
    };
    if let Some(time) = &reading.time {
        keep(request.wire_name(), time);
    }
    if let (Request::Batch(batch), Some(result)) = (request, reading.result) {
        let times = BatchReading::of(batch, result).map(|reading| reading.times).unwrap_or_default();
        for (command, time) in batch.commands.iter().zip(times) {
            if let Some(time) = time {
                keep(&command.call.name, &time);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::answer::Form;

    fn server(code: &str, text: &str) -> ServerError {
        ServerError { code: code.to_owned(), text: text.to_owned(), form: Form::Code }
    }

    /// Every obstacle, with its name in the ledger, its code, and its exit.
    fn obstacles() -> Vec<(Obstacle, &'static str, Code, u8)> {
        vec![
            (Obstacle::QueryLimit, "QUERY_LIMIT_EXCEEDED", Code::RateLimited, 7),
            (Obstacle::OperatingLimit, "OPERATION_TIME_LIMIT", Code::OperatingLimited, 7),
            (Obstacle::ExpiredToken, "expired_token", Code::LoginNeeded, 4),
            (Obstacle::Moved(Some("b.example".to_owned())), "portal_moved", Code::PortalMoved, 4),
            (Obstacle::Moved(None), "portal_moved", Code::PortalMoved, 4),
            (Obstacle::Auth(server("ACCESS_DENIED", "no")), "ACCESS_DENIED", Code::Auth, 4),
            (Obstacle::MethodNotFound(server("ERROR_METHOD_NOT_FOUND", "")), "ERROR_METHOD_NOT_FOUND", Code::NotFound, 5),
            (Obstacle::Overload(server("OVERLOAD_LIMIT", "")), "OVERLOAD_LIMIT", Code::ApiError, 1),
        ]
    }

    #[test]
    fn every_verdict_has_its_ledger_line() {
        let success = || Settlement::Succeeded { digest: "d".to_owned(), answer: None, ids: None };
        assert!(matches!(settlement(&Verdict::Success, 200, success), Settlement::Succeeded { .. }));
        let Settlement::Refused { status, kind, code, text } = settlement(&Verdict::Refused(server("NOT_FOUND", "x")), 404, success) else {
            panic!("no refusal")
        };
        assert_eq!((status, kind, code.as_str(), text.as_str()), (404, refusal_code(&server("NOT_FOUND", "x")), "NOT_FOUND", "x"));
        for (obstacle, name, ..) in obstacles() {
            let Settlement::NotExecuted(why) = settlement(&Verdict::NotExecuted(obstacle), 503, success) else { panic!("{name}") };
            assert_eq!(why, name);
        }
        let Settlement::Unknown(why) = settlement(&Verdict::Maybe("w".to_owned()), 200, success) else { panic!("not unknown") };
        assert_eq!(why, "w");
    }

    #[test]
    fn every_obstacle_says_what_stands_in_the_way_and_that_nothing_was_done() {
        for (obstacle, name, code, exit) in obstacles() {
            let failure = obstacle_failure(&obstacle, 418);
            assert_eq!(
                (failure.code, failure.code.exit().status(), failure.outcome, failure.sent),
                (code, exit, Outcome::NotApplied, true),
                "{name}"
            );
            assert_eq!(failure.details["http_status"], 418);
            assert!(failure.hint.is_some(), "{name}");
            let server_code = failure.details.get("code").and_then(Value::as_str);
            assert_eq!(server_code, (name != "portal_moved").then_some(name));
        }
        assert!(obstacle_failure(&Obstacle::Moved(Some("b.example".to_owned())), 302).message.contains("b.example"));
    }

    #[test]
    fn a_refusal_says_what_the_portal_said() {
        for (error, message) in [(server("X", " no such thing "), "no such thing"), (server("X", " "), "the portal answered `X`")] {
            let failure = refused(&error, 400);
            assert_eq!((failure.message.as_str(), failure.outcome, failure.sent), (message, Outcome::NotApplied, true));
            assert_eq!((&failure.details["code"], &failure.details["http_status"]), (&json!("X"), &json!(400)));
        }
        let failure = unknown("why");
        assert_eq!((failure.code, failure.outcome, failure.sent), (Code::OutcomeUnknown, Outcome::Unknown, true));
        assert_eq!(failure.details["retry"]["safe"], false);
        assert!(failure.message.ends_with("why") && failure.hint.unwrap().contains("ledger resolve"));
    }

    #[test]
    fn a_command_that_failed_is_described_as_what_it_was() {
        assert_eq!(describe(&Verdict::Success), Value::Null);
        assert_eq!(describe(&Verdict::Refused(server("X", "y"))), json!({"code": "X", "message": "y"}));
        assert_eq!(
            describe(&Verdict::NotExecuted(Obstacle::QueryLimit)),
            json!({"code": "QUERY_LIMIT_EXCEEDED", "message": "not executed"})
        );
        assert_eq!(describe(&Verdict::Maybe("w".to_owned())), json!({"code": "", "message": "w"}));
    }
}
