//! Bitrix24's answers: what stands in them. Whether the call ran is for
//! `judge.rs` to say.

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
    /// How it is written.
    pub form: Form,
}

/// The forms of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A code beside a description (v2).
    Code,
    /// An object with both (v3).
    Object,
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
    /// The error, if there is one that can be read.
    pub error: Option<ServerError>,
    /// What makes it impossible to say whether this is success or refusal.
    pub contradiction: Option<&'static str>,
    /// The result's text.
    pub result: Option<&'a RawValue>,
    /// Offset of the next page.
    pub next: Option<u64>,
    /// Rows that match.
    pub total: Option<u64>,
    /// Timing.
    pub time: Option<Time>,
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

/// The error of REST 3.0; a key that stands there twice makes it unreadable.
#[derive(Deserialize)]
struct ErrorV3 {
    code: String,
    #[serde(default)]
    message: String,
}

impl<'a> Reading<'a> {
    /// Reads an answer; `None` when it is not a JSON object, or one in which a
    /// key stands twice.
    #[must_use]
    pub fn of(body: &'a [u8]) -> Option<Reading<'a>> {
        let envelope: Envelope = serde_json::from_str(std::str::from_utf8(body).ok()?).ok()?;
        let number = |raw: Option<&RawValue>| raw.and_then(|raw| raw.get().trim_matches('"').parse().ok());
        let error = envelope.error.map(|raw| server_error(raw, envelope.error_description)).transpose();
        let is_described = envelope.error_description.is_some_and(|raw| !text(raw).is_empty());
        let contradiction = match (&error, envelope.result) {
            (Err(why), _) => Some(*why),
            (Ok(Some(_)), Some(_)) => Some("an answer with both a result and an error"),
            (Ok(None), Some(_)) if is_described => Some("an answer with both a result and the description of an error"),
            (Ok(_), _) => None,
        };
        Some(Reading {
            error: error.ok().flatten(),
            contradiction,
            result: envelope.result,
            next: number(envelope.next),
            total: number(envelope.total),
            time: envelope.time.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        })
    }
}

/// Reads both forms of an error: a code with a description (v2; some modules
/// give a number), an object with code and message (v3). The type decides, not
/// the address. Anything else says neither what failed nor that it did.
pub fn server_error(error: &RawValue, description: Option<&RawValue>) -> Result<ServerError, &'static str> {
    match error.get().as_bytes().first() {
        Some(b'{') => match (serde_json::from_str::<ErrorV3>(error.get()), description) {
            (Ok(error), None) if !error.code.is_empty() => Ok(ServerError { code: error.code, text: error.message, form: Form::Object }),
            (Ok(_), Some(_)) => Err("an error in the forms of both generations"),
            (Ok(_) | Err(_), _) => Err("an error that cannot be read"),
        },
        Some(b'"' | b'-' | b'0'..=b'9') => {
            Ok(ServerError { code: text(error), text: description.map(text).unwrap_or_default(), form: Form::Code })
        }
        _ => Err("an error that cannot be read"),
    }
}

/// Returns a text, or what stands there instead of one.
fn text(raw: &RawValue) -> String {
    serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().trim_matches('"').to_owned())
}

/// Returns how long until a method's operating time is freed, by the server's
/// own clock pair.
#[must_use]
pub fn operating_reset_in(time: &Time) -> Option<f64> {
    Some((time.operating_reset_at? - time.finish?).max(0.0))
}
