//! The documented methods: which names exist, in which spelling, in which API
//! generation.
//!
//! The table is embedded, sorted by bytes, and searched by bisection: a call
//! parses one line and pays for nothing else. It is made from the facts of the
//! official documentation by the test `catalog_is_current`.

use crate::method::Method;

/// One line a method: folded name, documented spelling, generations.
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

/// What is known of one method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The folded name.
    pub folded: &'static str,
    /// The spelling of the documentation, which goes over the wire.
    pub name: &'static str,
    /// Whether the classic API has it.
    pub v2: bool,
    /// Whether REST 3.0 has it.
    pub v3: bool,
}

impl Entry {
    /// Returns whether the generation has the method.
    #[must_use]
    pub fn is_in(&self, api: Api) -> bool {
        match api {
            Api::V2 => self.v2,
            Api::V3 => self.v3,
        }
    }

    /// A line that does not parse is an unknown method: closed, not open.
    fn parse(line: &'static str) -> Option<Entry> {
        let mut columns = line.split('\t');
        let (folded, name, apis) = (columns.next()?, columns.next()?, columns.next()?);
        Some(Entry { folded, name, v2: apis.contains("v2"), v3: apis.contains("v3") })
    }
}

/// Looks a method up.
#[must_use]
pub fn find(method: &Method) -> Option<Entry> {
    let wanted = method.as_str();
    let (mut low, mut high) = (0, TABLE.len());
    while low < high {
        let middle = usize::midpoint(low, high);
        let start = TABLE[..middle].rfind('\n').map_or(0, |newline| newline + 1);
        let end = TABLE[start..].find('\n').map_or(TABLE.len(), |length| start + length);
        let entry = Entry::parse(&TABLE[start..end])?;
        match entry.folded.cmp(wanted) {
            std::cmp::Ordering::Equal => return Some(entry),
            std::cmp::Ordering::Less => low = end + 1,
            std::cmp::Ordering::Greater => high = start,
        }
    }
    None
}

/// Returns every method.
pub fn entries() -> impl Iterator<Item = Entry> {
    TABLE.lines().filter_map(Entry::parse)
}

/// Returns up to three known names that the text may have meant, best first.
#[must_use]
pub fn suggestions(text: &str) -> Vec<&'static str> {
    let folded = text.to_ascii_lowercase();
    let mut scored: Vec<(f64, &'static str)> =
        entries().map(|entry| (strsim::jaro_winkler(&folded, entry.folded), entry.name)).filter(|(score, _)| *score > 0.88).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_sorted_canonical_and_found() {
        let lines: Vec<&str> = TABLE.lines().collect();
        assert!(lines.windows(2).all(|pair| pair[0] < pair[1]));
        for line in lines {
            let entry = Entry::parse(line).expect(line);
            let method = Method::parse(entry.name).expect(line);
            assert_eq!(method.as_str(), entry.folded);
            assert_eq!(find(&method), Some(entry));
            assert!(entry.v2 || entry.v3);
        }
    }

    #[test]
    fn unknown_names_are_not_found_and_get_suggestions() {
        assert_eq!(find(&Method::parse("crm.lead.lst").unwrap()), None);
        assert_eq!(find(&Method::parse("a").unwrap()), None);
        assert_eq!(find(&Method::parse("zzz.zzz").unwrap()), None);
        assert_eq!(suggestions("crm.lead.lst")[0], "crm.lead.list");
        assert!(suggestions("qqqqqqqqqqqqq").is_empty());
    }
}
