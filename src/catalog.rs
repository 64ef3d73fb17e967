//! The documented methods: which names exist, in which spelling and API
//! generation, what each does to the portal, what it takes.
//!
//! The table is embedded, sorted by bytes, and searched by bisection: a call
//! reads one line and pays for nothing else. What the gate needs stands in
//! plain columns; the rest of a line is JSON that only `describe`, `search` and
//! plans parse. The table is made from `catalog/facts.jsonl` (facts of the
//! official documentation) and `catalog/classes.tsv` (our own judgement) by the
//! test `catalog::the_table_is_current`.

pub mod events;
pub mod payloads;
pub mod server_errors;

use crate::method::Method;
use crate::risk::Risk;
use serde::Deserialize;
use std::collections::BTreeMap;

/// One line a method and generation: folded name, generation, documented
/// spelling, class, `safe` if a repetition changes nothing, successor, details.
pub const TABLE: &str = include_str!("catalog/methods.tsv");

/// A generation of the REST API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// Classic: `/rest/…`.
    V2,
    /// REST 3.0: `/rest/api/…`.
    V3,
}

impl Api {
    /// Returns `v2` or `v3`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Api::V2 => "v2",
            Api::V3 => "v3",
        }
    }

    /// Parses `v2` or `v3`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Api> {
        [Api::V2, Api::V3].into_iter().find(|api| api.text() == text)
    }
}

/// One method of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The folded name.
    pub folded: &'static str,
    /// The generation.
    pub api: Api,
    /// The spelling of the documentation, which goes over the wire.
    pub name: &'static str,
    /// What it does to the portal; its parameters may decide otherwise
    /// (`crate::risk`).
    pub class: Risk,
    /// Whether a second, equal call leaves the portal as the first did.
    pub replay_safe: bool,
    /// Whether its development has ended, and what takes its place.
    pub deprecated: Option<Deprecation>,
    details: &'static str,
}

/// A method whose development has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// What takes its place, if anything does.
    pub successor: Option<&'static str>,
}

impl Deprecation {
    /// Reads the column: `-` for none, `!` for one without a successor.
    fn parse(column: &'static str) -> Option<Deprecation> {
        match column {
            "-" => None,
            "!" => Some(Deprecation { successor: None }),
            successor => Some(Deprecation { successor: Some(successor) }),
        }
    }
}

/// What is known of a method besides what the gate needs.
#[derive(Debug, Clone, Deserialize)]
pub struct Details {
    /// What it is for, in our words.
    pub purpose: String,
    /// Why it has its class.
    pub reason: String,
    /// What is lost, if something is.
    pub note: Option<String>,
    /// What reaches beyond the portal: `sms`, `mail`, `call`, `message`,
    /// `publish` or `pay`.
    pub external: Option<String>,
    /// The scopes that the credential needs.
    #[serde(default)]
    pub scope: Vec<String>,
    /// `any`, `oauth` or `unknown`.
    pub auth: String,
    /// Whether only an administrator may call it.
    #[serde(default)]
    pub admin: bool,
    /// How it pages, if it does.
    pub paging: Option<String>,
    /// The page of the official documentation.
    pub doc: String,
    /// Its parameters: name, type, required.
    #[serde(default)]
    pub params: Vec<(String, String, bool)>,
    /// Documented members of parameters that are objects.
    #[serde(default)]
    pub fields: BTreeMap<String, Vec<(String, String, bool)>>,
    /// Parameters that official examples pass although no table names them.
    #[serde(default)]
    pub extra: Vec<String>,
    /// Parameters that official examples write in another case.
    #[serde(default)]
    pub any_case: Vec<String>,
    /// Parameters that official examples leave out although they are required.
    #[serde(default)]
    pub optional: Vec<String>,
}

impl Entry {
    /// A line that does not parse is an unknown method: closed, not open.
    fn parse(line: &'static str) -> Option<Entry> {
        let mut columns = line.splitn(7, '\t');
        Some(Entry {
            folded: columns.next()?,
            api: Api::parse(columns.next()?)?,
            name: columns.next()?,
            class: Risk::parse(columns.next()?)?,
            replay_safe: columns.next()? == "safe",
            deprecated: Deprecation::parse(columns.next()?),
            details: columns.next()?,
        })
    }

