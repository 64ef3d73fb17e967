//! Every fault of the portal: what b24 says, what the ledger keeps, and what a
//! repetition does.

use crate::kept::{as_person, assert_kept, is_replay, made, plan, resolve, state_of};
use crate::world::{Outcome, World};
use b24::emulator::{ChangeKind, fault_kinds};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEY: &str = "order-1";

/// What a fault leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It may have run: exit 8, and nobody sends it again.
    Unknown,
    /// It surely did not run; the exit status and the kind of the error.
    NotRun(i32, &'static str),
    /// The portal's method refused it.
    Refused,
    /// It is done in the end, after as many requests.
    Done(usize),
}

use Fate::{Done, NotRun, Refused, Unknown};

/// One fault with how often it changes the portal, and its fate for a single
/// write, for a v2 batch, for a v3 batch, and for a read.
struct Row {
    fault: &'static str,
    runs: usize,
    write: Fate,
    batch_v2: Fate,
    batch_v3: Fate,
    read: Fate,
}

const fn row(fault: &'static str, runs: usize, fates: [Fate; 4]) -> Row {
    let [write, batch_v2, batch_v3, read] = fates;
    Row { fault, runs, write, batch_v2, batch_v3, read }
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
    row("held", 1, LOST),
    row("held-before", 1, LOST),
    row("slow:ms=1", 1, [Done(1); 4]),
    row("slow-before:ms=1", 1, [Done(1); 4]),
    row("redirect", 0, [NotRun(4, "portal_moved"); 4]),
    row("query-limit", 0, [Done(2); 4]),
    row("overload", 0, [NotRun(1, "api_error"); 4]),
    row("operation-time-limit", 0, [NotRun(7, "operating_limited"); 4]),
    row("expired-token", 0, [NotRun(4, "login_needed"); 4]),
    row("method-confirm", 0, [NotRun(4, "auth"); 4]),
    // Whether a v3 batch is rolled back is not documented.
    row("error", 0, [Refused, Refused, Unknown, NotRun(1, "api_error")]),
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
    consent: &'static str,
    /// How often the write happened.
    count: fn(&World) -> usize,
    /// The exit status of a write that happened before.
    twice: i32,
}

const WRITE: Case = Case {
    method: "crm.lead.add",
    params: r#"{"fields":{"TITLE":"t"}}"#,
    options: &[],
    record: KEY,
    consent: "--confirm-write",
    count: added,
    twice: 0,
};
const DESTRUCTIVE: Case = Case {
    method: "crm.lead.delete",
    params: r#"{"id":1}"#,
    options: &[],
    record: KEY,
    consent: "--confirm-destructive",
    count: deleted,
    twice: 5,
};
const BATCH_V2: Case = Case {
    method: "batch",
    params: r#"{"cmd":{"new":"crm.lead.add?fields[TITLE]=t","me":"user.current"}}"#,
    record: "order-1#new",
    ..WRITE
};
const DESTRUCTIVE_BATCH: Case = Case {
    method: "batch",
    params: r#"{"cmd":{"me":"user.current","old":"crm.lead.delete?id=1"}}"#,
    record: "order-1#old",
    twice: 6,
    ..DESTRUCTIVE
};
const BATCH_V3: Case = Case {
    method: "batch",
    params: r#"[{"method":"tasks.task.add","as":"new","query":{"fields":{"title":"t","creatorId":1,"responsibleId":1}}}]"#,
    options: &["--api", "v3"],
    record: "order-1#new",
    ..WRITE
};

fn added(world: &World) -> usize {
    made(world, "t")
}

fn deleted(world: &World) -> usize {
    world.changes().iter().filter(|change| change.kind == ChangeKind::Delete).count()
}

impl Case {
    fn run(&self, world: &World, options: &[&str]) -> Outcome {
        world.run(&[&[self.method, "--params", self.params, self.consent], self.options, options].concat())
    }

    fn under_key(&self, world: &World) -> Outcome {
        self.run(world, &["--idempotency-key", KEY])
    }

    fn planned(&self, world: &World) -> String {
        plan(world, &[&[self.method, "--params", self.params], self.options].concat())
    }

    /// How many requests the portal saw.
    fn seen(&self, world: &World) -> usize {
        world.requests().iter().filter(|request| request.method == self.method).count()
    }

    /// What the audit says about it: types, outcomes, and the class of intents.
    fn audited(&self, world: &World) -> Vec<String> {
        let audit = world.audit();
        let about = audit.iter().filter(|record| record["method"] == self.method && ["intent", "outcome"].contains(&text(&record["type"])));
        about.map(|record| text(&record[if record["type"] == "intent" { "risk" } else { "outcome" }]).to_owned()).collect()
    }

    fn class(&self) -> &'static str {
        self.consent.trim_start_matches("--confirm-")
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Runs `check` for every row, some at a time.
fn for_every_row(check: impl Fn(&'static Row) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(row) = ROWS.get(next.fetch_add(1, Ordering::SeqCst)) {
                    check(row);
                }
            });
        }
    });
}

