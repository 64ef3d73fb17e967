//! Lists of the second generation: filter, order and pages of 50 rows.

use super::envelope::Refusal;
use super::state::Row;
use super::system::param;
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// Rows of a page.
pub(super) const PAGE: usize = 50;

/// Tells which stored column a name of a request means.
pub(super) trait Schema {
    /// Returns the column; `None` for a name that the method ignores.
    fn column(&self, name: &str) -> Result<Option<String>, Refusal>;

    /// Refuses an order that the method does not know.
    fn check_order(&self, _name: &str, _direction: &str) -> Result<(), Refusal> {
        Ok(())
    }
}

/// What a list method was asked for.
pub(super) struct Query {
    filter: Filter,
    order: Vec<(String, Direction)>,
    start: Start,
}

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    Ascending,
    Descending,
}

/// Where the page begins.
enum Start {
    At(usize),
    /// `start = -1`: first rows, nothing is counted.
    Uncounted,
}

/// Rows of one page.
pub(super) struct Page<'a> {
    pub(super) rows: Vec<&'a Row>,
    pub(super) total: Option<usize>,
    pub(super) next: Option<usize>,
}

impl Query {
    /// Reads `filter`, `order` and `start`.
    pub(super) fn parse(params: &Map<String, Value>, schema: &dyn Schema) -> Result<Query, Refusal> {
        let filter = match param(params, "filter") {
            Some(Value::Object(entries)) => Filter::parse(entries, schema)?,
            _ => Filter::All(Vec::new()),
        };
        let mut order = Vec::new();
        if let Some(Value::Object(entries)) = param(params, "order") {
            for (name, direction) in entries {
                let direction = value_text(direction).to_uppercase();
                schema.check_order(name, &direction)?;
                if let Some(column) = schema.column(name)? {
                    order.push((column, if direction.starts_with("DESC") { Direction::Descending } else { Direction::Ascending }));
                }
            }
        }
        let start = match param(params, "start").map(|start| value_text(start).trim().parse::<i64>().unwrap_or(0)) {
            Some(-1) => Start::Uncounted,
            Some(start) => Start::At(usize::try_from(start).unwrap_or(0)),
            None => Start::At(0),
        };
        Ok(Query { filter, order, start })
    }

    /// Picks the page out of all rows, which come by ascending id.
    pub(super) fn run<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Page<'a> {
        let matching = rows.filter(|row| self.filter.matches(row));
        let by_id =
            matches!(self.order.as_slice(), [] | [(_, Direction::Ascending)]) && self.order.iter().all(|(column, _)| column == "ID");
        if by_id && matches!(self.start, Start::Uncounted) {
            return Page { rows: matching.take(PAGE).collect(), total: None, next: None };
        }
        let mut found: Vec<&Row> = matching.collect();
        if !by_id {
            found.sort_by(|left, right| self.compare(left, right));
        }
        let total = found.len();
        match self.start {
            Start::Uncounted => Page { rows: found.into_iter().take(PAGE).collect(), total: None, next: None },
            Start::At(start) => {
                let end = start.saturating_add(PAGE);
                let rows = found.into_iter().skip(start).take(PAGE).collect();
                Page { rows, total: Some(total), next: (end < total).then_some(end) }
            }
        }
    }

    /// Returns the first rows that match, out of rows that come in ascending
    /// order of a column. They are sorted only when another order is asked for.
    pub(super) fn first<'a>(&self, rows: impl Iterator<Item = &'a Row>, column: &str, limit: usize) -> Vec<&'a Row> {
        let matching = rows.filter(|row| self.filter.matches(row));
        if self.order.iter().all(|(name, direction)| name == column && *direction == Direction::Ascending) {
            return matching.take(limit).collect();
        }
        let mut found: Vec<&Row> = matching.collect();
        found.sort_by(|left, right| self.compare(left, right));
        found.truncate(limit);
        found
    }

    fn compare(&self, left: &Row, right: &Row) -> Ordering {
        let text = |row: &Row, column: &str| row.get(column).map(value_text).unwrap_or_default();
        for (column, direction) in &self.order {
            let ordering = compare_texts(&text(left, column), &text(right, column));
            let ordering = if *direction == Direction::Descending { ordering.reverse() } else { ordering };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    }
}

