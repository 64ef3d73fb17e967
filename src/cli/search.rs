//! `b24 search`: methods, events and error codes by words, without asking a
//! portal. Words of the product's screens, English and Russian, stand for the
//! ones that methods use.

mod words;

use super::{Stop, printed};
use crate::catalog::{self, Entry, events, server_errors};
use crate::error::{Code, Failure};
use crate::host::Host;
use crate::output;
use serde_json::{Value, json};
use words::Term;

/// Parts that a name may have behind its module however short the search is:
/// a thing and a verb.
const USUAL_WORDS: usize = 2;

/// Finds methods by words of their name and purpose, best first.
pub(super) fn run(words: &[String], limit: usize, host: &mut Host) -> Result<(), Stop> {
    let text = words.join(" ").to_lowercase();
    let terms = words::terms(&text);
    if terms.is_empty() {
        return Err(Failure::new(Code::Usage, "there is nothing to search for").hint("For example b24 search add deal").into());
    }
    let methods = methods(&terms);
    let rows: Vec<Value> = methods.iter().take(limit).map(|(entry, purpose)| row(entry, purpose)).collect();
    let mut answer = json!({"schema": "b24.search/1", "found": methods.len(), "methods": rows});
    let events = events(&terms);
    if !events.is_empty() {
        answer["events_found"] = json!(events.len());
        answer["events"] = json!(events.into_iter().take(limit).collect::<Vec<_>>());
    }
    let errors = errors(&text);
    if !errors.is_empty() {
        answer["errors_found"] = json!(errors.len());
        answer["errors"] = json!(errors.into_iter().take(limit).collect::<Vec<_>>());
    }
    printed(output::value(host, &answer))
}

fn row(entry: &Entry, purpose: &str) -> Value {
    let mut row = json!({"method": entry.name, "api": entry.api.text(), "risk": entry.class.text(), "purpose": purpose});
    if let Some(deprecation) = entry.deprecated {
        row["deprecated"] = json!({"use": deprecation.successor});
    }
    row
}

/// Returns the methods that fit with their purposes, best first.
fn methods(terms: &[Term]) -> Vec<(Entry, String)> {
    let scored = catalog::entries().filter_map(|entry| {
        let purpose = entry.details()?.purpose;
        let score = score(&entry, &purpose.to_lowercase(), terms);
        (score > 0).then_some((score, entry, purpose))
    });
    let mut found: Vec<(i32, Entry, String)> = scored.collect();
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.folded.len().cmp(&b.1.folded.len())).then(a.1.folded.cmp(b.1.folded)));
    found.into_iter().map(|(_, entry, purpose)| (entry, purpose)).collect()
}

/// Words in the name count most. Parts of a name that nobody asked for count
/// against it, and so does that its development has ended: it comes after the
/// method that took its place.
fn score(entry: &Entry, purpose: &str, terms: &[Term]) -> i32 {
    let scores = terms.iter().map(|term| term.score(entry.folded, purpose));
    let (mut score, mut missed) = (0, 0);
    for one in scores {
        score += one;
        missed += usize::from(one == 0);
    }
    if missed > terms.len() / 2 {
        return 0;
    }
    let surplus = entry.folded.split('.').count().saturating_sub(1 + terms.len().max(USUAL_WORDS));
    score - 2 * i32::try_from(surplus).unwrap_or(0) - 2 * i32::from(entry.deprecated.is_some())
}

/// Returns the events whose name has every word but those for "event".
fn events(terms: &[Term]) -> Vec<&'static str> {
    let wanted: Vec<&Term> = terms.iter().filter(|term| !term.says("event")).collect();
    let fits = |name: &str| {
        let name = name.to_lowercase();
        wanted.iter().all(|term| term.is_in(&name))
    };
    if wanted.is_empty() {
        return Vec::new();
    }
    events::all().filter(|event| fits(event.name)).map(|event| event.name).collect()
}

/// Returns the error codes that have every word. Single words must be long
/// enough to be one: `ID` stands in too many codes.
fn errors(text: &str) -> Vec<&'static str> {
    let words: Vec<&str> = text.split_whitespace().filter(|word| *word != "error").collect();
    if words.iter().all(|word| word.len() < 5) {
        return Vec::new();
    }
    let fits = |code: &str| {
        let code = code.to_lowercase();
        words.iter().all(|word| code.contains(word))
    };
    let mut codes: Vec<&str> = server_errors::codes().filter(|code| fits(code)).collect();
    codes.sort_by_key(|code| (code.len(), *code));
    codes.dedup();
    codes
}

#[cfg(test)]
mod tests;