impl Row {
    /// How long an answer is waited for that never comes. On a machine that is
    /// so busy that the request came too late, it is tried again with more;
    /// whatever the portal does answer is waited for at any length.
    fn timeouts(&self) -> &'static [&'static str] {
        if self.fault.starts_with("held") { &["1", "8", "64"] } else { &["600"] }
    }

    /// A method whose operating time is used up rests for longer than b24 may
    /// wait here.
    fn max_wait(&self) -> &'static str {
        if self.fault == "operation-time-limit" { "5" } else { "60" }
    }

    /// Runs a command in a new world whose portal has the fault once, until
    /// the portal sees so many requests.
    fn strike(&self, case: &Case, seen: usize, run: impl Fn(&World, &[&str]) -> Outcome) -> (World, Outcome) {
        for timeout in self.timeouts() {
            let world = World::new();
            if case.class() == "destructive" {
                assert_eq!(world.run(&["crm.lead.add", "fields[TITLE]=old", "--confirm-write"]).status, 0);
            }
            world.fault(&format!("{}:{}:times=1", case.method, self.fault));
            let outcome = run(&world, &["--max-wait", self.max_wait(), "--timeout", timeout]);
            if case.seen(&world) == seen || self.timeouts().len() == 1 {
                // What was held is executed after the client has left.
                while self.fault.starts_with("held")
                    && !world.requests().iter().any(|request| request.method == case.method && request.executed)
                {
                    std::thread::yield_now();
                }
                return (world, outcome);
            }
        }
        panic!("{} {}: not {seen} requests", case.method, self.fault);
    }

    fn struck(&self, case: &Case, fate: Fate) -> (World, Outcome) {
        let seen = if let Done(requests) = fate { requests } else { 1 };
        let (world, outcome) = self.strike(case, seen, |world, limits| case.run(world, &[&["--idempotency-key", KEY], limits].concat()));
        let context = format!("{} {}: {}", case.method, self.fault, outcome.stderr);
        assert_eq!(case.seen(&world), seen, "{context}");
        let runs = if let Done(_) = fate { 1 } else { self.runs };
        assert_eq!((case.count)(&world), runs, "{context}");
        // An attempt is told before and after it, the last one with the fate.
        let end = match fate {
            Unknown => "unknown",
            NotRun(..) | Refused => "not_applied",
            Done(_) => "applied",
        };
        let attempts = (1..=seen).flat_map(|number| [case.class(), if number == seen { end } else { "not_applied" }]);
        assert_eq!(case.audited(&world), attempts.collect::<Vec<_>>(), "{context}");
        (world, outcome)
    }
}

