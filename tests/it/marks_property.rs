//! Every row of `catalog/params.tsv`, in every spelling: what it makes stricter
//! does not pass with the milder consent, and nothing of it is sent.

use crate::world::World;
use b24::catalog::{self, Api, Entry};
use b24::gate::{Consent, Proposal, Refusal, appraise};
use b24::method::Method;
use b24::packs::Allowlist;
use b24::risk::Risk;
use b24::settings::Policy;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// A row for one method of one generation.
#[derive(Debug, Clone)]
struct Row {
    entry: Entry,
    /// Keys from the outside to the parameter.
    keys: Vec<&'static str>,
    condition: &'static str,
    mild: Risk,
    strict: Risk,
}

const TABLE: &str = include_str!("../../src/catalog/params.tsv");

/// A method that stands for any write, with a mark below its fields.
const ANY_WRITE: &[&str] = &["crm.deal.update", "crm.lead.add", "tasks.task.update", "disk.folder.rename", "landing.site.update"];

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for line in TABLE.lines() {
        let [methods, path, condition, mild, strict, _] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (Some(mild), Some(strict)) = (Risk::parse(mild), Risk::parse(strict)) else { continue };
        let (methods, paths): (Vec<&str>, Vec<Vec<&'static str>>) = match path {
            "**/~" => (ANY_WRITE.to_vec(), ["DEL", "delete", "REMOVE", "clear", "x_del"].map(|key| vec!["fields", "x", "*", key]).to_vec()),
            path => (methods.split(' ').collect(), vec![path.split('/').collect()]),
        };
        for method in methods {
            for entry in catalog::generations(&Method::parse(method).unwrap()).into_iter().flatten() {
                rows.extend(paths.iter().map(|keys| Row { entry, keys: keys.clone(), condition, mild, strict }));
            }
        }
    }
    rows
}

/// Values that break a condition; `None` for a parameter that is not there.
fn breaking(condition: &str) -> Vec<Option<Value>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| json!(text)).collect::<Vec<_>>();
    let common = [json!([]), json!({}), json!(["N"]), json!({"0": "N"}), json!([0])];
    let own = match condition {
        "absent" => [texts(&["", "x", "N", "0", "Y"]), vec![json!(null), json!(0), json!(false), json!(true), json!(1)]].concat(),
        "blank" => [texts(&["x", " ", "0", "N"]), vec![json!(0), json!(false), json!(true)]].concat(),
        "off" => {
            [texts(&["Y", "y", "1", "true", "yes", "no", " N", "00", "-0"]), vec![json!(1), json!(true), json!(0.0), json!(-1)]].concat()
        }
        "kept" => [texts(&["", " ", "0", "N", "n", "false", "0.0"]), vec![json!(0), json!(false), json!(null), json!(0.0)]].concat(),
        "yes" => [texts(&["", "N", "0", "no", " Y", "Y ", "-1"]), vec![json!(0), json!(false), json!(null), json!(2)]].concat(),
        "text" | "text?" => [texts(&["", " ", "\t"]), vec![json!(null), json!(false), json!(true)]].concat(),
        "zero" => [texts(&["", "1", "00", " 0", "N"]), vec![json!(1), json!(false), json!(null), json!(0.0)]].concat(),
        other => panic!("{other}"),
    };
    let lists = if condition == "kept" { common[..2].to_vec() } else { common.to_vec() };
    let missing = ["text", "zero"].contains(&condition).then_some(None);
    own.into_iter().chain(lists).map(Some).chain(missing).collect()
}

/// Values that keep the milder class.
fn keeping(condition: &str) -> Vec<Option<Value>> {
    let some = |values: &[Value]| values.iter().cloned().map(Some).collect::<Vec<_>>();
    let there = match condition {
        "absent" => vec![],
        "blank" => some(&[json!(""), json!(null)]),
        "off" => some(&[json!("N"), json!("n"), json!("0"), json!(""), json!(0), json!(false), json!(null)]),
        "kept" => some(&[json!("x"), json!(5), json!(["a.png", "aGk="]), json!({"fileData": ["a.png", "aGk="]})]),
        "yes" => some(&[json!("Y"), json!("y"), json!("1"), json!("true"), json!(1), json!(true)]),
        "text" | "text?" => some(&[json!("x"), json!("$x"), json!(5)]),
        "zero" => some(&[json!(0), json!("0")]),
        other => panic!("{other}"),
    };
    if ["text", "zero"].contains(&condition) { there } else { [there, vec![None]].concat() }
}

