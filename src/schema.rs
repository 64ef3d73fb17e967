//! Whether parameters fit their method, checked before anything is sent.
//!
//! Much that is documented as required or typed is not enforced by portals, and
//! an official example must never be refused. So there are two strengths. An
//! **error** is what the portal would surely refuse, or what would quietly mean
//! something else: a key that is one typo away from a documented one, a list
//! where a number belongs, an update without the id. Everything else that looks
//! odd is a **warning**. Only the called method's schema is built.

use crate::catalog::Details;
use crate::method::Method;
use jsonschema::error::ValidationErrorKind;
use serde_json::{Map, Value, json};

/// Similarity from which an unknown top-level key is taken for a typo.
const CLOSE_KEY: f64 = 0.88;

/// The same for members of `fields`, where custom names are common.
const CLOSE_FIELD: f64 = 0.93;

/// Beginnings of names that portals make up: custom fields and properties.
const CUSTOM_STARTS: &[&str] = &["UF_", "ufCrm", "uf", "PROPERTY_", "property", "PARENT_ID_", "parentId"];

/// How sure it is that the call would not do what is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strength {
    /// It is not sent.
    Error,
    /// It is sent, with a warning.
    Warning,
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Where: `fields[TITLE]`.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What would fit.
    pub expected: String,
    /// What may have been meant.
    pub suggest: Option<String>,
    /// How sure it is.
    pub strength: Strength,
    /// Whether it is about a name that is not documented.
    pub is_unknown: bool,
}

impl Problem {
    /// Returns the problem as it stands in `fields` of the error object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({"path": self.path, "problem": self.problem, "expected": self.expected});
        if let Some(suggest) = &self.suggest {
            value["suggest"] = Value::from(suggest.as_str());
        }
        value
    }
}

/// Checks the parameters of one call; all problems at once.
#[must_use]
pub fn check(method: &Method, details: &Details, params: &Value) -> Vec<Problem> {
    // Positional parameters, and methods whose page has no table of them.
    let Value::Object(map) = params else { return Vec::new() };
    if details.params.is_empty() {
        return Vec::new();
    }
    let mut problems = unknown_keys(details, map);
    problems.extend(typed(details, params));
    problems.extend(missing(method, details, map));
    for (name, members) in details.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("fields")) {
        if let Some(Value::Object(given)) = get(map, name) {
            problems.extend(unknown_members(name, members, given));
        }
    }
    problems
}

fn get<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).or_else(|| map.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn unknown_keys(details: &Details, map: &Map<String, Value>) -> Vec<Problem> {
    let is_known = |key: &str| {
        details.params.iter().any(|(name, ..)| name == key)
            || details.extra.iter().any(|name| name == key)
            || details.any_case.iter().any(|name| name.eq_ignore_ascii_case(key))
            // Accepted by every list method, whether its page says so or not.
            || ["start", "auth_connector", "halt"].contains(&key)
    };
    let unknown = map.keys().filter(|key| !is_known(key));
    unknown
        .map(|key| {
            let names = details.params.iter().map(|(name, ..)| name.as_str());
            match closest(key, names, CLOSE_KEY) {
                Some(name) => Problem {
                    path: key.clone(),
                    problem: "is not a parameter of the method".to_owned(),
                    expected: name.to_owned(),
                    suggest: Some(name.to_owned()),
                    strength: Strength::Error,
                    is_unknown: true,
                },
                None => Problem {
                    path: key.clone(),
                    problem: "is not a documented parameter of the method".to_owned(),
                    expected: details.params.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", "),
                    suggest: None,
                    strength: Strength::Warning,
                    is_unknown: true,
                },
            }
        })
        .collect()
}

/// Returns the known name that an unknown one was probably meant to be.
fn closest<'a>(key: &str, names: impl Iterator<Item = &'a str>, from: f64) -> Option<&'a str> {
    let folded = key.to_lowercase();
    let scored = names.map(|name| {
        let known = name.to_lowercase();
        let score = if known == folded { 1.0 } else { strsim::jaro_winkler(&known, &folded) };
        let swapped = strsim::damerau_levenshtein(&known, &folded);
        // In short names one letter is much; two edits are another word.
        (if swapped == 1 || (swapped == 2 && known.len() > 6) { score.max(from) } else { score }, swapped, name)
    });
    scored.filter(|(score, swapped, _)| *score >= from && *swapped <= 2).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(.., name)| name)
}

