//! What a caller asks for: parameters, batches, queries.
//!
//! The question is always the same: is what is sent what was checked?

use super::{Read, folder, host};
use b24::call::Request;
use b24::catalog::Api;
use b24::emulator::php;
use b24::error::Code;
use b24::gate::{Appraised, Proposal, Refusal, appraise, classes};
use b24::json;
use b24::packs::Allowlist;
use b24::query_string::{self, Bounds};
use b24::settings::Policy;
use serde_json::{Map, Value};
use std::sync::LazyLock;

/// Everything is admitted: only the shape and the class decide.
static OPEN: LazyLock<Policy> = LazyLock::new(|| Policy {
    allowlist: Allowlist::parse("none", "*").expect("a pattern"),
    allow_unlisted: true,
    allow_unknown_params: true,
    read_only: false,
    require_plan: false,
});

fn appraised(name: &str, api: Api, params: Value) -> Result<Appraised, Refusal> {
    appraise(Proposal { name: name.to_owned(), params, api: Some(api) }, &OPEN)
}

/// A method, then `--params` (or nothing), then one item a line.
pub(crate) fn params(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let mut lines = text.split('\n');
    let (name, given) = (lines.next().unwrap_or_default(), lines.next().filter(|line| !line.is_empty()));
    let items: Vec<String> = lines.map(str::to_owned).collect();
    let place = folder();
    std::fs::write(place.join("f"), "{\"a\":[1.50]}").expect("a file");
    let mut host = host(place);
    let value = match b24::cli::read_params(given, &items, &mut host) {
        Ok(value) => value,
        Err(failure) => {
            assert_eq!(failure.code, Code::Usage);
            return Read::Refused;
        }
    };
    let written = value.to_string();
    for api in [Api::V2, Api::V3] {
        let Ok(passed) = appraised(name, api, value.clone()) else { continue };
        // What passes can be written, stored in a plan, and read again.
        assert_eq!(json::parse_strict(&written).expect("what was read can be read again"), value);
        assert!(serde_json::from_str::<Value>(&format!("[{{\"steps\":[{{\"params\":{written}}}]}}]")).is_ok(), "too deep for a plan");
        let body = passed.request().body().expect("what passed the gate has a body");
        let again = appraised(passed.request().wire_name(), api, body.clone()).unwrap_or_else(|_| panic!("{body} is refused"));
        assert_eq!(again.request().body().expect("a body"), body);
        // The caller consented to no less than to what is sent.
        assert!(again.risks().iter().zip(passed.risks()).all(|(sent, seen)| sent <= seen), "{body} is stricter than {written}");
    }
    Read::Taken
}

/// A batch: JSON parameters (an object for v2, a list for v3), or one command
/// `name=method?query` a line.
pub(crate) fn batch(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let (api, params) = match text.trim_start().as_bytes().first() {
        Some(b'{') => (Api::V2, json::parse_strict(text).ok()),
        Some(b'[') => (Api::V3, json::parse_strict(text).ok()),
        _ => (Api::V2, Some(commands(text))),
    };
    let Some(request) = params.and_then(|params| Request::parse("batch", params, api).ok()) else { return Read::Refused };
    let body = request.body().expect("what is taken can be written");
    let rebuilt = Request::parse("batch", body.clone(), api).unwrap_or_else(|error| panic!("{body}: {error}"));
    assert_eq!(rebuilt.body().as_ref(), Ok(&body));
    let names = |request: &Request| request.calls().map(|(name, call)| (name.to_owned(), call.method.clone())).collect::<Vec<_>>();
    assert_eq!(names(&rebuilt), names(&request));
    assert!(
        classes(&rebuilt, &OPEN).iter().zip(classes(&request, &OPEN)).all(|(sent, seen)| *sent <= seen),
        "{body} is stricter than it was"
    );
    let identities = |request: &Request| request.fingerprints().into_iter().map(|print| print.current).collect::<Vec<_>>();
    assert_eq!(identities(&request), identities(&rebuilt), "{body}");
    if api == Api::V2 {
        as_php_reads_it(&body, &rebuilt);
    }
    Read::Taken
}

fn commands(text: &str) -> Value {
    let mut commands = Map::new();
    for line in text.lines() {
        let (name, command) = line.split_once('=').unwrap_or(("a", line));
        commands.insert(name.to_owned(), Value::from(command));
    }
    Value::Object(Map::from_iter([("cmd".to_owned(), Value::Object(commands))]))
}

/// Every line of a batch's body says to PHP what was checked.
fn as_php_reads_it(body: &Value, request: &Request) {
    let lines: Vec<&Value> = match &body["cmd"] {
        Value::Object(lines) => lines.values().collect(),
        Value::Array(lines) => lines.iter().collect(),
        other => panic!("{other} is no list of commands"),
    };
    for (line, (_, call)) in lines.into_iter().zip(request.calls()) {
        let (name, query) = line.as_str().expect("a command is a text").split_once('?').unwrap_or((line.as_str().unwrap_or_default(), ""));
        assert_eq!(name, call.name);
        if is_within_php(query) {
            assert_eq!(Value::Object(php::parse_str(query)), call.params, "{query}");
        }
    }
}

/// PHP drops what is nested deeper or comes later.
fn is_within_php(query: &str) -> bool {
    let depth = |pair: &str| pair.matches("%5B").count() + pair.matches("%5b").count() + pair.matches('[').count();
    // PHP's own function takes a NUL for the end; a decoded one is refused.
    !query.contains('\0') && query.split('&').count() <= 900 && query.split('&').all(|pair| depth(pair) <= 60)
}

/// A query string or the body of a form.
pub(crate) fn query(bytes: &[u8]) -> Read {
    let Ok(text) = std::str::from_utf8(bytes) else { return Read::Refused };
    let by_php = php::parse_str(text);
    let php_again = php::parse_str(&php::build_query(&by_php));
    assert_eq!(without_nothing(&php_again), without_nothing(&by_php), "PHP's own form of {text}");
    let bounds = Bounds { pairs: 200, depth: 16 };
    let bounded = query_string::decode_within(text, bounds);
    let Ok(read) = query_string::decode(text) else {
        assert!(bounded.is_err(), "bounds let more pass");
        return Read::Refused;
    };
    if let Ok(bounded) = bounded {
        assert_eq!(bounded, read);
    }
    if is_within_php(text) {
        assert_eq!(by_php, read, "PHP reads {text} otherwise");
    }
    let written = query_string::encode(&read).expect("what was read can be written");
    assert_eq!(query_string::decode(&written).as_ref(), Ok(&read));
    let pairs = query_string::form_pairs(&Value::Object(read.clone()));
    let form = query_string::encode_pairs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    assert_eq!(query_string::decode(&form), Ok(read));
    Read::Taken
}

/// Empty lists leave no trace in a form.
fn without_nothing(entries: &Map<String, Value>) -> Map<String, Value> {
    entries
        .iter()
        .filter(|(_, value)| !matches!(value, Value::Array(items) if items.is_empty()))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect()
}
