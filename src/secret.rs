//! Values that must never be printed, and the redactor that removes them from
//! everything that leaves the process.
//!
//! [`Secret`] has no `Display`, `Serialize` or `Deref`; `expose()` is for
//! `wire/` alone (a test over the source holds this). The [`Redactor`] is the
//! second line of defence: a portal may echo a credential back.

mod escapes;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD as STANDARD, BASE64_URL_SAFE as URL_SAFE};
use escapes::Escapes;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;
use subtle::ConstantTimeEq;

/// What stands where a secret was.
pub const MASK: &str = "***";

/// Values shorter than this are not replaced in output: they are no secrets
/// worth the name, and replacing them would damage ordinary text.
const SHORTEST_REDACTED: usize = 6;

/// A credential value; zeroed when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes a value that must not be printed.
    #[must_use]
    pub fn new(value: String) -> Secret {
        Secret(SecretString::from(value))
    }

    /// Returns the value, for the request that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns whether two are one.
    #[must_use]
    pub fn is(&self, other: &Secret) -> bool {
        self.matches(other.expose())
    }

    /// Returns whether a text from outside is this secret.
    ///
    /// Digests are compared, and in constant time: how long it takes tells
    /// neither where the two differ nor whether they are of one length.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (own, other) = (Sha256::digest(self.expose()), Sha256::digest(text));
        own.as_slice().ct_eq(other.as_slice()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Replaces every known secret, in each spelling that an echo could give it.
///
/// | spelling | found by |
/// |--|--|
/// | as it is, JSON-escaped, backwards | a pattern each |
/// | hexadecimal | two patterns, one a case |
/// | base64, base64url, alone or anywhere in something longer | a pattern for each of three offsets and each alphabet, without the letters at the edges that the neighbours share |
/// | percent, `\u`, HTML and quoted-printable escapes, of any part and mixed | [`escapes`], character by character |
///
/// Not looked for: what only a program would undo for its own ends (other
/// alphabets, ciphers, compression, a secret in pieces).
///
/// The patterns are made at first use, since secrets are learned one by one and
/// a run that succeeds never needs the redactor of the error path; the matcher
/// only for a text that is long enough to be worth it: to make it costs more
/// than the rest of a process start.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    secrets: Vec<String>,
    escapes: Escapes,
    needles: OnceLock<Vec<String>>,
    matcher: OnceLock<Option<AhoCorasick>>,
}

/// Up to this length a text is searched for each pattern.
const SHORT_TEXT: usize = 4096;

/// Returns the spellings of a secret that are patterns, the secret first.
fn spellings(raw: &str) -> Vec<String> {
    let hex = hex::encode(raw);
    let mut spellings = vec![raw.to_owned(), hex.to_ascii_uppercase(), hex, raw.chars().rev().collect()];
    if let Ok(quoted) = serde_json::to_string(raw) {
        spellings.push(quoted.trim_matches('"').to_owned());
    }
    for engine in [STANDARD, URL_SAFE] {
        spellings.push(engine.encode(raw));
        for offset in 0..3 {
            let encoded = engine.encode([&b"\0\0"[..offset], raw.as_bytes()].concat());
            // Letters that hold bits of the neighbours are theirs.
            let (start, end) = ((offset * 8).div_ceil(6), (offset + raw.len()) * 8 / 6);
            spellings.push(encoded[start..end].to_owned());
        }
    }
    let mut seen = std::collections::HashSet::new();
    spellings.retain(|spelling| seen.insert(spelling.clone()));
    spellings
}

impl Redactor {
    /// Adds a secret in all its spellings.
    pub fn learn(&mut self, secret: &Secret) {
        let raw = secret.expose();
        if raw.len() < SHORTEST_REDACTED || self.secrets.iter().any(|known| known == raw) {
            return;
        }
        self.secrets.push(raw.to_owned());
        self.escapes.learn(raw);
        (self.needles, self.matcher) = (OnceLock::new(), OnceLock::new());
    }

    fn needles(&self) -> &[String] {
        self.needles.get_or_init(|| self.secrets.iter().flat_map(|secret| spellings(secret)).collect())
    }

    /// Returns whether a pattern stands in the bytes.
    fn has_needle(&self, bytes: &[u8]) -> bool {
        if bytes.len() > SHORT_TEXT || self.matcher.get().is_some() {
            return self.matcher().is_some_and(|matcher| matcher.is_match(bytes));
        }
        self.needles().iter().any(|needle| memchr::memmem::find(bytes, needle.as_bytes()).is_some())
    }

