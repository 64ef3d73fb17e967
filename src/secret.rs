//! Values that must never be printed, and the redactor that removes them from
//! everything that leaves the process.
//!
//! [`Secret`] has no `Display`, `Serialize` or `Deref`; `expose()` is for
//! `wire/` alone (a test over the source holds this). The [`Redactor`] is the
//! second line of defence: a portal may echo a credential back.

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use base64::{Engine, prelude::BASE64_STANDARD as STANDARD};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;
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

/// Replaces every known secret, in each spelling that output can give it.
///
/// The matcher is made at first use: it costs more than the rest of a process
/// start, secrets are learned one by one, and a run that succeeds never needs
/// the redactor of the error path.
#[derive(Clone, Debug, Default)]
pub struct Redactor {
    needles: Vec<String>,
    matcher: OnceLock<Option<AhoCorasick>>,
}

impl Redactor {
    /// Adds a secret in its raw, percent-encoded, base64 and JSON-escaped
    /// spellings.
    pub fn learn(&mut self, secret: &Secret) {
        let raw = secret.expose();
        if raw.len() < SHORTEST_REDACTED || self.needles.iter().any(|known| known == raw) {
            return;
        }
        let mut spellings = vec![
            raw.to_owned(),
            percent_encoding::utf8_percent_encode(raw, percent_encoding::NON_ALPHANUMERIC).to_string(),
            STANDARD.encode(raw),
        ];
        if let Ok(quoted) = serde_json::to_string(raw) {
            spellings.push(quoted.trim_matches('"').to_owned());
        }
        spellings.dedup();
        self.needles.extend(spellings);
        self.matcher = OnceLock::new();
    }

    fn matcher(&self) -> Option<&AhoCorasick> {
        let make = || {
            let builder = &mut AhoCorasick::builder();
            builder.match_kind(MatchKind::LeftmostLongest).kind(Some(AhoCorasickKind::ContiguousNFA)).build(&self.needles).ok()
        };
        self.matcher.get_or_init(make).as_ref().filter(|_| !self.needles.is_empty())
    }

    /// Returns whether a known secret stands in the bytes.
    #[must_use]
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.matcher().is_some_and(|matcher| matcher.is_match(bytes))
    }

    /// Returns the bytes with every known secret replaced; borrows when there
    /// is none.
    #[must_use]
    pub fn redact<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        match self.matcher() {
            Some(matcher) if matcher.is_match(bytes) => Cow::Owned(matcher.replace_all_bytes(bytes, &vec![MASK; self.needles.len()])),
            _ => Cow::Borrowed(bytes),
        }
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
}
