//! Bitrix24's answers: what they say, and above all whether the call ran.
//!
//! The question is "did it run", never "is it temporary". It is decided by the
//! error code from a closed table; an unknown code with a server-error status,
//! an answer that is no JSON, and one that is cut short all count as "maybe".
//! Sources: b24restdocs `limits.md`, `_includes/system-errors.md`,
//! `api-reference/rest-v3.md`, `settings/oauth/*`.

use crate::error::Code;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, as it came.
    pub body: Vec<u8>,
    /// `Retry-After`, when it gives seconds.
    pub retry_after: Option<Duration>,
    /// Host of the `Location` header.
    pub location: Option<String>,
    /// `Idempotent-Replayed: true`: REST v3 answered from its own memory.
    pub replayed_by_portal: bool,
}

/// The server's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The code, as the server spells it.
    pub code: String,
    /// The text; localised, may hold HTML.
    pub text: String,
}

/// Timing of an answer.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Time {
    /// Server time at the end, in seconds.
    pub finish: Option<f64>,
    /// Accumulated seconds of this method and credential.
    pub operating: Option<f64>,
    /// When the oldest of them are forgotten, in server time.
    pub operating_reset_at: Option<f64>,
}

/// The parts of an answer that b24 looks at; the rest stays bytes.
#[derive(Debug, Default)]
pub struct Reading<'a> {
    /// The error, if there is one.
    pub error: Option<ServerError>,
    /// The result's text.
    pub result: Option<&'a RawValue>,
    /// Offset of the next page.
    pub next: Option<u64>,
    /// Rows that match.
    pub total: Option<u64>,
    /// Timing.
    pub time: Option<Time>,
}

/// Whether a call ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It ran and succeeded.
    Success,
    /// It surely did not run; what is wrong decides what to do next.
    NotExecuted(Obstacle),
    /// The method itself refused.
    Refused(ServerError),
    /// Nobody knows.
    Maybe(String),
}

/// Why a call was turned away before its method ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// 503 `QUERY_LIMIT_EXCEEDED`, or a limit code with 429.
    QueryLimit,
    /// 429 `OPERATION_TIME_LIMIT`.
    OperatingLimit,
    /// The access token is too old.
    ExpiredToken,
    /// The portal has another address.
    Moved(Option<String>),
    /// Credential, rights, plan or approval.
    Auth(ServerError),
    /// No such method.
    MethodNotFound(ServerError),
    /// A block by Bitrix24's staff.
    Overload(ServerError),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    error_description: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    next: Option<&'a RawValue>,
    #[serde(borrow)]
    total: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
}

/// `null` is a result; only a missing key is none.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[derive(Deserialize)]
struct ErrorV3 {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Reading<'a> {
    /// Reads an answer; `None` when it is not a JSON object.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Option<Reading<'a>> {
        let envelope: Envelope = serde_json::from_slice(body).ok()?;
        let number = |raw: Option<&RawValue>| raw.and_then(|raw| raw.get().trim_matches('"').parse().ok());
        Some(Reading {
            error: envelope.error.map(|raw| server_error(raw, envelope.error_description)),
            result: envelope.result,
            next: number(envelope.next),
            total: number(envelope.total),
            time: envelope.time.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        })
    }
}

/// Reads both forms of an error: a string with a description (v2), an object
/// with code and message (v3). The type decides, not the address.
#[must_use]
pub fn server_error(error: &RawValue, description: Option<&RawValue>) -> ServerError {
    if let Ok(error) = serde_json::from_str::<ErrorV3>(error.get()) {
        return ServerError { code: error.code, text: error.message };
    }
    let text = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().trim_matches('"').to_owned());
    ServerError { code: text(error), text: description.map(text).unwrap_or_default() }
}

const LIMIT: &[&str] = &["QUERY_LIMIT_EXCEEDED"];
const OPERATING: &[&str] = &["OPERATION_TIME_LIMIT"];
const EXPIRED: &[&str] = &["EXPIRED_TOKEN"];
const OVERLOAD: &[&str] = &["OVERLOAD_LIMIT"];
const NO_METHOD: &[&str] =
    &["ERROR_METHOD_NOT_FOUND", "METHOD_NOT_FOUND", "BITRIX_REST_V3_EXCEPTION_METHODNOTFOUNDEXCEPTION", "ERROR_BATCH_METHOD_NOT_ALLOWED"];
