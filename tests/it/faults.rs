//! Every fault of the portal: what b24 says, what the ledger keeps, and what a
//! repetition does.

use crate::kept::{as_person, assert_kept, is_replay, made, plan, resolve, state_of};
use crate::world::{Outcome, World};
use b24::emulator::fault_kinds;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEY: &str = "order-1";

/// What a fault leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It may have run: exit 8, and nobody sends it again.
    Unknown,
    /// It surely did not run; the exit status.
    NotRun(i32),
    /// The portal's method refused it.
    Refused,
    /// It is done in the end, after as many requests.
    Done(usize),
}

use Fate::{Done, NotRun, Refused, Unknown};

/// One fault with how often it changes the portal (at most), and its fate for
/// a single write, for a v2 batch, for a v3 batch, and for a read.
struct Row {
    fault: &'static str,
    most: usize,
    write: Fate,
    batch_v2: Fate,
    batch_v3: Fate,
    read: Fate,
}

const fn row(fault: &'static str, most: usize, fates: [Fate; 4]) -> Row {
    let [write, batch_v2, batch_v3, read] = fates;
    Row { fault, most, write, batch_v2, batch_v3, read }
}

const LOST: [Fate; 4] = [Unknown, Unknown, Unknown, Done(2)];

const ROWS: &[Row] = &[
    row("drop-before-executing", 0, LOST),
    row("execute-then-drop", 1, LOST),
    row("execute-then-500", 1, LOST),
    row("html-502", 0, LOST),
    row("execute-then-html-502", 1, LOST),
    row("html-403", 0, LOST),
    row("truncated-json", 1, LOST),
    row("slow:ms=60000", 1, LOST),
    row("slow-before:ms=60000", 1, LOST),
    row("redirect", 0, [NotRun(4); 4]),
    row("query-limit", 0, [Done(2); 4]),
    row("overload", 0, [NotRun(1); 4]),
    row("operation-time-limit", 0, [NotRun(7); 4]),
    row("expired-token", 0, [NotRun(4); 4]),
    row("method-confirm", 0, [NotRun(4); 4]),
    // Whether a v3 batch is rolled back is not documented.
    row("error", 0, [Refused, Refused, Unknown, NotRun(1)]),
    row("answer", 1, [Done(1); 4]),
    row("answer:status=303", 1, LOST),
    row("padded", 1, [Done(1); 4]),
    row("padded:chunked=1", 1, [Done(1); 4]),
    row("internal-error", 1, LOST),
    row("empty-body-200", 1, LOST),
    row("garbage-200", 1, LOST),
    row("lone-surrogate", 1, [Done(1); 4]),
];

/// A request with one write in it, whose ledger key is `record`.
struct Case {
    method: &'static str,
    params: &'static str,
    options: &'static [&'static str],
    record: &'static str,
}

const WRITE: Case = Case { method: "crm.lead.add", params: r#"{"fields":{"TITLE":"t"}}"#, options: &[], record: KEY };
const BATCH_V2: Case = Case {
    method: "batch",
    params: r#"{"cmd":{"new":"crm.lead.add?fields[TITLE]=t","me":"user.current"}}"#,
    options: &[],
    record: "order-1#new",
};
const BATCH_V3: Case = Case {
    method: "batch",
    params: r#"[{"method":"tasks.task.add","as":"new","query":{"fields":{"title":"t","creatorId":1,"responsibleId":1}}}]"#,
    options: &["--api", "v3"],
    record: "order-1#new",
};

impl Case {
    /// Runs the request; a method whose operating time is used up rests for
    /// longer than b24 may wait here.
    fn run(&self, world: &World, options: &[&str]) -> Outcome {
        let limits = ["--max-wait", "5", "--confirm-write"];
        let args = [&[self.method, "--params", self.params], self.options, &limits, options].concat();
        world.run(&args)
    }

    fn under_key(&self, world: &World) -> Outcome {
        self.run(world, &["--idempotency-key", KEY])
    }

    fn planned(&self, world: &World) -> String {
        plan(world, &[&[self.method, "--params", self.params], self.options].concat())
    }
}

/// An answer that comes after a minute is waited for two seconds.
fn patience(row: &Row) -> &'static [&'static str] {
    if row.fault.starts_with("slow") { &["--timeout", "2"] } else { &[] }
}

/// Runs `check` for every row, some at a time: most of it is waiting.
fn for_every_row(check: impl Fn(&'static Row) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(row) = ROWS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    check(row);
                }
            });
        }
    });
}