/// How a request is spelled.
#[derive(Debug, Clone, Copy)]
struct Spelling {
    /// Which letters of a key are turned.
    case: u64,
    /// What stands for a list.
    list: usize,
    /// Which of several keys of a pattern is taken.
    pick: usize,
}

const PLAIN: Spelling = Spelling { case: 0, list: 0, pick: 0 };

impl Spelling {
    fn key(self, key: &str) -> String {
        let turned = |(index, c): (usize, char)| {
            if (self.case >> (index % 64)) & 1 == 0 {
                c
            } else if c.is_ascii_uppercase() {
                c.to_ascii_lowercase()
            } else {
                c.to_ascii_uppercase()
            }
        };
        key.chars().enumerate().map(turned).collect()
    }

    /// Puts a value under a key of the row.
    fn wrap(self, row: &Row, depth: usize, inner: Option<Value>) -> Value {
        let key = row.keys[depth];
        let under = |name: &str| Value::Object(inner.iter().map(|inner| (self.key(name), inner.clone())).collect());
        match key {
            "*" if depth == 0 => under(if row.entry.folded.starts_with("tasks.template.") { "fields" } else { "FIELDS" }),
            "*" => match (self.list, inner.clone()) {
                (_, None) | (0, _) => Value::Array(inner.into_iter().collect()),
                (list, Some(inner)) => json!({(["n0", "7", "x"][(list - 1) % 3]): inner}),
            },
            end if end.starts_with('*') => under(&format!("{}{}", ["FILE", "12"][self.pick % 2], &end[1..])),
            start if start.ends_with('*') => under(&format!("{}{}", &start[..start.len() - 1], ["1", "X_9"][self.pick % 2])),
            name => under(name),
        }
    }

    /// Returns the parameters with a value at a depth of the row's path.
    fn params(self, row: &Row, depth: usize, value: Option<Value>) -> Value {
        let leaf = self.wrap(row, depth, value);
        let mut params = (0..depth).rev().fold(leaf, |inner, depth| self.wrap(row, depth, Some(inner)));
        // What must be there for the call to be one, and for other rows.
        let also: &[(&str, Value)] = match row.entry.folded {
            "im.message.update" | "imbot.message.update" if row.keys != ["MESSAGE"] => &[("MESSAGE", json!("x")), ("MESSAGE_ID", json!(1))],
            _ => &[],
        };
        let details = row.entry.details().unwrap();
        let ids = details.params.iter().filter(|(name, ..)| name.eq_ignore_ascii_case("id")).map(|(name, ..)| (name.as_str(), json!("1")));
        let Value::Object(map) = &mut params else { panic!("{row:?}") };
        let more: Vec<(String, Value)> = also.iter().cloned().chain(ids).map(|(name, value)| (name.to_owned(), value)).collect();
        map.extend(more);
        params
    }
}

fn policy() -> Policy {
    Policy {
        allowlist: Allowlist::parse("none", "*").unwrap(),
        allow_unlisted: false,
        allow_unknown_params: true,
        read_only: false,
        require_plan: false,
    }
}

/// Every form in which the same call can be sent.
fn carried(row: &Row, params: &Value) -> Vec<(&'static str, Proposal)> {
    let (name, api) = (row.entry.name, row.entry.api);
    let proposal = |name: &str, params: Value| Proposal { name: name.to_owned(), params, api: Some(api) };
    let mut forms = vec![("call", proposal(name, params.clone()))];
    if api == Api::V3 {
        forms.push(("v3 batch", proposal("batch", json!([{"method": name, "query": params}]))));
        return forms;
    }
    forms.push(("pair", proposal("batch", json!({"cmd": {"a": [name, params]}}))));
    forms.push(("object", proposal("batch", json!({"cmd": [{"method": name, "params": params}]}))));
    let mut pairs = Vec::new();
    flatten(params, "", &mut pairs);
    let line = |escape: fn(&str) -> String| {
        let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
        json!({"cmd": {"a": format!("{name}?{}", pairs.join("&"))}})
    };
    forms.push(("text", proposal("batch", line(|text| text.replace('%', "%25").replace('&', "%26").replace('+', "%2B")))));
    forms.push(("escaped", proposal("batch", line(escape_all))));
    forms
}

