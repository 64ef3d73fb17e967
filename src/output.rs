//! Everything that b24 prints: data on standard output, talk on standard
//! error.

use crate::error::{Exit, Failure, Outcome};
use crate::host::Host;
use crate::json::{self, Layout, Print};
use crate::secret::Redactor;
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter, Write};

/// How errors are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// One JSON object on the last line.
    Json,
    /// A few lines for people.
    Text,
}

/// Returns the error object as one line.
#[must_use]
pub fn error_object(failure: &Failure) -> String {
    let mut object = Map::new();
    object.insert("schema".to_owned(), Value::from("b24.error/1"));
    object.insert("kind".to_owned(), Value::from(failure.code.text()));
    object.insert("exit".to_owned(), Value::from(failure.code.exit().status()));
    object.insert("message".to_owned(), Value::from(failure.message.as_str()));
    object.insert("sent".to_owned(), Value::from(failure.sent));
    object.insert("outcome".to_owned(), Value::from(failure.outcome.text()));
    for (key, value) in &failure.details {
        object.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if let Some(hint) = &failure.hint {
        object.insert("hint".to_owned(), Value::from(hint.as_str()));
    }
    json::escape_deceptive(&Value::Object(object).to_string())
}

/// Prints a failure and returns the exit status.
pub fn fail(host: &mut Host, failure: &Failure, format: ErrorFormat, redactor: &Redactor) -> u8 {
    let text = match format {
        ErrorFormat::Json => error_object(failure),
        ErrorFormat::Text => error_text(failure),
    };
    let _ = writeln!(host.err, "{}", redactor.redact_text(&text));
    let _ = host.err.flush();
    status(host, failure.code.exit(), failure.sent)
}

fn error_text(failure: &Failure) -> String {
    let mut text = format!("error: {}", visible(&failure.message));
    let mut add = |label: &str, value: &str| text.push_str(&format_args!("\n  {label}: {}", visible(value)).to_string());
    add("kind", failure.code.text());
    if failure.sent || failure.outcome != Outcome::NotSent {
        add("outcome", failure.outcome.text());
    }
    for (key, value) in &failure.details {
        match value {
            Value::String(value) => add(key, value),
            other => add(key, &other.to_string()),
        }
    }
    if let Some(hint) = &failure.hint {
        add("hint", hint);
    }
    text
}

/// Makes control characters of remote text visible: a title must not move the
/// cursor of a terminal.
fn visible(text: &str) -> String {
    let escaped = json::escape_deceptive(text);
    escaped.chars().map(|c| if c.is_control() && c != '\n' { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// Returns the exit status under `B24_EXIT_CODES`.
#[must_use]
pub fn status(host: &Host, exit: Exit, sent: bool) -> u8 {
    if host.env.get("B24_EXIT_CODES") != Some("simple") {
        return exit.status();
    }
    match exit {
        Exit::Ok => 0,
        Exit::Usage | Exit::PolicyDenied | Exit::Conflict | Exit::Confirmation | Exit::LocalState => 2,
        Exit::Auth | Exit::NotFound if !sent => 2,
        Exit::Auth
        | Exit::NotFound
        | Exit::ApiError
        | Exit::Changes
        | Exit::Partial
        | Exit::Temporary
        | Exit::OutcomeUnknown
        | Exit::ExecutedUnrecorded
        | Exit::Internal
        | Exit::Interrupted
        | Exit::Terminated => 1,
    }
}

/// Prints a note for people or, where errors are JSON, one JSON line.
pub fn note(host: &mut Host, level: &str, code: &str, text: &str, format: ErrorFormat) {
    note_to(&mut host.err, (level, code, text), format);
}

/// The same where the host's streams are in several hands.
pub fn note_to(err: &mut dyn Write, (level, code, text): (&str, &str, &str), format: ErrorFormat) {
    let line = match format {
        ErrorFormat::Json => json::escape_deceptive(&json!({"level": level, "code": code, "message": text}).to_string()),
        ErrorFormat::Text => format!("{level}: {}", visible(text)),
    };
    let _ = writeln!(err, "{line}");
}

/// Prints Bitrix24's body: the same tokens, laid out for terminal or pipe.
/// Returns how many secret-looking values were masked.
pub fn body(host: &mut Host, body: &[u8], note: Option<&Value>, mask: bool) -> io::Result<usize> {
    let layout = layout(host);
    let mut out = BufWriter::new(&mut host.out);
    let masked = json::write_document(body, Print { layout, note, mask }, &mut out)?;
    out.flush()?;
    Ok(masked)
}

/// Prints an object of b24's own.
pub fn value(host: &mut Host, value: &Value) -> io::Result<()> {
    body(host, value.to_string().as_bytes(), None, false).map(drop)
}

/// Prints text.
pub fn text(host: &mut Host, text: &str) -> io::Result<()> {
    writeln!(host.out, "{}", text.trim_end())?;
    host.out.flush()
}

fn layout(host: &Host) -> Layout {
    if host.out_is_terminal { Layout::Pretty } else { Layout::Compact }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn the_error_object_is_one_line_and_begins_with_what_counts() {
        let failure = Failure::new(Code::Usage, "a\nb\u{202e}").hint("c").with("method", "m");
        assert_eq!(
            error_object(&failure),
            "{\"schema\":\"b24.error/1\",\"kind\":\"usage\",\"exit\":2,\"message\":\"a\\nb\\u202e\",\"sent\":false,\"outcome\":\"not_sent\",\"method\":\"m\",\"hint\":\"c\"}"
        );
    }

    #[test]
    fn remote_text_cannot_move_the_cursor() {
        assert_eq!(visible("a\u{1b}[2J\u{9b}b"), "a\\u{1b}[2J\\u009bb");
    }
}