fn check(row: &Row, fate: Fate, case: &Case) {
    let (world, outcome) = row.struck(case, fate);
    let context = format!("{} {}", case.method, row.fault);
    match fate {
        Unknown => check_unknown(row, case, (world, outcome)),
        NotRun(status, kind) => {
            let error = outcome.error(status);
            assert_eq!((text(&error["outcome"]), text(&error["kind"]), &error["sent"]), ("not_applied", kind, &json!(true)), "{context}");
            assert_eq!(state_of(&world, case.record), "not_executed", "{context}");
            sends_once_more(&world, case, &[]);
        }
        Refused => {
            let error = outcome.error(1);
            assert_eq!((text(&error["outcome"]), text(&error["code"])), ("not_applied", "ERROR_CORE"), "{context}");
            assert_eq!(state_of(&world, case.record), "refused", "{context}");
            assert_eq!(case.under_key(&world).error(1)["sent"], false, "the stored refusal: {context}");
            assert_eq!(case.seen(&world), 1, "{context}");
            sends_once_more(&world, case, &["--retry-failed"]);
        }
        Done(requests) => {
            assert_eq!(outcome.status, 0, "{context}: {}", outcome.stderr);
            assert_eq!(state_of(&world, case.record), "succeeded", "{context}");
            // An answer that was too long to be kept is not repeated.
            let is_kept = !(row.fault.starts_with("padded") && case.method != "batch");
            let again = case.under_key(&world);
            assert_eq!((again.status, is_replay(&again)), (if is_kept { 0 } else { 13 }, true), "{context}: {}", again.stderr);
            assert_eq!(((case.count)(&world), case.seen(&world)), (1, requests), "{context}");
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
    let again = case.under_key(world);
    assert!(again.status == 0 && is_replay(&again), "{}", again.stderr);
    assert_eq!(((case.count)(world), case.seen(world)), (1, 2));
    assert_kept(world, case.method);
}

/// Nothing but a person's word lets the write go on.
fn check_unknown(row: &Row, case: &Case, struck_once: (World, Outcome)) {
    let mut struck_once = Some(struck_once);
    let verdicts: &[&str] = match row.fault {
        "held" | "held-before" => &["executed"],
        "execute-then-drop" => &["executed", "not-executed", "abandoned"],
        _ => &["executed", "not-executed"],
    };
    for verdict in verdicts {
        let (world, outcome) = struck_once.take().unwrap_or_else(|| row.struck(case, Unknown));
        let context = format!("{} {} {verdict}", case.method, row.fault);
        let error = outcome.error(8);
        assert_eq!(
            (text(&error["outcome"]), &error["sent"], &error["retry"]["safe"]),
            ("unknown", &json!(true), &json!(false)),
            "{context}"
        );
        assert_eq!((text(&error["kind"]), state_of(&world, case.record).as_str()), ("outcome_unknown", "unknown"), "{context}");
        let before = (case.count)(&world);
        if *verdict == "executed" {
            blocks_every_key(&world, case, &context);
        } else {
            assert_eq!(case.under_key(&world).error(8)["sent"], false, "{context}");
        }
        assert_eq!(case.seen(&world), 1, "{context}");
        resolve(&world, case.record, verdict);
        let again = case.under_key(&world);
        let happens = usize::from(*verdict == "not-executed" && (case.twice == 0 || before == 0));
        match *verdict {
            "executed" => assert!(again.status == 0 && is_replay(&again), "{context}: {}", again.stderr),
            "not-executed" => {
                let status = if happens == 1 { 0 } else { case.twice };
                assert!(again.status == status && !is_replay(&again), "{context}: {} {}", again.status, again.stderr);
            }
            _ => assert_eq!(again.error(9)["kind"], "abandoned", "{context}"),
        }
        let sent = usize::from(*verdict == "not-executed");
        assert_eq!(((case.count)(&world), case.seen(&world)), (before + happens, 1 + sent), "{context}");
        let _ = case.under_key(&world);
        assert_eq!(case.seen(&world), 1 + sent, "{context}");
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
    assert_eq!(world.run(&["--execute-plan", &id, case.consent]).error(8)["sent"], false, "{context}");
    assert_eq!(world.run(&["ledger", "forget", case.record, "--confirm-destructive"]).status, 9, "{context}");
    let unattended = world.run(&["ledger", "resolve", case.record, "--as", "not-executed", "--reason", "x"]);
    assert_eq!(unattended.error(3)["kind"], "policy_denied", "{context}");
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
fn every_fault_of_a_destructive_call() {
    for_every_row(|row| check(row, row.write, &DESTRUCTIVE));
    println!("{} faults of a destructive call", ROWS.len());
}

#[test]
fn every_fault_of_a_batch() {
    for_every_row(|row| check(row, row.batch_v2, &BATCH_V2));
    println!("{} faults of a v2 batch", ROWS.len());
}

#[test]
fn every_fault_of_a_destructive_batch() {
    for_every_row(|row| check(row, row.batch_v2, &DESTRUCTIVE_BATCH));
    println!("{} faults of a destructive v2 batch", ROWS.len());
}

#[test]
fn every_fault_of_a_v3_batch() {
    for_every_row(|row| check(row, row.batch_v3, &BATCH_V3));
    println!("{} faults of a v3 batch", ROWS.len());
}

#[test]
fn every_fault_of_a_read() {
    const READ: Case = Case { method: "crm.lead.list", params: "{}", options: &[], record: "", consent: "", count: added, twice: 0 };
    for_every_row(|row| {
        let seen = if let Done(requests) = row.read { requests } else { 1 };
        let read = |world: &World, limits: &[&str]| world.run(&[&["crm.lead.list"], limits].concat());
        let (world, outcome) = row.strike(&READ, seen, read);
        assert_eq!(READ.seen(&world), seen, "{}: {}", row.fault, outcome.stderr);
        let end = match row.read {
            Done(_) => {
                assert_eq!(outcome.status, 0, "{}: {}", row.fault, outcome.stderr);
                "applied"
            }
            NotRun(status, kind) => {
                assert_eq!(outcome.error(status)["kind"], kind, "{}", row.fault);
                "not_applied"
            }
            Unknown | Refused => panic!("a read has no such fate"),
        };
        let audit = world.audit();
        let [record] = audit.as_slice() else { panic!("{}: {audit:?}", row.fault) };
        assert_eq!((text(&record["type"]), text(&record["outcome"])), ("read", end), "{}", row.fault);
        if row.read == Done(2) && row.timeouts().len() == 1 {
            world.fault(&format!("crm.lead.list:{}", row.fault));
            let _ = world.run(&["crm.lead.list", "--max-attempts", "2"]).error(7);
            assert_eq!(READ.seen(&world), 4, "{}", row.fault);
        }
        assert!(world.changes().is_empty());
    });
    println!("{} faults of a read", ROWS.len());
}

#[test]
fn a_verdict_is_final_and_an_agent_gives_none() {
    let (world, _) = ROWS[1].struck(&WRITE, Unknown);
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