    fn matcher(&self) -> Option<&AhoCorasick> {
        let make = || {
            let builder = &mut AhoCorasick::builder();
            builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA)).build(self.needles()).ok()
        };
        self.matcher.get_or_init(make).as_ref().filter(|_| !self.secrets.is_empty())
    }

    /// Returns the matcher when there is something for it to replace.
    fn matcher_for(&self, bytes: &[u8]) -> Option<&AhoCorasick> {
        if self.has_needle(bytes) { self.matcher() } else { None }
    }

    /// Returns whether a known secret stands in the bytes.
    #[must_use]
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.has_needle(bytes) || self.escapes.find(bytes, 0).is_some()
    }

    /// Returns the bytes with every known secret replaced; borrows when there
    /// is none.
    #[must_use]
    pub fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let whole = match self.matcher_for(bytes) {
            Some(matcher) => Cow::Owned(matcher.replace_all_bytes(bytes, &vec![MASK; self.needles().len()])),
            None => Cow::Borrowed(bytes),
        };
        match self.escapes.find(&whole, 0) {
            None => whole,
            Some(first) => Cow::Owned(self.without_escaped(&whole, first)),
        }
    }

    fn without_escaped(&self, bytes: &[u8], first: Range<usize>) -> Vec<u8> {
        let (mut clean, mut position, mut next) = (Vec::new(), 0, Some(first));
        while let Some(found) = next {
            clean.extend_from_slice(&bytes[position..found.start]);
            clean.extend_from_slice(MASK.as_bytes());
            position = found.end;
            next = self.escapes.find(bytes, position);
        }
        clean.extend_from_slice(&bytes[position..]);
        clean
    }

    /// Returns the text with every known secret replaced.
    #[must_use]
    pub fn redact_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.redact(text.as_bytes())).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_secret_is_replaced() {
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new("p@ss\"word/1".to_owned()));
        for spelling in ["p@ss\"word/1", "p%40ss%22word%2F1", "p@ss\\\"word/1", "cEBzcyJ3b3JkLzE="] {
            assert_eq!(redactor.redact_text(&format!("<{spelling}>")), "<***>", "{spelling}");
        }
    }

    #[test]
    fn a_secret_is_found_in_what_encodes_more_than_it() {
        let secret = "a1b2c3d4e5f6~?>x";
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new(secret.to_owned()));
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}{secret}{}", &"x-y_z=:"[..before], &"!.,;"[..after]);
                for engine in [STANDARD, URL_SAFE] {
                    let echoed = engine.encode(&text);
                    let clean = redactor.redact_text(&echoed);
                    assert!(clean.contains(MASK) && clean.len() + secret.len() < echoed.len() + 8, "{echoed}: {clean}");
                }
                for echoed in [hex::encode(&text), hex::encode_upper(&text), text.chars().rev().collect()] {
                    assert!(redactor.redact_text(&echoed).contains(MASK), "{echoed}");
                }
            }
        }
        let escaped: String = secret.chars().map(|c| format!("\\u{:04X}", u32::from(c))).collect::<Vec<_>>().concat();
        assert_eq!(redactor.redact_text(&format!("<{escaped}{secret}%61{}>", &secret[1..])), "<*********>");
    }

    #[test]
    fn a_secret_that_is_learned_after_the_first_use_is_replaced_too() {
        let mut redactor = Redactor::default();
        assert_eq!(redactor.redact_text("canary-1234"), "canary-1234");
        redactor.learn(&Secret::new("canary-1234".to_owned()));
        assert_eq!(redactor.redact_text("<canary-1234>"), "<***>");
        redactor.learn(&Secret::new("canary-5678".to_owned()));
        assert_eq!(redactor.redact_text("canary-1234 canary-5678"), "*** ***");
    }

    #[test]
    fn only_the_whole_secret_matches() {
        let secret = Secret::new("51856fefc120afa4b628cc82d3935cce".to_owned());
        assert!(secret.matches("51856fefc120afa4b628cc82d3935cce"));
        for text in ["", "5", "51856fefc120afa4b628cc82d3935cc", "51856fefc120afa4b628cc82d3935ccf", "51856FEFC120AFA4B628CC82D3935CCE"] {
            assert!(!secret.matches(text), "{text}");
        }
    }

    #[test]
    fn text_without_a_secret_is_untouched() {
        let mut redactor = Redactor::default();
        redactor.learn(&Secret::new("canary-1234".to_owned()));
        assert!(matches!(redactor.redact(b"nothing here"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_secret_is_printed_by_no_formatter() {
        let secret = Secret::new("canary-1234".to_owned());
        for text in [format!("{secret:?}"), format!("{secret:#?}"), format!("{:?}", Some(&secret)), format!("{:?}", vec![secret.clone()])] {
            assert!(text.contains(MASK) && !text.contains("canary"), "{text}");
        }
        assert!(secret.is(&secret.clone()) && secret.matches("canary-1234"));
        for other in ["canary-123", "canary-12345", "Canary-1234", "", "canary-1235"] {
            assert!(!secret.matches(other) && !secret.is(&Secret::new(other.to_owned())), "{other}");
        }
    }

    #[test]
    fn of_secrets_that_overlap_the_longest_is_masked() {
        for order in [["canary-1234", "canary-1234-5678"], ["canary-1234-5678", "canary-1234"]] {
            let mut redactor = Redactor::default();
            order.iter().for_each(|secret| redactor.learn(&Secret::new((*secret).to_owned())));
            // Both ways to search: of short texts and of long ones.
            for filler in ["", &"x".repeat(2 * SHORT_TEXT)] {
                let clean = redactor.redact_text(&format!("{filler}<canary-1234-5678> <canary-1234>"));
                assert_eq!(clean, format!("{filler}<***> <***>"), "{order:?}");
            }
        }
    }
}
