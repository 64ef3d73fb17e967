//! The well-tested parts, wired together: that each is asked, with what, and
//! that its answer counts. One test per wire of the gate and the pipeline.

use crate::kept::{is_replay, made, plan, records, resolve, state_of};
use crate::world::{Outcome, World};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;

const KEY: [&str; 2] = ["--idempotency-key", "k"];

fn batch(world: &World, commands: &Value, options: &[&str]) -> Command {
    let params = json!({ "cmd": commands }).to_string();
    world.command(&[&["batch", "--params", &params, "--confirm-write"], options].concat())
}

/// A command with the configuration of a file, under the profile `acme`.
fn configured(world: &World, config: &str, args: &[&str]) -> Command {
    let folder = world.home.path().join("config");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.toml"), config.replace("PORTAL", &world.emulator.origin())).unwrap();
    let mut command = world.command(args);
    command.env("B24_CONFIG", folder).args(["--profile", "acme"]);
    command
}

fn keys_sent(world: &World) -> Vec<Option<String>> {
    world.requests().into_iter().map(|request| request.idempotency_key).collect()
}

fn portal_folder(world: &World) -> PathBuf {
    world.state().join("portals").join(world.emulator.address().to_string())
}

#[test]
fn a_pack_of_the_users_cannot_lower_a_class() {
    let world = World::new();
    let config = "[packs.mine]\nwrite=['crm.lead.delete','crm.lead.get']\n[profiles.acme]\nportal='PORTAL'\npacks=['core','mine']\n";
    let run = |args: &[&str]| Outcome::of(&mut configured(&world, config, args));
    assert_eq!(run(&["crm.lead.delete", "id=1", "--confirm-write"]).error(10)["risk"], "destructive");
    assert_eq!(run(&["crm.lead.get", "id=1"]).error(10)["risk"], "write");
    assert!(world.requests().is_empty());
}

#[test]
fn a_batch_of_which_a_part_was_done_is_refused() {
    let world = World::new();
    let (a, b) = ("crm.lead.add?fields[TITLE]=a", "crm.lead.add?fields[TITLE]=b");
    let _ = Outcome::of(&mut batch(&world, &json!({ "a": a }), &KEY)).body(0);
    let error = Outcome::of(&mut batch(&world, &json!({"a": a, "b": b}), &KEY)).error(9);
    assert_eq!((&error["kind"], &error["sent"]), (&json!("looks_repeated"), &json!(false)), "{error}");
    assert_eq!((made(&world, "a"), made(&world, "b"), world.requests().len()), (1, 0, 1));
    // The rest is not taken for done: it can be sent by itself.
    let _ = Outcome::of(&mut batch(&world, &json!({ "b": b }), &KEY)).body(0);
    assert_eq!(made(&world, "b"), 1);
}

#[test]
fn every_write_of_a_batch_has_its_dispatch_line() {
    let world = World::new();
    let titles = ["a", "b", "c"];
    let commands: Value = titles.iter().map(|title| ((*title).to_owned(), json!(format!("crm.lead.add?fields[TITLE]={title}")))).collect();
    assert_eq!(Outcome::of(batch(&world, &commands, &[]).env("B24_CRASH_POINT", "transport.after_answer")).status, -1);
    let rows = records(&world);
    assert_eq!(rows.iter().filter(|row| row.state == "dispatched").count(), 3, "{rows:?}");
    for title in titles {
        let alone = world.run(&["crm.lead.add", &format!("fields[TITLE]={title}"), "--confirm-write"]);
        assert_eq!(alone.error(8)["outcome"], "unknown", "{title}");
        assert_eq!(made(&world, title), 1, "{title}");
    }
}

#[test]
fn equal_commands_of_a_batch_are_told_apart_and_repeated_together() {
    let world = World::new();
    let add = "crm.lead.add?fields[TITLE]=t";
    let commands = json!({"a": add, "b": add});
    let _ = Outcome::of(&mut batch(&world, &commands, &[])).body(0);
    assert_eq!((made(&world, "t"), records(&world).len()), (2, 2));
    assert_eq!(Outcome::of(&mut batch(&world, &commands, &[])).error(9)["kind"], "looks_repeated");
    let _ = Outcome::of(&mut batch(&world, &commands, &["--again"])).body(0);
    assert_eq!((made(&world, "t"), records(&world).len()), (4, 2));
}