/// A condition over a row.
enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Test { column: String, operator: Operator, values: Vec<String> },
}

#[derive(Clone, Copy)]
enum Operator {
    In,
    NotIn,
    Greater,
    AtLeast,
    Less,
    AtMost,
    Contains,
    NotContains,
    Like,
    NotLike,
    Between,
    NotBetween,
}

/// Prefixes of filter keys; a prefix stands before its own beginnings.
const OPERATORS: &[(&str, Operator)] = &[
    ("!><", Operator::NotBetween),
    ("!=%", Operator::NotLike),
    ("!%=", Operator::NotLike),
    ("><", Operator::Between),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("=%", Operator::Like),
    ("%=", Operator::Like),
    ("!%", Operator::NotContains),
    ("!@", Operator::NotIn),
    ("!=", Operator::NotIn),
    (">", Operator::Greater),
    ("<", Operator::Less),
    ("%", Operator::Contains),
    ("@", Operator::In),
    ("!", Operator::NotIn),
    ("=", Operator::In),
];

impl Filter {
    fn parse(entries: &Map<String, Value>, schema: &dyn Schema) -> Result<Filter, Refusal> {
        let mut parts = Vec::new();
        let mut any = false;
        for (key, value) in entries {
            if key.eq_ignore_ascii_case("logic") {
                any = value_text(value).eq_ignore_ascii_case("or");
                continue;
            }
            if let (Ok(_), Value::Object(group)) = (key.parse::<u64>(), value) {
                parts.push(Filter::parse(group, schema)?);
                continue;
            }
            let (operator, name) = OPERATORS
                .iter()
                .find_map(|(prefix, operator)| Some((*operator, key.strip_prefix(prefix)?)))
                .unwrap_or((Operator::In, key.as_str()));
            if let Some(column) = schema.column(name)? {
                parts.push(Filter::Test { column, operator, values: values_of(value) });
            }
        }
        Ok(if any { Filter::Any(parts) } else { Filter::All(parts) })
    }

    fn matches(&self, row: &Row) -> bool {
        match self {
            Filter::All(parts) => parts.iter().all(|part| part.matches(row)),
            Filter::Any(parts) => parts.iter().any(|part| part.matches(row)),
            Filter::Test { column, operator, values } => {
                let stored = row.get(column).map_or_else(|| vec![String::new()], values_of);
                operator.holds(&stored, values)
            }
        }
    }
}

impl Operator {
    /// Compares; a stored list matches when one of its values does.
    fn holds(self, stored: &[String], wanted: &[String]) -> bool {
        let any = |test: &dyn Fn(&str, &str) -> bool| stored.iter().any(|have| wanted.iter().any(|want| test(have, want)));
        let is = |wanted: &[Ordering]| any(&|have, want| !have.is_empty() && wanted.contains(&compare_texts(have, want)));
        let between = || match wanted {
            [low, high, ..] => stored.iter().any(|have| compare_texts(have, low).is_ge() && compare_texts(have, high).is_le()),
            _ => false,
        };
        match self {
            Operator::In => any(&|have, want| compare_texts(have, want).is_eq()),
            Operator::NotIn => !any(&|have, want| compare_texts(have, want).is_eq()),
            Operator::Greater => is(&[Ordering::Greater]),
            Operator::AtLeast => is(&[Ordering::Greater, Ordering::Equal]),
            Operator::Less => is(&[Ordering::Less]),
            Operator::AtMost => is(&[Ordering::Less, Ordering::Equal]),
            Operator::Contains => any(&|have, want| have.to_lowercase().contains(&want.to_lowercase())),
            Operator::NotContains => !any(&|have, want| have.to_lowercase().contains(&want.to_lowercase())),
            Operator::Like => any(&like),
            Operator::NotLike => !any(&like),
            Operator::Between => between(),
            Operator::NotBetween => !between(),
        }
    }
}

