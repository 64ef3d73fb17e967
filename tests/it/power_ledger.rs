//! A loss of power around one write: by key, without one, by plan, in a batch,
//! and the same write under another key.

use crate::disk_model::Breadth;
use crate::kept;
use crate::power_loss::{Broken, Found, Report, Search, Trial};
use crate::traced::Trace;
use crate::world::{Outcome, World};
use serde_json::Value;
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::Command;

const POINTS: &[&str] = &["transport.before_send", "transport.after_answer", "output.before_print"];
const SENDING: (&str, &str) = ("transport.before_send", "transport.after_answer");

/// A command, and what its user does after the power came back.
pub(crate) struct Way {
    pub(crate) name: &'static str,
    /// What happened before. What it returns is handed to the commands.
    before: fn(&World) -> String,
    first: fn(&World, &str) -> Command,
    then: fn(&World, &str) -> Command,
    method: &'static str,
    /// How many requests of the second run are right when the portal has
    /// executed nothing of the first.
    most: usize,
    /// The exit status of the second run, once the first was told.
    known: i32,
    /// All others that it may have.
    usual: &'static [i32],
}

/// A way that sends a lead or the like.
const fn way(name: &'static str, commands: [fn(&World, &str) -> Command; 2], known: i32, usual: &'static [i32]) -> Way {
    let [first, then] = commands;
    Way { name, before: known_portal, first, then, method: "crm.lead.add", most: 1, known, usual }
}

/// What is tried out.
pub(crate) const WAYS: &[Way] = &[
    Way { before: nothing, ..way("key", [keyed, keyed], 0, &[0, 8]) },
    way("auto key", [auto, auto], 9, &[0, 8, 9]),
    // The portal of the trial has deleted it with the first state.
    Way { before: plan, method: "crm.lead.delete", ..way("plan", [planned, planned], 9, &[0, 5, 8, 9]) },
    Way { method: "batch", ..way("batch", [batch, batch], 0, &[0, 8]) },
    Way { method: "batch", ..way("part of a batch", [batch, part], 0, &[0, 8]) },
    Way { before: will_be_lost, ..way("other key", [keyed, other], 8, &[0, 8]) },
    Way { before: done, ..way("forgotten", [forget, keyed], 0, &[0]) },
    Way { before: lost, most: 0, ..way("executed, says a person", [resolve, keyed], 0, &[0, 8]) },
    Way { before: lost, ..way("not executed, says a person", [revive, keyed], 0, &[0, 8]) },
    Way { before: damaged, most: 0, ..way("a person about a damaged record", [resolve, keyed], 0, &[0, 12]) },
    Way { before: missing, most: 0, ..way("a person about a missing record", [resolve, keyed], 0, &[0, 12]) },
];

fn nothing(_: &World) -> String {
    String::new()
}

/// Only what the call itself does is tried out.
fn known_portal(world: &World) -> String {
    let _ = world.run(&["crm.lead.list"]).body(0);
    String::new()
}

fn will_be_lost(world: &World) -> String {
    world.fault("crm.lead.add:execute-then-drop:times=1");
    known_portal(world)
}

fn done(world: &World) -> String {
    let _ = Outcome::of(&mut keyed(world, "")).body(0);
    String::new()
}

fn lost(world: &World) -> String {
    world.fault("crm.lead.add:execute-then-drop:times=1");
    let _ = Outcome::of(&mut keyed(world, "")).error(8);
    String::new()
}

/// The file of the one record.
fn record(world: &World) -> PathBuf {
    let name = kept::records(world).pop().unwrap().name;
    let portal = std::fs::read_dir(world.state().join("portals")).unwrap().next().unwrap().unwrap().path();
    portal.join("ledger").join(&name[..2]).join(&name[2..])
}

fn damaged(world: &World) -> String {
    done(world);
    let path = record(world);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(path, bytes).unwrap();
    String::new()
}

fn missing(world: &World) -> String {
    done(world);
    std::fs::remove_file(record(world)).unwrap();
    String::new()
}

