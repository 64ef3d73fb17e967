//! Method names and the patterns that packs and allowlists match them with.

use globset::{Glob, GlobSet};
use std::fmt;

/// Longest accepted method name in bytes; the longest documented one has 69.
const LONGEST: usize = 200;

/// Longest accepted pattern in bytes: a choice among some long names.
const LONGEST_PATTERN: usize = 1_000;

/// A method name in the one spelling that b24 compares: lower case, without
/// the `.json` / `.xml` suffix by which a caller may ask for a format
/// (b24restdocs: settings/how-to-call-rest-api/general-principles.md).
///
/// Invariant: `[a-z0-9_]+(\.[a-z0-9_]+)*`. A spelling that needs more than
/// folding (white space, percent signs, a leading slash, look-alike letters)
/// is refused, never repaired.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Method(String);

/// Why a text is not a method name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MethodError {
    /// The text is empty.
    #[error("the method name is empty")]
    Empty,
    /// The text is longer than any method name.
    #[error("the method name has {0} bytes, more than {LONGEST}")]
    TooLong(usize),
    /// The text has a slash: most likely a pasted address, whose webhook code
    /// must not be repeated.
    #[error("the method name has a slash; give the name alone, without an address")]
    Slash,
    /// The text has a character that no method name has.
    #[error("the method name {text} has {found} at position {position}; letters, digits, `_` and `.` are allowed")]
    Character {
        /// The text, shortened and escaped.
        text: String,
        /// The character, escaped.
        found: String,
        /// Its position, counted in characters from 1.
        position: usize,
    },
    /// Two dots in a row, or a dot at an end.
    #[error("the method name {0} has an empty part between dots")]
    EmptyPart(String),
}

impl Method {
    /// Parses a method name as a caller wrote it.
    pub fn parse(text: &str) -> Result<Method, MethodError> {
        if text.is_empty() {
            return Err(MethodError::Empty);
        }
        if text.len() > LONGEST {
            return Err(MethodError::TooLong(text.len()));
        }
        if text.contains(['/', '\\']) {
            return Err(MethodError::Slash);
        }
        if let Some((index, found)) = text.chars().enumerate().find(|(_, c)| !(c.is_ascii_alphanumeric() || *c == '_' || *c == '.')) {
            return Err(MethodError::Character { text: shown(text), found: format!("'{}'", found.escape_default()), position: index + 1 });
        }
        let folded = text.to_ascii_lowercase();
        let folded = strip_format(&folded);
        if folded.split('.').any(str::is_empty) {
            return Err(MethodError::EmptyPart(shown(text)));
        }
        Ok(Method(folded.to_owned()))
    }

    /// Returns the folded name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether this is `batch`, which carries calls and is none.
    #[must_use]
    pub fn is_batch(&self) -> bool {
        self.0 == "batch"
    }

    /// Returns the part after the last dot.
    #[must_use]
    pub fn verb(&self) -> &str {
        self.0.rsplit('.').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Removes format suffixes, also repeated ones.
fn strip_format(name: &str) -> &str {
    let mut rest = name;
    while let Some(stripped) = rest.strip_suffix(".json").or_else(|| rest.strip_suffix(".xml")) {
        rest = stripped;
    }
    rest
}

/// Characters of a caller's text that a message repeats.
const SHOWN: usize = 60;

/// Returns a text of the caller's as it can stand in a message: escaped, and
/// with the number of the characters that are left out. The mark is none that
/// an escaped text can have.
#[must_use]
pub fn short(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN).flat_map(char::escape_default).collect();
    match text.chars().count() {
        0..=SHOWN => shown,
        count => format!("{shown}… {} more characters", count - SHOWN),
    }
}

/// Returns a text of the caller's in the quotes of a message.
#[must_use]
pub fn shown(text: &str) -> String {
    format!("`{}`", short(text))
}

/// A pattern over method names. `*` matches any run of characters, dots too
/// (`crm.*` covers `crm.deal.contact.add`), and case is ignored.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    matcher: Matcher,
}

/// How a pattern is matched. Nearly all patterns are a name or the beginning
/// of one; making an automaton of each costs every call more than its gates.
#[derive(Debug, Clone)]
enum Matcher {
    /// The name itself.
    Name,
    /// What begins with this many bytes of the text.
    Beginning(usize),
    /// Anything else.
    Glob(GlobSet),
}

/// A pattern that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the method pattern {} cannot be read", shown(.0))]
pub struct PatternError(String);