/// Returns a scalar as the portal stores it.
pub(super) fn value_text(value: &Value) -> String {
    match value {
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
        Value::Bool(true) => "Y".to_owned(),
        Value::Bool(false) => "N".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
    }
}

/// Returns the values of a list, of a multiple field or of a scalar.
fn values_of(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.get("VALUE").map_or_else(|| value_text(item), value_text)).collect(),
        Value::Object(entries) => entries.values().map(value_text).collect(),
        scalar => vec![value_text(scalar)],
    }
}

/// Compares as the database does by the look of the values: numbers as
/// numbers, dates as moments, texts without case.
pub(super) fn compare_texts(left: &str, right: &str) -> Ordering {
    if let (Ok(left), Ok(right)) = (left.parse::<i64>(), right.parse::<i64>()) {
        return left.cmp(&right);
    }
    if let (Ok(left), Ok(right)) = (left.parse::<f64>(), right.parse::<f64>()) {
        return left.total_cmp(&right);
    }
    if let (Some(left), Some(right)) = (moment(left), moment(right)) {
        return left.cmp(&right);
    }
    left.to_lowercase().cmp(&right.to_lowercase())
}

fn moment(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp());
    }
    let local =
        NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S"));
    if let Ok(time) = local {
        return Some(time.and_utc().timestamp());
    }
    Some(NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?.and_hms_opt(0, 0, 0)?.and_utc().timestamp())
}

/// Matches a pattern in which `%` stands for any characters.
fn like(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.to_lowercase(), pattern.to_lowercase());
    let mut parts = pattern.split('%');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    if !pattern.contains('%') {
        return rest.is_empty();
    }
    let parts: Vec<&str> = parts.collect();
    let (last, middle) = parts.split_last().unwrap_or((&"", &[]));
    for part in middle {
        let Some(position) = rest.find(part) else { return false };
        rest = &rest[position + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    struct Plain;

    impl Schema for Plain {
        fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
            Ok(Some(name.to_owned()))
        }
    }

    fn matches(filter: &Value, row: &Value) -> bool {
        Filter::parse(filter.as_object().unwrap(), &Plain).unwrap().matches(row.as_object().unwrap())
    }

    #[test]
    fn every_operator_of_a_filter() {
        let row = json!({"ID": "42", "TITLE": "Big deal", "SUM": "10.10", "DATE": "2026-05-01T10:00:00+00:00", "NONE": null,
            "PHONE": [{"ID": "1", "VALUE": "+123"}]});
        for (filter, expected) in [
            (json!({"ID": 42}), true),
            (json!({"=ID": "42", "!ID": "41"}), true),
            (json!({"!=ID": "42"}), false),
            (json!({">ID": 9}), true),
            (json!({"<ID": 9}), false),
            (json!({">=SUM": "10.1", "<=SUM": 10.1}), true),
            (json!({"%TITLE": "DEAL"}), true),
            (json!({"!%TITLE": "deal"}), false),
            (json!({"=%TITLE": "b%d%l"}), true),
            (json!({"%=TITLE": "deal%"}), false),
            (json!({"@ID": [1, 42]}), true),
            (json!({"ID": ["1", "42"]}), true),
            (json!({"!@ID": [1, 42]}), false),
            (json!({"><ID": [40, 50]}), true),
            (json!({"><DATE": ["2026-05-01", "2026-05-02"]}), true),
            (json!({"NONE": ""}), true),
            (json!({"ABSENT": null}), true),
            (json!({"!NONE": ""}), false),
            (json!({"PHONE": "+123"}), true),
            (json!({"0": {"logic": "OR", "ID": 1, "TITLE": "big deal"}}), true),
        ] {
            assert_eq!(matches(&filter, &row), expected, "{filter}");
        }
    }
}
