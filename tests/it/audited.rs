//! What the audit says: one test a type of record, its exact fields, and no
//! value of anybody.

use crate::kept::{plan, resolve};
use crate::world::{Outcome, World};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Fields that the chain adds to every record.
const CHAIN: [&str; 4] = ["seq", "prev", "ts", "boot"];
/// Fields that every record of a call has.
const BASE: [&str; 8] = ["type", "actor", "uid", "pid", "profile", "portal", "principal", "method"];

const ADD: [&str; 4] = ["crm.lead.add", "fields[TITLE]=Personal Value", "fields[OPPORTUNITY]:=4711", "--confirm-write"];

#[track_caller]
fn assert_fields(record: &Value, own: &[&str]) {
    let expected: BTreeSet<&str> = CHAIN.iter().chain(&BASE).chain(own).copied().collect();
    let found: BTreeSet<&str> = record.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, expected, "{record}");
}

#[track_caller]
fn types(world: &World) -> Vec<String> {
    world.audit().iter().map(|record| record["type"].as_str().unwrap().to_owned()).collect()
}

/// The paths and types of the described parameters.
fn described(params: &Value) -> Vec<(&str, &str)> {
    let values = params["values"].as_array().unwrap();
    assert!(values.iter().all(|value| value["hmac"].as_str().unwrap().len() == 16), "{params}");
    values.iter().map(|value| (value["path"].as_str().unwrap(), value["type"].as_str().unwrap())).collect()
}

#[test]
fn an_intent_tells_what_is_sent_without_a_value() {
    let world = World::new();
    let _ = world.run(&ADD).body(0);
    let audit = world.audit();
    let [intent, outcome] = audit.as_slice() else { panic!("{audit:?}") };
    assert_fields(intent, &["loosened", "request_id", "attempt", "api", "risk", "params", "ledger", "packs"]);
    assert_eq!(described(&intent["params"]), [("/fields/TITLE", "string"), ("/fields/OPPORTUNITY", "number")]);
    assert_eq!((&intent["method"], &intent["api"], &intent["risk"]), (&json!("crm.lead.add"), &json!("v2"), &json!("write")));
    assert_eq!((&intent["attempt"], &intent["packs"], &intent["principal"]), (&json!(1), &json!(["core"]), &json!("webhook:1")));
    assert_eq!((&intent["profile"], &intent["portal"]), (&json!("env"), &json!(world.emulator.address().to_string())));
    let seen = world.requests().pop().unwrap();
    assert_eq!(intent["request_id"].as_str(), seen.request_id.as_deref());
    let record = crate::kept::records(&world).pop().unwrap();
    assert_eq!(intent["ledger"], json!([record.name]));
    assert_fields(outcome, &["loosened", "request_id", "outcome", "status"]);
    assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!("applied"), &json!(200)));
    let text = std::fs::read_to_string(world.state().join("audit/audit.jsonl")).unwrap();
    assert!(!text.contains("Personal") && !text.contains("4711"), "{text}");
}

#[test]
fn equal_values_have_equal_digests_and_others_do_not() {
    let world = World::new();
    for title in ["one", "one", "two"] {
        let _ = world.run(&["crm.lead.add", &format!("fields[TITLE]={title}"), "--confirm-write", "--again"]).body(0);
    }
    let digests: Vec<Value> = world
        .audit()
        .iter()
        .filter(|record| record["type"] == "intent")
        .map(|record| record["params"]["values"][0]["hmac"].clone())
        .collect();
    assert!(digests[0] == digests[1] && digests[0] != digests[2], "{digests:?}");
}

#[test]
fn an_intent_of_a_batch_tells_of_every_command() {
    let world = World::new();
    let commands = r#"{"cmd":{"new":"crm.lead.add?fields[TITLE]=Personal","me":"user.current","gone":"crm.lead.delete?id=77"}}"#;
    let _ = world.run(&["batch", "--params", commands, "--confirm-destructive"]);
    let intent = world.audit().remove(0);
    assert_fields(&intent, &["loosened", "request_id", "attempt", "api", "risk", "commands", "ledger", "packs"]);
    let told: Vec<(&str, &str)> = intent["commands"]
        .as_array()
        .unwrap()
        .iter()
        .map(|command| (command["name"].as_str().unwrap(), command["method"].as_str().unwrap()))
        .collect();
    assert_eq!(told, [("new", "crm.lead.add"), ("me", "user.current"), ("gone", "crm.lead.delete")]);
    assert_eq!(described(&intent["commands"][0]["params"]), [("/fields/TITLE", "string")]);
    assert_eq!((&intent["risk"], intent["ledger"].as_array().unwrap().len()), (&json!("destructive"), 2));
    assert!(!intent.to_string().contains("Personal"));
}

