//! Saved plans: exactly what they say is sent, once.

use crate::world::{Outcome, World};
use serde_json::Value;

const PARAMS: &str = r#"{"fields":{"TITLE":"Plan","OPPORTUNITY":10.10,"COMMENTS":"ä\u0022","UF_CRM_BIG":12345678901234567890},"params":{"REGISTER_SONET_EVENT":"N"}}"#;

/// Saves a plan of a call and returns it.
pub(crate) fn saved(world: &World, args: &[&str]) -> Value {
    let body = world.run(&[args, &["--plan-only"]].concat()).body(0);
    body["plan"].clone()
}

/// Saves a plan of one lead and returns its id.
pub(crate) fn saved_id(world: &World) -> String {
    saved(world, &["crm.lead.add", "fields[TITLE]=Plan"])["plan_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_plan_is_printed_with_the_command_that_executes_it_and_nothing_is_sent() {
    let world = World::new();
    let body = world.run(&["CRM.lead.add.json", "--params", PARAMS, "--plan-only"]).body(0);
    let id = body["plan"]["plan_id"].as_str().unwrap();
    assert_eq!(body["next"]["execute_command"], format!("b24 --execute-plan {id}"));
    let step = &body["plan"]["steps"][0];
    assert_eq!((step["method"].as_str(), step["api"].as_str(), step["risk"].as_str()), (Some("crm.lead.add"), Some("v2"), Some("write")));
    assert_eq!(body["plan"]["precondition"], Value::Null);
    assert!(world.requests().is_empty());
}

#[test]
fn the_planned_tokens_are_sent_in_their_order() {
    let world = World::new();
    let plan = saved(&world, &["crm.lead.add", "--params", PARAMS]);
    let outcome = world.run(&["--execute-plan", plan["plan_id"].as_str().unwrap(), "--confirm-write"]);
    assert_eq!(outcome.body(0)["result"], 1);
    let [request] = world.requests().try_into().unwrap();
    let planned: Value = serde_json::from_str(PARAMS).unwrap();
    assert_eq!(request.params.to_string(), planned.to_string());
    assert!(request.params.to_string().contains("10.10"));
    let kinds: Vec<Value> = world.audit().iter().map(|record| record["plan_id"].clone()).collect();
    assert_eq!(kinds[0], plan["plan_id"]);
}

#[test]
fn a_plan_is_used_once_whatever_options_say() {
    let world = World::new();
    let id = saved_id(&world);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    let _ = world.run(&execute).body(0);
    for extra in [&[][..], &["--again"], &["--no-idempotency"], &["--retry-failed"], &["--auto-key"], &["--wait"]] {
        assert_eq!(world.run(&[&execute, extra].concat()).error(9)["kind"], "plan_used", "{extra:?}");
    }
    assert_eq!(world.run(&["plan", "execute", &id, "--confirm-write"]).error(9)["kind"], "plan_used");
    assert_eq!(world.run(&["ledger", "forget", &id, "--confirm-destructive"]).error(9)["kind"], "plan_used");
    // In another ledger it would look unused.
    let elsewhere = world.run(&[&execute[..], &["--idempotency-file", "elsewhere"]].concat());
    assert_eq!(elsewhere.error(9)["kind"], "plan_foreign");
    assert_eq!((world.requests().len(), world.changes().len()), (1, 1));
}

#[test]
fn a_plan_that_the_portal_refused_is_used_as_well() {
    let world = World::new();
    world.fault("crm.lead.add:error:times=1");
    let id = saved_id(&world);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    let _ = world.run(&execute).error(1);
    for extra in [&[][..], &["--retry-failed"], &["--no-idempotency"]] {
        let error = world.run(&[&execute, extra].concat()).error(1);
        assert_eq!((&error["sent"], &error["outcome"]), (&Value::Bool(false), &Value::from("not_sent")), "{extra:?}");
    }
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_plan_whose_outcome_is_unknown_stays_blocked() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let id = saved_id(&world);
    for extra in [&[][..], &["--no-idempotency"], &["--again"]] {
        let error = world.run(&[&["--execute-plan", &id, "--confirm-write"], extra].concat()).error(8);
        assert_eq!(error["outcome"], "unknown");
    }
    // Nor under another plan, nor without one.
    let other = saved_id(&world);
    assert_eq!(world.run(&["--execute-plan", &other, "--confirm-write"]).status, 8);
    assert_eq!(world.run(&["crm.lead.add", "fields[TITLE]=Plan", "--confirm-write"]).status, 8);
    assert_eq!((world.requests().len(), world.changes().len()), (1, 1));
}

#[test]
fn a_plan_that_was_surely_not_executed_stays_usable() {
    let world = World::new();
    world.fault("crm.lead.add:query-limit:times=1");
    let id = saved_id(&world);
    let execute = ["--execute-plan", id.as_str(), "--confirm-write"];
    assert_eq!(world.run(&[&execute[..], &["--retry", "none"]].concat()).error(7)["kind"], "rate_limited");
    // The bucket is empty now, and no slot comes in time.
    assert_eq!(world.run(&[&execute[..], &["--max-wait", "0"]].concat()).error(7)["outcome"], "not_sent");
    // The process that holds the claim dies before it sends.
    let killed = Outcome::of(world.command(&execute).env("B24_CRASH_POINT", "pipeline.after_intent"));
    assert_eq!(killed.status, -1);
    assert_eq!(world.changes().len(), 0);
    assert_eq!(world.run(&execute).body(0)["result"], 1);
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn two_processes_execute_a_plan_once() {
    let world = World::new();
    world.fault("crm.lead.add:slow-before:ms=50");
    for round in 1..=5 {
        let id = saved(&world, &["crm.lead.add", &format!("fields[TITLE]={round}")])["plan_id"].as_str().unwrap().to_owned();
        let args = ["--execute-plan", id.as_str(), "--confirm-write"];
        let statuses: Vec<i32> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| world.run(&args).status)).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert_eq!(statuses.iter().filter(|status| **status == 0).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [0, 9].contains(status)), "{statuses:?}");
        assert_eq!(world.requests().len(), round);
    }
}

