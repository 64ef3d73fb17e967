//! The catalog is complete, current and careful.
//!
//! `src/catalog/facts.jsonl` holds the facts of the official documentation in
//! trimmed form, `src/catalog/classes.tsv` our own judgement of every method,
//! `src/catalog/methods.tsv` what is embedded. Where `B24_SHARED_DIR` names the
//! folder of the untrimmed facts, the trimmed ones are compared with them.
//! `B24_UPDATE=1` writes what can be made anew.

use b24::catalog::{Api, Details};
use b24::method::Method;
use b24::packs;
use b24::risk::Risk;
use b24::schema::{self, Strength};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalog").join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// Compares a file with what it should be, or writes it.
pub(crate) fn assert_current(name: &str, expected: &str) {
    if std::env::var("B24_UPDATE").is_ok() {
        std::fs::write(file(name), expected).unwrap();
    }
    assert!(read(name) == expected, "src/catalog/{name} is not current; run this test with B24_UPDATE=1");
}

fn key(row: &Value) -> (String, String) {
    (row["method"].as_str().unwrap().to_lowercase(), row["api"].as_str().unwrap().to_owned())
}

#[test]
fn the_facts_are_current() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let text = std::fs::read_to_string(Path::new(&shared).join("bitrix24/methods.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| trimmed(&serde_json::from_str(line).unwrap())).collect();
    // A carrier of calls, not a method: `call` takes it apart.
    rows.retain(|row| row["method"] != "batch");
    let examples = examples(&shared);
    for row in &mut rows {
        let is_its_own = |example: &Value| example["method"] == row["method"] && (example["v3"] == true) == (row["api"] == "v3");
        let own: Vec<&Value> = examples.iter().filter(|example| is_its_own(example)).collect();
        for example in own {
            make_room(row, &example["params"]);
        }
    }
    rows.sort_by_key(key);
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    assert_current("facts.jsonl", &lines.concat());
}

fn examples(shared: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(Path::new(shared).join("bitrix24/examples.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Where an official example contradicts the documented types or names, the
/// example is right: it is what users copy.
fn make_room(row: &mut Value, example: &Value) {
    let method = Method::parse(row["method"].as_str().unwrap()).unwrap();
    let mut complete = row.clone();
    complete["purpose"] = json!("");
    complete["reason"] = json!("");
    let details: Details = serde_json::from_value(complete).unwrap();
    for problem in schema::check(&method, &details, example) {
        if problem.strength == Strength::Warning {
            continue;
        }
        match problem.path.split_once('[') {
            Some((parent, member)) => {
                row["fields"][parent].as_array_mut().unwrap().push(json!([member.trim_end_matches(']'), "any", false]));
            }
            None => {
                let params = row["params"].as_array_mut().unwrap();
                params.iter_mut().find(|param| param[0] == problem.path.as_str()).unwrap()[1] = json!("any");
            }
        }
    }
}

/// Documented types that ordinary requests contradict: filter and order are maps.
const TYPES: &[(&str, &str, &str)] =
    &[("crm.lead.list", "order", "object"), ("user.get", "FILTER", "object"), ("user.search", "FILTER", "object")];

/// Parameters that their methods take in any case, though no example shows it.
const ANY_CASE: &[(&str, &str)] = &[("bizproc.event.send", "LOG_MESSAGE")];

/// Parameters that are marked as required and are not, as the text beside the
/// table says: an offline subscription has no handler.
const OPTIONAL: &[(&str, &str)] = &[("event.bind", "handler"), ("event.unbind", "handler")];

fn trimmed(fact: &Value) -> Value {
    let kind = |row: &Value| {
        let corrected = TYPES.iter().find(|(method, name, _)| fact["method"] == *method && row["name"] == *name);
        corrected.map_or(row["type"].as_str().unwrap_or("any"), |(.., kind)| kind).to_owned()
    };
    let list = |rows: &Value| -> Value {
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| json!([row["name"], kind(row), row["required"] == true])).collect()
    };
    let mut row = Map::new();
    row.insert("method".to_owned(), fact["method"].clone());
    row.insert("api".to_owned(), json!(if fact["v3"] == true { "v3" } else { "v2" }));
    for (name, value) in [
        ("scope", &fact["scope"]),
        ("auth", &fact["auth"]),
        ("successor", &fact["replacement"]),
        ("paging", &fact["paging_style"]),
        ("doc", &fact["doc"]),
    ] {
        if !value.is_null() {
            row.insert(name.to_owned(), value.clone());
        }
    }
    for (name, value) in [("admin", &fact["admin_only"]), ("deprecated", &fact["deprecated"])] {
        if *value == true {
            row.insert(name.to_owned(), json!(true));
        }
    }
    row.insert("params".to_owned(), list(&fact["params"]));
    let fields: Map<String, Value> = fact["fields"].as_object().unwrap().iter().map(|(name, rows)| (name.clone(), list(rows))).collect();
    if !fields.is_empty() {
        row.insert("fields".to_owned(), Value::Object(fields));
    }
    for (name, source) in [
        ("extra", "example_params_not_in_table"),
        ("any_case", "example_param_case_differs"),
        ("optional", "required_missing_in_some_example"),
    ] {
        if fact[source].is_array() {
            row.insert(name.to_owned(), fact[source].clone());
        }
    }
    for (_, name) in ANY_CASE.iter().filter(|(method, _)| fact["method"] == *method) {
        let names = row.entry("any_case").or_insert_with(|| json!([]));
        names.as_array_mut().unwrap().push(json!(name));
    }
    for (_, name) in OPTIONAL.iter().filter(|(method, _)| fact["method"] == *method) {
        let names = row.entry("optional").or_insert_with(|| json!([]));
        names.as_array_mut().unwrap().push(json!(name));
    }
    Value::Object(row)
}

/// Our judgement of one method.
struct Judgement {
    class: String,
    external: String,
    replay: String,
    purpose: String,
    reason: String,
    note: String,
}

fn judgements() -> BTreeMap<(String, String), Judgement> {
    let mut judged = BTreeMap::new();
    let mut before = None;
    for line in read("classes.tsv").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [method, api, class, external, replay, purpose, reason, note, page] = columns[..] else { panic!("{line}") };
        let key = (method.to_lowercase(), api.to_owned());
        assert!(Some(&key) > before.as_ref(), "classes.tsv is not sorted: {line}");
        assert!(
            purpose.chars().count() <= 80 && !purpose.is_empty() && !reason.is_empty() && Path::new(page).extension().is_some(),
            "{line}"
        );
        before = Some(key.clone());
        let own = |text: &str| text.to_owned();
        let judgement = Judgement {
            class: own(class),
            external: own(external),
            replay: own(replay),
            purpose: own(purpose),
            reason: own(reason),
            note: own(note),
        };
        judged.insert(key, judgement);
    }
    judged
}

#[test]
fn the_table_is_current() {
    let judged = judgements();
    let mut table = String::new();
    let facts = read("facts.jsonl");
    assert_eq!(facts.lines().count(), judged.len(), "every method has one judgement");
    for line in facts.lines() {
        let fact: Value = serde_json::from_str(line).unwrap();
        let key = key(&fact);
        let judgement = judged.get(&key).unwrap_or_else(|| panic!("{key:?} has no judgement"));
        let mut details = Map::new();
        details.insert("purpose".to_owned(), json!(judgement.purpose));
        details.insert("reason".to_owned(), json!(judgement.reason));
        for (name, value) in [("note", &judgement.note), ("external", &judgement.external)] {
            if value != "-" {
                details.insert(name.to_owned(), json!(value));
            }
        }
        let is_column = |name: &str| ["method", "api", "deprecated", "successor"].contains(&name);
        let known = fact.as_object().unwrap().iter().filter(|(name, _)| !is_column(name));
        details.extend(known.map(|(name, value)| (name.clone(), value.clone())));
        let method = fact["method"].as_str().unwrap();
        let details = Value::Object(details);
        let successor = match (fact["deprecated"] == true, fact["successor"].as_str()) {
            (false, _) => "-",
            (true, None) => "!",
            (true, Some(successor)) => successor,
        };
        writeln!(table, "{}\t{}\t{method}\t{}\t{}\t{successor}\t{details}", key.0, key.1, judgement.class, judgement.replay).unwrap();
    }
    assert_current("methods.tsv", &table);
}

#[test]
fn every_method_has_a_class_a_purpose_and_a_pack() {
    assert_eq!(b24::catalog::entries().count(), 1675);
    for entry in b24::catalog::entries() {
        let details = entry.details().unwrap();
        assert!(!details.purpose.is_empty() && !details.reason.is_empty());
        let method = Method::parse(entry.name).unwrap();
        assert!(!packs::that_admit(&method).is_empty(), "{} is in no pack", entry.name);
    }
}

/// No official example is refused. The examples are not part of the repository.
#[test]
fn official_examples_fit_their_schema() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let (mut checked, mut refused) = (0, Vec::new());
    for example in examples(&shared) {
        let method = Method::parse(example["method"].as_str().unwrap()).unwrap();
        let api = if example["v3"] == true { Api::V3 } else { Api::V2 };
        let Some(entry) = b24::catalog::find(&method, api) else { continue };
        checked += 1;
        for problem in schema::check(&method, &entry.details().unwrap(), &example["params"]) {
            if problem.strength == Strength::Error {
                refused.push(format!("{method}: {} {} ({})", problem.path, problem.problem, problem.expected));
            }
        }
    }
    println!("{checked} official examples checked, {} refused", refused.len());
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

/// A way of getting a request wrong.
type Mutation = fn(&str, &mut Map<String, Value>) -> bool;

const MUTATIONS: &[(&str, Mutation)] =
    &[("typo in a key", swap_letters), ("wrong case of a key", turn_case), ("wrong type", change_type), ("missing id", drop_id)];

fn rename(params: &mut Map<String, Value>, old: &str, new: &str) -> bool {
    if new == old || params.contains_key(new) {
        return false;
    }
    *params = std::mem::take(params).into_iter().map(|(key, value)| (if key == old { new.to_owned() } else { key }, value)).collect();
    true
}

fn swap_letters(key: &str, params: &mut Map<String, Value>) -> bool {
    let mut letters: Vec<char> = key.chars().collect();
    if letters.len() < 4 {
        return false;
    }
    let middle = letters.len() / 2;
    letters.swap(middle - 1, middle);
    rename(params, key, &letters.into_iter().collect::<String>())
}

fn turn_case(key: &str, params: &mut Map<String, Value>) -> bool {
    let turned = if key.chars().any(char::is_lowercase) { key.to_uppercase() } else { key.to_lowercase() };
    rename(params, key, &turned)
}

fn change_type(key: &str, params: &mut Map<String, Value>) -> bool {
    let wrong = match &params[key] {
        Value::Number(_) => json!({"a": [1]}),
        Value::Object(_) | Value::Array(_) => json!(17),
        Value::String(_) | Value::Bool(_) | Value::Null => json!([{"a": 1}]),
    };
    params.insert(key.to_owned(), wrong);
    true
}

fn drop_id(key: &str, params: &mut Map<String, Value>) -> bool {
    key.eq_ignore_ascii_case("id") && params.shift_remove(key).is_some()
}

/// How many wrong requests are caught before they are sent: each documented
/// parameter of each official example, made wrong in each way.
#[test]
fn wrong_requests_are_caught() {
    let Ok(shared) = std::env::var("B24_SHARED_DIR") else {
        println!("skipped: B24_SHARED_DIR is not set");
        return;
    };
    let examples = examples(&shared);
    let (mut all_tried, mut all_caught) = (0_u32, 0_u32);
    for (mutation, mutate) in MUTATIONS {
        let (mut tried, mut caught) = (0_u32, 0_u32);
        for example in &examples {
            let method = Method::parse(example["method"].as_str().unwrap()).unwrap();
            let api = if example["v3"] == true { Api::V3 } else { Api::V2 };
            let (Some(entry), Some(params)) = (b24::catalog::find(&method, api), example["params"].as_object()) else { continue };
            let details = entry.details().unwrap();
            for (name, ..) in details.params.iter().filter(|(name, ..)| params.contains_key(name)) {
                let mut wrong = params.clone();
                if mutate(name, &mut wrong) {
                    tried += 1;
                    let problems = schema::check(&method, &details, &Value::Object(wrong));
                    caught += u32::from(problems.iter().any(|problem| problem.strength == Strength::Error));
                }
            }
        }
        println!("{mutation}: {caught} of {tried} caught");
        all_tried += tried;
        all_caught += caught;
    }
    println!("all: {all_caught} of {all_tried} caught ({:.1} %)", 100.0 * f64::from(all_caught) / f64::from(all_tried));
    assert!(all_tried >= 300 && all_caught * 10 >= all_tried * 9);
}

/// Words that change something in every method that has them; a method under
/// `read` that has one needs a reason of its own here.
const CHANGING_WORDS: &[&str] = &[
    "add",
    "apply",
    "approve",
    "archive",
    "bind",
    "cancel",
    "clear",
    "close",
    "commit",
    "complete",
    "confirm",
    "create",
    "delete",
    "edit",
    "execute",
    "finish",
    "forward",
    "import",
    "intercept",
    "invite",
    "join",
    "kill",
    "leave",
    "mark",
    "move",
    "mute",
    "open",
    "pause",
    "pay",
    "pin",
    "publication",
    "register",
    "remove",
    "rename",
    "reply",
    "reset",
    "restore",
    "send",
    "set",
    "share",
    "start",
    "stop",
    "terminate",
    "transfer",
    "unbind",
    "unregister",
    "unset",
    "update",
    "upload",
    "write",
];

/// Methods whose name has a changing word and that only read all the same.
const READS_DESPITE_THEIR_NAME: &[(&str, &str)] = &[
    ("crm.enum.addresstype", "a list of kinds of addresses"),
    ("imopenlines.session.open", "finds the chat of a user code and returns its id"),
    ("log.blogpost.getusers.important", "lists who has read an important post"),
    ("mail.mailbox.senders", "a list of sender addresses"),
    ("rest.documentation.openapi", "a document"),
    ("timeman.settings", "returns settings; timeman.timecontrol.settings.set changes them"),
];

#[test]
fn no_changing_word_sits_under_read_without_a_reason() {
    for entry in b24::catalog::entries().filter(|entry| entry.class == Risk::Read) {
        let last = entry.folded.rsplit('.').next().unwrap();
        let changes = CHANGING_WORDS.iter().any(|word| last.starts_with(word));
        assert!(!changes || READS_DESPITE_THEIR_NAME.iter().any(|(name, _)| *name == entry.folded), "{} sits under read", entry.name);
    }
}