    /// Parses the rest of the line.
    #[must_use]
    pub fn details(&self) -> Option<Details> {
        serde_json::from_str(self.details).ok()
    }
}

/// Looks a method of a generation up.
#[must_use]
pub fn find(method: &Method, api: Api) -> Option<Entry> {
    generations(method).into_iter().flatten().find(|entry| entry.api == api)
}

/// Returns the method in each generation that has it, the classic one first.
#[must_use]
pub fn generations(method: &Method) -> [Option<Entry>; 2] {
    let wanted = method.as_str();
    let (mut low, mut high) = (0, TABLE.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let start = TABLE[..middle].rfind('\n').map_or(0, |newline| newline + 1);
        let end = line_end(start);
        let folded = TABLE[start..end].split('\t').next().unwrap_or_default();
        if folded < wanted { low = end + 1 } else { high = start }
    }
    // `low` is now the start of the first line that is not before the method.
    let mut found = [None, None];
    for slot in &mut found {
        if low >= TABLE.len() {
            break;
        }
        let end = line_end(low);
        *slot = Entry::parse(&TABLE[low..end]).filter(|entry| entry.folded == wanted);
        low = end + 1;
    }
    found
}

fn line_end(start: usize) -> usize {
    TABLE[start..].find('\n').map_or(TABLE.len(), |length| start + length)
}

/// Returns every method of every generation.
pub fn entries() -> impl Iterator<Item = Entry> {
    TABLE.lines().filter_map(Entry::parse)
}

/// Returns up to three known names that the text may have meant, best first.
#[must_use]
pub fn suggestions(text: &str) -> Vec<&'static str> {
    closest(text, entries().map(|entry| entry.name))
}

/// Nothing that is longer was meant to be a name.
const LONGEST_MISTAKE: usize = 200;

/// Returns up to three of some names that are like the text, best first.
#[must_use]
pub fn closest<'a>(text: &str, names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    // The work grows with the length of the text, for every name.
    if text.len() > LONGEST_MISTAKE {
        return Vec::new();
    }
    let folded = text.to_ascii_lowercase();
    let likeness = |name: &str| strsim::jaro_winkler(&folded, &name.to_ascii_lowercase());
    let mut scored: Vec<(f64, &str)> = names.map(|name| (likeness(name), name)).filter(|(score, _)| *score > 0.88).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.dedup_by(|a, b| a.1 == b.1);
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_sorted_canonical_and_found() {
        let mut count = 0;
        let mut before = ("", "");
        for line in TABLE.lines() {
            let entry = Entry::parse(line).expect(line);
            let key = (entry.folded, entry.api.text());
            assert!(before < key, "{line}");
            before = key;
            let method = Method::parse(entry.name).expect(line);
            assert_eq!(method.as_str(), entry.folded);
            assert_eq!(find(&method, entry.api), Some(entry));
            assert!(entry.details().is_some(), "{line}");
            count += 1;
        }
        assert_eq!(entries().count(), count);
    }

    #[test]
    fn unknown_names_are_not_found_and_get_suggestions() {
        for name in ["crm.lead.lst", "a", "zzz.zzz"] {
            assert_eq!(generations(&Method::parse(name).unwrap()), [None, None], "{name}");
        }
        assert_eq!(suggestions("crm.lead.lst")[0], "crm.lead.list");
        assert!(suggestions("qqqqqqqqqqqqq").is_empty());
        assert!(suggestions(&"crm.lead.lst".repeat(10_000)).is_empty());
    }

    #[test]
    fn a_method_of_both_generations_has_two_entries() {
        let method = Method::parse("tasks.task.add").unwrap();
        let apis: Vec<Api> = generations(&method).into_iter().flatten().map(|entry| entry.api).collect();
        assert_eq!(apis, [Api::V2, Api::V3]);
        assert_eq!(find(&Method::parse("crm.lead.add").unwrap(), Api::V3), None);
    }
}
