//! What one call does, for its user.

use crate::world::{Outcome, World};
use serde_json::json;

#[test]
fn a_confirmed_write_changes_the_portal_once_and_is_audited() {
    let world = World::new();
    let body = world.run(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write"]).body(0);
    assert_eq!(body["result"], 1);
    let changes = world.changes();
    assert_eq!(changes.len(), 1);
    let audit = world.audit();
    let kinds: Vec<&str> = audit.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "outcome"]);
    assert_eq!(audit[0]["request_id"], changes[0].request_id.as_deref().unwrap());
    assert_eq!(audit[1]["outcome"], "applied");
}

#[test]
fn a_write_without_its_flag_is_not_sent() {
    let world = World::new();
    for (args, option) in [
        (["crm.lead.add", "fields[TITLE]=Acme", "--confirm-destructive"], "--confirm-write"),
        (["crm.lead.delete", "id=1", "--confirm-write"], "--confirm-destructive"),
    ] {
        let error = world.run(&args).error(10);
        assert_eq!(error["kind"], "confirmation_required");
        assert_eq!(error["gate"]["option"], option);
        assert!(!error["hint"].as_str().unwrap().contains("--confirm"));
    }
    assert!(world.requests().is_empty());
}

#[test]
fn the_body_travels_unchanged_in_both_directions() {
    let world = World::new();
    let params = r#"{"fields":{"TITLE":"ä\u0022\\ \ud83d\ude00","OPPORTUNITY":10.10,"UF_CRM_BIG":12345678901234567890,"COMMENTS":"x"}}"#;
    let id = world.run(&["crm.deal.add", "--params", params, "--confirm-write"]).body(0)["result"].clone();
    let seen = world.requests().pop().unwrap();
    assert_eq!(seen.params.to_string(), serde_json::from_str::<serde_json::Value>(params).unwrap().to_string());
    let deal = world.run(&["crm.deal.get", &format!("id={id}")]);
    assert!(deal.stdout.contains("\"OPPORTUNITY\":\"10.10\""), "{}", deal.stdout);
    assert!(deal.stdout.contains("😀"));
}

#[test]
fn a_lone_surrogate_in_an_answer_breaks_nothing() {
    let world = World::new();
    world.fault("crm.lead.list:lone-surrogate");
    let outcome = world.run(&["crm.lead.list"]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("\\ud800"), "{}", outcome.stdout);
}

#[test]
fn parameters_come_from_standard_input_in_any_size() {
    let world = World::new();
    let text = "x".repeat(5_000_000);
    let params = json!({"fields": {"TITLE": "big", "COMMENTS": text}}).to_string();
    let outcome = Outcome::with_stdin(&mut world.command(&["crm.lead.add", "--params", "-", "--confirm-write"]), params.as_bytes());
    assert_eq!(outcome.body(0)["result"], 1);
    assert_eq!(world.requests()[0].params["fields"]["COMMENTS"].as_str().unwrap().len(), 5_000_000);
}

#[test]
fn a_list_that_is_cut_short_says_so() {
    let world = World::new();
    for number in 0..51 {
        let _ = world.run(&["crm.lead.add", &format!("fields[TITLE]={number}"), "--confirm-write"]).body(0);
    }
    let outcome = world.run(&["crm.lead.list"]);
    assert!(outcome.stderr.contains("more_rows"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("start=50"));
    assert!(!world.run(&["crm.lead.list", "start=50"]).stderr.contains("more_rows"));
}

#[test]
fn a_pack_of_the_users_lets_an_undocumented_method_pass_as_what_it_says() {
    let world = World::new();
    let config = world.home.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let portal = world.emulator.origin();
    let packs = "[packs.mine]\nwrite=['acme.order.sync']\ndestructive=['crm.lead.get']\n";
    std::fs::write(config.join("config.toml"), format!("{packs}[profiles.acme]\nportal='{portal}'\npacks=['core','mine']\n")).unwrap();
    let run = |args: &[&str]| {
        let mut command = world.command(args);
        command.env("B24_CONFIG", &config).args(["--profile", "acme"]);
        Outcome::of(&mut command)
    };
    assert_eq!(run(&["acme.order.sync"]).error(10)["risk"], "write");
    assert_eq!(run(&["acme.order.purge"]).error(5)["kind"], "unknown_method");
    assert_eq!(run(&["crm.lead.get", "id=1"]).error(10)["risk"], "destructive");
    // The portal does not have it: it was asked.
    assert_eq!(run(&["acme.order.sync", "--confirm-write"]).error(5)["code"], "ERROR_METHOD_NOT_FOUND");
    assert_eq!(world.requests().len(), 1);
}

#[test]
fn an_answer_that_cannot_be_printed_does_not_look_like_nothing_sent() {
    let world = World::new();
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (args, status, outcome) in
        [(&["crm.lead.add", "fields[TITLE]=x", "--confirm-write"][..], 13, "applied"), (&["crm.lead.list"], 12, "not_sent")]
    {
        let output = world.command(args).stdout(full()).output().unwrap();
        let run =
            Outcome { status: output.status.code().unwrap(), stdout: String::new(), stderr: String::from_utf8(output.stderr).unwrap() };
        assert_eq!(run.error(status)["outcome"], outcome);
    }
    assert_eq!(world.changes().len(), 1);
}

#[test]
fn a_signal_during_a_write_says_that_nobody_knows() {
    let world = World::new();
    world.fault("crm.lead.add:slow:ms=600000");
    let mut command = world.command(&["crm.lead.add", "fields[TITLE]=x", "--confirm-write"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    while world.changes().is_empty() {
        std::thread::yield_now();
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    let error = Outcome { status: output.status.code().unwrap(), stdout, stderr }.error(130);
    assert_eq!((&error["outcome"], &error["sent"]), (&json!("unknown"), &json!(true)));
    assert_eq!(world.run(&["ledger", "show", error["ledger"].as_str().unwrap()]).body(0)["record"]["state"], "dispatched");
    assert_eq!(world.run(&["crm.lead.add", "fields[TITLE]=x", "--confirm-write"]).error(8)["kind"], "outcome_unknown");
    world.emulator.stop();
}

#[test]
fn a_refusal_and_a_plan_say_what_would_be_lost() {
    let world = World::new();
    let loses = "the lead and its activities, history and timeline";
    assert_eq!(world.run(&["crm.lead.delete", "id=1"]).error(10)["loses"], loses);
    let plan = world.run(&["crm.lead.delete", "id=1", "--plan-only"]).body(0);
    assert!(plan["plan"]["preview"][0].as_str().unwrap().contains(loses));
    assert!(world.requests().is_empty());
}