fn escape_all(text: &str) -> String {
    text.bytes().fold(String::new(), |escaped, byte| escaped + &format!("%{byte:02x}"))
}

fn flatten(value: &Value, place: &str, pairs: &mut Vec<(String, String)>) {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(items) => items.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect(),
        Value::Null => return pairs.push((place.to_owned(), String::new())),
        Value::Bool(is_set) => return pairs.push((place.to_owned(), u8::from(*is_set).to_string())),
        Value::Number(number) => return pairs.push((place.to_owned(), number.to_string())),
        Value::String(text) => return pairs.push((place.to_owned(), text.clone())),
    };
    for (key, child) in children {
        let inner = if place.is_empty() { key } else { format!("{place}[{key}]") };
        flatten(child, &inner, pairs);
    }
}

/// Whether a form of a call says something else than the value: a query has no
/// such kinds, and no object without members.
fn is_lost(form: &str, value: Option<&Value>) -> bool {
    form != "call" && !matches!(value, Some(Value::String(_) | Value::Number(_)))
}

/// What the gate says to a proposal with the consent of the milder class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed(Risk),
    Unconfirmed(Risk),
    Malformed,
}

fn verdict(proposal: Proposal, row: &Row) -> Verdict {
    let consent = Consent { write: row.mild == Risk::Write, destructive: false };
    let appraised = match appraise(proposal, &policy()) {
        Ok(appraised) => appraised,
        Err(Refusal::Shape(_) | Refusal::Params { .. }) => return Verdict::Malformed,
        Err(other) => panic!("{row:?}: {other}"),
    };
    let risk = appraised.risk();
    match appraised.confirm(&policy(), consent, false) {
        Ok(_) => Verdict::Passed(risk),
        Err(_) => Verdict::Unconfirmed(risk),
    }
}

#[test]
fn what_breaks_a_row_never_passes_with_the_milder_consent() {
    let (mut refused, mut malformed) = (0, 0);
    for row in rows() {
        for value in breaking(row.condition) {
            let params = PLAIN.params(&row, row.keys.len() - 1, value.clone());
            for (form, proposal) in carried(&row, &params) {
                let is_other = is_lost(form, value.as_ref());
                match verdict(proposal, &row) {
                    Verdict::Malformed => malformed += 1,
                    Verdict::Unconfirmed(risk) => {
                        assert_eq!(risk, row.strict, "{row:?} {params} {form}");
                        refused += 1;
                    }
                    Verdict::Passed(_) if is_other => {}
                    Verdict::Passed(_) => panic!("{row:?} {params} {form}"),
                }
            }
        }
    }
    println!("{} rows, {refused} calls refused for their class, {malformed} for their shape", rows().len());
    assert!(refused > 4 * malformed);
}

#[test]
fn what_keeps_a_row_passes_with_the_milder_consent() {
    let (mut passed, mut malformed) = (0, 0);
    for row in rows() {
        // Below a list of rows that is replaced as a whole nothing keeps it.
        let others = rows().into_iter().filter(|other| other.entry == row.entry && other.keys != row.keys);
        let is_below =
            others.clone().any(|other| other.condition == "absent" && row.keys.len() >= other.keys.len() && touches(&row, &other));
        for value in keeping(row.condition) {
            let mut params = PLAIN.params(&row, row.keys.len() - 1, value.clone());
            if row.keys.contains(&"DELETE") && row.keys.len() == 4 {
                params["fields"][row.keys[1]][0]["VALUE"] = json!("x");
            }
            match verdict(Proposal { name: row.entry.name.to_owned(), params: params.clone(), api: Some(row.entry.api) }, &row) {
                Verdict::Malformed => malformed += 1,
                Verdict::Passed(risk) => {
                    assert_eq!(risk, row.mild, "{row:?} {params}");
                    passed += 1;
                }
                Verdict::Unconfirmed(_) if is_below || value.as_ref().is_some_and(Value::is_object) => {}
                Verdict::Unconfirmed(_) => panic!("{row:?} {params}"),
            }
        }
    }
    println!("{passed} calls passed, {malformed} malformed");
    assert!(passed > 4 * malformed);
}

/// Whether the same parameter can be meant by both rows, as far as they go.
fn touches(row: &Row, other: &Row) -> bool {
    other.keys.iter().zip(&row.keys).all(|(a, b)| a.eq_ignore_ascii_case(b) || a.contains('*') || b.contains('*'))
}