impl Pattern {
    /// Parses a pattern.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let folded = text.trim().to_ascii_lowercase();
        let malformed = || PatternError(text.to_owned());
        if folded.is_empty() || folded.len() > LONGEST_PATTERN {
            return Err(malformed());
        }
        let beginning = folded.strip_suffix('*').unwrap_or(&folded);
        let is_plain = beginning.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        let matcher = match is_plain {
            true if beginning.len() < folded.len() => Matcher::Beginning(beginning.len()),
            true => Matcher::Name,
            // A set of one: a glob alone panics where it cannot be compiled.
            false => {
                let glob = Glob::new(&folded).map_err(|_| malformed())?;
                Matcher::Glob(GlobSet::builder().add(glob).build().map_err(|_| malformed())?)
            }
        };
        Ok(Pattern { matcher, text: folded })
    }

    /// Returns whether the pattern covers the method.
    #[must_use]
    pub fn matches(&self, method: &Method) -> bool {
        match &self.matcher {
            Matcher::Name => method.as_str() == self.text,
            Matcher::Beginning(length) => method.as_str().starts_with(&self.text[..*length]),
            Matcher::Glob(matcher) => matcher.is_match(method.as_str()),
        }
    }

    /// Returns the pattern in its folded spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_method_are_one_method() {
        for spelling in ["crm.deal.delete", "CRM.Deal.DELETE", "crm.deal.delete.json", "crm.deal.delete.XML.json"] {
            assert_eq!(Method::parse(spelling).unwrap().as_str(), "crm.deal.delete");
        }
    }

    #[test]
    fn spellings_that_need_repair_are_refused() {
        for spelling in [
            "",
            " crm.lead.add",
            "crm.lead.add ",
            "/crm.lead.add",
            "crm..lead",
            ".crm",
            "crm.",
            "crm.lead%2eadd",
            "crm.lead.add?x=1",
            "crm.lead.add\0",
            "сrm.lead.add",
            "crm/lead",
            "crm.lead.add\n",
            ".json",
            "$result[a]",
        ] {
            assert!(Method::parse(spelling).is_err(), "{spelling:?}");
        }
    }

    #[test]
    fn what_a_message_leaves_out_is_counted() {
        assert_eq!(shown("a\u{202e}`\n"), "`a\\u{202e}`\\n`");
        assert_eq!(shown(&"y".repeat(61)), format!("`{}… 1 more characters`", "y".repeat(60)));
        assert_eq!(short("…"), "\\u{2026}");
    }

    #[test]
    fn a_star_crosses_dots_and_case_is_ignored() {
        let pattern = Pattern::parse("CRM.*").unwrap();
        assert!(pattern.matches(&Method::parse("crm.deal.contact.add").unwrap()));
        assert!(!pattern.matches(&Method::parse("crmx.deal").unwrap()));
        assert!(Pattern::parse(" ").is_err());
        assert!(Pattern::parse("crm.[a").is_err());
    }

    /// Each of them could be read, but not compiled.
    #[test]
    fn patterns_that_are_too_much_are_refused() {
        let long = |part: &str, count: usize| format!("crm.{}*.add?", part.repeat(count));
        let deep = |levels: usize| format!("crm.{}a{}", "{".repeat(levels), "}".repeat(levels));
        for text in [long("a", 50_000), long("[a-z]", 30_000), long(".", 200_000), deep(490), deep(50_000)] {
            assert!(Pattern::parse(&text).is_err(), "{}", text.len());
        }
        let choice = format!("{{{}}}", vec!["crm.lead.add"; 70].join(","));
        for text in [long("a", 900), long("[a-z]", 190), deep(20), choice] {
            assert!(Pattern::parse(&text).is_ok(), "{text}");
        }
    }

    #[test]
    fn simple_patterns_match_what_the_glob_does() {
        let patterns =
            ["*", "crm.*", "crm.lead.*", "crm.lead", "crm.lead.add", "crm", "user.current*", "*.list", "crm.*.add", "crm.lea?.add"];
        for text in patterns {
            let (pattern, glob) = (Pattern::parse(text).unwrap(), Glob::new(text).unwrap().compile_matcher());
            for entry in crate::catalog::entries() {
                let method = Method::parse(entry.name).unwrap();
                assert_eq!(pattern.matches(&method), glob.is_match(method.as_str()), "{text} {method}");
            }
        }
    }
}