/// Returns the JSON Schema of the method's top level: the types that are
/// checked before anything is sent.
#[must_use]
pub fn json_schema(details: &Details) -> Value {
    let properties: Map<String, Value> = details.params.iter().map(|(name, kind, _)| (name.clone(), type_schema(kind))).collect();
    json!({"type": "object", "properties": properties})
}

/// Returns a value of a documented type, to be replaced by a real one.
#[must_use]
pub fn placeholder(kind: &str) -> Value {
    match kind.split('|').next().unwrap_or_default() {
        "integer" => json!(0),
        "double" | "number" | "float" => json!(0.5),
        "boolean" => json!(true),
        "datetime" => json!("2026-01-31T12:00:00+00:00"),
        "date" => json!("2026-01-31"),
        "object" => json!({}),
        "array" => json!([]),
        list if list.ends_with("[]") => json!([placeholder(list.trim_end_matches("[]"))]),
        _ => json!("text"),
    }
}

/// Checks the types of the method's top level.
fn typed(details: &Details, params: &Value) -> Vec<Problem> {
    // Compiling a schema takes longer than the rest of a call before it is
    // sent; it is needed only to say what does not fit.
    let is_plain = |(name, kind, _): &(String, String, bool)| params.get(name).is_none_or(|value| plainly_fits(kind, value));
    if details.params.iter().all(is_plain) {
        return Vec::new();
    }
    let schema = json_schema(details);
    let Ok(validator) = jsonschema::options().should_validate_formats(false).build(&schema) else { return Vec::new() };
    let errors = validator.iter_errors(params);
    errors
        .filter_map(|error| {
            let path = error.instance_path().to_string();
            let name = path.trim_start_matches('/').to_owned();
            let expected = details.params.iter().find(|(known, ..)| *known == name).map_or("", |(_, kind, _)| kind.as_str());
            let is_reference = error.instance().to_string().contains("$re");
            let is_type = matches!(
                error.kind(),
                ValidationErrorKind::Type { .. } | ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::Pattern { .. }
            );
            (is_type && !is_reference).then(|| Problem {
                path: name,
                problem: format!("is {}", shape(error.instance())),
                expected: expected.to_owned(),
                suggest: None,
                strength: Strength::Error,
                is_unknown: false,
            })
        })
        .collect()
}

/// Returns whether a value is of the very kind that the type names; the schema
/// admits more than this, never less.
fn plainly_fits(kind: &str, value: &Value) -> bool {
    let is_compound = value.is_object() || value.is_array();
    match kind {
        "integer" | "double" | "number" | "float" => match value {
            Value::String(text) => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
            other => other.is_number(),
        },
        "object" | "array" => is_compound,
        "string" | "text" | "char" | "boolean" | "datetime" | "date" => !is_compound,
        other if other.ends_with("[]") => is_compound,
        other => other.split('|').any(|kind| kind != other && plainly_fits(kind, value)),
    }
}

/// Returns what a documented type admits. PHP reads a number from a string, an
/// empty list for an empty map and a map for a list; it does not read a list
/// for a number.
fn type_schema(kind: &str) -> Value {
    let scalar = json!({"type": ["string", "number", "boolean", "null"]});
    let compound = json!({"type": ["object", "array", "null", "string"]});
    if kind.contains("any") {
        return json!({});
    }
    if kind.contains('|') {
        return json!({"anyOf": kind.split('|').map(type_schema).collect::<Vec<Value>>()});
    }
    match kind {
        "integer" | "double" | "number" | "float" => json!({"anyOf": [
            {"type": ["number", "boolean", "null"]},
            {"type": "string", "pattern": "^\\s*$|^[-+]?[0-9.,]+$|[$*%&{<]"},
        ]}),
        "object" | "array" => compound,
        "string" | "text" | "char" | "boolean" | "datetime" | "date" => scalar,
        other if other.ends_with("[]") => compound,
        _ => json!({}),
    }
}