const UNTRUSTED: &[&str] = &[
    "INTERNAL_SERVER_ERROR",
    "ERROR_UNEXPECTED_ANSWER",
    "BITRIX_REST_V3_EXCEPTION_INTERNAL_INTERNALEXCEPTION",
    // Our own key with another body: an earlier attempt ran (422).
    "BITRIX_REST_V3_EXCEPTION_IDEMPOTENCYKEYREUSEDEXCEPTION",
];
const AUTH: &[&str] = &[
    "ACCESS_DENIED",
    "ACCESS_ERROR",
    "ALLOWED_ONLY_INTRANET_USER",
    "APPLICATION_NOT_FOUND",
    "AUTHORIZATION_ERROR",
    "AUTHORIZE_ERROR",
    "BITRIX_REST_V3_EXCEPTION_ACCESSDENIEDEXCEPTION",
    "BITRIX_REST_V3_EXCEPTION_INSUFFICIENTSCOPEEXCEPTION",
    "ERROR_OAUTH",
    "INSUFFICIENT_SCOPE",
    "INVALID_CREDENTIALS",
    "INVALID_GRANT",
    "INVALID_REQUEST",
    "INVALID_SCOPE",
    "INVALID_TOKEN",
    "METHOD_CONFIRM_DENIED",
    "METHOD_CONFIRM_WAITING",
    "NOT_INSTALLED",
    "NO_AUTH_FOUND",
    "PAYMENT_REQUIRED",
    "PORTAL_DELETED",
    "USER_ACCESS_ERROR",
    "VERIFICATION_NEEDED",
    "WRONG_AUTH_TYPE",
];
const NOT_FOUND: &[&str] = &[
    "BITRIX_REST_V3_EXCEPTION_ENTITYNOTFOUNDEXCEPTION",
    "BITRIX_REST_V3_REALISATION_EXCEPTION_FIELDNOTFOUNDEXCEPTION",
    "ERROR_NOT_FOUND",
    "NOT_FOUND",
];

/// Texts by which v2 says "no such object" when its code is empty. The only
/// place where a text is looked at, and only to choose between two exit codes.
const NOT_FOUND_TEXTS: &[&str] = &["not found", "не найден"];

fn is_one_of(code: &str, table: &[&str]) -> bool {
    table.iter().any(|known| known.eq_ignore_ascii_case(code))
}

/// Says whether the call ran, from status and reading.
#[must_use]
pub fn judge(answer: &Answer, reading: Option<&Reading>) -> Verdict {
    if (300..400).contains(&answer.status) {
        return Verdict::NotExecuted(Obstacle::Moved(answer.location.clone()));
    }
    let Some(reading) = reading else {
        let what = if answer.body.is_empty() { "an empty answer" } else { "an answer that is not JSON" };
        return Verdict::Maybe(format!("{what} with HTTP status {}", answer.status));
    };
    match &reading.error {
        Some(error) => judge_error(error, answer.status),
        None if (200..300).contains(&answer.status) && reading.result.is_some() => Verdict::Success,
        None => Verdict::Maybe(format!("an answer without a result, with HTTP status {}", answer.status)),
    }
}

/// Says whether a call ran, from its error; `status` is that of the whole
/// answer, or 400 for a command inside a batch.
#[must_use]
pub fn judge_error(error: &ServerError, status: u16) -> Verdict {
    let code = error.code.as_str();
    if is_one_of(code, LIMIT) {
        Verdict::NotExecuted(Obstacle::QueryLimit)
    } else if is_one_of(code, OPERATING) {
        Verdict::NotExecuted(Obstacle::OperatingLimit)
    } else if is_one_of(code, EXPIRED) {
        Verdict::NotExecuted(Obstacle::ExpiredToken)
    } else if is_one_of(code, OVERLOAD) {
        Verdict::NotExecuted(Obstacle::Overload(error.clone()))
    } else if is_one_of(code, NO_METHOD) {
        Verdict::NotExecuted(Obstacle::MethodNotFound(error.clone()))
    } else if is_one_of(code, AUTH) {
        Verdict::NotExecuted(Obstacle::Auth(error.clone()))
    } else if is_one_of(code, UNTRUSTED) || status >= 500 || status == 408 || status == 429 {
        Verdict::Maybe(format!("the error {} with HTTP status {status}", crate::method::shown(code)))
    } else {
        Verdict::Refused(error.clone())
    }
}

