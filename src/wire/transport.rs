//! The only sender of method calls: it takes a [`Departure`] and says what
//! came of it.

use super::answer::{Answer, Form, Reading, ServerError};
use super::auth::{Authorized, Authorizer};
use super::batch_answer::BatchReading;
use super::client::{self, Failed, Most};
use super::judge::{Verdict, judge};
use super::retry::Ended;
use crate::call::{Request, ShapeError};
use crate::catalog::Api;
use crate::gate::{Departure, Flight};
use crate::ids::Portal;
use crate::risk::Risk;
use crate::secret::Redactor;
use crate::settings::Limits;
use serde_json::{Map, Value};
use std::path::Path;

/// Sends to one portal.
pub struct Transport {
    http: client::Http,
    most: u64,
}

/// What came of one attempt.
#[must_use = "settle it"]
pub struct Sent {
    /// The spent permission, to be settled or, when it surely was not
    /// executed, taken back.
    pub flight: Flight,
    /// The answer, if one came.
    pub answer: Option<Answer>,
    /// What it means.
    pub ended: Ended,
}

impl Transport {
    /// Prepares to send to a portal.
    pub fn new(portal: &Portal, limits: &Limits, ca_file: Option<&Path>) -> Result<Transport, String> {
        client::build(portal, limits.timeout, Most(limits.max_answer), ca_file).map(|http| Transport { http, most: limits.max_answer })
    }

    /// Sends one request. A credential that the portal echoes comes no further
    /// than here: what is read, shortened and kept afterwards is free of it.
    pub fn send(&self, departure: Departure, authorizer: &Authorizer, redactor: &Redactor) -> Sent {
        let call = departure.call();
        let request_id = departure.request_id().to_owned();
        let idempotency = call.idempotency_header();
        let prepared = prepare(&departure, authorizer);
        let flight = departure.take_off();
        let (authorized, body) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Sent { flight, answer: None, ended: Ended::NotSent(error.to_string()) },
        };
        let mut headers = vec![("Content-Type", "application/json"), ("X-Request-ID", request_id.as_str())];
        let bearer = authorized.bearer.as_ref().map(|token| format!("Bearer {}", token.expose()));
        if let Some(bearer) = &bearer {
            headers.push(("Authorization", bearer));
        }
        if let Some(key) = &idempotency {
            headers.push(("Idempotency-Key", key));
        }
        crate::crash::point("transport.before_send");
        let answer = client::post(&self.http, authorized.url.expose(), &headers, body);
        crate::crash::point("transport.after_answer");
        match answer {
            Ok(mut answer) => {
                if redactor.finds(&answer.body) {
                    answer.body = redactor.redact(&answer.body).into_owned();
                }
                answer.location = answer.location.map(|host| redactor.redact_text(&host));
                let verdict = verdict(&flight, &answer);
                Sent { flight, answer: Some(answer), ended: Ended::Judged(verdict) }
            }
            Err(Failed::TooLarge(mut answer)) => {
                answer.location = answer.location.map(|host| redactor.redact_text(&host));
                let ended = too_large(&answer, self.most);
                // Its head is no answer to anybody.
                answer.body = Vec::new();
                Sent { flight, answer: Some(*answer), ended }
            }
            Err(Failed::NotSent(why)) => Sent { flight, answer: None, ended: Ended::NotSent(why) },
            Err(Failed::Maybe(why)) => Sent { flight, answer: None, ended: Ended::Lost(why) },
        }
    }
}

fn prepare(departure: &Departure, authorizer: &Authorizer) -> Result<(Authorized, Vec<u8>), ShapeError> {
    let request = departure.call().request();
    let authorized = authorizer.authorize(request.wire_name(), request.api());
    let mut body = request.body()?;
    if let Some(token) = &authorized.body_token {
        let mut fields = match body {
            Value::Object(fields) => fields,
            // Positional parameters make room for the token as numeric keys.
            Value::Array(items) => items.into_iter().enumerate().map(|(index, item)| (index.to_string(), item)).collect(),
            _ => Map::new(),
        };
        fields.insert("auth".to_owned(), Value::from(token.expose()));
        body = Value::Object(fields);
    }
    Ok((authorized, serde_json::to_vec(&body).unwrap_or_default()))
}

/// An answer that was not read to its end can only be known as a redirect,
/// whose page says nothing; all else may hold anything further on.
fn too_large(answer: &Answer, most: u64) -> Ended {
    match judge(answer, None) {
        moved @ Verdict::NotExecuted(_) => Ended::Judged(moved),
        Verdict::Success | Verdict::Refused(_) | Verdict::Maybe(_) => {
            let most = crate::settings::size::shown(most);
            Ended::TooLarge(format!("an answer of more than {most}, with HTTP status {}", answer.status))
        }
    }
}

/// Judges an answer. The `OpenAPI` document of REST 3.0 is the one success
/// without a `result` (b24restdocs: api-reference/rest-v3.md).
fn verdict(flight: &Flight, answer: &Answer) -> Verdict {
    let reading = Reading::of(&answer.body);
    let request = flight.request();
    let is_document = answer.status == 200
        && request.api() == Api::V3
        && ["documentation", "rest.documentation.openapi"].contains(&request.wire_name())
        && reading.as_ref().is_some_and(|reading| reading.error.is_none() && reading.contradiction.is_none());
    if is_document {
        return Verdict::Success;
    }
    let judged = judge(answer, reading.as_ref());
    let (result, error) = reading.map_or((None, None), |reading| (reading.result, reading.error));
    let verdict = match (judged, request, result) {
        (Verdict::Success, Request::Batch(batch), Some(result)) => match BatchReading::of(batch, result) {
            Ok(_) => Verdict::Success,
            Err(why) => Verdict::Maybe(why.to_owned()),
        },
        (verdict, _, _) => verdict,
    };
    let is_writing_batch_v3 =
        matches!(request, Request::Batch(_)) && request.api() == Api::V3 && flight.risks().iter().any(|risk| *risk > Risk::Read);
    if is_writing_batch_v3 { doubt(verdict, error.as_ref()) } else { verdict }
}

/// An error of one command of a v3 batch ends the batch; whether the commands
/// before it are rolled back is not documented. Only errors that the batch
/// itself is turned away with, which keep the form of v2, prove that nothing
/// ran.
fn doubt(verdict: Verdict, error: Option<&ServerError>) -> Verdict {
    let is_of_a_command =
        |error: &ServerError| error.form == Form::Object || error.code.to_ascii_uppercase().starts_with("BITRIX_REST_V3_");
    match (verdict, error) {
        (Verdict::Refused(_), Some(error)) => of_a_command(error),
        (Verdict::NotExecuted(_), Some(error)) if is_of_a_command(error) => of_a_command(error),
        (other, _) => other,
    }
}

fn of_a_command(error: &ServerError) -> Verdict {
    let code = crate::method::shown(&error.code);
    Verdict::Maybe(format!("a command of the v3 batch was refused ({code}); earlier ones may have run"))
}
