//! Readers that go away: what was done is recorded, what was not read comes
//! again, and nothing panics.

use crate::kept::{assert_kept, is_replay, made, records};
use crate::queue_world::Rig;
use crate::world::{Outcome, World};
use serde_json::json;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A pipe that nobody reads from any more.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs a command whose standard output is closed; what it says stays.
fn without_reader(command: &mut Command) -> Outcome {
    let output = command.stdout(closed()).stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!stderr.contains("panicked") && !stderr.contains("ran into a bug"), "{stderr}");
    Outcome { status: output.status.code().unwrap_or(-1), stdout: String::new(), stderr }
}

const ADD: [&str; 5] = ["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"];

#[test]
fn a_write_whose_reader_has_gone_is_recorded_and_answered_later() {
    for command in [&ADD[..], &["batch", "--params", r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=t"}}"#, ADD[2], ADD[3], ADD[4]]] {
        let world = World::new();
        let outcome = without_reader(&mut world.command(command));
        assert!(outcome.status >= 0, "{}", outcome.stderr);
        assert_eq!((made(&world, "t"), records(&world).iter().filter(|row| row.state == "succeeded").count()), (1, 1));
        assert_eq!(world.audit().pop().unwrap()["outcome"], "applied");
        let again = world.run(command);
        assert!(again.status == 0 && is_replay(&again), "{}", again.stderr);
        assert_eq!(made(&world, "t"), 1);
        assert_kept(&world, "closed standard output");
    }
}

#[test]
fn a_write_that_can_say_nothing_at_all_is_recorded() {
    let world = World::new();
    let status = world.command(&ADD).stdout(closed()).stderr(closed()).status().unwrap();
    assert!(status.code().is_some());
    assert_eq!((made(&world, "t"), records(&world)[0].state), (1, "succeeded"));
    // An unknown outcome, too.
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let status = world.command(&ADD).stdout(closed()).stderr(closed()).status().unwrap();
    assert_eq!(status.code(), Some(8));
    assert_eq!((made(&world, "t"), records(&world)[0].state), (1, "unknown"));
    assert_eq!(world.audit().pop().unwrap()["outcome"], "unknown");
    // And a refusal keeps its status.
    assert_eq!(world.command(&ADD[..2]).stderr(closed()).status().unwrap().code(), Some(10));
}

#[test]
fn what_only_looks_ends_quietly() {
    let world = World::new();
    assert_eq!(world.run(&ADD).status, 0);
    for args in [
        &["ledger", "list", "--all"][..],
        &["ledger", "show", "k"],
        &["audit", "tail"],
        &["audit", "verify"],
        &["describe", "crm.lead.add", "--full"],
        &["search", "lead"],
        &["limits"],
        &["--help"],
        &["help", "safety"],
        &["crm.lead.list"],
    ] {
        let outcome = without_reader(&mut world.command(args));
        assert!((0..=13).contains(&outcome.status), "{args:?}: {} {}", outcome.status, outcome.stderr);
        let _ = world.command(args).stdout(Stdio::null()).stderr(closed()).status().unwrap().code().expect("no signal ends it");
    }
    assert_eq!(made(&world, "t"), 1);
    assert_kept(&world, "closed pipes");
}

#[test]
fn no_event_is_lost_when_the_reader_of_a_worker_goes_away() {
    let rig = Rig::new("");
    rig.raise_deals(6);
    let mut read = BTreeSet::new();
    let mut take = |how_many: usize| {
        let mut child = rig
            .queue(&["work", "--jsonl", "--until-empty", "--sleep", "0.05"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for line in lines.by_ref().take(how_many) {
            let event: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            read.insert(event["payload"]["ID"].as_str().unwrap().to_owned());
        }
        drop(lines);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.code().is_some(), "{}", String::from_utf8_lossy(&output.stderr));
        read.len()
    };
    assert_eq!(take(1), 1);
    // Nobody reads at all: nothing is done, nothing is cleared.
    let outcome = without_reader(&mut rig.queue(&["work", "--jsonl", "--until-empty", "--sleep", "0.05"]));
    assert!(outcome.status >= 0, "{}", outcome.stderr);
    // An event may wait in the inbox, put off, when the portal has none any more.
    let is_left = || !rig.rows().is_empty() || rig.status()["depth"]["waiting"] != 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while is_left() && Instant::now() < deadline {
        take(usize::MAX);
    }
    assert_eq!(rig.rows(), Vec::<serde_json::Value>::new());
    assert_eq!(json!(read.len()), rig.status()["counters"]["received"], "{read:?}");
}