/// Returns the code of the error object for a refusal by the method.
#[must_use]
pub fn refusal_code(error: &ServerError) -> Code {
    let text = error.text.to_lowercase();
    let says_not_found = error.code.is_empty() && NOT_FOUND_TEXTS.iter().any(|known| text.contains(known));
    if is_one_of(&error.code, NOT_FOUND) || says_not_found { Code::NotFound } else { Code::ApiError }
}

/// Returns how long until a method's operating time is freed, by the server's
/// own clock pair.
#[must_use]
pub fn operating_reset_in(time: &Time) -> Option<f64> {
    Some((time.operating_reset_at? - time.finish?).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, body: &str) -> Verdict {
        let answer = Answer { status, body: body.into(), retry_after: None, location: None, replayed_by_portal: false };
        judge(&answer, Reading::of(body.as_bytes()).as_ref())
    }

    #[test]
    fn the_code_decides_not_the_status() {
        use Obstacle::{ExpiredToken, OperatingLimit, QueryLimit};
        for (status, body, expected) in [
            (503, r#"{"error":"QUERY_LIMIT_EXCEEDED"}"#, Verdict::NotExecuted(QueryLimit)),
            (429, r#"{"error":"query_limit_exceeded"}"#, Verdict::NotExecuted(QueryLimit)),
            (429, r#"{"error":"OPERATION_TIME_LIMIT"}"#, Verdict::NotExecuted(OperatingLimit)),
            (401, r#"{"error":"expired_token"}"#, Verdict::NotExecuted(ExpiredToken)),
            (200, r#"{"result":null}"#, Verdict::Success),
            (200, r#"{"result":[]}"#, Verdict::Success),
        ] {
            assert_eq!(verdict(status, body), expected, "{body}");
        }
        assert!(matches!(verdict(503, r#"{"error":"OVERLOAD_LIMIT"}"#), Verdict::NotExecuted(Obstacle::Overload(_))));
        assert!(matches!(verdict(403, r#"{"error":"insufficient_scope"}"#), Verdict::NotExecuted(Obstacle::Auth(_))));
        assert!(matches!(verdict(302, "<html>"), Verdict::NotExecuted(Obstacle::Moved(_))));
    }

    #[test]
    fn what_is_not_certain_is_maybe() {
        for (status, body) in [
            (200, ""),
            (200, "<html>"),
            (200, "{\"result\":tr"),
            (200, "{}"),
            (200, "[]"),
            (502, "<html>"),
            (500, "{\"error\":\"X\"}"),
            (500, "{\"error\":\"INTERNAL_SERVER_ERROR\"}"),
            (200, "{\"error\":\"ERROR_UNEXPECTED_ANSWER\"}"),
            (429, "{\"error\":\"X\"}"),
            (503, "{\"error\":\"\"}"),
            (408, "{\"error\":\"X\"}"),
            (500, "{\"result\":1}"),
            (422, "{\"error\":{\"code\":\"BITRIX_REST_V3_EXCEPTION_IDEMPOTENCYKEYREUSEDEXCEPTION\",\"message\":\"\"}}"),
        ] {
            assert!(matches!(verdict(status, body), Verdict::Maybe(_)), "{status} {body}");
        }
    }

    #[test]
    fn a_missing_object_is_told_by_code_or_by_text_without_code() {
        let error = |code: &str, text: &str| ServerError { code: code.to_owned(), text: text.to_owned() };
        assert_eq!(refusal_code(&error("", "Not found")), Code::NotFound);
        assert_eq!(refusal_code(&error("X", "Not found")), Code::ApiError);
        assert_eq!(refusal_code(&error("NOT_FOUND", "")), Code::NotFound);
        assert_eq!(verdict(400, r#"{"error":{"code":"A","message":"b"}}"#), Verdict::Refused(error("A", "b")));
    }

    #[test]
    fn a_lone_surrogate_breaks_nothing() {
        assert_eq!(verdict(200, r#"{"result":{"TITLE":"\ud800"}}"#), Verdict::Success);
        assert!(matches!(verdict(400, r#"{"error":"X","error_description":"\ud800"}"#), Verdict::Refused(_)));
    }
}
