//! A request as the caller means it, taken apart: one call, or a batch of
//! calls that are checked one by one.
//!
//! One principle closes the tricks: what is sent is rebuilt from what was
//! checked. Nothing of the caller's text or objects passes through. `batch` is
//! a carrier, not a method: it exists here only as the list of its calls.

mod batch;
mod identity;
mod legacy;

pub use identity::Fingerprint;

use crate::catalog::Api;
use crate::error::{Code, Coded};
use crate::json;
use crate::method::{Method, MethodError, short};
use crate::query_string::QueryError;
use serde_json::{Map, Value};

/// Commands that one batch can carry
/// (b24restdocs: settings/how-to-call-rest-api/batch.md).
pub const BATCH_LIMIT: usize = 50;

/// Levels of lists and maps that parameters may have. PHP reads 512 from JSON,
/// and of a body that is deeper nothing at all: the method would run without
/// parameters.
const DEEPEST: usize = 100;

/// Parameters that are credentials, choose whose credentials count, or carry
/// one although nobody asks for it there. No documented method takes any of
/// them but `auth`, which is refused all the same (a test holds that).
const CREDENTIAL_PARAMS: &[&str] = &[
    // The rest module looks for these, in the query and in the body, beside and
    // before what stands in the address: token, session, and user and code of a
    // webhook.
    "auth",
    "access_token",
    "sessid",
    "ap",
    "aplogin",
    // With a signed `token`, which portals put into links to files, the portal
    // takes the parameters out of the token and not those that were checked.
    "token",
    // What an application holds or is given, and no method asks for.
    "refresh_token",
    "client_secret",
    "auth_id",
    "refresh_id",
    "app_sid",
    "application_token",
];

/// Methods whose parameters are positional: a JSON array in documented order
/// (b24restdocs: settings/how-to-call-rest-api/data-encoding.md).
const POSITIONAL: &[&str] = &["task.checklistitem.", "task.commentitem.", "task.elapseditem.", "task.item.", "task.items."];

/// One call of one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// Its spelling on the wire.
    pub name: String,
    /// The generation that is called.
    pub api: Api,
    /// An object, or an array for positional methods.
    pub params: Value,
}

/// One call inside a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Its name in `cmd`, its index in a list, its alias in v3.
    pub name: String,
    /// The call.
    pub call: Call,
}

/// How a v2 batch or a v3 batch lists its commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `cmd` is an object.
    Named,
    /// `cmd` is an array.
    Listed,
    /// The body is an array of objects with `method` and `query`.
    V3,
}

/// A batch, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// How it lists its commands.
    pub form: Form,
    /// Whether the portal stops at the first error (v2).
    pub halt: bool,
    /// For v3, which commands have an alias of the caller's.
    pub aliased: Vec<bool>,
    /// The commands in order.
    pub commands: Vec<Command>,
}

/// What the caller asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// One call.
    Single(Call),
    /// Several calls in one HTTP request.
    Batch(Batch),
}