#[test]
fn each_attempt_has_its_own_intent_and_outcome() {
    let world = World::new();
    world.fault("crm.lead.add:query-limit:times=1");
    let _ = world.run(&ADD).body(0);
    let audit = world.audit();
    assert_eq!(types(&world), ["intent", "outcome", "intent", "outcome"]);
    let told: Vec<(Value, Value)> = audit.iter().map(|record| (record["attempt"].clone(), record["outcome"].clone())).collect();
    let expected = [(json!(1), Value::Null), (Value::Null, json!("not_applied")), (json!(2), Value::Null), (Value::Null, json!("applied"))];
    assert_eq!(told, expected);
    assert_eq!((&audit[1]["error"], &audit[1]["status"]), (&json!("QUERY_LIMIT_EXCEEDED"), &json!(503)));
    assert!(audit[0]["request_id"] == audit[1]["request_id"] && audit[1]["request_id"] != audit[2]["request_id"]);
}

#[test]
fn an_outcome_that_nobody_knows_is_told_as_unknown() {
    for (fault, status) in [("execute-then-drop", Value::Null), ("execute-then-500", json!(500)), ("garbage-200", json!(200))] {
        let world = World::new();
        world.fault(&format!("crm.lead.add:{fault}"));
        let _ = world.run(&ADD).error(8);
        let audit = world.audit();
        let [_, outcome] = audit.as_slice() else { panic!("{audit:?}") };
        assert_fields(outcome, &["loosened", "request_id", "outcome", "status", "error"]);
        assert_eq!((&outcome["outcome"], &outcome["status"]), (&json!("unknown"), &status), "{fault}");
    }
}

#[test]
fn a_refusal_by_the_portal_is_told_with_its_code() {
    let world = World::new();
    world.fault("crm.lead.add:error:status=400:code=ERROR_CORE");
    let _ = world.run(&ADD).error(1);
    let outcome = world.audit().pop().unwrap();
    assert_eq!((&outcome["outcome"], &outcome["status"], &outcome["error"]), (&json!("not_applied"), &json!(400), &json!("ERROR_CORE")));
}

#[test]
fn a_read_has_one_record_however_often_it_was_tried() {
    let world = World::new();
    world.fault("crm.lead.list:html-502:times=1");
    let _ = world.run(&["crm.lead.list", "filter[TITLE]=Personal"]).body(0);
    let audit = world.audit();
    let [read] = audit.as_slice() else { panic!("{audit:?}") };
    assert_fields(read, &["loosened", "request_id", "attempts", "outcome", "status"]);
    assert_eq!((&read["type"], &read["attempts"], &read["outcome"]), (&json!("read"), &json!(2), &json!("applied")));
    assert!(!read.to_string().contains("Personal"));
}

#[test]
fn a_read_that_failed_says_so() {
    let world = World::new();
    world.fault("crm.lead.list:error:status=400:code=ERROR_CORE");
    let _ = world.run(&["crm.lead.list"]).error(1);
    world.fault("user.current:html-502");
    let _ = world.run(&["user.current", "--max-attempts", "1"]).error(7);
    let audit = world.audit();
    let told: Vec<_> = audit.iter().map(|record| (&record["type"], &record["outcome"], &record["status"])).collect();
    let read = json!("read");
    assert_eq!(told, [(&read, &json!("not_applied"), &json!(400)), (&read, &json!("not_applied"), &json!(502))]);
}

#[test]
fn reads_are_not_audited_when_that_is_switched_off_and_writes_are() {
    let world = World::new();
    let _ = world.run(&["crm.lead.list", "--no-audit"]).body(0);
    assert!(world.audit().is_empty());
    let _ = Outcome::of(world.command(&["crm.lead.list"]).env("B24_AUDIT_FILE", "")).body(0);
    assert!(world.audit().is_empty());
    let _ = world.run(&[&ADD[..], &["--no-audit"]].concat()).body(0);
    assert_eq!(types(&world), ["intent", "outcome"]);
    assert_eq!(world.audit()[0]["loosened"], json!(["no-audit", "rate-limiter", "state-dir"]));
}