#[test]
fn a_batch_is_planned_and_executed_as_a_whole() {
    let world = World::new();
    let cmd = r#"{"halt":1,"cmd":{"b":"crm.contact.add?fields[NAME]=A%26B","a":["crm.deal.add",{"fields":{"CONTACT_ID":"$result[b]"}}],"list":"crm.deal.list"}}"#;
    let plan = saved(&world, &["batch", "--params", cmd]);
    assert_eq!(plan["steps"][0]["risk"], "write");
    let id = plan["plan_id"].as_str().unwrap();
    let body = world.run(&["--execute-plan", id, "--confirm-write"]).body(0);
    assert_eq!(body["result"]["result"]["list"].as_array().unwrap().len(), 1, "{body}");
    let [request] = world.requests().try_into().unwrap();
    let names: Vec<&String> = request.params["cmd"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["b", "a", "list"]);
    assert_eq!(world.run(&["--execute-plan", id, "--confirm-write", "--no-idempotency"]).error(9)["kind"], "plan_used");
    assert_eq!((world.requests().len(), world.changes().len()), (1, 2));
}

#[test]
fn plans_are_listed_shown_cancelled_and_pruned() {
    let world = World::new();
    let (first, second) = (saved_id(&world), saved_id(&world));
    let list = world.run(&["plan", "list"]).body(0);
    let ids: Vec<&str> = list["plans"].as_array().unwrap().iter().map(|plan| plan["plan_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [second.as_str(), first.as_str()]);
    let shown = world.run(&["plan", "show", &first.to_lowercase()]).body(0);
    assert_eq!(shown["plan"]["steps"][0]["params"]["fields"]["TITLE"], "Plan");
    assert_eq!(world.run(&["plan", "cancel", &first]).body(0)["plan_id"], first);
    assert_eq!(world.run(&["plan", "list"]).body(0)["plans"][1]["cancelled"], true);
    assert_eq!(world.run(&["plan", "show", &first]).error(9)["kind"], "plan_cancelled");
    assert_eq!(world.run(&["plan", "prune"]).body(0)["pruned"], serde_json::json!([]));
    assert_eq!(world.run(&["--execute-plan", &second, "--confirm-write"]).status, 0);
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn a_plan_for_the_built_in_portal_is_executed_in_the_role_in_which_it_was_made() {
    let world = World::new();
    let emulator = ["--profile", "emulator"];
    for method in [&["event.bind", "event=ONCRMDEALADD", "event_type=offline"][..], &["crm.lead.add", "fields[TITLE]=x"]] {
        let planned = world.run(&[&emulator, method, &["--plan-only"]].concat()).body(0);
        let id = planned["plan"]["plan_id"].as_str().unwrap();
        assert!(!world.run(&[&emulator[..], &["--execute-plan", id, "--confirm-write"]].concat()).body(0)["result"].is_null());
    }
    let bound = world.run(&[&emulator[..], &["event.get"]].concat()).body(0);
    assert_eq!(bound["result"][0]["event"], "ONCRMDEALADD");
}