/// Why a request does not have a shape that b24 sends.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ShapeError {
    /// The method name is none.
    #[error("{0}")]
    Method(#[from] MethodError),
    /// The parameters are neither an object nor an allowed array.
    #[error("{method} takes parameters as {expected}, not as {found}")]
    Kind {
        /// The method.
        method: String,
        /// What it takes.
        expected: &'static str,
        /// What was given.
        found: &'static str,
    },
    /// A NUL or control character.
    #[error("the parameters have a control character at {0}")]
    Control(String),
    /// A number that the portal would take for infinite or for zero.
    #[error("the number at {0} is outside of what the portal can hold; write it as a text")]
    Number(String),
    /// Deeper than the portal surely reads, and than a plan can be read again.
    #[error("the parameters are nested deeper than {DEEPEST} levels")]
    Depth,
    /// Two keys that differ only in case.
    #[error("the keys `{0}` and `{1}` differ only in case; give one of them")]
    TwoSpellings(String, String),
    /// A credential among the parameters.
    #[error("the parameter `{0}` would carry a credential or choose another one")]
    Credential(String),
    /// A secret of ours among the data.
    #[error("the call holds a secret of this profile as data, which would be stored and sent")]
    OwnSecret,
    /// A batch in a batch.
    #[error("the command `{0}` is a batch; a batch cannot carry another one")]
    NestedBatch(String),
    /// The batch itself is malformed.
    #[error("{0}")]
    Batch(String),
    /// One command of the batch is malformed.
    #[error("the command `{name}`: {source}")]
    Command {
        /// The command's name.
        name: String,
        /// What is wrong.
        source: Box<ShapeError>,
    },
    /// The query of a command is malformed.
    #[error("{0}")]
    Query(#[from] QueryError),
}

impl Coded for ShapeError {
    fn code(&self) -> Code {
        match self {
            ShapeError::Method(_) => Code::Usage,
            ShapeError::Credential(_) | ShapeError::OwnSecret => Code::CredentialInParams,
            ShapeError::Command { source, .. } => source.code(),
            ShapeError::Kind { .. }
            | ShapeError::Control(_)
            | ShapeError::Number(_)
            | ShapeError::Depth
            | ShapeError::TwoSpellings(..)
            | ShapeError::NestedBatch(_)
            | ShapeError::Batch(_)
            | ShapeError::Query(_) => Code::InvalidParams,
        }
    }

    fn hint(&self) -> Option<String> {
        Some(match self {
            ShapeError::Credential(_) | ShapeError::OwnSecret => {
                "Credentials come from the environment or the profile; remove the parameter".to_owned()
            }
            ShapeError::Command { source, .. } => return source.hint(),
            ShapeError::Method(_) => "Method names look like crm.lead.list".to_owned(),
            ShapeError::Kind { .. }
            | ShapeError::Control(_)
            | ShapeError::Number(_)
            | ShapeError::Depth
            | ShapeError::TwoSpellings(..)
            | ShapeError::NestedBatch(_)
            | ShapeError::Batch(_)
            | ShapeError::Query(_) => "b24 help params shows how parameters are written".to_owned(),
        })
    }
}

impl Request {
    /// Takes a request apart. `api` is the generation to call.
    pub fn parse(name: &str, params: Value, api: Api) -> Result<Request, ShapeError> {
        let method = Method::parse(name)?;
        if !method.is_batch() {
            return Call::parse(method, name, params, api).map(Request::Single);
        }
        let batch = match api {
            Api::V2 => batch::parse_batch_v2(params),
            Api::V3 => batch::parse_batch_v3(params),
        }?;
        Ok(Request::Batch(batch))
    }

    /// Returns the calls with their names in the batch; the name of a single
    /// call is empty.
    pub fn calls(&self) -> impl Iterator<Item = (&str, &Call)> {
        let (single, commands) = match self {
            Request::Single(call) => (Some(("", call)), &[][..]),
            Request::Batch(batch) => (None, batch.commands.as_slice()),
        };
        single.into_iter().chain(commands.iter().map(|command| (command.name.as_str(), &command.call)))
    }

    /// Returns the calls for the gate to fill in.
    pub fn calls_mut(&mut self) -> Vec<&mut Call> {
        match self {
            Request::Single(call) => vec![call],
            Request::Batch(batch) => batch.commands.iter_mut().map(|command| &mut command.call).collect(),
        }
    }

    /// Returns the generation that is called.
    #[must_use]
    pub fn api(&self) -> Api {
        match self {
            Request::Single(call) => call.api,
            Request::Batch(batch) if batch.form == Form::V3 => Api::V3,
            Request::Batch(_) => Api::V2,
        }
    }

    /// Returns the method's spelling on the wire.
    #[must_use]
    pub fn wire_name(&self) -> &str {
        match self {
            Request::Single(call) => &call.name,
            Request::Batch(_) => "batch",
        }
    }

    /// Returns the body, made of what was checked.
    pub fn body(&self) -> Result<Value, ShapeError> {
        match self {
            Request::Single(call) => Ok(call.params.clone()),
            Request::Batch(batch) => batch.body(),
        }
    }
}

impl Call {
    fn parse(method: Method, name: &str, params: Value, api: Api) -> Result<Call, ShapeError> {
        check_params(&method, &params, api)?;
        let name = strip_format_suffix(name).to_owned();
        Ok(Call { method, name, api, params })
    }
}

/// Returns the caller's spelling without `.json` / `.xml`; for methods that
/// the catalog does not know.
fn strip_format_suffix(name: &str) -> &str {
    let mut rest = name;
    loop {
        let folded = rest.to_ascii_lowercase();
        match [".json", ".xml"].iter().find(|suffix| folded.ends_with(**suffix)) {
            Some(suffix) => rest = &rest[..rest.len() - suffix.len()],
            None => return rest,
        }
    }
}

/// Checks what holds for the parameters of every method.
fn check_params(method: &Method, params: &Value, api: Api) -> Result<(), ShapeError> {
    let positional = api == Api::V2 && POSITIONAL.iter().any(|start| method.as_str().starts_with(start));
    match params {
        Value::Object(_) => {}
        Value::Array(_) if positional => {}
        other => {
            return Err(ShapeError::Kind {
                method: method.to_string(),
                expected: if positional { "an object or an array" } else { "an object" },
                found: kind(other),
            });
        }
    }
    if let Value::Object(map) = params {
        check_keys(map)?;
    }
    check_values(params, &mut String::new(), DEEPEST)
}

fn check_keys(map: &Map<String, Value>) -> Result<(), ShapeError> {
    let mut folded: Vec<(String, &String)> = map.keys().map(|key| (key.to_lowercase(), key)).collect();
    folded.sort_unstable();
    for pair in folded.windows(2) {
        if pair[0].0 == pair[1].0 {
            return Err(ShapeError::TwoSpellings(short(pair[0].1), short(pair[1].1)));
        }
    }
    match map.keys().find(|key| is_credential(key)) {
        Some(key) => Err(ShapeError::Credential(short(key))),
        None => Ok(()),
    }
}

/// Returns whether PHP could read the key as one of [`CREDENTIAL_PARAMS`]: in
/// a query string it cuts leading white space, what follows a bracket or a
/// NUL, and turns dots and spaces into underscores.
fn is_credential(key: &str) -> bool {
    let name = key.trim_start().split(['[', '\0']).next().unwrap_or_default();
    let name: String = name.trim_end().chars().map(|c| if matches!(c, '.' | ' ') { '_' } else { c.to_ascii_lowercase() }).collect();
    CREDENTIAL_PARAMS.contains(&name.as_str())
}

/// Refuses what the portal would not read as it is, anywhere: control
/// characters in keys and NUL in values, numbers out of range, and more than
/// `levels` levels.
fn check_values(value: &Value, path: &mut String, levels: usize) -> Result<(), ShapeError> {
    let is_compound = matches!(value, Value::Array(_) | Value::Object(_));
    let Some(below) = levels.checked_sub(usize::from(is_compound)) else { return Err(ShapeError::Depth) };
    let mut step = |part: String, value: &Value| {
        let length = path.len();
        path.push_str(&part);
        let checked = check_values(value, path, below);
        path.truncate(length);
        checked
    };
    match value {
        Value::Number(number) if json::number::plain(&number.to_string()).is_none() => Err(ShapeError::Number(short(path))),
        Value::String(text) if text.contains('\0') => Err(ShapeError::Control(short(path))),
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| step(format!("[{index}]"), item)),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| {
            if key.chars().any(char::is_control) {
                return Err(ShapeError::Control(format!("the key `{}`", short(key))));
            }
            step(format!("[{key}]"), item)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn v2(name: &str, params: Value) -> Result<Request, ShapeError> {
        Request::parse(name, params, Api::V2)
    }

    #[test]
    fn a_batch_is_written_anew_from_its_calls() {
        let request = v2(
            "Batch.JSON",
            json!({"cmd": {"a": "crm.lead.add.json?fields[TITLE]=x%26y", "b": ["crm.lead.get", {"id": 1}]}, "halt": true}),
        )
        .unwrap();
        assert_eq!(request.body().unwrap(), json!({"halt": 1, "cmd": {"a": "crm.lead.add?fields[TITLE]=x%26y", "b": "crm.lead.get?id=1"}}));
        let listed = v2("batch", json!({"cmd": ["user.current"]})).unwrap();
        assert_eq!(listed.body().unwrap(), json!({"halt": 0, "cmd": ["user.current"]}));
    }

    #[test]
    fn every_nested_batch_is_found() {
        for command in ["batch", "BATCH?cmd[a]=x", "batch.json", "Batch.xml.json?x"] {
            assert!(matches!(v2("batch", json!({"cmd": {"a": command}})), Err(ShapeError::NestedBatch(_))), "{command}");
        }
        for command in ["%62atch", " batch", "/batch", "batch\0", "$result[x]", "", "?x=1"] {
            assert!(v2("batch", json!({"cmd": {"a": command}})).is_err(), "{command}");
        }
        assert!(Request::parse("batch", json!([{"method": "batch", "query": []}]), Api::V3).is_err());
    }

    #[test]
    fn credentials_do_not_pass_in_any_spelling() {
        let spelled = ["AUTH", " auth", "access.token", "access token", "auth[x]", "auth\0", "Ap", "APLOGIN", "aplogin[]", "REFRESH ID"];
        for key in spelled.iter().chain(CREDENTIAL_PARAMS) {
            assert!(matches!(v2("user.current", json!({*key: "x"})), Err(ShapeError::Credential(_))), "{key:?}");
            assert!(v2("batch", json!({"cmd": {"a": ["user.current", {*key: "x"}]}})).is_err(), "{key:?}");
            assert!(v2("batch", json!({"cmd": {"a": "user.current"}, *key: "x"})).is_err(), "{key:?}");
            let v3 = Request::parse("batch", json!([{"method": "tasks.task.get", "query": {"id": 1, *key: "x"}}]), Api::V3);
            assert!(v3.is_err(), "{key:?}");
        }
        for query in ["auth=x", "AUTH=x", "%61uth=x", "auth[x]=1", "+auth=1", "access.token=1"] {
            assert!(v2("batch", json!({"cmd": {"a": format!("user.current?{query}")}})).is_err(), "{query}");
        }
        assert!(v2("batch", json!({"cmd": {"a": "user.current"}, "auth": "x"})).is_err());
        assert!(v2("imbot.register", json!({"CLIENT_ID": "x", "fields": {"auth": 1}})).is_ok());
        assert!(v2("voximplant.sip.add", json!({"LOGIN": "x", "PASSWORD": "y", "app": 1, "tokens": 1})).is_ok());
    }

    #[test]
    fn no_documented_parameter_is_taken_for_a_credential() {
        for entry in crate::catalog::entries() {
            let params = entry.details().map(|details| details.params).unwrap_or_default();
            let credentials: Vec<&str> = params.iter().map(|(name, ..)| name.as_str()).filter(|name| is_credential(name)).collect();
            assert!(credentials.iter().all(|name| *name == "auth"), "{}: {credentials:?}", entry.name);
        }
    }

    #[test]
    fn parameters_of_the_wrong_shape_are_refused() {
        assert!(v2("crm.lead.get", json!([1])).is_err());
        assert!(v2("crm.lead.get", json!("1")).is_err());
        assert!(v2("task.item.getdata", json!([1])).is_ok());
        assert!(v2("crm.lead.get", json!({"id": 1, "ID": 2})).is_err());
        assert!(v2("crm.lead.add", json!({"fields": {"TITLE": "a\0b"}})).is_err());
        assert!(v2("crm.lead.add", json!({"fields": {"TI\nTLE": 1}})).is_err());
        let huge: Value = serde_json::from_str(r#"{"fields": {"OPPORTUNITY": 1e400}}"#).unwrap();
        assert_eq!(v2("crm.lead.add", huge), Err(ShapeError::Number("[fields][OPPORTUNITY]".to_owned())));
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
        assert!(v2("crm.lead.add", nested(100)).is_ok());
        assert_eq!(v2("crm.lead.add", nested(101)), Err(ShapeError::Depth));
        assert!(v2("batch", json!({"cmd": {}})).is_err());
        assert!(v2("batch", json!({"cmd": "user.current"})).is_err());
        assert!(v2("batch", json!({"cmd": {"a": "user.current"}, "x": 1})).is_err());
        assert!(v2("batch", json!({"cmd": vec!["user.current"; 51]})).is_err());
    }

    #[test]
    fn what_php_would_cut_stands_nowhere_at_any_depth() {
        for params in [
            json!({"x": "a\0"}),
            json!({"x": ["a\0"]}),
            json!({"x": ["a", ["b", "\0c"]]}),
            json!({"x": {"y": [{"z": "\0"}]}}),
            json!({"x": {"y": {"z": "a\0b"}}}),
            json!({"a\0": 1}),
            json!({"x": {"a\0": 1}}),
            json!({"x": [{"a\n": 1}]}),
        ] {
            assert!(v2("user.current", params.clone()).is_err(), "{params}");
            let inner = json!({"cmd": {"a": ["crm.lead.add", params]}});
            assert!(v2("batch", inner.clone()).is_err(), "{inner}");
        }
        assert!(v2("user.current", json!({"x": ["a", {"y": "a\n"}]})).is_ok());
    }

    #[test]
    fn two_commands_of_a_v3_batch_have_two_names() {
        let batch = |names: [Value; 2]| {
            let item = |name: &Value| match name {
                Value::Null => json!({"method": "tasks.task.get", "query": {"id": 1}}),
                name => json!({"method": "tasks.task.get", "as": name, "query": {"id": 1}}),
            };
            Request::parse("batch", Value::Array(names.iter().map(item).collect()), Api::V3)
        };
        for (names, is_good) in [
            ([json!("x"), json!("y")], true),
            ([json!("x"), json!("x")], false),
            ([json!("x"), Value::Null], true),
            ([Value::Null, Value::Null], true),
            // The place of a command that has no name is its name.
            ([json!("1"), Value::Null], false),
            ([json!(""), json!("y")], false),
            ([json!("x-y"), json!("y")], false),
            ([json!(1), json!("y")], false),
        ] {
            assert_eq!(batch(names.clone()).is_ok(), is_good, "{names:?}");
        }
    }
}
