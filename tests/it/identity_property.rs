//! Two requests are one write exactly when the portal decodes them to one call.
//!
//! Each case makes spellings of one call: mutated, written as a call of its
//! own, through a plan, as text, map or list in a batch. What each comes to is
//! decoded from the bytes that would be sent, by the emulator's reader and by
//! rules written anew here, apart from the code that makes fingerprints.
//! (Numbers have the digits that a double keeps. Of longer ones a portal would
//! read less from a call of its own than from a batch; they are one write.)

use crate::choices::Choices;
use b24::call::Request;
use b24::catalog::Api;
use b24::emulator::php;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::fmt::Write as _;

/// Spellings of one call, of which every two are compared.
const SPELLINGS: usize = 28;
const CASES: u32 = 400;

const METHODS: [(&str, Api); 7] = [
    ("crm.lead.add", Api::V2),
    ("crm.deal.update", Api::V2),
    ("event.offline.clear", Api::V2),
    ("event.offline.get", Api::V2),
    ("task.commentitem.add", Api::V2),
    ("tasks.task.add", Api::V2),
    ("tasks.task.add", Api::V3),
];

const KEYS: [&str; 12] = ["TITLE", "NAME", "OPPORTUNITY", "UF_CRM_1", "0", "1", "2", "01", "title", ">=D", "a b", "é.x"];
const TOP: [&str; 9] = ["fields", "params", "process_id", "start", "state", "auth_connector", "limit", "id", "FIELDS"];

fn scalar(choices: &mut Choices) -> Value {
    let texts = ["a", "5", "5.0", "05", "", "10.10", "10.1", "0", "1", "Y", "é&=+% ;", " 5", "-0", "100"];
    let numbers = ["5", "5.0", "5e0", "10.1", "10.10", "101e-1", "0", "1", "1.00", "100", "1E+2", "-7", "-7.50", "0.001"];
    match choices.next(8) {
        0..4 => Value::from(choices.one_of(&texts)),
        4..7 => serde_json::from_str(choices.one_of(&numbers)).unwrap(),
        _ => json!(choices.one_in(2)),
    }
}

fn tree(choices: &mut Choices, depth: usize) -> Value {
    match choices.next(if depth == 0 { 4 } else { 8 }) {
        0..4 => scalar(choices),
        4..6 => (0..choices.next(3)).map(|_| tree(choices, depth - 1)).collect(),
        _ => Value::Object((0..=choices.next(3)).map(|_| (choices.one_of(&KEYS).to_owned(), tree(choices, depth - 1))).collect()),
    }
}

fn base(choices: &mut Choices, method: &str) -> Value {
    if method == "task.commentitem.add" {
        return json!([7, {"POST_MESSAGE": tree(choices, 2), "AUTHOR": scalar(choices)}]);
    }
    let fields: Map<String, Value> = (0..=choices.next(4)).map(|_| (choices.one_of(&KEYS).to_owned(), tree(choices, 2))).collect();
    let mut params = json!({"fields": fields});
    for _ in 0..choices.next(3) {
        // Two keys that differ in case alone are refused.
        params[choices.one_of(&TOP[1..8])] = tree(choices, 1);
    }
    params
}

/// Changes one thing somewhere: its spelling, or what it is.
fn mutate(value: &mut Value, choices: &mut Choices, is_top: bool) {
    let goes_down = choices.one_in(if is_top { 5 } else { 2 });
    match value {
        Value::Array(items) if !items.is_empty() && !goes_down => {
            let index = choices.next(items.len());
            mutate(&mut items[index], choices, false);
        }
        Value::Object(members) if !members.is_empty() && !goes_down => {
            let index = choices.next(members.len());
            mutate(members.values_mut().nth(index).unwrap(), choices, false);
        }
        _ if is_top => mutate_top(value, choices),
        _ => mutate_here(value, choices),
    }
}

