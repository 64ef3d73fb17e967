//! What a method answers, and the JSON envelopes that carry it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// The generation of the API that an address asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/rest/…`
    V2,
    /// `/rest/api/…`
    V3,
}

/// What a method gives back when it ran.
#[derive(Debug)]
pub(super) struct Success {
    pub(super) result: Value,
    pub(super) total: Option<usize>,
    pub(super) next: Option<usize>,
    /// The result is the whole document (`rest.documentation.openapi`).
    pub(super) bare: bool,
}

impl Success {
    pub(super) fn new(result: Value) -> Success {
        Success { result, total: None, next: None, bare: false }
    }
}

/// Why a call was refused; nothing was changed.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// Field and message, for the third generation's parameter errors.
    pub(super) validation: Vec<(String, String)>,
    pub(super) api: Api,
}

impl Refusal {
    /// Returns a refusal in the classic envelope.
    pub(super) fn v2(status: u16, code: &str, message: impl Into<String>) -> Refusal {
        Refusal { status, code: code.to_owned(), message: message.into(), validation: Vec::new(), api: Api::V2 }
    }

    /// Returns a refusal in the envelope of the third generation; `name` is
    /// the exception without the common prefix.
    pub(super) fn v3(status: u16, name: &str, message: impl Into<String>) -> Refusal {
        Refusal { status, code: format!("BITRIX_REST_V3_EXCEPTION_{name}"), message: message.into(), validation: Vec::new(), api: Api::V3 }
    }

    /// Returns the refusal of one wrong parameter of the third generation.
    pub(super) fn field(field: &str, message: impl Into<String>) -> Refusal {
        let mut refusal = Refusal::v3(400, "VALIDATION_REQUESTVALIDATIONEXCEPTION", "Error during request object validation");
        refusal.validation.push((field.to_owned(), message.into()));
        refusal
    }

    /// Returns the error document.
    pub(super) fn document(&self) -> Value {
        match self.api {
            Api::V2 => json!({"error": self.code, "error_description": self.message}),
            Api::V3 => {
                let mut error = Map::new();
                error.insert("code".to_owned(), json!(self.code));
                error.insert("message".to_owned(), json!(self.message));
                if !self.validation.is_empty() {
                    let rows = self.validation.iter().map(|(field, message)| json!({"message": message, "field": field})).collect();
                    error.insert("validation".to_owned(), Value::Array(rows));
                }
                json!({"error": error})
            }
        }
    }
}

/// What became of a call.
pub(super) type Answer = Result<Success, Refusal>;

/// The accumulated operating time of a method, as `time` shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct OperatingTime {
    pub(super) seconds: f64,
    pub(super) reset_at: i64,
}

/// Returns the document of a success.
pub(super) fn success_document(success: Success, time: Value) -> Value {
    if success.bare {
        return success.result;
    }
    let mut document = Map::new();
    document.insert("result".to_owned(), success.result);
    if let Some(next) = success.next {
        document.insert("next".to_owned(), json!(next));
    }
    if let Some(total) = success.total {
        document.insert("total".to_owned(), json!(total));
    }
    document.insert("time".to_owned(), time);
    Value::Object(document)
}

/// Returns the `time` object. The operating counters are there only when the
/// portal counts them, as on self-hosted portals.
pub(super) fn time_object(start: DateTime<Utc>, finish: DateTime<Utc>, operating: Option<OperatingTime>) -> Value {
    let finish = finish.max(start);
    let duration = seconds(finish) - seconds(start);
    let mut time = Map::new();
    time.insert("start".to_owned(), json!(seconds(start)));
    time.insert("finish".to_owned(), json!(seconds(finish)));
    time.insert("duration".to_owned(), json!(duration));
    time.insert("processing".to_owned(), json!(duration));
    time.insert("date_start".to_owned(), json!(stamp(start)));
    time.insert("date_finish".to_owned(), json!(stamp(finish)));
    if let Some(operating) = operating {
        time.insert("operating_reset_at".to_owned(), json!(operating.reset_at));
        time.insert("operating".to_owned(), json!(operating.seconds));
    }
    Value::Object(time)
}

/// Returns a time as the portal writes it: server time with its offset.
pub(super) fn stamp(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S+00:00").to_string()
}

#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit a double until the year 2255")]
fn seconds(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}