fn plan(world: &World) -> String {
    add_elsewhere(world);
    kept::plan(world, &["crm.lead.delete", "id=1"])
}

/// Somebody else adds a lead: it is on the portal, and nothing of it here.
pub(crate) fn add_elsewhere(world: &World) {
    let mut command = world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"]);
    let _ = Outcome::of(command.env("B24_STATE_DIR", world.home.path().join("elsewhere"))).body(0);
}

fn keyed(world: &World, _: &str) -> Command {
    world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"])
}

fn other(world: &World, _: &str) -> Command {
    world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "other"])
}

fn forget(world: &World, _: &str) -> Command {
    world.command(&["ledger", "forget", "k", "--confirm-destructive"])
}

fn resolve(world: &World, _: &str) -> Command {
    world.command(&["ledger", "resolve", "k", "--as", "executed", "--reason", "looked"])
}

fn revive(world: &World, _: &str) -> Command {
    world.command(&["ledger", "resolve", "k", "--as", "not-executed", "--reason", "looked"])
}

fn auto(world: &World, _: &str) -> Command {
    world.command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write"])
}

fn planned(world: &World, plan: &str) -> Command {
    world.command(&["--execute-plan", plan, "--confirm-destructive"])
}

fn part(world: &World, _: &str) -> Command {
    let params = r#"{"cmd":{"b":"crm.lead.add?fields[TITLE]=b"}}"#;
    world.command(&["batch", "--params", params, "--confirm-write", "--idempotency-key", "k"])
}

fn batch(world: &World, _: &str) -> Command {
    let params = r#"{"cmd":{"a":"crm.lead.add?fields[TITLE]=a","b":"crm.lead.add?fields[TITLE]=b"}}"#;
    world.command(&["batch", "--params", params, "--confirm-write", "--idempotency-key", "k"])
}

/// Runs a way, leaving out the syncs of a rule, and judges every state.
pub(crate) fn examine(way: &Way, skip: Option<&str>) -> Report {
    let world = World::in_memory();
    let subject = (way.before)(&world);
    let before = world.requests().len();
    let first = (way.first)(&world, &subject);
    let mut trial = Trial::new(world);
    let skipped = skip.map(|rule| rule_for(&trial.world, rule));
    let (outcome, trace) = Trace::of_person(&trial.world, &first, skipped.as_deref());
    let sent = request_ids(&trial.world, way.method, before);
    assert!([0, 8].contains(&outcome.status) && sent.len() <= 1, "{}: {}", way.name, outcome.stderr);
    trial.world.emulator.clear_faults();
    let then = (way.then)(&trial.world, &subject);
    let search = Search { trace: &trace, from: 0, points: POINTS, sending: SENDING, stops: skip.is_some(), short: (Breadth::SHORT, 1) };
    search.run(|found| judge(way, &mut trial, &then, found, sent.first()))
}

/// Fills in what differs from world to world.
pub(crate) fn rule_for(world: &World, rule: &str) -> String {
    rule.replace("PORTAL", &world.emulator.address().to_string()).replace("HOME", world.home.path().to_str().unwrap())
}

/// The requests of a method after so many requests.
fn request_ids(world: &World, method: &str, before: usize) -> Vec<String> {
    world.requests().into_iter().skip(before).filter(|request| request.method == method).filter_map(|request| request.request_id).collect()
}