#[test]
fn a_reference_counts_as_the_worst_wherever_it_decides() {
    let (mut refused, mut malformed) = (0, 0);
    for row in rows() {
        // What no page names can hide in the fields as a whole, and in itself.
        let is_mark = row.keys.starts_with(&["fields", "x"]);
        for depth in (0..row.keys.len()).filter(|depth| !is_mark || [0, 3].contains(depth)) {
            let references = match row.entry.api {
                Api::V2 => vec![json!("$result[a][b]"), json!("x $result[a]"), json!("$RESULT[a]"), json!({"$result": {"a": "b"}})],
                Api::V3 => vec![json!({"$ref": "a.item.b"}), json!({"$refArray": "a.b"})],
            };
            for reference in references {
                let params = PLAIN.params(&row, depth, Some(reference));
                for (form, proposal) in carried(&row, &params).into_iter().filter(|(form, _)| *form != "call") {
                    match verdict(proposal, &row) {
                        Verdict::Malformed => malformed += 1,
                        Verdict::Unconfirmed(risk) => {
                            assert_eq!(risk, row.strict, "{row:?} {params} {form}");
                            refused += 1;
                        }
                        Verdict::Passed(_) => panic!("{row:?} {params} {form}"),
                    }
                }
            }
        }
    }
    println!("{refused} references refused for their class, {malformed} for their shape");
    assert!(refused > malformed);
}

#[test]
fn nothing_of_them_reaches_the_portal() {
    let world = World::new();
    let mut runs = 0;
    for row in rows() {
        let Some(value) = breaking(row.condition).into_iter().flatten().next() else { continue };
        let params = PLAIN.params(&row, row.keys.len() - 1, Some(value));
        let mut forms = carried(&row, &params);
        forms.retain(|(form, _)| ["call", "escaped", "v3 batch"].contains(form));
        for (form, proposal) in forms {
            let text = proposal.params.to_string();
            let args = ["--method-allowlist=*", "--allow-unknown-params", "--api", row.entry.api.text(), "--params", &text];
            let consent: &[&str] = if row.mild == Risk::Write { &["--confirm-write"] } else { &[] };
            let outcome = world.run(&[&[proposal.name.as_str()][..], &args, consent].concat());
            assert_eq!(outcome.status, 10, "{row:?} {form} {text}: {}", outcome.stderr);
            runs += 1;
        }
    }
    assert!(world.requests().is_empty());
    println!("{runs} runs, no request");
}

fn any_row() -> impl Strategy<Value = Row> {
    prop::sample::select(rows())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_gets_round_a_row(
        (row, value) in any_row().prop_flat_map(|row| { let values = breaking(row.condition); (Just(row), prop::sample::select(values)) }),
        (case, list, pick) in (any::<u64>(), 0_usize..4, 0_usize..2),
    ) {
        let spelling = Spelling { case, list, pick };
        let params = spelling.params(&row, row.keys.len() - 1, value.clone());
        // Two spellings of one name are refused as such.
        for (form, proposal) in carried(&row, &params) {
            let is_other = is_lost(form, value.as_ref());
            let verdict = verdict(proposal, &row);
            prop_assert!(is_other || !matches!(verdict, Verdict::Passed(_)), "{:?} {} {}: {:?}", row, params, form, verdict);
        }
    }

    #[test]
    fn no_depth_hides_a_mark(
        name in prop::sample::select(ANY_WRITE.to_vec()),
        mark in prop::sample::select(vec!["DEL", "delete", "Remove", "PHOTO_del", "removeIds", "isDeleted", "CLEAR", "x-reset"]),
        path in prop::collection::vec(prop_oneof!["[a-zA-Z]{1,6}", "[0-9]{1,2}"], 0..5),
        value in prop::sample::select(breaking("off")),
    ) {
        let entry = catalog::generations(&Method::parse(name).unwrap())[0].unwrap();
        let row = Row { entry, keys: vec!["fields"], condition: "off", mild: Risk::Write, strict: Risk::Destructive };
        let mut leaf = Map::new();
        leaf.insert(mark.to_owned(), value.unwrap());
        let inner = path.iter().rev().fold(Value::Object(leaf), |inner, key| json!({(key.as_str()): inner}));
        let params = PLAIN.params(&row, 0, Some(inner));
        prop_assert!(!matches!(verdict(carried(&row, &params).remove(0).1, &row), Verdict::Passed(_)), "{} {}", name, params);
    }
}
