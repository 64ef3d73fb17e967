//! The standard fields of CRM objects and how their values are stored.
//!
//! A row holds what the classic API shows: upper-case names, text values,
//! `null` for nothing.

use super::envelope::Refusal;
use super::query::value_text;
use serde_json::{Number, Value};

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    User,
    Double,
    Text,
    /// `Y` or `N`.
    Char,
    Status,
    Date,
    DateTime,
    /// Phone numbers and the like: rows with `ID`, `VALUE`, `VALUE_TYPE`.
    Multiple,
}

/// A standard field.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) read_only: bool,
}

const fn own(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, read_only: false }
}

const fn fixed(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, read_only: true }
}

const ID: &[Field] = &[fixed("ID", Kind::Integer)];

const STAMPS: &[Field] = &[
    own("ASSIGNED_BY_ID", Kind::User),
    fixed("CREATED_BY_ID", Kind::User),
    fixed("MODIFY_BY_ID", Kind::User),
    fixed("DATE_CREATE", Kind::DateTime),
    fixed("DATE_MODIFY", Kind::DateTime),
    own("OPENED", Kind::Char),
    own("COMMENTS", Kind::Text),
    own("SOURCE_ID", Kind::Status),
    own("SOURCE_DESCRIPTION", Kind::Text),
    own("ORIGINATOR_ID", Kind::Text),
    own("ORIGIN_ID", Kind::Text),
    own("UTM_SOURCE", Kind::Text),
    own("UTM_MEDIUM", Kind::Text),
    own("UTM_CAMPAIGN", Kind::Text),
    own("UTM_CONTENT", Kind::Text),
    own("UTM_TERM", Kind::Text),
    fixed("LAST_ACTIVITY_BY", Kind::User),
    fixed("LAST_ACTIVITY_TIME", Kind::DateTime),
];

const LEAD: &[Field] = &[
    own("TITLE", Kind::Text),
    own("HONORIFIC", Kind::Status),
    own("NAME", Kind::Text),
    own("SECOND_NAME", Kind::Text),
    own("LAST_NAME", Kind::Text),
    own("COMPANY_TITLE", Kind::Text),
    own("COMPANY_ID", Kind::Integer),
    own("CONTACT_ID", Kind::Integer),
    own("BIRTHDATE", Kind::Date),
    own("STATUS_ID", Kind::Status),
    own("STATUS_DESCRIPTION", Kind::Text),
    fixed("STATUS_SEMANTIC_ID", Kind::Text),
    own("POST", Kind::Text),
    own("CURRENCY_ID", Kind::Text),
    own("OPPORTUNITY", Kind::Double),
    own("IS_MANUAL_OPPORTUNITY", Kind::Char),
    fixed("DATE_CLOSED", Kind::DateTime),
    fixed("MOVED_BY_ID", Kind::User),
    fixed("MOVED_TIME", Kind::DateTime),
    own("ADDRESS", Kind::Text),
    own("PHONE", Kind::Multiple),
    own("EMAIL", Kind::Multiple),
    own("WEB", Kind::Multiple),
    own("IM", Kind::Multiple),
];

const DEAL: &[Field] = &[
    own("TITLE", Kind::Text),
    own("TYPE_ID", Kind::Status),
    own("CATEGORY_ID", Kind::Integer),
    own("STAGE_ID", Kind::Status),
    fixed("STAGE_SEMANTIC_ID", Kind::Text),
    own("PROBABILITY", Kind::Integer),
    own("CURRENCY_ID", Kind::Text),
    own("OPPORTUNITY", Kind::Double),
    own("IS_MANUAL_OPPORTUNITY", Kind::Char),
    own("TAX_VALUE", Kind::Double),
    own("LEAD_ID", Kind::Integer),
    own("COMPANY_ID", Kind::Integer),
    own("CONTACT_ID", Kind::Integer),
    own("QUOTE_ID", Kind::Integer),
    own("BEGINDATE", Kind::Date),
    own("CLOSEDATE", Kind::Date),
    own("CLOSED", Kind::Char),
    own("ADDITIONAL_INFO", Kind::Text),
    own("LOCATION_ID", Kind::Integer),
    fixed("MOVED_BY_ID", Kind::User),
    fixed("MOVED_TIME", Kind::DateTime),
];

const CONTACT: &[Field] = &[
    own("HONORIFIC", Kind::Status),
    own("NAME", Kind::Text),
    own("SECOND_NAME", Kind::Text),
    own("LAST_NAME", Kind::Text),
    own("BIRTHDATE", Kind::Date),
    own("TYPE_ID", Kind::Status),
    own("POST", Kind::Text),
    own("COMPANY_ID", Kind::Integer),
    own("LEAD_ID", Kind::Integer),
    own("EXPORT", Kind::Char),
    own("ADDRESS", Kind::Text),
    own("PHONE", Kind::Multiple),
    own("EMAIL", Kind::Multiple),
    own("WEB", Kind::Multiple),
    own("IM", Kind::Multiple),
];