/// Runs the case in a new world whose portal has the fault once.
fn struck(row: &Row, case: &Case) -> (World, Outcome) {
    let world = World::new();
    world.fault(&format!("{}:{}:times=1", case.method, row.fault));
    let outcome = case.run(&world, &[&["--idempotency-key", KEY], patience(row)].concat());
    assert!(made(&world, "t") <= row.most.max(1), "{}", row.fault);
    (world, outcome)
}

fn check(row: &Row, fate: Fate, case: &Case) {
    let (world, outcome) = struck(row, case);
    let context = format!("{} {}", case.method, row.fault);
    match fate {
        Unknown => check_unknown(row, case, (world, outcome)),
        NotRun(status) => {
            let error = outcome.error(status);
            assert!(["not_sent", "not_applied"].contains(&error["outcome"].as_str().unwrap()), "{context}: {error}");
            assert_eq!((made(&world, "t"), state_of(&world, case.record).as_str()), (0, "not_executed"), "{context}");
            sends_once_more(&world, case, &[]);
        }
        Refused => {
            assert_eq!(outcome.error(1)["outcome"], "not_applied", "{context}");
            assert_eq!((made(&world, "t"), state_of(&world, case.record).as_str()), (0, "refused"), "{context}");
            assert_eq!(case.under_key(&world).error(1)["sent"], false, "the stored refusal: {context}");
            assert_eq!(world.requests().len(), 1, "{context}");
            sends_once_more(&world, case, &["--retry-failed"]);
        }
        Done(requests) => {
            assert_eq!(outcome.status, 0, "{context}: {}", outcome.stderr);
            assert_eq!((made(&world, "t"), world.requests().len()), (1, requests), "{context}");
            assert_eq!(state_of(&world, case.record), "succeeded", "{context}");
            assert!(is_replay(&case.under_key(&world)), "{context}");
            assert_eq!(made(&world, "t"), 1, "{context}");
        }
    }
}

/// The record is usable again: the write is sent, and then replayed.
#[track_caller]
fn sends_once_more(world: &World, case: &Case, options: &[&str]) {
    world.emulator.clear_faults();
    let _ = world.run(&["limits", "reset", "--confirm-write"]).body(0);
    let _ = std::fs::remove_dir_all(world.state().join("portals").join(world.emulator.address().to_string()).join("operating"));
    let sent = case.run(world, &[&["--idempotency-key", KEY], options].concat());
    assert_eq!(sent.status, 0, "{}", sent.stderr);
    assert!(!is_replay(&sent));
    assert!(is_replay(&case.under_key(world)));
    assert_eq!(made(world, "t"), 1);
    assert_kept(world, case.method);
}

/// Nothing but a person's word lets the write go on.
fn check_unknown(row: &Row, case: &Case, struck_once: (World, Outcome)) {
    let mut struck_once = Some(struck_once);
    let verdicts = ["executed", "not-executed", "abandoned"];
    for verdict in if patience(row).is_empty() { &verdicts[..] } else { &verdicts[..1] } {
        let (world, outcome) = struck_once.take().unwrap_or_else(|| struck(row, case));
        let context = format!("{} {} {verdict}", case.method, row.fault);
        let error = outcome.error(8);
        assert_eq!((error["outcome"].as_str(), error["retry"]["safe"].as_bool()), (Some("unknown"), Some(false)), "{context}");
        assert_eq!(state_of(&world, case.record), "unknown", "{context}");
        assert_eq!(world.requests().len(), 1, "{context}");
        let before = made(&world, "t");
        blocks_every_key(&world, case, &context);
        resolve(&world, case.record, verdict);
        let again = case.under_key(&world);
        match *verdict {
            "executed" => assert!(again.status == 0 && is_replay(&again), "{context}: {}", again.stderr),
            "not-executed" => assert!(again.status == 0 && !is_replay(&again), "{context}: {}", again.stderr),
            _ => assert_eq!(again.error(9)["kind"], "abandoned", "{context}"),
        }
        let sent = usize::from(*verdict == "not-executed");
        assert_eq!((made(&world, "t"), world.requests().len()), (before + sent, 1 + sent), "{context}");
        let _ = case.under_key(&world);
        assert_eq!(world.requests().len(), 1 + sent, "{context}");
        assert_kept(&world, &context);
    }
}

