//! One line of the audit log.
//!
//! ```text
//! {"h":"<64 hex digits>","b":{"seq":7,"prev":"<64 hex digits>","ts":…,"boot":…,…}}
//! ```
//!
//! `b` is the record, `h` its hash: SHA-256 over the 64 ASCII digits of the
//! predecessor's `h` followed by the raw bytes of `b`, braces included. The
//! same 64 digits stand in `b` as `prev`; 64 zeros stand before the first
//! record. The frame around `h` and `b` has one spelling only, so that no bit
//! of a line can change unseen.

use crate::store::hole;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What stands for the predecessor of the first record.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The type of the record that ends a segment.
pub(super) const SEGMENT_END: &str = "segment_end";

const OPENING: &[u8] = b"{\"h\":\"";
const DIGITS: usize = 64;
const MIDDLE: &[u8] = b"\",\"b\":";
const BODY: usize = OPENING.len() + DIGITS + MIDDLE.len();

/// A line whose frame is right; whether the hash is, [`Line::is_genuine`] says.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) hash: &'a str,
    pub(super) body: &'a [u8],
    pub(super) head: Head,
}

/// The fields of a record that the chain itself needs.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    pub(super) seq: u64,
    pub(super) prev: String,
    pub(super) ts: String,
    #[serde(rename = "type")]
    kind: Option<Value>,
    request_id: Option<Value>,
    torn: Option<Value>,
    spooled: Option<Value>,
}

impl Head {
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind.as_ref().and_then(Value::as_str) == Some(kind)
    }

    pub(super) fn request_id(&self) -> Option<&str> {
        self.request_id.as_ref().and_then(Value::as_str)
    }

    pub(super) fn follows_repair(&self) -> bool {
        self.torn.is_some()
    }

    pub(super) fn is_spooled(&self) -> bool {
        self.spooled.is_some()
    }
}

impl<'a> Line<'a> {
    /// Takes a line without its end apart; `None` when b24 cannot have
    /// written it.
    pub(super) fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let hash = line.strip_prefix(OPENING)?.get(..DIGITS)?;
        let body = line.get(OPENING.len() + DIGITS..)?.strip_prefix(MIDDLE)?.strip_suffix(b"}")?;
        let head = serde_json::from_slice(body).ok()?;
        Some(Line { hash: std::str::from_utf8(hash).ok()?, body, head })
    }

    /// Returns whether the hash is that of the record.
    pub(super) fn is_genuine(&self) -> bool {
        self.hash == hash(&self.head.prev, self.body)
    }
}

/// Returns the hash of a record.
pub(super) fn hash(prev: &str, body: &[u8]) -> String {
    hex::encode(Sha256::new().chain_update(prev).chain_update(body).finalize())
}

/// Puts a record and its hash into a line, its end included.
pub(super) fn frame(hash: &str, body: &[u8]) -> Vec<u8> {
    [OPENING, hash.as_bytes(), MIDDLE, body, b"}\n"].concat()
}

/// Returns whether the bytes look like a line of ours, or like the beginning
/// of one that a crash cut off. Bytes that never reached the disk are zeros:
/// all of them, those behind a beginning, or the first sectors of a line.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let known = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let rest = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len())..];
    rest.is_empty()
        || (known == 0 && hole::first(bytes, 0) == Some(0) && rest.ends_with(b"}}\n") && std::str::from_utf8(rest).is_ok())
        || (known > 0 && is_beginning(&bytes[..known]))
}

fn is_beginning(bytes: &[u8]) -> bool {
    bytes.iter().take(BODY).enumerate().all(|(at, byte)| match at {
        at if at < OPENING.len() => *byte == OPENING[at],
        at if at < OPENING.len() + DIGITS => byte.is_ascii_hexdigit(),
        at => *byte == MIDDLE[at - OPENING.len() - DIGITS],
    })
}
