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

#[cfg(test)]
mod tests {
    use super::super::record::tests::claim;
    use super::super::record::{DispatchLine, ReasonLine, RefusalLine, ResolutionLine, SuccessLine};
    use super::*;

    fn line(letter: &str) -> Line {
        let at = || "2026-01-01T00:00:00.000Z".to_owned();
        let reason = || ReasonLine { at: at(), why: String::new() };
        let resolved = |verdict| Line::R(ResolutionLine { at: at(), verdict, reason: String::new(), actor: String::new() });
        match letter {
            "C" => claim(1),
            "D" => Line::D(DispatchLine { at: at(), request_id: String::new() }),
            "N" => Line::N(reason()),
            "F" => Line::F(RefusalLine { at: at(), status: 400, kind: String::new(), code: String::new(), text: String::new() }),
            "S" => Line::S(SuccessLine { at: at(), answer: None, digest: String::new(), ids: None }),
            "U" => Line::U(reason()),
            "O" => Line::O(reason()),
            "E" => resolved(Verdict::Executed),
            "X" => resolved(Verdict::NotExecuted),
            "A" => resolved(Verdict::Abandoned),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn an_old_line_stands_only_where_the_protocol_writes_it() {
        // Behind each line, those that may follow it.
        let table = [
            ("C", "DN"),
            ("N", "DN"),
            ("F", "DN"),
            ("S", "C"),
            ("E", "C"),
            ("A", "C"),
            ("X", "CDN"),
            ("D", "NFSUOEXA"),
            ("U", "EXA"),
            ("O", "EXA"),
        ];
        for (before, allowed) in table {
            for next in ["C", "D", "N", "F", "S", "U", "O", "E", "X", "A"] {
                let bytes = [line("C").to_old_bytes(), line(before).to_old_bytes(), line(next).to_old_bytes()];
                let bytes = if before == "C" { bytes[1..].concat() } else { bytes.concat() };
                // Behind an old claim only some may stand at all: ask the table itself.
                assert_eq!(may_follow(&line(before), &line(next)), allowed.contains(next), "{next} behind {before}");
                let is_read = parse(&bytes).is_ok_and(|record| record.lines.len() == if before == "C" { 2 } else { 3 });
                assert_eq!(is_read, allowed.contains(next) && (before == "C" || "DN".contains(before)), "{next} behind {before}");
            }
        }
        // Chained lines are not judged by the table.
        let mut chain = Chain::default();
        let odd: Vec<u8> = ["C", "S", "D"].iter().flat_map(|letter| chain.push(&line(letter))).collect();
        assert_eq!(parse(&odd).unwrap().lines.len(), 3);
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said() {
        let mut chain = Chain::default();
        let lines: Vec<Vec<u8>> = ["C", "D", "S"].iter().map(|letter| chain.push(&line(letter))).collect();
        let changed = |number: usize| {
            let mut lines = lines.clone();
            lines[number][15] ^= 1;
            lines.concat()
        };
        let old = [lines[0].clone(), line("D").to_old_bytes(), lines[2].clone()].concat();
        for (bytes, problem) in [
            (Vec::new(), "is empty"),
            (b"x".to_vec(), "has no line that can be read"),
            (b"x\n".to_vec(), "has no line that can be read"),
            (changed(0), "(line 1)"),
            (changed(1), "(line 2)"),
            (old, "old line behind new ones (line 2)"),
            (lines[1..].concat(), "(line 1)"),
            (line("D").to_old_bytes(), "where it cannot stand (line 1)"),
        ] {
            let said = parse(&bytes).unwrap_err();
            assert!(said.contains(problem), "{said} / {problem}");
        }
        // The last one may be torn.
        let record = parse(&changed(2)).unwrap();
        assert_eq!((record.lines.len(), record.valid), (2, (lines[0].len() + lines[1].len()) as u64));
    }

    #[test]
    fn the_newest_claim_that_fits_is_saved_from_a_damaged_record() {
        let mut chain = Chain::default();
        let mut lines: Vec<Vec<u8>> = [claim(1), line("D"), line("S"), claim(2), line("D")].iter().map(|line| chain.push(line)).collect();
        assert_eq!(salvage(&lines.concat()).unwrap().generation, 2);
        lines[1][15] ^= 1;
        assert_eq!(salvage(&lines.concat()).unwrap().generation, 2, "each line is asked for itself");
        lines[3][15] ^= 1;
        assert_eq!(salvage(&lines.concat()).unwrap().generation, 1);
        lines[0][15] ^= 1;
        assert!(salvage(&lines.concat()).is_none() && salvage(b"").is_none());
    }
}
