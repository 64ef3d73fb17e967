//! The handler of the benchmark: says `done` to every line, as fast as it can,
//! and writes down when each event came.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The argument that makes the benchmark its own handler.
pub(crate) const NAME: &str = "echo-handler";

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Answers until the input ends; then writes a line for each event: when it
/// was raised and when it came.
pub(crate) fn run(report: &Path) {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let (mut line, mut seen) = (String::new(), Vec::new());
    while input.read_line(&mut line).unwrap() > 0 {
        let id = after(&line, r#""id":""#);
        writeln!(output, r#"{{"id":"{id}","status":"done"}}"#).unwrap();
        output.flush().unwrap();
        writeln!(seen, "{} {}", after(&line, r#""RAISED":""#), now_ms()).unwrap();
        line.clear();
    }
    fs::write(report, seen).unwrap();
}

/// Returns the text between a mark and the next quotation mark.
fn after<'a>(line: &'a str, mark: &str) -> &'a str {
    line.split_once(mark).and_then(|(_, rest)| rest.split_once('"')).unwrap().0
}
