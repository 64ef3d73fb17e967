//! One ledger record: an append-only file of checked lines.
//!
//! Each line carries a check of itself and of all lines before it
//! ([`chain`](super::chain)); the state is the last valid line. A last line
//! without its newline or with a wrong check is what a crash leaves behind: it
//! is ignored and cut by the next owner. A wrong check before the last line, a
//! line where the protocol writes none, or no valid line at all, is damage: the
//! record is never executed again. What the file itself cannot show, that it
//! lost its end, its [`witness`](super::witness) tells.

use super::chain;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Largest answer that a record keeps, in bytes.
pub const KEPT_ANSWER: usize = 64 * 1024;

/// One line of a record. The tags are the letters of the protocol.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "t")]
pub enum Line {
    /// Claim: somebody intends to send this write.
    C(ClaimLine),
    /// Dispatch: from here on the request may have left.
    D(DispatchLine),
    /// Proven not executed.
    N(ReasonLine),
    /// The method refused definitely.
    F(RefusalLine),
    /// Success.
    S(SuccessLine),
    /// Unknown, reported by the owner.
    U(ReasonLine),
    /// Orphan: an observer found a dispatch whose owner had died.
    O(ReasonLine),
    /// An operator's decision about an unknown outcome.
    R(ResolutionLine),
}

/// What a claim says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ClaimLine {
    /// Format version of the record.
    pub v: u8,
    /// Counts the separate executions under one key.
    pub generation: u32,
    /// The key, for people.
    pub key: String,
    /// What makes two calls the same write.
    pub fingerprint: String,
    /// The method.
    pub method: String,
    /// The API generation.
    pub api: String,
    /// The class.
    pub risk: String,
    /// The plan that it belongs to.
    pub plan: Option<String>,
    /// Who claimed.
    pub owner: Owner,
    /// When.
    pub at: String,
}

/// Who claimed, for people; never a proof of anything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Run of the machine.
    pub boot: String,
    /// b24's version.
    pub b24: String,
}

/// What a dispatch says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DispatchLine {
    /// When.
    pub at: String,
    /// Request id, as in audit and in the request's header.
    pub request_id: String,
}

/// When and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReasonLine {
    /// When.
    pub at: String,
    /// Why, in a few words.
    pub why: String,
}

/// A definite refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusalLine {
    /// When.
    pub at: String,
    /// HTTP status.
    pub status: u16,
    /// Our code for the refusal.
    pub kind: String,
    /// The portal's error code.
    pub code: String,
    /// The portal's text.
    pub text: String,
}

/// A success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SuccessLine {
    /// When.
    pub at: String,
    /// The answer's text, when it is small enough to be kept.
    pub answer: Option<String>,
    /// SHA-256 of the answer.
    pub digest: String,
    /// The ids in an answer that is too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Value>,
}

/// An operator's decision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolutionLine {
    /// When.
    pub at: String,
    /// `executed`, `not-executed` or `abandoned`.
    #[serde(rename = "as")]
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub actor: String,
}

/// What an operator found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The portal did it.
    Executed,
    /// The portal did not do it.
    NotExecuted,
    /// Nobody knows and it must not be repeated.
    Abandoned,
}

impl Line {
    /// Returns the state's name for people.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match self {
            Line::C(_) => "claimed",
            Line::D(_) => "dispatched",
            Line::N(_) => "not_executed",
            Line::F(_) => "refused",
            Line::S(_) => "succeeded",
            Line::U(_) | Line::O(_) => "unknown",
            Line::R(line) => match line.verdict {
                Verdict::Executed => "resolved_executed",
                Verdict::NotExecuted => "resolved_not_executed",
                Verdict::Abandoned => "abandoned",
            },
        }
    }

    /// Returns whether the write may have happened and nobody has said so yet.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Line::D(_) | Line::U(_) | Line::O(_) => true,
            Line::C(_) | Line::N(_) | Line::F(_) | Line::S(_) | Line::R(_) => false,
        }
    }

    /// Returns when the line was written.
    #[must_use]
    pub fn at(&self) -> &str {
        match self {
            Line::C(line) => &line.at,
            Line::D(line) => &line.at,
            Line::N(line) | Line::U(line) | Line::O(line) => &line.at,
            Line::F(line) => &line.at,
            Line::S(line) => &line.at,
            Line::R(line) => &line.at,
        }
    }

    /// Returns the line as bytes, in the form that was written before lines
    /// were chained.
    #[cfg(test)]
    pub(super) fn to_old_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_string(self).unwrap();
        format!("{:08x} {json}\n", crc32c::crc32c(json.as_bytes())).into_bytes()
    }
}

/// A record as read from its file.
#[derive(Debug, Clone)]
pub struct Record {
    /// All lines.
    pub lines: Vec<Line>,
    /// Length of the valid part in bytes; a torn last line lies behind it.
    pub valid: u64,
    /// For each line, what it and all before it add up to.
    pub checks: Vec<String>,
}

