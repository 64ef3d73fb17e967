//! The lines of a record as bytes: each checks all lines before it.
//!
//! ```text
//! <8 hex digits> <compact JSON>\n
//! ```
//!
//! The digits are the first four bytes of SHA-256 over a label, the digits of
//! the line before (none before the first) and the JSON. A line that is
//! doubled, moved, changed or missing in the middle therefore shows.
//!
//! Before, a line checked itself alone: the digits were its CRC-32C. Such lines
//! are read at the beginning of a record only; their place in the chain is
//! computed as if they had been chained, and what is appended goes on from
//! there. For them, [`may_follow`] has to tell what was moved.

use super::record::{ClaimLine, Line, Record, Verdict};
use sha2::{Digest, Sha256};

/// Hex digits of the check of a line.
const DIGITS: usize = 8;

/// The end of the lines of a record, to which the next one is chained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chain {
    tip: String,
}

impl Chain {
    /// Returns the line as bytes and goes on from it.
    pub fn push(&mut self, line: &Line) -> Vec<u8> {
        let json = serde_json::to_string(line).unwrap_or_default();
        self.tip = link(&self.tip, &json);
        format!("{} {json}\n", self.tip).into_bytes()
    }

    /// Returns the chain behind the valid lines of a record.
    #[must_use]
    pub fn behind(record: &Record) -> Chain {
        Chain { tip: record.checks.last().cloned().unwrap_or_default() }
    }
}

fn link(tip: &str, json: &str) -> String {
    let digest = Sha256::new().chain_update(b"b24-line-v2\0").chain_update(tip).chain_update(b"\0").chain_update(json).finalize();
    hex::encode(&digest[..DIGITS / 2])
}

/// Reads a record.
///
/// # Errors
/// What is wrong with it, as the end of a sentence about the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Record, String> {
    let mut record = Record { lines: Vec::new(), valid: 0, checks: Vec::new() };
    let mut is_chained = false;
    let mut rest = bytes;
    while let Some(newline) = rest.iter().position(|byte| *byte == b'\n') {
        let tip = record.checks.last().map_or("", String::as_str);
        let is_last = newline + 1 == rest.len();
        let number = record.lines.len() + 1;
        match read_line(&rest[..newline], tip) {
            Some(read) if is_chained && !read.is_chained => {
                return Err(format!("goes on with an old line behind new ones (line {number})"));
            }
            Some(read) => {
                let fits = match record.lines.last() {
                    None => matches!(read.line, Line::C(_)),
                    Some(before) => read.is_chained || may_follow(before, &read.line),
                };
                if !fits {
                    return Err(format!("has a line where it cannot stand (line {number})"));
                }
                is_chained = read.is_chained;
                record.lines.push(read.line);
                record.checks.push(read.check);
                record.valid += newline as u64 + 1;
                rest = &rest[newline + 1..];
            }
            None if is_last => break,
            None => return Err(format!("has a line that was changed, moved or lost its predecessor (line {number})")),
        }
    }
    match record.lines.is_empty() {
        true if bytes.is_empty() => Err("is empty".to_owned()),
        true => Err("has no line that can be read".to_owned()),
        false => Ok(record),
    }
}

struct ReadLine {
    line: Line,
    check: String,
    is_chained: bool,
}

fn read_line(text: &[u8], tip: &str) -> Option<ReadLine> {
    let (check, json) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    let expected = link(tip, json);
    let is_chained = check == expected;
    if !is_chained && check != format!("{:08x}", crc32c::crc32c(json.as_bytes())) {
        return None;
    }
    Some(ReadLine { line: serde_json::from_str(json).ok()?, check: expected, is_chained })
}

/// Returns the newest claim that a damaged record still holds: one that fits
/// what is written before it, whatever became of the rest.
pub(super) fn salvage(bytes: &[u8]) -> Option<ClaimLine> {
    let mut tip = "";
    let mut claim = None;
    for text in bytes.split(|byte| *byte == b'\n') {
        if let Some(ReadLine { line: Line::C(found), .. }) = read_line(text, tip) {
            claim = Some(found);
        }
        tip = std::str::from_utf8(text).ok().and_then(|text| text.split_once(' ')).map_or("", |(check, _)| check);
    }
    claim
}

/// Returns whether the protocol writes `next` behind `before`. For lines of
/// the old form alone: for the others the chain says more.
fn may_follow(before: &Line, next: &Line) -> bool {
    match (before, next) {
        (Line::C(_) | Line::N(_) | Line::F(_), Line::D(_) | Line::N(_)) | (Line::S(_) | Line::R(_), Line::C(_)) => true,
        (Line::D(_), next) => !matches!(next, Line::C(_) | Line::D(_)),
        (Line::U(_) | Line::O(_), next) => matches!(next, Line::R(_)),
        (Line::R(line), Line::D(_) | Line::N(_)) => line.verdict == Verdict::NotExecuted,
        (Line::C(_) | Line::N(_) | Line::F(_) | Line::S(_) | Line::R(_), _) => false,
    }
}