#[test]
fn commands_of_one_batch_do_not_block_each_other() {
    let world = World::new();
    let add = "crm.lead.add?fields[TITLE]=t";
    for again in [false, true] {
        let outcome = Outcome::of(&mut batch(&world, &json!({"a": add, "b": add}), &KEY));
        assert_eq!((outcome.status, is_replay(&outcome)), (0, again), "{}", outcome.stderr);
        assert_eq!(made(&world, "t"), 2);
    }
}

#[test]
fn a_v3_write_carries_its_record_and_generation_as_the_key() {
    let world = World::new();
    let task = r#"{"fields":{"title":"t","creatorId":1,"responsibleId":1}}"#;
    let add = |options: &[&str]| world.run(&[&["tasks.task.add", "--api", "v3", "--params", task, "--confirm-write"], options].concat());
    for (generation, options) in [(1, &[][..]), (2, &["--again"]), (3, &["--again"])] {
        let _ = add(options).body(0);
        let rows = records(&world);
        let [row] = rows.as_slice() else { panic!("{rows:?}") };
        assert_eq!(keys_sent(&world).pop().flatten(), Some(format!("b24-{}-g{generation}", row.name)));
        let shown = world.run(&["ledger", "show", &row.name]).body(0);
        assert_eq!(shown["record"]["generation"], generation);
    }
    assert_eq!(made(&world, "t"), 3);
}

