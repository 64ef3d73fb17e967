//! Lists of the third generation: filter triples, order and pagination.

use super::envelope::Refusal;
use super::query::{compare_texts, value_text};
use super::state::Row;
use serde_json::{Map, Value};
use std::cmp::Ordering;

/// The largest page of `tasks.task.list`, whatever limit is asked for.
const PAGE_CAP: usize = 50;

/// What a query may do with a field.
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) filterable: bool,
}

/// Finds a field by its name.
type Columns<'a> = &'a dyn Fn(&str) -> Option<Column>;

/// What a list method was asked for.
pub(super) struct ListQuery {
    filter: Condition,
    order: Vec<(&'static str, bool)>,
    offset: usize,
    limit: usize,
}

enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Test { column: &'static str, operator: Operator, values: Vec<String> },
}

#[derive(Clone, Copy)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    AtLeast,
    Less,
    AtMost,
    In,
    Between,
}

impl ListQuery {
    pub(super) fn parse(params: &Map<String, Value>, columns: Columns<'_>) -> Result<ListQuery, Refusal> {
        let filter = match params.get("filter") {
            None | Some(Value::Null) => Condition::All(Vec::new()),
            Some(Value::Array(items)) => Condition::All(group(items, columns)?),
            Some(other) => return Err(unknown_operator(other)),
        };
        let (offset, limit) = pagination(params.get("pagination"))?;
        Ok(ListQuery { filter, order: order(params.get("order"), columns)?, offset, limit })
    }

    /// Picks the page out of all rows, which come by ascending id.
    pub(super) fn run<'a>(&self, rows: impl Iterator<Item = &'a Row>) -> Vec<&'a Row> {
        let mut found: Vec<&Row> = rows.filter(|row| self.filter.matches(row)).collect();
        let text = |row: &Row, column: &str| row.get(column).map(value_text).unwrap_or_default();
        found.sort_by(|left, right| {
            let orderings = self.order.iter().map(|(column, descending)| {
                let ordering = compare_texts(&text(left, column), &text(right, column));
                if *descending { ordering.reverse() } else { ordering }
            });
            orderings.fold(Ordering::Equal, Ordering::then)
        });
        found.into_iter().skip(self.offset).take(self.limit).collect()
    }
}

fn group(items: &[Value], columns: Columns<'_>) -> Result<Vec<Condition>, Refusal> {
    // One bare triple is taken for a list of one.
    if items.first().is_some_and(Value::is_string) {
        return Ok(vec![triple(items, columns)?]);
    }
    items.iter().map(|item| condition(item, columns)).collect()
}

fn condition(item: &Value, columns: Columns<'_>) -> Result<Condition, Refusal> {
    match item {
        Value::Array(parts) => triple(parts, columns),
        Value::Object(parts) => {
            let conditions = parts.get("conditions").and_then(Value::as_array).ok_or_else(|| invalid_filter(item))?;
            let conditions = group(conditions, columns)?;
            let any = parts.get("logic").map(value_text).is_some_and(|logic| logic.eq_ignore_ascii_case("or"));
            let joined = if any { Condition::Any(conditions) } else { Condition::All(conditions) };
            let negative = parts.get("negative") == Some(&Value::Bool(true));
            Ok(if negative { Condition::Not(Box::new(joined)) } else { joined })
        }
        _ => Err(invalid_filter(item)),
    }
}

fn triple(parts: &[Value], columns: Columns<'_>) -> Result<Condition, Refusal> {
    let whole = || Value::Array(parts.to_vec());
    let (name, operator, value) = match parts {
        [name, value @ Value::Array(_)] => (name, "in".to_owned(), value),
        [name, value] => (name, "=".to_owned(), value),
        [name, operator, value] => (name, value_text(operator), value),
        _ => return Err(invalid_filter(&whole())),
    };
    let name = name.as_str().ok_or_else(|| invalid_filter(&whole()))?;
    let operator = match operator.as_str() {
        "=" => Operator::Equal,
        "!=" => Operator::NotEqual,
        ">" => Operator::Greater,
        ">=" => Operator::AtLeast,
        "<" => Operator::Less,
        "<=" => Operator::AtMost,
        "in" => Operator::In,
        "between" => Operator::Between,
        other => return Err(unknown_operator(&Value::from(other))),
    };
    let column = columns(name)
        .ok_or_else(|| Refusal::v3(400, "UNKNOWNDTOPROPERTYEXCEPTION", format!("Unknown field `{name}` for entity `TaskDto`")))?;
    if !column.filterable {
        let message = format!("In DTO `TaskDto`, the `{name}` field requires the `Filterable` attribute for such a request");
        return Err(Refusal::field(name, message));
    }
    let values = match (operator, value) {
        (Operator::In | Operator::Between, Value::Array(items)) => items.iter().map(value_text).collect(),
        (Operator::In | Operator::Between, _) => return Err(invalid_filter(&whole())),
        (_, scalar) => vec![value_text(scalar)],
    };
    Ok(Condition::Test { column: column.name, operator, values })
}

