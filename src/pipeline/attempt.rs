//! The attempts of one cleared call.

use super::record::{self, Attempt, End};
use super::replay::{Part, success};
use super::{Completed, Session, in_context, settle, unrecorded};
use crate::call::Request;
use crate::error::{Code, Failure, Outcome};
use crate::gate::{ClearedCall, NotDeparted};
use crate::risk::Risk;
use crate::store::limiter::Slot;
use crate::store::locked::StoreError;
use crate::store::patience;
use crate::wire::answer::{Answer, Reading};
use crate::wire::judge::{Obstacle, Verdict};
use crate::wire::retry::{self, Ended, Next};
use crate::wire::transport::Sent;
use serde_json::json;
use std::time::Duration;

/// Sends a cleared call, again where that is safe, until it has an outcome.
pub(super) fn send(session: &mut Session, cleared: ClearedCall, plan: Option<&str>) -> Result<Completed, Failure> {
    let _patience = patience::begin(session.settings.limits.max_wait);
    let writes = cleared.risk() > Risk::Read;
    let name = cleared.request().wire_name().to_owned();
    let risk = cleared.risk();
    let mut trip = Trip {
        writes,
        most: if writes { session.settings.limits.write_attempts } else { session.settings.limits.read_attempts },
        number: 0,
        has_refreshed: false,
        request_id: String::new(),
        plan,
        name: name.clone(),
        taken_back: None,
    };
    trip.go(session, cleared).map_err(|failure| {
        let failure = trip.close(session, failure).with("method", name).with("risk", risk.text());
        let failure = if trip.request_id.is_empty() { failure } else { failure.with("request_id", trip.request_id.as_str()) };
        in_context(session, failure)
    })
}

struct Trip<'a> {
    writes: bool,
    most: u32,
    number: u32,
    has_refreshed: bool,
    request_id: String,
    plan: Option<&'a str>,
    name: String,
    /// The last attempt, while it is taken back and no other has departed.
    taken_back: Option<TakenBack>,
}

/// An attempt that surely was not executed, or only read.
struct TakenBack {
    status: Option<u16>,
    why: String,
}

/// What one attempt led to.
enum Step {
    Done(Box<Completed>),
    Again(ClearedCall),
}

