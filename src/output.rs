//! Everything that b24 prints: data on standard output, talk on standard
//! error.
//!
//! What is printed may hold what a portal, an agent or a stranger wrote, so
//! every way out of here shows characters that have no visible form as escapes
//! (see [`json::is_unseen`]), and nothing else writes to the streams
//! (`tidy::everything_is_printed_in_few_places`).

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

/// Characters of one fact that a person is shown. Where errors are JSON,
/// nothing is cut.
const WIDTH: usize = 400;

/// Facts of one list that a person is shown.
const FACTS: usize = 30;

/// One line a fact: a text with line ends of its own cannot pretend to be
/// another fact.
fn error_text(failure: &Failure) -> String {
    let mut text = format!("error: {}", visible(&failure.message));
    let mut add = |label: &str, value: &str| text.push_str(&format_args!("\n  {}: {}", visible(label), visible(value)).to_string());
    add("kind", failure.code.text());
    if failure.sent || failure.outcome != Outcome::NotSent {
        add("outcome", failure.outcome.text());
    }
    for (key, value) in &failure.details {
        match value {
            Value::Array(items) if items.iter().all(|item| item.is_object() || item.is_string()) => {
                items.iter().take(FACTS).for_each(|item| add(key, &plain(item)));
                if items.len() > FACTS {
                    add(key, &format!("… {} more", items.len() - FACTS));
                }
            }
            other => add(key, &plain(other)),
        }
    }
    if let Some(hint) = &failure.hint {
        add("hint", hint);
    }
    text
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns a text as one line that shows every character, or says how many it
/// does not show.
fn visible(text: &str) -> String {
    let shown: String = text.chars().take(WIDTH).collect();
    let line = json::escape_deceptive(&shown);
    match text.chars().count() {
        0..=WIDTH => line,
        count => format!("{line} … {} more characters", count - WIDTH),
    }
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
    crate::crash::point("output.before_print");
    let mut out = BufWriter::new(&mut host.out);
    let masked = json::write_document(body, Print { layout, note, mask }, &mut out)?;
    out.flush()?;
    Ok(masked)
}

/// Prints an object of b24's own.
pub fn value(host: &mut Host, value: &Value) -> io::Result<()> {
    body(host, value.to_string().as_bytes(), None, false).map(drop)
}

/// Prints text of several lines, or one line for another program.
pub fn text(host: &mut Host, text: &str) -> io::Result<()> {
    crate::crash::point("output.before_print");
    writeln!(host.out, "{}", json::escape_deceptive_lines(text.trim_end()))?;
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
        assert_eq!(visible("a\u{1b}[2J\u{9b}b"), "a\\u001b[2J\\u009bb");
    }

    #[test]
    fn a_fact_is_one_line_of_limited_length() {
        let failure = Failure::new(Code::Usage, "a\n  hint: b\r").with("text", "x".repeat(420)).with("fields", json!(["c\nd", {"e": 1}]));
        assert_eq!(
            error_text(&failure),
            format!(
                "error: a\\u000a  hint: b\\u000d\n  kind: usage\n  text: {} … 20 more characters\n  fields: c\\u000ad\n  fields: {{\"e\":1}}",
                "x".repeat(400)
            )
        );
    }
}