impl Condition {
    fn matches(&self, row: &Row) -> bool {
        match self {
            Condition::All(parts) => parts.iter().all(|part| part.matches(row)),
            Condition::Any(parts) => parts.iter().any(|part| part.matches(row)),
            Condition::Not(part) => !part.matches(row),
            Condition::Test { column, operator, values } => {
                let stored = row.get(*column).map(value_text).unwrap_or_default();
                operator.holds(&stored, values)
            }
        }
    }
}

impl Operator {
    fn holds(self, stored: &str, values: &[String]) -> bool {
        let first = || compare_texts(stored, values.first().map_or("", String::as_str));
        match self {
            Operator::Equal => first().is_eq(),
            Operator::NotEqual => first().is_ne(),
            Operator::Greater => first().is_gt(),
            Operator::AtLeast => first().is_ge(),
            Operator::Less => first().is_lt(),
            Operator::AtMost => first().is_le(),
            Operator::In => values.iter().any(|value| compare_texts(stored, value).is_eq()),
            Operator::Between => match values {
                [low, high] => compare_texts(stored, low).is_ge() && compare_texts(stored, high).is_le(),
                _ => false,
            },
        }
    }
}

fn order(order: Option<&Value>, columns: Columns<'_>) -> Result<Vec<(&'static str, bool)>, Refusal> {
    let bad = |what: &Value| Refusal::v3(400, "INVALIDORDEREXCEPTION", format!("Unable to recognize sorting parameter `{what}`"));
    let entries = match order {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(bad(other)),
    };
    entries
        .iter()
        .map(|(name, direction)| {
            let column = columns(name).ok_or_else(|| bad(&Value::from(name.as_str())))?;
            match direction.as_str() {
                Some(word) if word.eq_ignore_ascii_case("asc") => Ok((column.name, false)),
                Some(word) if word.eq_ignore_ascii_case("desc") => Ok((column.name, true)),
                _ => Err(bad(direction)),
            }
        })
        .collect()
}

/// Reads `pagination`. A larger limit is cut in silence; 0 and texts are
/// refused; a negative one breaks the portal, as measured.
fn pagination(pagination: Option<&Value>) -> Result<(usize, usize), Refusal> {
    let Some(pagination) = pagination.filter(|value| !value.is_null()) else { return Ok((0, PAGE_CAP)) };
    let bad = || Refusal::v3(400, "INVALIDPAGINATIONEXCEPTION", format!("Unable to recognize the pagination parameter `{pagination}`"));
    let number = |name: &str| match pagination.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Number(number)) => number.as_i64().map(Some).ok_or_else(bad),
        Some(_) => Err(bad()),
    };
    if !pagination.is_object() && !pagination.as_array().is_some_and(Vec::is_empty) {
        return Err(bad());
    }
    let limit = match number("limit")? {
        None => PAGE_CAP,
        Some(0) => return Err(bad()),
        Some(limit) => match usize::try_from(limit) {
            Ok(limit) => limit.min(PAGE_CAP),
            Err(_) => return Err(Refusal::v3(500, "INTERNAL_INTERNALEXCEPTION", "Internal error")),
        },
    };
    let offset = match (number("offset")?, number("page")?) {
        (Some(offset), _) => usize::try_from(offset).map_err(|_| bad())?,
        (None, Some(page)) => usize::try_from(page - 1).map_err(|_| bad())?.saturating_mul(limit),
        (None, None) => 0,
    };
    Ok((offset, limit))
}

fn invalid_filter(what: &Value) -> Refusal {
    Refusal::v3(400, "INVALIDFILTEREXCEPTION", format!("Unable to recognize the filter `{what}`"))
}

fn unknown_operator(what: &Value) -> Refusal {
    Refusal::v3(400, "UNKNOWNFILTEROPERATOREXCEPTION", format!("Unknown filter operator `{what}`"))
}
