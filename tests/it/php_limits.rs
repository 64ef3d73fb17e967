//! What PHP would drop in silence is refused before it is sent.

use crate::world::{Outcome, World};
use serde_json::{Value, json};

/// A list of this many ids, in a query and in JSON.
fn query(count: usize) -> String {
    (0..count).fold(String::new(), |query, number| query + &format!("&id[]={number}"))
}

fn ids(count: usize) -> Value {
    (0..count).map(|number| number.to_string()).collect()
}

/// One command in every form.
fn forms(query: &str, params: &Value) -> Vec<String> {
    let line = format!("event.offline.clear?{query}");
    vec![
        json!({"cmd": {"a": line}}).to_string(),
        json!({"cmd": [line]}).to_string(),
        json!({"cmd": {"a": ["event.offline.clear", params]}}).to_string(),
        json!({"cmd": [{"method": "event.offline.clear", "params": params}]}).to_string(),
        json!({"halt": 1, "cmd": {"me": "user.current", "a": line}}).to_string(),
    ]
}

#[test]
fn a_command_that_php_would_cut_is_refused_with_its_number() {
    let world = World::new();
    let run = |params: &str| world.run(&["batch", "--params", params, "--confirm-write", "--confirm-destructive"]);
    let mut cases = Vec::new();
    for count in [900, 999, 1_000, 1_500] {
        cases.extend(
            forms(&format!("process_id=p{}", query(count)), &json!({"process_id": "p", "id": ids(count)}))
                .into_iter()
                .map(|form| (form, count + 1)),
        );
    }
    for (form, count) in &cases {
        let error = run(form).error(2);
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("has {count} values")) && message.contains("900"), "{message}");
        assert_eq!((&error["sent"], &error["kind"]), (&json!(false), &json!("invalid_params")));
    }
    for levels in [61, 64, 65, 2_000] {
        let nested = (0..levels.min(64)).fold(json!("1"), |inner, _| json!({"b": inner}));
        let brackets = format!("process_id=p&id{}=1", "[b]".repeat(levels));
        for form in forms(&brackets, &json!({"process_id": "p", "id": nested})) {
            let error = run(&form).error(2);
            assert!(error["message"].as_str().unwrap().contains("levels"), "{error}");
        }
    }
    assert!(world.requests().is_empty());
}

#[test]
fn a_command_below_the_limits_and_a_call_of_its_own_arrive_whole() {
    let world = World::new();
    let run = |args: &[&str]| {
        // The offline queue is an application's.
        Outcome::of(&mut world.oauth_command(&[args, &["--confirm-write", "--confirm-destructive"]].concat()))
    };
    for form in forms(&format!("process_id=p{}", query(899)), &json!({"process_id": "p", "id": ids(899)})) {
        // Nothing is reserved, so there is nothing to clear: what arrives counts.
        let before = world.requests().len();
        let outcome = run(&["batch", "--params", &form, "--again"]);
        assert!(world.requests().len() > before, "{}", outcome.stderr);
        let sent = world.requests().pop().unwrap().params["cmd"].to_string();
        assert!(sent.contains("id[898]=898"), "{sent}");
    }
    // A batch of many commands may have more in all: each is parsed alone.
    let all: Value = (0..10).map(|number| format!("crm.lead.list?filter[TITLE]={number}{}", "&select[]=ID".repeat(200))).collect();
    assert_eq!(run(&["batch", "--params", &json!({"cmd": all}).to_string()]).status, 0);
    // JSON has no such limits.
    let outcome = run(&["event.offline.clear", "--params", &json!({"process_id": "q", "id": ids(1_500)}).to_string()]);
    assert!(!outcome.stdout.is_empty() || outcome.status == 1, "{}", outcome.stderr);
    let sent = world.requests().pop().unwrap().params["id"].clone();
    assert_eq!(sent.as_array().map(Vec::len), Some(1_500));
}

#[test]
fn a_body_that_php_would_not_read_is_refused() {
    let world = World::new();
    let deep = |levels: usize| format!("fields{}=1", "[a]".repeat(levels));
    for item in [deep(101), deep(513), deep(20_000)] {
        let error = world.run(&["crm.lead.add", &item, "--confirm-write"]).error(2);
        assert_eq!(error["sent"], false);
    }
    for value in ["1e400", "-1e400", "1e-400"] {
        assert_eq!(
            world.run(&["crm.lead.add", &format!("fields[UF_CRM_1]:={value}"), "--confirm-write"]).error(2)["sent"],
            false,
            "{value}"
        );
    }
    assert!(world.requests().is_empty());
    assert_eq!(world.run(&["crm.lead.add", &deep(99), "--confirm-write"]).status, 0);
}

#[test]
fn a_key_that_php_reads_otherwise_is_refused_in_a_batch() {
    let world = World::new();
    for command in [
        json!(["crm.lead.add", {"fields": {" ": "x"}}]),
        json!(["crm.lead.add", {"fields": {"a[b": "x"}}]),
        json!(["crm.lead.add", {"fields": {"": "x"}}]),
        json!(["crm.lead.add", {"fields[TITLE]": "x"}]),
        json!(["crm.lead.add", {"fields.TITLE": "x"}]),
        json!("crm.lead.add?fields[ ]=x"),
        json!("crm.lead.add?fields[+]=x"),
        json!("crm.lead.add?fields[-5]=x&fields[]=y"),
        json!("crm.lead.add?fields[A]=x&fields[A]=y"),
        json!("crm.lead.add?fields=x&fields[A]=y"),
    ] {
        let params = json!({"cmd": {"a": command}}).to_string();
        assert_eq!(world.run(&["batch", "--params", &params, "--confirm-write"]).error(2)["sent"], false, "{params}");
    }
    assert!(world.requests().is_empty());
}