fn shape(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// An id that an update, a deletion or a look-up cannot do without is an error;
/// whatever else is documented as required is a warning.
fn missing(method: &Method, details: &Details, map: &Map<String, Value>) -> Vec<Problem> {
    let acts_on_one = ["delete", "get", "update"].contains(&method.verb());
    let required = details.params.iter().filter(|(name, _, required)| *required && !details.optional.contains(name));
    required
        .filter(|(name, ..)| get(map, name).is_none_or(|value| value.is_null() || *value == ""))
        .map(|(name, kind, _)| Problem {
            path: name.clone(),
            problem: "is missing".to_owned(),
            expected: kind.clone(),
            suggest: None,
            strength: if acts_on_one && name.eq_ignore_ascii_case("id") { Strength::Error } else { Strength::Warning },
            is_unknown: false,
        })
        .collect()
}

/// Portals ignore an unknown field in silence, so a typo in a field's name
/// loses its value.
fn unknown_members(parent: &str, members: &[(String, String, bool)], given: &Map<String, Value>) -> Vec<Problem> {
    let is_known = |key: &str| {
        members.iter().any(|(name, ..)| name.eq_ignore_ascii_case(key)) || CUSTOM_STARTS.iter().any(|start| key.starts_with(start))
    };
    let unknown = given.keys().filter(|key| !is_known(key));
    unknown
        .filter_map(|key| {
            let name = closest(key, members.iter().map(|(name, ..)| name.as_str()), CLOSE_FIELD)?;
            Some(Problem {
                path: format!("{parent}[{key}]"),
                problem: "is not a field of the method".to_owned(),
                expected: name.to_owned(),
                suggest: Some(name.to_owned()),
                strength: Strength::Error,
                is_unknown: true,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog;

    fn problems(name: &str, params: &Value) -> Vec<(String, Strength)> {
        let method = Method::parse(name).unwrap();
        let entry = catalog::generations(&method).into_iter().flatten().next().unwrap();
        let problems = check(&method, &entry.details().unwrap(), params);
        problems.into_iter().map(|problem| (problem.path, problem.strength)).collect()
    }

    #[test]
    fn what_plainly_fits_fits_the_schema() {
        let values = [
            json!(null),
            json!(true),
            json!(7),
            json!(-1.50),
            json!("7"),
            json!(""),
            json!("x"),
            json!([]),
            json!([1]),
            json!({}),
            json!({"a": 1}),
            json!("$result[a]"),
        ];
        let mut kinds: Vec<String> = catalog::entries().flat_map(|entry| entry.details().unwrap().params).map(|param| param.1).collect();
        kinds.sort_unstable();
        kinds.dedup();
        for kind in kinds {
            let validator = jsonschema::options().build(&type_schema(&kind)).unwrap();
            for value in &values {
                assert!(!plainly_fits(&kind, value) || validator.is_valid(value), "{kind} {value}");
            }
        }
    }

    #[test]
    fn ordinary_requests_fit() {
        assert_eq!(problems("crm.lead.add", &json!({"fields": {"TITLE": "x", "UF_CRM_1": 1}})), []);
        assert_eq!(problems("crm.lead.get", &json!({"id": "7"})), []);
        assert_eq!(problems("crm.lead.list", &json!({"filter": {">ID": 5}, "select": ["ID"], "order": {"ID": "ASC"}, "start": 50})), []);
    }

    #[test]
    fn what_would_mean_something_else_is_an_error() {
        let error = |path: &str| vec![(path.to_owned(), Strength::Error)];
        assert_eq!(problems("crm.lead.list", &json!({"fitler": {}})), error("fitler"));
        assert_eq!(problems("crm.lead.list", &json!({"FILTER": {}})), error("FILTER"));
        assert_eq!(problems("crm.lead.list", &json!({"filter": 5})), error("filter"));
        assert_eq!(problems("crm.lead.get", &json!({})), error("id"));
        assert_eq!(problems("crm.lead.get", &json!({"id": [1]})), error("id"));
        assert_eq!(problems("crm.lead.get", &json!({"id": "seven"})), error("id"));
        assert_eq!(problems("crm.lead.add", &json!({"fields": {"TITEL": "x"}})), error("fields[TITEL]"));
    }

    #[test]
    fn what_may_be_meant_is_a_warning() {
        assert_eq!(problems("crm.lead.get", &json!({"id": 1, "verbose": 1})), [("verbose".to_owned(), Strength::Warning)]);
    }
}