fn mutate_top(value: &mut Value, choices: &mut Choices) {
    let Value::Object(members) = value else {
        *value = as_map(value);
        return;
    };
    match choices.next(4) {
        0 => drop(members.insert(choices.one_of(&TOP[3..7]).to_owned(), scalar(choices))),
        1 => drop(members.insert("z".to_owned(), choices.one_of(&[Value::Null, json!([]), json!({}), json!({"a": null}), json!("z")]))),
        2 => members.reverse(),
        _ => members.sort_keys(),
    }
}

/// Another spelling of a scalar, which may be another value as well.
fn respelled(value: &Value) -> Vec<Value> {
    let number = |text: &str| serde_json::from_str::<Value>(text).ok().filter(Value::is_number);
    let text = match value {
        Value::Bool(is_set) => u8::from(*is_set).to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Array(_) | Value::Object(_) => return vec![json!("new")],
    };
    let tokens = [Some(text.clone()), Some(format!("{text}.0")), Some(format!("{text}e0")), text.strip_suffix('0').map(str::to_owned)];
    let mut all: Vec<Value> = tokens.iter().flatten().filter_map(|token| number(token)).collect();
    all.extend([Value::from(text.as_str()), Value::from(format!("{text}0")), json!(text == "1")]);
    all
}

fn as_map(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().enumerate().map(|(index, item)| (index.to_string(), item.clone())).collect(),
        other => other.clone(),
    }
}

