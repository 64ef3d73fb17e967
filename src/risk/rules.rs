//! Which parameters decide what a call does: the rows of
//! `catalog/params.tsv`, judged page by page as the classes are.
//!
//! A row has six columns: methods (folded; `*` for any write), the place of the
//! parameter, the condition under which the call keeps the milder class, that
//! class, the stricter one, and why. A place is a path of keys in any case:
//!
//! | part | key |
//! |--|--|
//! | `LIST` | this one |
//! | `*` | every one, of a list too |
//! | `UF*`, `*_DEL` | every one that begins or ends so |
//! | `**/~` | at any depth, every one with a word such as `DEL` or `remove` |
//!
//! A row with the condition `own` lifts the row for any write: below its place
//! stand names of the caller's own, or documented names that take nothing away.

#![deny(clippy::wildcard_enum_match_arm)]

use super::Risk;
use crate::method::Method;

/// The rows.
const TABLE: &str = include_str!("../catalog/params.tsv");

/// When a call keeps the milder class. In doubt it does not: PHP takes many
/// things for "no", and a page seldom says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    /// The parameter is not there.
    Absent,
    /// It is not there, or is empty.
    Blank,
    /// It is not there, or says no: `N`, `0`, `false`, nothing.
    Off,
    /// It is not there, or holds something.
    Kept,
    /// It is not there, or says yes: `Y`, `1`, `true`.
    Yes,
    /// It is not there, or is a text.
    TextIfThere,
    /// It is there, and is a text.
    Text,
    /// It is there in the documented spelling, and is 0.
    Zero,
    /// Marks below it are none.
    Own,
}

impl Condition {
    fn parse(text: &str) -> Option<Condition> {
        Some(match text {
            "absent" => Condition::Absent,
            "blank" => Condition::Blank,
            "off" => Condition::Off,
            "kept" => Condition::Kept,
            "yes" => Condition::Yes,
            "text?" => Condition::TextIfThere,
            "text" => Condition::Text,
            "zero" => Condition::Zero,
            "own" => Condition::Own,
            _ => return None,
        })
    }

    /// Says in words when the call keeps the milder class.
    fn words(self) -> &'static str {
        match self {
            Condition::Absent => "unless left out",
            Condition::Blank => "unless left out or empty",
            Condition::Off => "unless left out, N, 0, false or empty",
            Condition::Kept => "if empty, N, 0 or false",
            Condition::Yes => "unless left out, Y, 1 or true",
            Condition::TextIfThere => "if empty",
            Condition::Text => "unless it is a text",
            Condition::Zero => "unless 0",
            Condition::Own => "never",
        }
    }
}

/// One part of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A key in any case.
    Name(&'static str),
    /// Every key that begins so.
    Starts(&'static str),
    /// Every key that ends so.
    Ends(&'static str),
}

impl Part {
    fn parse(text: &'static str) -> Part {
        match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(end), _) => Part::Ends(end),
            (None, Some(start)) => Part::Starts(start),
            (None, None) => Part::Name(text),
        }
    }

    /// Returns whether a key is meant. White space around it is nothing.
    pub(super) fn fits(self, key: &str) -> bool {
        let key = key.trim().to_ascii_lowercase();
        match self {
            Part::Name(name) => key == name.to_ascii_lowercase(),
            Part::Starts(start) => key.starts_with(&start.to_ascii_lowercase()),
            Part::Ends(end) => key.ends_with(&end.to_ascii_lowercase()),
        }
    }
}

/// Where a parameter stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At the end of these parts.
    Path(Vec<Part>),
    /// Wherever a key has a word that takes something away.
    Marks,
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) place: Place,
    pub(super) condition: Condition,
    pub(super) mild: Risk,
    pub(super) strict: Risk,
    pub(super) why: &'static str,
    text: &'static str,
}

impl Rule {
    /// Parses a row without its methods; `None` for one that is none, which
    /// the tests rule out.
    fn parse(rest: &'static str) -> Option<Rule> {
        let columns: Vec<&'static str> = rest.split('\t').collect();
        let [text, condition, mild, strict, why] = columns[..] else { return None };
        let place = match text {
            "**/~" => Place::Marks,
            path => Place::Path(path.split('/').map(Part::parse).collect()),
        };
        let condition = Condition::parse(condition)?;
        let class = |text| if condition == Condition::Own { Some(Risk::Write) } else { Risk::parse(text) };
        Some(Rule { place, condition, mild: class(mild)?, strict: class(strict)?, why, text })
    }