impl Trip<'_> {
    fn go(&mut self, session: &mut Session, mut cleared: ClearedCall) -> Result<Completed, Failure> {
        loop {
            match self.attempt(session, cleared)? {
                Step::Done(completed) => return Ok(*completed),
                Step::Again(again) => cleared = again,
            }
        }
    }

    fn attempt(&mut self, session: &mut Session, cleared: ClearedCall) -> Result<Step, Failure> {
        self.number += 1;
        self.request_id = session.tools.request_id();
        session.prepare_sender()?;
        let slot = match slot(session, cleared.request()) {
            Ok(slot) => slot,
            Err(failure) => {
                cleared.withdraw("no slot in time")?;
                return Err(failure);
            }
        };
        let intent = match self.writes {
            false => None,
            true => match record::intent(session, &cleared, &self.labels()) {
                Ok(receipt) => Some(receipt),
                Err(error) => {
                    // The record may be as full as the audit; `C` is as safe as `N`.
                    let _ = cleared.withdraw("the audit intent could not be written");
                    return Err(Failure::from(error).hint("Without an audit record nothing is written; make room or fix the file"));
                }
            },
        };
        crate::crash::point("pipeline.after_intent");
        // Before the dispatch line: a signal in between must not report a write
        // as unsent that the next run finds dispatched.
        crate::interrupt::departed(crate::interrupt::UnderWay {
            method: self.name.clone(),
            request_id: self.request_id.clone(),
            records: cleared.records(),
        });
        let departure = cleared.depart(&self.request_id, slot, intent.as_ref()).map_err(|error| match error {
            NotDeparted::Store(error) => {
                crate::interrupt::landed();
                let end = End { outcome: Outcome::NotSent, status: None, error: Some("the dispatch could not be recorded") };
                let _ = record::outcome(session, &self.name, &self.request_id, &end);
                Failure::from(error)
            }
            NotDeparted::NoIntent => Failure::new(Code::Internal, error.to_string()),
        })?;
        self.taken_back = None;
        let (authorizer, redactor) = (&session.authorizer, &session.redactor);
        let sent = match session.sender() {
            Some(transport) => transport.send(departure, authorizer, redactor),
            None => return Err(Failure::new(Code::Internal, "there is no HTTP client")),
        };
        patience::allow_recording(session.settings.limits.max_wait);
        let landed = self.land(session, sent);
        crate::interrupt::landed();
        crate::crash::point("pipeline.after_landing");
        landed
    }

    fn labels(&self) -> Attempt<'_> {
        Attempt { request_id: &self.request_id, number: self.number, plan: self.plan }
    }

    fn land(&mut self, session: &mut Session, sent: Sent) -> Result<Step, Failure> {
        if let Some(answer) = &sent.answer {
            settle::note_operating(session, &principal_of(session), sent.flight.request(), answer);
        }
        match retry::next(&sent.ended, self.writes) {
            Next::Finish => self.finish(session, sent).map(|completed| Step::Done(Box::new(completed))),
            Next::Unknown(why) => Err(self.unknown(session, sent, &why)),
            Next::Stop => Err(self.give_up(session, sent)),
            Next::Refresh if self.has_refreshed => Err(self.give_up(session, sent)),
            Next::Refresh => {
                self.has_refreshed = true;
                let cleared = self.take_back(session, sent)?;
                session.refresh().map_err(|failure| failure.with("code", "expired_token").sent(Outcome::NotApplied))?;
                // A refresh is no attempt of its own.
                self.number -= 1;
                Ok(Step::Again(cleared))
            }
            Next::Again => {
                let asked = sent.answer.as_ref().and_then(|answer| answer.retry_after);
                let delay = retry::delay(self.number, asked, session.tools.random.as_ref());
                self.again(session, sent, delay)
            }
            Next::AgainAfterLimit => {
                // Without the penalty the next slot comes too early; the
                // portal then refuses once more, and nothing is lost.
                let _ = session.limiter.penalise();
                let asked = sent.answer.as_ref().and_then(|answer| answer.retry_after).unwrap_or_default();
                self.again(session, sent, asked)
            }
            Next::AgainAfterOperating => {
                let _ = session.operating.block(&principal_of(session), &self.name, None);
                self.again(session, sent, Duration::ZERO)
            }
        }
    }

    /// Takes the permission back and waits, or gives up when attempts, time
    /// or budget are used up.
    fn again(&mut self, session: &mut Session, sent: Sent, delay: Duration) -> Result<Step, Failure> {
        if self.number >= self.most || delay > patience(session) || !session.budget.try_spend() {
            return Err(self.give_up(session, sent));
        }
        let cleared = self.take_back(session, sent)?;
        wait(session, delay);
        Ok(Step::Again(cleared))
    }

    /// Turns an attempt that surely was not executed, or only read, back into
    /// a permission, and records that.
    fn take_back(&mut self, session: &Session, sent: Sent) -> Result<ClearedCall, Failure> {
        let why = why(&sent.ended);
        let status = sent.answer.as_ref().map(|answer| answer.status);
        // A call that the portal turned away was sent: exit 12 would deny that.
        let unrecorded = |error: StoreError| match status {
            None => Failure::from(error),
            Some(_) => Failure::new(Code::Temporary, format!("the portal turned the call away, and {error}"))
                .hint("Make room or fix the file, then try again")
                .sent(Outcome::NotApplied),
        };
        let cleared = sent.flight.land_unexecuted(&why).map_err(unrecorded)?;
        if self.writes {
            let outcome = if status.is_some() { Outcome::NotApplied } else { Outcome::NotSent };
            let end = End { outcome, status, error: Some(&why) };
            record::outcome(session, &self.name, &self.request_id, &end).map_err(unrecorded)?;
        }
        self.taken_back = Some(TakenBack { status, why });
        Ok(cleared)
    }

    /// Ends a call that could not make another attempt, for want of a token or
    /// of a slot: the attempt that was taken back is its last one.
    fn close(&mut self, session: &Session, failure: Failure) -> Failure {
        let Some(TakenBack { status, why }) = self.taken_back.take() else { return failure };
        let failure = if status.is_some() { failure.sent(Outcome::NotApplied) } else { failure };
        if self.writes {
            return failure;
        }
        let end = End { outcome: failure.outcome, status, error: Some(&why) };
        match record::read(session, &self.name, &self.labels(), &end) {
            Ok(()) => failure,
            Err(error) => failure.with("audit", error.to_string()),
        }
    }

    fn give_up(&mut self, session: &Session, sent: Sent) -> Failure {
        let why = why(&sent.ended);
        let status = sent.answer.as_ref().map(|answer| answer.status);
        let failure = match &sent.ended {
            Ended::Judged(Verdict::NotExecuted(obstacle)) => settle::obstacle_failure(obstacle, status.unwrap_or(0)),
            Ended::NotSent(why) => Failure::new(Code::Offline, format!("the portal cannot be reached: {why}"))
                .hint("Check the address and the network, then try again"),
            Ended::Judged(Verdict::Maybe(why)) | Ended::Lost(why) => {
                Failure::new(Code::Temporary, format!("the portal gave no usable answer: {why}"))
                    .hint("Try again")
                    .sent(Outcome::NotApplied)
            }
            Ended::TooLarge(why) => Failure::new(Code::AnswerTooLarge, format!("the portal gave {why}"))
                .hint("Ask for less with select and filter, or raise --max-answer, up to which memory may be used")
                .sent(Outcome::NotApplied),
            Ended::Judged(Verdict::Success | Verdict::Refused(_)) => Failure::new(Code::Internal, "an answer was taken for none"),
        };
        let sent_too_much = matches!(sent.ended, Ended::TooLarge(_));
        let end = End { outcome: failure.outcome, status, error: Some(&why) };
        let recorded = if self.writes {
            let landed = sent.flight.land_unexecuted(&why).map(drop);
            landed.and(record::outcome(session, &self.name, &self.request_id, &end))
        } else {
            record::read(session, &self.name, &self.labels(), &end)
        };
        let failure = match sent_too_much {
            true => failure,
            false => failure.with("retry", json!({"safe": true, "attempts": self.number})),
        };
        match (recorded, status) {
            (Err(error), _) => failure.with("audit", error.to_string()),
            (Ok(()), Some(status)) => failure.with("http_status", status),
            (Ok(()), None) => failure,
        }
    }

    fn unknown(&mut self, session: &Session, sent: Sent, why: &str) -> Failure {
        let status = sent.answer.as_ref().map(|answer| answer.status);
        let mut failure = settle::unknown(why).with("ledger", sent.flight.records().first().cloned().unwrap_or_default());
        if let Some(status) = status {
            failure = failure.with("http_status", status);
        }
        let settlements = sent.flight.risks().iter().map(|_| Some(crate::store::ledger::Settlement::Unknown(why.to_owned()))).collect();
        // Without the `U` line the record stays `D`, which means the same.
        let _ = sent.flight.settle(settlements);
        let end = End { outcome: Outcome::Unknown, status, error: Some(why) };
        match record::outcome(session, &self.name, &self.request_id, &end) {
            Ok(()) => failure,
            Err(error) => failure.with("audit", error.to_string()),
        }
    }

    /// Settles a call that has an answer.
    fn finish(&mut self, session: &Session, sent: Sent) -> Result<Completed, Failure> {
        let (Some(answer), Ended::Judged(verdict)) = (sent.answer, sent.ended) else {
            return Err(Failure::new(Code::Internal, "a finished call has no answer"));
        };
        let (settlements, outcome, failure) = match (sent.flight.request(), &verdict) {
            (Request::Batch(batch), Verdict::Success) => {
                let end = settle::batch_end(session, batch, sent.flight.risks(), &answer);
                (end.settlements, end.outcome, end.failure)
            }
            (Request::Batch(_) | Request::Single(_), _) => {
                let settle_one = |risk: &Risk| match risk {
                    Risk::Read => None,
                    Risk::Write | Risk::Destructive => {
                        Some(settle::settlement(&verdict, answer.status, || success(session, &answer.body, Part::Body)))
                    }
                };
                let settlements = sent.flight.risks().iter().map(settle_one).collect();
                let failure = match &verdict {
                    Verdict::Refused(error) => Some(settle::refused(error, answer.status)),
                    Verdict::Success | Verdict::NotExecuted(_) | Verdict::Maybe(_) => None,
                };
                let outcome = failure.as_ref().map_or(Outcome::Applied, |failure| failure.outcome);
                (settlements, outcome, failure)
            }
        };
        let settled = sent.flight.settle(settlements);
        session.budget.credit();
        let error = match &verdict {
            Verdict::Refused(error) => Some(error.code.as_str()),
            Verdict::Success | Verdict::NotExecuted(_) | Verdict::Maybe(_) => None,
        };
        let end = End { outcome, status: Some(answer.status), error };
        let mut warnings = Vec::new();
        let recorded = if self.writes {
            settled.and(record::outcome(session, &self.name, &self.request_id, &end))
        } else {
            record::read(session, &self.name, &self.labels(), &end).unwrap_or_else(|error| warnings.push(("audit", error.to_string())));
            Ok(())
        };
        let failure = failure.map(|failure| self.dress(session, failure));
        match (verdict, recorded, failure) {
            (Verdict::Success, Err(error), failure) => {
                let unrecorded = self.dress(session, unrecorded(&error));
                let failure = failure.filter(|failure| failure.code == Code::OutcomeUnknown).unwrap_or(unrecorded);
                Ok(Completed { changed: self.writes, ..complete(answer, warnings, Some(failure)) })
            }
            (Verdict::Success, Ok(()), failure) => Ok(Completed { changed: self.writes, ..complete(answer, warnings, failure) }),
            (_, recorded, failure) => {
                let failure = failure.unwrap_or_else(|| Failure::new(Code::Internal, "a refusal without a reason"));
                Err(match recorded {
                    Ok(()) => failure,
                    Err(error) => failure.with("audit", error.to_string()),
                })
            }
        }
    }

    fn dress(&self, session: &Session, failure: Failure) -> Failure {
        in_context(session, failure.with("method", self.name.as_str()).with("request_id", self.request_id.as_str()))
    }
}