fn mutate_here(value: &mut Value, choices: &mut Choices) {
    match value {
        Value::Array(items) => match choices.next(4) {
            0 => items.push(choices.one_of(&[Value::Null, json!([]), json!("x")])),
            1 => items.reverse(),
            _ => *value = as_map(value),
        },
        Value::Object(members) => match choices.next(5) {
            0 => drop(members.insert("N".to_owned(), choices.one_of(&[Value::Null, json!([]), json!([{}]), json!(""), json!(false)]))),
            1 => members.reverse(),
            2 => members.sort_keys(),
            3 => drop(members.pop()),
            _ => *value = members.values().cloned().collect(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            let spellings = respelled(value);
            *value = if choices.one_in(6) { tree(choices, 1) } else { choices.one_of(&spellings) };
        }
    }
}

trait Order {
    fn reverse(&mut self);
    fn pop(&mut self) -> Option<Value>;
}

impl Order for Map<String, Value> {
    fn reverse(&mut self) {
        *self = std::mem::take(self).into_iter().collect::<Vec<_>>().into_iter().rev().collect();
    }

    fn pop(&mut self) -> Option<Value> {
        let last = self.keys().next_back()?.clone();
        self.shift_remove(&last)
    }
}

fn spelled(method: &str, choices: &mut Choices) -> String {
    let name = match choices.next(3) {
        0 => method.to_owned(),
        1 => method.to_uppercase(),
        _ => method.replace(".a", ".A"),
    };
    name + choices.one_of(&["", ".json", ".XML"])
}

/// Writes the query of a command by hand, in one of many spellings; `None`
/// where a text cannot say it.
fn query(params: &Value, choices: &mut Choices) -> Option<String> {
    fn escaped(text: &str, choices: &mut Choices) -> String {
        let plus = choices.one_in(2);
        text.bytes().fold(String::new(), |mut out, byte| {
            match byte {
                b' ' if plus => out.push('+'),
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' if !choices.one_in(9) => out.push(byte.into()),
                _ => write!(out, "%{byte:02x}").unwrap(),
            }
            out
        })
    }
    fn pairs(key: &str, value: &Value, out: &mut Vec<String>, choices: &mut Choices) -> Option<()> {
        let appends = choices.one_in(2);
        let scalar = |value: &Value| match value {
            Value::Bool(is_set) => Some(u8::from(*is_set).to_string()),
            Value::String(text) => Some(text.clone()),
            // A token in a text is a text: only plain ones mean the number.
            Value::Number(number) => Some(number.to_string()).filter(|token| token.bytes().all(|byte| byte.is_ascii_digit())),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        };
        match value {
            Value::Array(items) if appends && items.iter().all(|item| scalar(item).is_some()) => items.iter().try_for_each(|item| {
                out.push(format!("{key}[]={}", escaped(&scalar(item)?, choices)));
                Some(())
            }),
            Value::Array(items) => {
                items.iter().enumerate().try_for_each(|(index, item)| pairs(&format!("{key}[{index}]"), item, out, choices))
            }
            Value::Object(members) => members.iter().try_for_each(|(name, member)| {
                let key =
                    if appends { format!("{key}[{}]", escaped(name, choices)) } else { format!("{key}%5B{}%5d", escaped(name, choices)) };
                pairs(&key, member, out, choices)
            }),
            other => {
                out.push(format!("{key}={}", escaped(&scalar(other)?, choices)));
                Some(())
            }
        }
    }
    let mut out = Vec::new();
    let Value::Object(top) = as_map(params) else { return None };
    for (name, value) in &top {
        pairs(&escaped(name, choices), value, &mut out, choices)?;
    }
    Some(out.join(choices.one_of(&["&", "&&"])))
}

/// A request with the place of the call in it.
struct Written {
    request: Request,
    place: usize,
}

fn written(method: &str, api: Api, params: &Value, choices: &mut Choices) -> Option<Written> {
    let name = spelled(method, choices);
    let single = || Request::parse(&name, params.clone(), api).ok().map(|request| Written { request, place: 0 });
    let batch = |commands: Value, place| Request::parse("batch", commands, api).ok().map(|request| Written { request, place });
    match (choices.next(6), api) {
        (0, _) => single(),
        (1, _) => {
            // As a plan keeps it and reads it again.
            let request = single()?.request;
            let text = request.body().ok()?.to_string();
            let request = Request::parse(request.wire_name(), b24::json::parse_strict(&text).ok()?, request.api()).ok()?;
            Some(Written { request, place: 0 })
        }
        (_, Api::V3) => batch(json!([{"method": "tasks.task.get", "query": {"id": 1}}, {"method": name, "query": params}]), 1),
        (2, _) => batch(json!({"cmd": [{"method": name, "params": params}], "halt": 1}), 0),
        (3, _) => batch(json!({"cmd": {"me": "user.current", "x": [name, params]}}), 1),
        _ => batch(json!({"cmd": {"x": format!("{name}?{}", query(params, choices)?)}}), 0),
    }
}

/// What the portal's method gets, decoded from the bytes that are sent.
fn decoded(written: &Written, api: Api) -> (String, Value) {
    let body = serde_json::to_vec(&written.request.body().unwrap()).unwrap();
    let body = php::json_decode(&body).unwrap();
    let (name, params) = match (&written.request, api) {
        (Request::Single(_), _) => (written.request.wire_name().to_owned(), body),
        (Request::Batch(_), Api::V3) => (body[written.place]["method"].as_str().unwrap().to_owned(), body[written.place]["query"].clone()),
        (Request::Batch(_), Api::V2) => {
            let Value::Object(commands) = as_map(&body["cmd"]) else { panic!() };
            let line = commands.values().nth(written.place).unwrap().as_str().unwrap().to_owned();
            let (name, query) = line.split_once('?').unwrap_or((&line, ""));
            (name.to_owned(), Value::Object(php::parse_str(query)))
        }
    };
    let method = name.to_lowercase().trim_end_matches(".json").trim_end_matches(".xml").to_owned();
    let Value::Object(mut top) = as_map(&params) else { panic!() };
    if api == Api::V2 {
        // The portal takes these away, or they are ours.
        top.shift_remove("start");
        top.shift_remove("state");
        if !method.starts_with("event.offline.") {
            top.shift_remove("auth_connector");
        }
    }
    // No page of these documents them, but for the one that takes a limit.
    let is_ours = |name: &str| name == "auth_connector" && !method.starts_with("event.offline.");
    let pages = |name: &str| name == "start" || (name == "limit" && method != "event.offline.get");
    let has_table = method != "event.offline.clear" || b24_documents(&method);
    top.retain(|name, _| !(is_ours(name) || has_table && pages(name)));
    let seen = seen(&Value::Object(top), api, &method, "");
    (method, seen.unwrap_or(json!({})))
}

/// Whether the method's page has a table of parameters.
fn b24_documents(method: &str) -> bool {
    let method = b24::method::Method::parse(method).unwrap();
    b24::catalog::find(&method, Api::V2).and_then(|entry| entry.details()).is_some_and(|details| !details.params.is_empty())
}

/// A PHP array, read as texts; order is left to the comparison of maps.
fn seen(value: &Value, api: Api, method: &str, path: &str) -> Option<Value> {
    // There is one zero.
    let number = |number: f64| Value::from(format!("{}", number + 0.0));
    match value {
        Value::Null if api == Api::V2 => None,
        Value::Null => Some(Value::Null),
        Value::Bool(is_set) => Some(json!(if *is_set { "1" } else { "0" })),
        Value::Number(token) => Some(match token.to_string().parse::<i64>() {
            Ok(whole) => Value::from(whole.to_string()),
            Err(_) => number(token.to_string().parse().unwrap()),
        }),
        Value::String(text) => {
            let is_number = NUMBERS.contains(&(method, path)) && text.trim().parse::<f64>().is_ok();
            Some(if is_number { number(text.trim().parse().unwrap()) } else { Value::from(text.as_str()) })
        }
        Value::Array(_) | Value::Object(_) => {
            let Value::Object(members) = as_map(value) else { panic!() };
            let seen = |(name, member): (String, Value)| Some((name.clone(), seen(&member, api, method, &format!("{path}/{name}"))?));
            let seen: Map<String, Value> = members.into_iter().filter_map(seen).collect();
            (api == Api::V3 || !seen.is_empty()).then_some(Value::Object(seen))
        }
    }
}

/// What the pages say is a number, of what is generated here.
const NUMBERS: [(&str, &str); 4] = [
    ("crm.lead.add", "/fields/OPPORTUNITY"),
    ("crm.deal.update", "/fields/OPPORTUNITY"),
    ("crm.deal.update", "/id"),
    ("event.offline.get", "/limit"),
];

#[test]
fn one_call_has_one_fingerprint_and_two_have_two() {
    let (same, different, refused) = (Cell::new(0_usize), Cell::new(0_usize), Cell::new(0_usize));
    let config = ProptestConfig { cases: CASES, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() };
    proptest!(config, |(seed in any::<u64>())| {
        let mut choices = Choices(seed);
        let (method, api) = choices.one_of(&METHODS);
        let base = base(&mut choices, method);
        let mut all: Vec<((String, Value), String)> = Vec::new();
        while all.len() < SPELLINGS {
            let mut params = base.clone();
            for _ in 0..choices.next(4) {
                mutate(&mut params, &mut choices, true);
            }
            let Some(written) = written(method, api, &params, &mut choices) else {
                refused.set(refused.get() + 1);
                prop_assume!(refused.get() < 1_000_000);
                continue;
            };
            let print = written.request.fingerprints().remove(written.place).current;
            for (decoded_other, print_other) in &all {
                let is_same = *decoded_other == decoded(&written, api);
                prop_assert_eq!(is_same, *print_other == print, "{:?} / {:?} {}", decoded_other, decoded(&written, api), params);
                let count = if is_same { &same } else { &different };
                count.set(count.get() + 1);
            }
            all.push((decoded(&written, api), print));
        }
    });
    println!("{} pairs are one call, {} are two; {} spellings were refused", same.get(), different.get(), refused.get());
    assert!(same.get() + different.get() >= 100_000 && same.get() > 10_000);
}