    /// Returns the place as a user writes it: `fields[LIST][*][DEL]`.
    pub(super) fn param(&self) -> String {
        match &self.place {
            Place::Marks => "any DEL, DELETE, REMOVE, CLEAR or RESET".to_owned(),
            Place::Path(_) => {
                let mut parts = self.text.split('/');
                let first = parts.next().unwrap_or_default().to_owned();
                parts.fold(first, |place, part| format!("{place}[{part}]"))
            }
        }
    }

    /// Says in words when the stricter class holds.
    pub(super) fn words(&self) -> &'static str {
        self.condition.words()
    }
}

/// Returns the rows of a method, those for any write last.
pub(super) fn of(method: &Method) -> Vec<Rule> {
    let own = method.as_str();
    // Every call passes here: most rows name one method and are compared whole.
    let names = |names: &str| match names.contains(' ') {
        false => names == own || names == "*",
        true => names.split(' ').any(|name| name == own || name == "*"),
    };
    let rows = TABLE.lines().filter_map(|line| line.split_once('\t'));
    rows.filter(|(methods, _)| names(methods)).filter_map(|(_, rest)| Rule::parse(rest)).collect()
}

/// Words of a key that stand for taking something away.
const MARKS: &[&str] = &[
    "clear",
    "del",
    "delete",
    "deleted",
    "deletion",
    "detach",
    "drop",
    "erase",
    "overwrite",
    "purge",
    "remove",
    "removed",
    "reset",
    "unbind",
    "unlink",
    "unset",
    "wipe",
];

/// Returns whether a key has such a word: `DEL`, `PHOTO_del`, `removeIds`,
/// `isDeleted`, and the same in capitals.
pub(super) fn is_mark(key: &str) -> bool {
    let is_word = |word: &str| {
        let word = word.to_ascii_lowercase();
        let is_run_together = |verb: &str| word.starts_with(verb) || word.ends_with(verb) || word.ends_with(&format!("{verb}d"));
        MARKS.contains(&word.as_str()) || is_run_together("delete") || is_run_together("remove")
    };
    key.split(|c: char| !c.is_ascii_alphabetic()).any(|part| is_word(part) || humps(part).any(is_word))
}

/// Splits `removeIds` before each capital.
fn humps(part: &str) -> impl Iterator<Item = &str> {
    let starts = part.char_indices().filter(|(at, c)| *at == 0 || c.is_ascii_uppercase()).map(|(at, _)| at);
    let ends = part.char_indices().filter(|(at, c)| *at > 0 && c.is_ascii_uppercase()).map(|(at, _)| at).chain([part.len()]);
    starts.zip(ends).map(|(start, end)| &part[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    #[test]
    fn every_row_is_one_and_is_for_documented_methods_of_its_class() {
        for line in TABLE.lines() {
            let (methods, rest) = line.split_once('\t').expect(line);
            let rule = Rule::parse(rest).expect(line);
            assert!(!rule.why.is_empty() && rule.mild <= rule.strict && !line.ends_with(' '), "{line}");
            for name in methods.split(' ').filter(|name| *name != "*") {
                let method = Method::parse(name).unwrap();
                assert_eq!(method.as_str(), name, "{line}");
                let entries: Vec<_> = catalog::generations(&method).into_iter().flatten().collect();
                assert!(!entries.is_empty(), "{name} is not documented");
                for entry in entries {
                    assert!(rule.condition == Condition::Own || [rule.mild, rule.strict].contains(&entry.class), "{line}");
                }
            }
        }
    }

    #[test]
    fn the_rows_of_a_method_agree_on_its_classes() {
        for entry in catalog::entries() {
            let rules = of(&Method::parse(entry.name).unwrap());
            let own: Vec<&Rule> = rules.iter().filter(|rule| rule.condition != Condition::Own && rule.place != Place::Marks).collect();
            assert!(own.windows(2).all(|pair| pair[0].mild == pair[1].mild && pair[0].strict == pair[1].strict), "{}", entry.name);
        }
    }

    #[test]
    fn a_mark_is_a_word_of_a_key_in_any_spelling() {
        for key in [
            "DEL",
            "del",
            "Delete",
            "remove",
            "PHOTO_del",
            "PROPERTY_12_DEL",
            "removeIds",
            "isDeleted",
            "del[x]",
            "doDelete",
            "UF_CLEAR",
            "CleAr",
            "REMOVEIDS",
            "ISDELETED",
        ] {
            assert!(is_mark(key), "{key}");
        }
        for key in ["DELIVERY_ID", "deliveryId", "MODEL", "DELAY", "DROPDOWN", "fields", "infoDelay", "CLEARANCE", ""] {
            assert!(!is_mark(key), "{key}");
        }
    }
}