/// Waits for the method's operating time and for a slot, within what is
/// left of the patience.
fn slot(session: &Session, request: &Request) -> Result<Slot, Failure> {
    let principal = principal_of(session);
    let nested = request.calls().map(|(_, call)| call.name.as_str());
    let mut methods: Vec<&str> = std::iter::once(request.wire_name()).chain(nested).collect();
    methods.sort_unstable();
    methods.dedup();
    let mut longest = Duration::ZERO;
    for method in methods {
        longest = longest.max(session.operating.before(&principal, method, patience(session))?);
    }
    wait(session, longest);
    let before = patience(session);
    let slot = session.limiter.take(before)?;
    // The wait for the limiter's lock is spent already.
    patience::spend(slot.waited().saturating_sub(before.saturating_sub(patience(session))));
    Ok(slot)
}

/// Returns what is left of the patience.
fn patience(session: &Session) -> Duration {
    patience::bound(session.settings.limits.max_wait)
}

fn wait(session: &Session, duration: Duration) {
    if !duration.is_zero() {
        session.tools.clock.sleep(duration);
        patience::spend(duration);
    }
}

fn principal_of(session: &Session) -> String {
    session.authorizer.principal().map_or_else(|| "unknown".to_owned(), |principal| principal.to_string())
}

fn why(ended: &Ended) -> String {
    match ended {
        Ended::NotSent(why) | Ended::Lost(why) | Ended::TooLarge(why) | Ended::Judged(Verdict::Maybe(why)) => why.clone(),
        Ended::Judged(Verdict::NotExecuted(obstacle)) => match obstacle {
            Obstacle::QueryLimit => "QUERY_LIMIT_EXCEEDED".to_owned(),
            Obstacle::OperatingLimit => "OPERATION_TIME_LIMIT".to_owned(),
            Obstacle::ExpiredToken => "expired_token".to_owned(),
            Obstacle::Moved(_) => "portal_moved".to_owned(),
            Obstacle::Auth(error) | Obstacle::MethodNotFound(error) | Obstacle::Overload(error) => error.code.clone(),
        },
        Ended::Judged(Verdict::Success | Verdict::Refused(_)) => String::new(),
    }
}

fn complete(answer: Answer, mut warnings: Vec<(&'static str, String)>, failure: Option<Failure>) -> Completed {
    let reading = Reading::of(&answer.body);
    if let Some(next) = reading.as_ref().and_then(|reading| reading.next) {
        let total = reading.as_ref().and_then(|reading| reading.total).map_or_else(String::new, |total| format!(" of {total}"));
        warnings.push(("more_rows", format!("this is one page{total}; the next one begins at start={next}")));
    }
    let note = answer.replayed_by_portal.then(|| json!({"replayed": true, "by": "portal"}));
    Completed { body: answer.body, note, warnings, changed: false, failure }
}