const COMPANY: &[Field] = &[
    own("TITLE", Kind::Text),
    own("COMPANY_TYPE", Kind::Status),
    own("INDUSTRY", Kind::Status),
    own("EMPLOYEES", Kind::Status),
    own("REVENUE", Kind::Double),
    own("CURRENCY_ID", Kind::Text),
    own("BANKING_DETAILS", Kind::Text),
    own("IS_MY_COMPANY", Kind::Char),
    own("LEAD_ID", Kind::Integer),
    own("ADDRESS", Kind::Text),
    own("PHONE", Kind::Multiple),
    own("EMAIL", Kind::Multiple),
    own("WEB", Kind::Multiple),
    own("IM", Kind::Multiple),
];

const DYNAMIC: &[Field] = &[
    own("TITLE", Kind::Text),
    own("XML_ID", Kind::Text),
    own("CATEGORY_ID", Kind::Integer),
    own("STAGE_ID", Kind::Status),
    own("CURRENCY_ID", Kind::Text),
    own("OPPORTUNITY", Kind::Double),
    own("IS_MANUAL_OPPORTUNITY", Kind::Char),
    own("TAX_VALUE", Kind::Double),
    own("COMPANY_ID", Kind::Integer),
    own("CONTACT_ID", Kind::Integer),
    own("BEGINDATE", Kind::Date),
    own("CLOSEDATE", Kind::Date),
    fixed("MOVED_BY_ID", Kind::User),
    fixed("MOVED_TIME", Kind::DateTime),
];

/// Returns the standard fields of an entity in the order of its rows.
pub(super) fn of(entity: &str) -> impl Iterator<Item = &'static Field> + use<> {
    let special = match entity {
        "lead" => LEAD,
        "deal" => DEAL,
        "contact" => CONTACT,
        "company" => COMPANY,
        _ => DYNAMIC,
    };
    ID.iter().chain(special).chain(STAMPS)
}

/// Returns a standard field.
pub(super) fn find(entity: &str, name: &str) -> Option<&'static Field> {
    of(entity).find(|field| field.name == name)
}

/// Returns whether the name is one of a portal's own fields, of which the
/// emulator accepts any.
pub(super) fn is_custom(name: &str) -> bool {
    name.starts_with("UF_") || name.starts_with("PARENT_ID_")
}

impl Kind {
    /// Returns the value as a row stores it: `"10.10"` stays, `10` becomes
    /// `"10.00"`, a flag becomes `Y` or `N`.
    pub(super) fn stored(self, value: &Value) -> Value {
        match (self, value) {
            (_, Value::Null) => Value::Null,
            (Kind::Double, _) => Value::String(money(&value_text(value))),
            (Kind::Char, _) => {
                let yes = matches!(value_text(value).as_str(), "Y" | "y" | "1" | "true");
                Value::from(if yes { "Y" } else { "N" })
            }
            (Kind::Integer | Kind::User | Kind::Text | Kind::Status | Kind::Date | Kind::DateTime | Kind::Multiple, _) => {
                Value::String(value_text(value))
            }
        }
    }

    /// Returns the value as the universal methods show it: ids and sums are
    /// numbers.
    pub(super) fn shown(self, value: &Value) -> Value {
        let text = value_text(value);
        match self {
            Kind::Integer | Kind::User => number(&text),
            Kind::Double => number(trim_zeros(&text)),
            Kind::Text | Kind::Char | Kind::Status | Kind::Date | Kind::DateTime | Kind::Multiple => value.clone(),
        }
    }

    /// Returns the word of `*.fields`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Integer => "integer",
            Kind::User => "user",
            Kind::Double => "double",
            Kind::Text => "string",
            Kind::Char => "char",
            Kind::Status => "crm_status",
            Kind::Date => "date",
            Kind::DateTime => "datetime",
            Kind::Multiple => "crm_multifield",
        }
    }
}

/// Returns custom values unchanged but for scalars, which become text.
pub(super) fn stored_custom(value: &Value) -> Value {
    match value {
        Value::Null | Value::Object(_) => value.clone(),
        Value::Array(items) => Value::Array(items.iter().map(stored_custom).collect()),
        scalar => Value::String(value_text(scalar)),
    }
}

/// Refuses a call without an object in `fields`.
pub(super) fn not_an_object() -> Refusal {
    Refusal::v2(400, "", "Parameter 'fields' must be array.")
}

/// Returns a sum with at least two decimals, as a decimal column shows it.
fn money(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.parse::<f64>().is_err() {
        return "0.00".to_owned();
    }
    match text.split_once('.') {
        None => format!("{text}.00"),
        Some((whole, decimals)) if decimals.len() < 2 => format!("{whole}.{decimals:0<2}"),
        Some(_) => text.to_owned(),
    }
}

fn trim_zeros(text: &str) -> &str {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text }
}

/// Returns the text as a JSON number, `null` when it is none.
fn number(text: &str) -> Value {
    text.parse::<Number>().map_or(Value::Null, Value::Number)
}