fn judge(way: &Way, trial: &mut Trial, then: &Command, found: &Found, sent: Option<&String>) -> Result<(), (Broken, String)> {
    let is_executed = found.executed > 0;
    if is_executed && sent.is_some_and(|sent| !records(found, "intent").contains(sent)) {
        return Err((Broken::MissingIntent, format!("{:?}", found.state.files.keys())));
    }
    if found.moment.is_told() && sent.is_some_and(|sent| !records(found, "outcome").contains(sent)) {
        return Err((Broken::LostRecord, String::new()));
    }
    let (outcome, requests) = trial.run(found.state, then, way.method);
    let said = || format!("exit {}, {requests} requests: {}{}", outcome.status, outcome.stdout, outcome.stderr);
    if requests > if is_executed { 0 } else { way.most } {
        return Err((Broken::SecondExecution, said()));
    }
    if found.moment.is_told() && outcome.status != way.known {
        return Err((Broken::LostOutcome, said()));
    }
    if !way.usual.contains(&outcome.status) {
        return Err((Broken::Stuck, said()));
    }
    // Now and then: with what was written, everything is whole again.
    if requests > 0 && found.turn.is_multiple_of(16) {
        for look in [&["audit", "verify"], &["ledger", "list"]] {
            let looked = kept::in_process(&trial.world, &trial.world.command(look), false);
            if looked.status != 0 || looked.stdout.contains("damaged") {
                return Err((Broken::Stuck, format!("{look:?}: {}{}", looked.stdout, looked.stderr)));
            }
        }
    }
    Ok(())
}

/// The request ids of the audit's records of a type. What cannot be read is
/// passed over: it is repaired by the next append.
fn records(found: &Found, kind: &str) -> HashSet<String> {
    let logs = found.state.files.iter().filter(|(path, _)| path.starts_with("state/audit/") && path.contains(".jsonl"));
    let lines = logs.flat_map(|(_, (_, bytes))| bytes.split(|byte| *byte == b'\n'));
    let rows = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    rows.filter(|row| row["b"]["type"] == kind).filter_map(|row| Some(row["b"]["request_id"].as_str()?.to_owned())).collect()
}

fn kept_by(name: &str) {
    let way = WAYS.iter().find(|way| way.name == name).unwrap();
    examine(way, None).assert_kept(name);
}

/// What a way gives when the syncs of a rule are left out.
pub(crate) fn without(name: &str, rule: &str) -> Report {
    examine(WAYS.iter().find(|way| way.name == name).unwrap(), Some(rule))
}

#[test]
fn a_loss_of_power_around_a_write_with_a_key() {
    kept_by("key");
}

#[test]
fn a_loss_of_power_around_a_write_without_a_key() {
    kept_by("auto key");
}

#[test]
fn a_loss_of_power_around_a_plan_that_deletes() {
    kept_by("plan");
}

#[test]
fn a_loss_of_power_around_a_batch() {
    kept_by("batch");
}

#[test]
fn a_loss_of_power_around_a_batch_of_which_a_part_is_sent_again() {
    kept_by("part of a batch");
}

/// A folder whose sync failed, or whose maker died before it, looks like any
/// other to the next process. It must not hold a record of what is sent before
/// its own name is on disk.
#[test]
fn a_folder_that_another_process_left_is_on_disk_before_a_write_is_sent() {
    let way = &WAYS[0];
    let world = World::in_memory();
    known_portal(&world);
    let mut first = keyed(&world, "");
    first.env("B24_FAULT_POINT", "store.sync_folder:1=EIO");
    let mut trial = Trial::new(world);
    let (outcome, trace) = Trace::of(&trial.world, first);
    assert_eq!(outcome.error(12)["outcome"], "not_sent");
    let then = keyed(&trial.world, "");
    let trace = trace.then(&trial.world, keyed(&trial.world, ""));
    let sent = request_ids(&trial.world, way.method, 0);
    assert_eq!(sent.len(), 1);
    let search = Search { trace: &trace, from: 0, points: POINTS, sending: SENDING, stops: false, short: (Breadth::ENDS, 1) };
    search.run(|found| judge(way, &mut trial, &then, found, sent.first())).assert_kept("folder of another process");
}

#[test]
fn a_loss_of_power_around_what_people_do_with_records() {
    for name in ["forgotten", "executed, says a person", "not executed, says a person"] {
        kept_by(name);
    }
    kept_by("a person about a damaged record");
    kept_by("a person about a missing record");
}

#[test]
fn a_loss_of_power_does_not_free_the_same_write_under_another_key() {
    kept_by("other key");
}
