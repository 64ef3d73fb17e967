//! Answers that the ledger did not keep: a replay says so, and cannot be taken
//! for the answer.

use crate::kept::{as_person, made, resolve};
use crate::world::{Outcome, World};
use serde_json::{Value, json};

/// A title that makes the answer of `crm.item.add` longer than what is kept.
fn long_title() -> String {
    "t".repeat(70 * 1024)
}

fn item(world: &World, title: &str, options: &[&str]) -> Outcome {
    let args = [&["crm.item.add", "--params", "-", "--confirm-write"], options].concat();
    let params = json!({"entityTypeId": 1, "fields": {"title": title}}).to_string();
    Outcome::with_stdin(&mut world.command(&args), params.as_bytes())
}

#[track_caller]
fn both(outcome: &Outcome) -> (Value, Value) {
    assert_eq!(outcome.status, 13, "{}{}", &outcome.stdout[..outcome.stdout.len().min(500)], outcome.stderr);
    let error: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(
        (error["kind"].as_str(), error["outcome"].as_str(), error["sent"].as_bool()),
        (Some("answer_not_kept"), Some("replayed"), Some(false))
    );
    (serde_json::from_str(&outcome.stdout).unwrap(), error)
}

#[test]
fn an_answer_that_is_too_long_leaves_its_ids_and_no_null() {
    let world = World::new();
    let title = long_title();
    let first = item(&world, &title, &["--idempotency-key", "k"]).body(0);
    let id = first["result"]["item"]["id"].as_u64().unwrap();
    let (body, error) = both(&item(&world, &title, &["--idempotency-key", "k"]));
    assert_eq!(made(&world, &title), 1);
    assert!(body.get("result").is_none(), "{body}");
    assert_eq!(body["_b24"]["answer"], "not kept");
    assert_eq!(body["_b24"]["replayed"], true);
    assert_eq!(body["_b24"]["ids"]["item"]["id"], id);
    assert_eq!(error["ids"]["item"]["id"], id);
    assert_eq!(body["_b24"]["digest"].as_str().unwrap().len(), 64);
    let shown = world.run(&["ledger", "show", "k"]).body(0);
    assert_eq!(shown["record"]["lines"][2]["ids"]["item"]["id"], id);
}

#[test]
fn a_short_answer_is_replayed_as_it_was() {
    let world = World::new();
    let first = item(&world, "short", &["--idempotency-key", "k"]).body(0);
    let again = item(&world, "short", &["--idempotency-key", "k"]).body(0);
    assert_eq!(first["result"], again["result"]);
}

#[test]
fn a_batch_says_which_answers_it_lacks() {
    let world = World::new();
    let title = long_title();
    let command = |read: bool| {
        let mut commands = json!({
            "long": format!("crm.item.add?entityTypeId=1&fields[title]={title}"),
            "short": "crm.lead.add?fields[TITLE]=short",
        });
        if read {
            commands["read"] = "crm.lead.list".into();
        }
        json!({"cmd": commands}).to_string()
    };
    for (read, key) in [(false, "writes"), (true, "mixed")] {
        let args = ["batch", "--params", "-", "--confirm-write", "--idempotency-key", key];
        let run = || Outcome::with_stdin(&mut world.command(&args), command(read).as_bytes());
        let first = run().body(0);
        let id = &first["result"]["result"]["long"]["item"]["id"];
        let (body, _) = both(&run());
        let results = body["result"]["result"].as_object().unwrap();
        assert_eq!(results.keys().collect::<Vec<_>>(), ["short"], "{body}");
        assert_eq!(results["short"], first["result"]["result"]["short"]);
        assert_eq!(&body["_b24"]["commands"]["long"]["ids"]["item"]["id"], id);
        assert_eq!(body["_b24"]["commands"].get("read").is_some(), read);
    }
    assert_eq!((made(&world, &title), made(&world, "short")), (2, 2));
}

#[test]
fn a_write_that_a_person_found_done_has_no_answer() {
    let world = World::new();
    world.fault("crm.item.add:execute-then-drop:times=1");
    assert_eq!(item(&world, "t", &["--idempotency-key", "k"]).status, 8);
    resolve(&world, "k", "executed");
    let body = item(&world, "t", &["--idempotency-key", "k"]).body(0);
    assert!(body.get("result").is_none(), "{body}");
    assert_eq!((&body["_b24"]["replayed"], &body["_b24"]["answer"]), (&json!(true), &json!("not known")));
    assert_eq!(made(&world, "t"), 1);
    let explained = as_person(&world, &["explain", "answer_not_kept"]);
    assert_eq!(explained.status, 0, "{}", explained.stderr);
}
