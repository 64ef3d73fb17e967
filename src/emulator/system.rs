//! Users, scopes and what a portal tells about itself.

use super::crm::ENTITIES;
use super::envelope::{Answer, Refusal, Success, stamp};
use super::portal::Turn;
use super::query::{Query, Schema, value_text};
use super::state::Row;
use serde_json::{Map, Value, json};

/// The user with administrator rights.
pub(super) const ADMIN: u64 = 1;

/// The scopes of every webhook and of the application.
pub(super) const SCOPES: &[&str] = &["crm", "task", "tasks", "user"];

/// An employee.
pub(super) struct User {
    pub(super) id: u64,
    pub(super) name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) email: &'static str,
}

/// The employees.
pub(super) const USERS: &[User] = &[
    User { id: ADMIN, name: "Ada", last_name: "Admin", email: "ada@emulator.example" },
    User { id: 2, name: "Ben", last_name: "Baker", email: "ben@emulator.example" },
    User { id: 3, name: "Cleo", last_name: "Clark", email: "cleo@emulator.example" },
];

/// Methods of the second generation outside `crm` and `tasks`.
const PLAIN: &[&str] = &[
    "app.info",
    "batch",
    "feature.get",
    "method.get",
    "methods",
    "profile",
    "scope",
    "server.time",
    "user.admin",
    "user.current",
    "user.get",
];

/// Methods of the third generation and their scopes.
const V3: &[(&str, &str)] = &[
    ("batch", "rest"),
    ("documentation", "rest"),
    ("rest.documentation.openapi", "rest"),
    ("rest.scope.list", "rest"),
    ("tasks.task.add", "tasks"),
    ("tasks.task.delete", "tasks"),
    ("tasks.task.get", "tasks"),
    ("tasks.task.list", "tasks"),
    ("tasks.task.update", "tasks"),
];

/// Returns the employee with an id.
pub(super) fn user(id: u64) -> Option<&'static User> {
    USERS.iter().find(|user| user.id == id)
}

/// Returns every method of the second generation.
pub(super) fn methods() -> Vec<String> {
    let mut names: Vec<String> = PLAIN.iter().map(|name| (*name).to_owned()).collect();
    for entity in ENTITIES.iter().copied().chain(["item"]) {
        names.extend(["add", "delete", "fields", "get", "list", "update"].map(|action| format!("crm.{entity}.{action}")));
    }
    names.extend(super::events::METHODS.iter().map(|name| (*name).to_owned()));
    names.extend(["add", "delete", "get", "getfields", "list", "update"].map(|action| format!("tasks.task.{action}")));
    names.sort_unstable();
    names
}

/// Answers the methods of this file; `None` for any other.
pub(super) fn call(turn: &mut Turn<'_>, method: &str, params: &Map<String, Value>) -> Option<Answer> {
    let result = match method {
        "server.time" => json!(stamp(turn.now)),
        "scope" => json!(SCOPES),
        "methods" => json!(methods()),
        "profile" => profile(turn.caller.user),
        "user.admin" => json!(turn.caller.user == ADMIN),
        "user.current" => Value::Object(user(turn.caller.user).map(|user| user_row(user, turn)).unwrap_or_default()),
        "user.get" => return Some(users(turn, params)),
        "method.get" => {
            let name = param(params, "name").map(value_text).unwrap_or_default().to_lowercase();
            let known = methods().contains(&name);
            json!({"isExisting": known, "isAvailable": known})
        }
        "feature.get" => match param(params, "code").map(value_text).unwrap_or_default().as_str() {
            "" => return Some(Err(Refusal::v2(400, "CODE_EMPTY", "CODE can't be empty"))),
            code => json!({"value": if matches!(code, "rest_offline_extended" | "rest_auth_connector") { "Y" } else { "N" }}),
        },
        "app.info" if turn.caller.is_application() => json!({
            "ID": 1, "CODE": turn.genesis().client_id, "VERSION": 1, "STATUS": "L", "INSTALLED": true, "PAYMENT_EXPIRED": "N",
            "DAYS": null, "LANGUAGE_ID": "en", "LICENSE": "en_emulator", "LICENSE_TYPE": "emulator", "LICENSE_FAMILY": "emulator",
        }),
        "app.info" => return Some(Err(Refusal::v2(400, "ACCESS_DENIED", "Access denied! Application context required"))),
        _ => return None,
    };
    Some(Ok(Success::new(result)))
}