impl Record {
    /// Reads a record from its bytes; `None` when it is damaged.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Record> {
        chain::parse(bytes).ok()
    }

    /// Returns the newest claim.
    #[must_use]
    pub fn claim(&self) -> Option<&ClaimLine> {
        self.lines.iter().rev().find_map(|line| match line {
            Line::C(claim) => Some(claim),
            _ => None,
        })
    }

    /// Returns the state: the last line.
    #[must_use]
    pub fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// Returns the record for people.
    #[must_use]
    pub fn to_value(&self, name: &str) -> Value {
        let mut value = serde_json::json!({"record": name, "state": self.last().map(Line::state)});
        if let Some(claim) = self.claim() {
            value["key"] = Value::from(claim.key.as_str());
            value["method"] = Value::from(claim.method.as_str());
            value["api"] = Value::from(claim.api.as_str());
            value["risk"] = Value::from(claim.risk.as_str());
            value["generation"] = Value::from(claim.generation);
            value["plan"] = Value::from(claim.plan.clone());
            value["claimed_at"] = Value::from(claim.at.as_str());
        }
        value["at"] = Value::from(self.last().map(Line::at));
        value
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::chain::Chain;
    use super::*;
    use proptest::prelude::*;

    pub(in crate::store::ledger) fn claim(generation: u32) -> Line {
        Line::C(ClaimLine {
            v: 1,
            generation,
            key: "k".to_owned(),
            fingerprint: "f".to_owned(),
            method: "crm.lead.add".to_owned(),
            api: "v2".to_owned(),
            risk: "write".to_owned(),
            plan: None,
            owner: Owner { pid: 1, boot: "b".to_owned(), b24: "0".to_owned() },
            at: "2026-01-01T00:00:00.000Z".to_owned(),
        })
    }

    fn dispatch() -> Line {
        Line::D(DispatchLine { at: "2026-01-01T00:00:01.000Z".to_owned(), request_id: "r".to_owned() })
    }

    fn success() -> Line {
        Line::S(SuccessLine { at: "2026-01-01T00:00:02.000Z".to_owned(), answer: None, digest: "d".to_owned(), ids: None })
    }

    #[test]
    fn lines_that_are_removed_doubled_or_moved_are_damage() {
        let mut whole = Chain::default();
        let lines: Vec<Vec<u8>> =
            [claim(1), dispatch(), success(), claim(2), dispatch(), success()].iter().map(|line| whole.push(line)).collect();
        let is_damage = |lines: &[Vec<u8>]| Record::parse(&lines.concat()).is_none();
        assert!(!is_damage(&lines));
        for at in 0..lines.len() {
            let mut doubled = lines.clone();
            doubled.insert(at, lines[at].clone());
            doubled.push(Vec::from("x\n"));
            assert!(is_damage(&doubled), "doubled {at}");
        }
        for at in 0..lines.len() - 1 {
            let mut removed = lines.clone();
            removed.remove(at);
            removed.push(Vec::from("x\n"));
            assert!(is_damage(&removed), "removed {at}");
            let mut swapped = lines.clone();
            swapped.swap(at, at + 1);
            swapped.push(Vec::from("x\n"));
            assert!(is_damage(&swapped), "swapped {at}");
        }
        let old: Vec<u8> = [claim(1), dispatch(), success()].iter().flat_map(Line::to_old_bytes).collect();
        let record = Record::parse(&old).unwrap();
        let continued = [old.clone(), Chain::behind(&record).push(&claim(2))].concat();
        assert_eq!(Record::parse(&continued).unwrap().lines.len(), 4);
        assert!(
            Record::parse(&[continued, dispatch().to_old_bytes(), Vec::from("x\n")].concat()).is_none(),
            "once chained, always chained"
        );
    }

    #[test]
    fn a_torn_tail_is_ignored_at_every_byte() {
        for (whole, first) in [bytes(&[claim(1), dispatch()]), old_bytes(&[claim(1), dispatch()])] {
            a_torn_tail_is_ignored_in(&whole, first);
        }
    }

    /// Returns the lines as they are written, and the length of the first.
    pub(in crate::store::ledger) fn bytes(lines: &[Line]) -> (Vec<u8>, usize) {
        let mut chain = Chain::default();
        let parts: Vec<Vec<u8>> = lines.iter().map(|line| chain.push(line)).collect();
        (parts.concat(), parts[0].len())
    }

    fn old_bytes(lines: &[Line]) -> (Vec<u8>, usize) {
        let parts: Vec<Vec<u8>> = lines.iter().map(Line::to_old_bytes).collect();
        (parts.concat(), parts[0].len())
    }

    fn a_torn_tail_is_ignored_in(whole: &[u8], first: usize) {
        for length in first..whole.len() {
            let record = Record::parse(&whole[..length]).unwrap();
            assert_eq!((record.lines.len(), record.valid), (1, first as u64), "{length}");
        }
        for length in 0..first {
            assert!(Record::parse(&whole[..length]).is_none(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_changes_the_state_unnoticed(bit in 0_usize..8 * 900) {
            let lines = [claim(1), dispatch(), success(), claim(2)];
            let (mut whole, _) = bytes(&lines);
            let bit = bit % (whole.len() * 8);
            whole[bit / 8] ^= 1 << (bit % 8);
            let before_last = bit / 8 < bytes(&lines[..3]).0.len() - 1;
            match Record::parse(&whole) {
                None => {}
                Some(record) => {
                    // Only the end may be dropped as torn: the last line, or with
                    // the newline before it the last two, never an earlier one.
                    prop_assert!(!before_last);
                    prop_assert!((2..=3).contains(&record.lines.len()));
                }
            }
        }
    }
}