#[test]
fn nothing_but_a_single_v3_write_carries_a_key() {
    let world = World::new();
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"]).body(0);
    let _ = world.run(&["tasks.task.get", "--api", "v3", "--params", r#"{"id":1,"select":["id"]}"#]);
    let task = r#"[{"method":"tasks.task.add","as":"new","query":{"fields":{"title":"t","creatorId":1,"responsibleId":1}}}]"#;
    let _ = world.run(&["batch", "--api", "v3", "--params", task, "--confirm-write"]).body(0);
    assert_eq!(keys_sent(&world), [None, None, None]);
}

#[test]
fn a_retry_of_a_v3_write_repeats_its_key() {
    let world = World::new();
    world.fault("tasks.task.add:query-limit:times=1");
    let task = r#"{"fields":{"title":"t","creatorId":1,"responsibleId":1}}"#;
    let _ = world.run(&["tasks.task.add", "--api", "v3", "--params", task, "--confirm-write"]).body(0);
    let keys = keys_sent(&world);
    assert!(keys.len() == 2 && keys[0].is_some() && keys[0] == keys[1], "{keys:?}");
}

#[test]
fn a_key_stands_for_one_method_and_one_generation() {
    let world = World::new();
    let _ = world.run(&[&["crm.lead.add", "fields[NAME]=t", "--confirm-write"], &KEY[..]].concat()).body(0);
    for args in [
        &["crm.contact.add", "fields[NAME]=t", "--confirm-write"][..],
        &["crm.lead.add", "fields[NAME]=u", "--confirm-write"],
        &["crm.lead.add", "fields[NAME]=t", "fields[TITLE]=t", "--confirm-write"],
    ] {
        let error = world.run(&[args, &KEY].concat()).error(9);
        assert_eq!((&error["kind"], &error["sent"]), (&json!("key_reused"), &json!(false)), "{args:?}");
    }
    let task = r#"{"fields":{"title":"t","creatorId":1,"responsibleId":1}}"#;
    let params = ["tasks.task.add", "--params", task, "--confirm-write", "--idempotency-key", "task", "--packs", "core,collab,people"];
    let _ = world.run(&[&params[..], &["--api", "v3"]].concat()).body(0);
    assert_eq!(world.run(&[&params[..], &["--api", "v2"]].concat()).error(9)["kind"], "key_reused");
    assert_eq!(world.requests().len(), 2);
}

#[test]
fn reserved_keys_cannot_be_chosen() {
    let world = World::new();
    for key in ["auto:x", "queue:x", "", "a\nb", &"x".repeat(256)] {
        let error = world.run(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", key]).error(2);
        assert_eq!(error["outcome"], "not_sent", "{key:?}");
    }
    assert!(world.requests().is_empty());
    let longest = "x".repeat(255);
    let _ = world.run(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", &longest]).body(0);
}

#[test]
fn a_token_that_stays_expired_is_refreshed_once() {
    let world = World::new();
    for (args, requests) in [(&["user.current"][..], 2), (&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"], 2)] {
        let before = world.requests().len();
        world.emulator.clear_faults();
        world.fault(&format!("{}:expired-token", args[0]));
        let error = Outcome::of(&mut world.oauth_command(args)).error(4);
        assert_eq!(error["kind"], "login_needed", "{error}");
        let seen: Vec<String> = world.requests().into_iter().skip(before).map(|request| request.method).collect();
        assert_eq!(seen.iter().filter(|method| *method == "oauth.token").count(), 1, "{seen:?}");
        assert_eq!(seen.iter().filter(|method| *method == args[0]).count(), requests, "{seen:?}");
    }
    assert_eq!(made(&world, "t"), 0);
}

#[test]
fn reads_need_no_plan_and_changes_do() {
    let world = World::new();
    assert_eq!(world.run(&["crm.lead.list", "--require-plan"]).status, 0);
    let error = world.run(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--require-plan"]).error(10);
    assert_eq!(error["gate"]["plan"], true, "{error}");
    let error = world.run(&["crm.lead.add", "fields[TITLE]=t"]).error(10);
    assert_eq!(error["gate"]["plan"], false, "{error}");
    let id = plan(&world, &["crm.lead.add", "fields[TITLE]=t"]);
    assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write", "--require-plan"]).status, 0);
    assert_eq!(made(&world, "t"), 1);
}

#[test]
fn a_wrong_parameter_of_a_batch_names_its_command() {
    let world = World::new();
    let commands = json!({"good": "crm.lead.list", "bad": "crm.lead.list?fitler[ID]=1"});
    let error = Outcome::of(&mut batch(&world, &commands, &[])).error(2);
    assert_eq!(error["fields"][0]["command"], "bad", "{error}");
    assert!(world.requests().is_empty());
}

#[test]
fn the_retry_budget_of_the_portal_ends_retries() {
    let world = World::new();
    world.fault("user.current:html-502");
    let mut sent = Vec::new();
    for _ in 0..5 {
        let before = world.requests().len();
        let _ = world.run(&["user.current", "--max-wait", "20"]).error(7);
        sent.push(world.requests().len() - before);
    }
    // Ten retries in all: three for each of three calls, one for the fourth.
    assert_eq!(sent, [4, 4, 4, 2, 1]);
    assert_eq!(world.run(&["limits"]).body(0)["retry_budget"], json!(0.0));
    world.emulator.clear_faults();
    for _ in 0..10 {
        assert_eq!(world.run(&["user.current"]).status, 0);
    }
    world.fault("user.current:html-502:times=1");
    let before = world.requests().len();
    assert_eq!(world.run(&["user.current"]).status, 0);
    assert_eq!(world.requests().len() - before, 2, "ten successes pay for one retry");
}

#[test]
fn the_operating_time_of_an_answer_is_kept_and_shown() {
    let world = World::new();
    let time = |operating: u32| format!(r#""time":{{"start":1,"finish":1000.0,"operating":{operating},"operating_reset_at":1500}}"#);
    world.fault(&format!(r#"crm.lead.list:answer:body={{"result":[],{}}}:times=1"#, time(400)));
    let _ = world.run(&["crm.lead.list"]).body(0);
    let shown = world.run(&["limits"]).body(0)["operating"].clone();
    assert_eq!((&shown[0]["method"], &shown[0]["operating_s"]), (&json!("crm.lead.list"), &json!(400.0)), "{shown}");
    assert!((400..=500).contains(&shown[0]["reset_in_s"].as_u64().unwrap()), "{shown}");
    // The commands of a batch have their own.
    let result = format!(r#"{{"result":{{"a":[]}},"result_error":[],"result_time":{{"a":{{{}}}}}}}"#, &time(390)[8..time(390).len() - 1]);
    world.fault(&format!(r#"batch:answer:body={{"result":{result},{}}}:times=1"#, time(1)));
    let _ = world.run(&["batch", "--params", r#"{"cmd":{"a":"crm.deal.list"}}"#]).body(0);
    let shown = world.run(&["limits"]).body(0)["operating"].clone();
    let nested = shown.as_array().unwrap().iter().find(|row| row["method"] == "crm.deal.list");
    assert_eq!(nested.unwrap()["operating_s"], 390.0, "{shown}");
}

#[test]
fn a_method_at_its_operating_limit_waits_for_no_longer_than_it_may() {
    let world = World::new();
    let time = r#""time":{"start":1,"finish":1000.0,"operating":479,"operating_reset_at":1500}"#;
    world.fault(&format!(r#"crm.lead.list:answer:body={{"result":[],{time}}}:times=1"#));
    let _ = world.run(&["crm.lead.list"]).body(0);
    let error = world.run(&["crm.lead.list", "--max-wait", "1"]).error(7);
    assert_eq!((&error["kind"], &error["sent"]), (&json!("operating_limited"), &json!(false)), "{error}");
    assert!(error["retry"]["after_ms"].as_u64().unwrap() > 400_000, "{error}");
    assert_eq!(world.run(&["batch", "--params", r#"{"cmd":{"a":"crm.lead.list"}}"#, "--max-wait", "1"]).error(7)["sent"], false);
    assert_eq!(world.run(&["crm.deal.list", "--max-wait", "1"]).status, 0, "another method goes on");
    assert!(portal_folder(&world).join("operating").exists());
    assert_eq!(world.requests().len(), 2);
}

#[test]
fn two_batches_with_the_same_commands_in_opposite_order_never_wait_for_each_other() {
    let world = World::new();
    for round in 0..10 {
        let line = |name: &str| format!("crm.lead.add?fields[TITLE]={name}-{round}");
        let (a, b) = (json!({"a": line("a"), "b": line("b")}), json!({"b": line("b"), "a": line("a")}));
        let key = format!("round-{round}");
        let options = ["--wait", "--max-wait", "20", "--idempotency-key", &key];
        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let runs: Vec<_> = [&a, &b, &a, &b].map(|commands| scope.spawn(|| Outcome::of(&mut batch(&world, commands, &options)))).into();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for outcome in outcomes {
            assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        }
        assert_eq!((made(&world, &format!("a-{round}")), made(&world, &format!("b-{round}"))), (1, 1));
    }
}

#[test]
fn one_command_without_an_answer_makes_the_call_unknown() {
    let world = World::new();
    let commands = json!({"a": "crm.lead.add?fields[TITLE]=a", "b": "crm.lead.add?fields[TITLE]=b"});
    // The answer tells of one command only.
    world.fault(r#"batch:answer:body={"result":{"result":{"a":1},"result_error":[]}}:times=1"#);
    let outcome = Outcome::of(&mut batch(&world, &commands, &KEY));
    let error = outcome.error(8);
    assert_eq!((&error["outcome"], &error["retry"]["safe"]), (&json!("unknown"), &json!(false)), "{error}");
    assert_eq!((state_of(&world, "k#a").as_str(), state_of(&world, "k#b").as_str()), ("succeeded", "unknown"));
    resolve(&world, "k#b", "executed");
    assert!(is_replay(&Outcome::of(&mut batch(&world, &commands, &KEY))));
    assert_eq!((made(&world, "a"), made(&world, "b")), (1, 1));
}

#[test]
fn a_write_whose_dispatch_could_not_be_recorded_is_not_called_unknown() {
    for commands in [1, 2] {
        let world = World::new();
        let single = || world.command(&[&["crm.lead.add", "fields[TITLE]=a", "--confirm-write"], &KEY[..]].concat());
        let several = || batch(&world, &json!({"a": "crm.lead.add?fields[TITLE]=a", "b": "crm.lead.add?fields[TITLE]=b"}), &KEY);
        let command = || if commands == 1 { single() } else { several() };
        // In a batch the second dispatch fails, and the first one is taken back.
        let error = Outcome::of(command().env("B24_FAULT_POINT", format!("ledger.dispatch:{commands}=EIO"))).error(12);
        assert_eq!((&error["sent"], &error["outcome"]), (&json!(false), &json!("not_sent")), "{error}");
        assert!(world.requests().is_empty());
        assert!(records(&world).iter().all(|row| row.state == "not_executed"), "{:?}", records(&world));
        assert_eq!(world.audit().pop().unwrap()["outcome"], "not_sent");
        assert_eq!(Outcome::of(&mut command()).status, 0, "nobody has to look");
        assert_eq!((made(&world, "a"), made(&world, "b")), (1, commands - 1));
    }
}

#[test]
fn unknown_weighs_more_than_unrecorded() {
    let world = World::new();
    let commands = json!({"a": "crm.lead.add?fields[TITLE]=a", "b": "crm.lead.add?fields[TITLE]=b"});
    world.fault(r#"batch:answer:body={"result":{"result":{"a":1},"result_error":[]}}:times=1"#);
    let error = Outcome::of(batch(&world, &commands, &KEY).env("B24_FAULT_POINT", "audit.outcome=EIO")).error(8);
    assert_eq!((&error["outcome"], &error["retry"]["safe"]), (&json!("unknown"), &json!(false)), "{error}");
    // What is known and could not be recorded is told as that.
    let add = ["crm.lead.add", "fields[TITLE]=c", "--confirm-write"];
    let outcome = Outcome::of(world.command(&add).env("B24_FAULT_POINT", "audit.outcome=EIO"));
    assert_eq!((outcome.error(13)["outcome"].clone(), made(&world, "c")), (json!("applied"), 1));
}

#[test]
fn a_pair_of_another_portal_is_not_used() {
    let world = World::new();
    let call = || world.oauth_command(&["user.current"]);
    world.fault("user.current:expired-token:times=1");
    let _ = Outcome::of(&mut call()).body(0);
    let stored = || {
        let files = std::fs::read_dir(world.state().join("tokens")).unwrap().map(|file| file.unwrap().path());
        let pairs = files.filter(|file| file.extension().is_some_and(|ending| ending == "json"));
        pairs.map(|file| std::fs::read_to_string(file).unwrap()).collect::<Vec<_>>()
    };
    let before = stored();
    world.emulator.clear_faults();
    world.fault("user.current:expired-token:times=1");
    world.fault(r#"oauth.token:answer:body={"access_token":"aaaaaaaaaa","refresh_token":"bbbbbbbbbb","member_id":"another","user_id":1}"#);
    let requests = world.requests().len();
    let error = Outcome::of(&mut call()).error(4);
    assert_eq!(error["sent"], true, "{error}");
    let seen: Vec<String> = world.requests().into_iter().skip(requests).map(|request| request.method).collect();
    assert_eq!(seen, ["user.current", "oauth.token"], "the foreign token goes nowhere");
    assert_eq!(stored(), before);
}

#[test]
fn a_wait_that_the_portal_asks_for_is_kept_and_bounded() {
    for (args, outcome) in
        [(&["user.current"][..], "not_applied"), (&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"], "not_applied")]
    {
        let world = World::new();
        world.fault(&format!("{}:error:status=503:code=QUERY_LIMIT_EXCEEDED:after=60", args[0]));
        let error = world.run(&[args, &["--max-wait", "5"]].concat()).error(7);
        assert_eq!(
            (&error["kind"], &error["outcome"], &error["retry"]["attempts"]),
            (&json!("rate_limited"), &json!(outcome), &json!(1)),
            "{error}"
        );
        assert_eq!(world.requests().len(), 1, "it is not tried again before its time");
    }
    let world = World::new();
    world.fault("user.current:error:status=503:code=QUERY_LIMIT_EXCEEDED:after=1:times=1");
    let _ = world.run(&["user.current", "--max-wait", "20"]).body(0);
    let requests = world.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[1].boot_ns - requests[0].boot_ns >= 1_000_000_000, "not before its time");
}

#[test]
fn what_ends_the_program_says_that_a_write_is_unknown_while_it_is_under_way_and_not_longer() {
    for (point, is_unknown, state) in [
        ("pipeline.after_intent", false, "claimed"),
        ("ledger.after_dispatch", true, "dispatched"),
        ("transport.before_send", true, "dispatched"),
        ("transport.after_answer", true, "dispatched"),
        ("pipeline.after_landing", false, "succeeded"),
    ] {
        let world = World::new();
        let add = ["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"];
        let outcome = Outcome::of(world.command(&add).env("B24_PANIC_POINT", point));
        let error: Value = serde_json::from_str(outcome.stderr.lines().last().unwrap()).unwrap();
        assert_eq!(error["outcome"] == "unknown", is_unknown, "{point}: {error}");
        assert_eq!(error["request_id"].is_string(), is_unknown, "{point}: {error}");
        assert_eq!(records(&world)[0].state, state, "{point}");
    }
}