fn blocks_every_key(world: &World, case: &Case, context: &str) {
    let id = case.planned(world);
    for options in [
        &["--idempotency-key", KEY][..],
        &["--idempotency-key", "order-2"],
        &[],
        &["--again"],
        &["--no-idempotency"],
        &["--retry-failed", "--idempotency-key", KEY],
    ] {
        assert_eq!(case.run(world, options).error(8)["sent"], false, "{context} {options:?}");
    }
    assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write"]).error(8)["sent"], false, "{context}");
    assert_eq!(world.run(&["ledger", "forget", case.record, "--confirm-destructive"]).status, 9, "{context}");
    let unattended = world.run(&["ledger", "resolve", case.record, "--as", "not-executed", "--reason", "x"]);
    assert_eq!(unattended.error(3)["kind"], "policy_denied", "{context}");
    assert_eq!(world.requests().len(), 1, "{context}");
}

#[test]
fn the_table_has_every_fault() {
    let known: BTreeSet<&str> = fault_kinds().iter().map(|(name, _)| *name).collect();
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.fault.split(':').next().unwrap()).collect();
    assert_eq!(known, rows);
}

#[test]
fn every_fault_of_a_write() {
    for_every_row(|row| check(row, row.write, &WRITE));
    println!("{} faults of a write", ROWS.len());
}

#[test]
fn every_fault_of_a_batch() {
    for_every_row(|row| check(row, row.batch_v2, &BATCH_V2));
    println!("{} faults of a v2 batch", ROWS.len());
}

#[test]
fn every_fault_of_a_v3_batch() {
    for_every_row(|row| check(row, row.batch_v3, &BATCH_V3));
    println!("{} faults of a v3 batch", ROWS.len());
}

#[test]
fn every_fault_of_a_read() {
    for_every_row(|row| {
        let world = World::new();
        let read = |options: &[&str]| world.run(&[&["crm.lead.list", "--max-wait", "5"], patience(row), options].concat());
        world.fault(&format!("crm.lead.list:{}:times=1", row.fault));
        let outcome = read(&[]);
        match row.read {
            Done(requests) => {
                assert_eq!(outcome.status, 0, "{}: {}", row.fault, outcome.stderr);
                assert_eq!(world.requests().len(), requests, "{}", row.fault);
            }
            NotRun(status) => drop(outcome.error(status)),
            Unknown | Refused => panic!("a read has no such fate"),
        }
        if row.read == Done(2) && patience(row).is_empty() {
            world.fault(&format!("crm.lead.list:{}", row.fault));
            let _ = read(&["--max-attempts", "2"]).error(7);
        }
        assert!(world.changes().is_empty());
    });
    println!("{} faults of a read", ROWS.len());
}

#[test]
fn a_verdict_is_final_and_an_agent_gives_none() {
    let (world, _) = struck(&ROWS[1], &WRITE);
    let record = as_person(&world, &["ledger", "show", KEY]).body(0)["record"]["record"].as_str().unwrap()[..8].to_owned();
    resolve(&world, &record, "executed");
    let twice = as_person(&world, &["ledger", "resolve", KEY, "--as", "not-executed", "--reason", "x"]);
    assert_eq!(twice.status, 9, "{}", twice.stderr);
    let audit = world.audit();
    assert!(audit.iter().any(|record| record["type"] == "resolve" && record["as"] == "executed"));
}

#[test]
fn what_reached_no_portal_is_not_sent_and_can_be_sent_later() {
    for (scheme, listens) in [("http", false), ("https", true)] {
        let mut world = World::new();
        let webhook = world.webhook(1).replacen("http:", &format!("{scheme}:"), 1);
        if !listens {
            world.stop();
        }
        let args = ["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", KEY];
        let error = Outcome::of(world.command(&args).env("B24_WEBHOOK_URL", &webhook)).error(7);
        assert_eq!((error["kind"].as_str(), error["sent"].as_bool()), (Some("offline"), Some(false)), "{error}");
        assert_eq!((error["outcome"].as_str(), error["retry"]["attempts"].as_u64()), (Some("not_sent"), Some(3)), "{error}");
        if !listens {
            world.restart();
        }
        assert_eq!((made(&world, "t"), state_of(&world, KEY).as_str()), (0, "not_executed"));
        assert_eq!(world.run(&args).status, 0);
        assert!(is_replay(&world.run(&args)));
        assert_eq!(made(&world, "t"), 1);
        assert_kept(&world, scheme);
    }
}