/// Answers the methods of the third generation that concern no task.
pub(super) fn call_v3(method: &str) -> Option<Answer> {
    match method {
        "rest.scope.list" => {
            let scopes: Map<String, Value> = V3.iter().map(|(name, scope)| ((*name).to_owned(), json!([scope]))).collect();
            Some(Ok(Success::new(Value::Object(scopes))))
        }
        "documentation" | "rest.documentation.openapi" => {
            let paths: Map<String, Value> = V3
                .iter()
                .map(|(name, scope)| (format!("/{name}"), json!({"post": {"tags": [scope], "responses": {"200": {"description": "OK"}}}})))
                .collect();
            let document = json!({
                "openapi": "3.0.0", "info": {"title": "Bitrix24 REST V3 API", "version": "1.0.0"},
                "paths": paths, "components": {"schemas": {}},
            });
            Some(Ok(Success { bare: true, ..Success::new(document) }))
        }
        _ => None,
    }
}

/// Returns a parameter, whatever the case of its name.
pub(super) fn param<'a>(params: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    params.get(name).or_else(|| params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value))
}

fn profile(id: u64) -> Value {
    user(id).map_or(Value::Null, |user| {
        json!({
            "ID": user.id.to_string(), "ADMIN": user.id == ADMIN, "NAME": user.name, "LAST_NAME": user.last_name,
            "PERSONAL_GENDER": "", "TIME_ZONE": "UTC",
        })
    })
}

fn user_row(user: &User, turn: &Turn<'_>) -> Row {
    let row = json!({
        "ID": user.id.to_string(), "ACTIVE": true, "NAME": user.name, "LAST_NAME": user.last_name, "EMAIL": user.email,
        "DATE_REGISTER": turn.genesis().created_at, "IS_ONLINE": "Y", "PERSONAL_GENDER": "", "WORK_POSITION": "",
        "UF_DEPARTMENT": [1], "USER_TYPE": "employee",
    });
    match row {
        Value::Object(row) => row,
        _ => Row::new(),
    }
}

/// `user.get`: fields of the filter may stand at the top level, and the order
/// is `sort` + `order`.
fn users(turn: &Turn<'_>, params: &Map<String, Value>) -> Answer {
    let mut filter = match param(params, "filter") {
        Some(Value::Object(filter)) => filter.clone(),
        _ => Map::new(),
    };
    let own = ["filter", "sort", "order", "start", "admin_mode", "select"];
    filter.extend(
        params.iter().filter(|(key, _)| !own.contains(&key.to_lowercase().as_str())).map(|(key, value)| (key.clone(), value.clone())),
    );
    let mut order = Map::new();
    if let Some(sort) = param(params, "sort") {
        order.insert(value_text(sort), param(params, "order").cloned().unwrap_or(json!("ASC")));
    }
    let mut request = Map::new();
    request.insert("filter".to_owned(), Value::Object(filter));
    request.insert("order".to_owned(), Value::Object(order));
    if let Some(start) = param(params, "start") {
        request.insert("start".to_owned(), start.clone());
    }
    let query = Query::parse(&request, &UserSchema)?;
    let rows: Vec<Row> = USERS.iter().map(|user| user_row(user, turn)).collect();
    let page = query.run(rows.iter());
    let result = page.rows.into_iter().map(|row| Value::Object(row.clone())).collect();
    Ok(Success { total: page.total, next: page.next, ..Success::new(Value::Array(result)) })
}

struct UserSchema;

impl Schema for UserSchema {
    fn column(&self, name: &str) -> Result<Option<String>, Refusal> {
        Ok(Some(name.to_uppercase()))
    }
}