#[test]
fn every_step_that_refuses_is_told_with_its_name() {
    for (step, kind, args) in [
        ("shape", "invalid_params", &["crm.lead.get", "id=1", "ID=2"][..]),
        ("shape", "credential_in_params", &["crm.lead.get", "auth=x"]),
        ("method", "unknown_method", &["crm.lead.wipe"]),
        ("packs", "policy_denied", &["disk.file.get", "id=1"]),
        ("params", "invalid_params", &["crm.lead.list", "fitler[ID]=1"]),
        ("consent", "confirmation_required", &["crm.lead.add", "fields[TITLE]=Personal"]),
        ("consent", "plan_required", &["crm.lead.add", "fields[TITLE]=Personal", "--confirm-write", "--require-plan"]),
        ("plan", "plan_not_found", &["--execute-plan", "01ARZ3NDEKTSV4RRFFQ69G5FAV"]),
    ] {
        let world = World::new();
        assert!(world.run(args).status != 0);
        let audit = world.audit();
        let [denied] = audit.as_slice() else { panic!("{args:?}: {audit:?}") };
        assert_fields(denied, &["loosened", "step", "kind"]);
        assert_eq!((&denied["type"], &denied["step"]), (&json!("denied"), &json!(step)), "{args:?}");
        assert_eq!(denied["kind"], kind, "{args:?}");
        assert!(!denied.to_string().contains("Personal"));
    }
    let world = World::new();
    assert_eq!(Outcome::of(world.command(&ADD).env("B24_READ_ONLY", "1")).status, 3);
    assert_eq!(world.audit()[0]["step"], "policy");
}

#[test]
fn a_refusal_by_the_ledger_and_a_replay_are_told() {
    let world = World::new();
    let keyed = [&ADD[..], &["--idempotency-key", "k"]].concat();
    let _ = world.run(&keyed).body(0);
    let _ = world.run(&keyed).body(0);
    let record = crate::kept::records(&world).pop().unwrap().name;
    let replayed = world.audit().pop().unwrap();
    assert_fields(&replayed, &["loosened", "ledger"]);
    assert_eq!((&replayed["type"], &replayed["ledger"]), (&json!("replayed"), &json!(record)));
    assert_eq!(world.run(&["crm.contact.add", "fields[NAME]=x", "--confirm-write", "--idempotency-key", "k"]).status, 9);
    let denied = world.audit().pop().unwrap();
    assert_eq!((&denied["type"], &denied["step"], &denied["kind"]), (&json!("denied"), &json!("ledger"), &json!("key_reused")));
}

#[test]
fn a_plan_is_named_by_its_intent() {
    let world = World::new();
    let id = plan(&world, &["crm.lead.add", "fields[TITLE]=t"]);
    let _ = world.run(&["--execute-plan", &id, "--confirm-write"]).body(0);
    let intent = world.audit().into_iter().find(|record| record["type"] == "intent").unwrap();
    assert_eq!(intent["plan_id"], id.as_str());
    assert_fields(&intent, &["loosened", "request_id", "attempt", "api", "risk", "params", "ledger", "packs", "plan_id"]);
}

#[test]
fn a_persons_decision_is_told_with_its_reason() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop");
    let _ = world.run(&[&ADD[..], &["--idempotency-key", "k"]].concat()).error(8);
    resolve(&world, "k", "executed");
    let record = world.audit().pop().unwrap();
    assert_eq!((&record["type"], &record["key"], &record["as"]), (&json!("resolve"), &json!("k"), &json!("executed")));
    assert_eq!((&record["reason"], &record["actor"]), (&json!("looked"), &json!("user:-")));
}

#[test]
fn the_actor_is_what_is_said_else_the_agent_else_the_user() {
    for (variables, actor) in [
        (&[("B24_ACTOR", "nightly"), ("CLAUDECODE", "1"), ("USER", "ann")][..], "nightly"),
        (&[("CLAUDECODE", "1"), ("USER", "ann")], "agent:claude-code"),
        (&[("USER", "ann")], "user:ann"),
        (&[], "user:-"),
    ] {
        let world = World::new();
        let _ = Outcome::of(world.command(&["user.current"]).envs(variables.iter().copied())).body(0);
        assert_eq!(world.audit()[0]["actor"], actor);
    }
}
