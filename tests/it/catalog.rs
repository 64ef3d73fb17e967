//! The catalog is complete, current and careful.
//!
//! `src/catalog/facts.jsonl` holds the facts of the official documentation in
//! trimmed form, `src/catalog/classes.tsv` our own judgement of every method,
//! `src/catalog/methods.tsv` what is embedded. Where `B24_SHARED_DIR` names the
//! folder of the untrimmed facts, the trimmed ones are compared with them.
//! `B24_UPDATE=1` writes what can be made anew.

use b24::method::Method;
use b24::packs;
use b24::risk::Risk;
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
fn assert_current(name: &str, expected: &str) {
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
    rows.sort_by_key(key);
    let lines: Vec<String> = rows.iter().map(|row| format!("{row}\n")).collect();
    assert_current("facts.jsonl", &lines.concat());
}

fn trimmed(fact: &Value) -> Value {
    let list = |rows: &Value| -> Value {
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| json!([row["name"], row["type"].as_str().unwrap_or("any"), row["required"] == true])).collect()
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
