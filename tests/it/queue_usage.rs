//! How `b24 queue work` ends, and what it refuses to begin.

use crate::queue_world::{Rig, assert_careful, proof, run, start};
use crate::world::Outcome;
use std::io::{BufRead, BufReader};

/// The exit status and the kind of error of a worker, and that nothing was
/// taken from the portal.
#[track_caller]
fn refused(rig: &Rig, mut command: std::process::Command, status: i32, kind: &str) -> String {
    let error = Outcome::of(&mut command).error(status);
    assert_eq!(error["kind"], kind, "{error}");
    rig.world.emulator.clear_faults();
    assert!(rig.rows().iter().all(|row| row["PROCESS_ID"] == ""), "{kind}");
    error.to_string()
}

#[test]
fn a_worker_that_may_not_work_says_why_and_takes_nothing() {
    let rig = Rig::new("");
    rig.raise_deals(2);
    let _ = refused(&rig, rig.queue(&["work", "--until-empty"]), 2, "usage");
    let _ = refused(&rig, rig.queue(&["work", "--exec", " ", "--once"]), 2, "usage");
    for literal in ["canary", "@", ""] {
        let text = refused(&rig, rig.exec(&["--once", "--application-token", literal]), 2, "usage");
        assert!(!text.contains("canary"));
    }
    let _ = refused(&rig, rig.exec(&["--once", "--packs", "none"]), 3, "policy_denied");
    let mut read_only = rig.exec(&["--once"]);
    read_only.env("B24_READ_ONLY", "1");
    let _ = refused(&rig, read_only, 3, "policy_denied");
    let mut planned = rig.exec(&["--once"]);
    planned.env("B24_REQUIRE_PLAN", "1");
    let _ = refused(&rig, planned, 10, "plan_required");
    let by_webhook = rig.world.command(&["queue", "work", "--exec", "true", "--once"]);
    let text = refused(&rig, by_webhook, 4, "auth");
    assert!(text.contains("WRONG_AUTH_TYPE"), "{text}");
    assert!(rig.seen("event.offline.get").is_empty() && rig.log().is_empty());
    let open = Outcome::of(&mut rig.world.oauth_command(&["ledger", "list"]));
    assert!(!open.stdout.contains("\"record\""), "{}", open.stdout);
    let _ = run(rig.exec(&["--until-empty"]), 0);
    assert_eq!(proof(&rig.log()).done.len(), 4);
}

#[test]
fn a_command_that_cannot_be_run_loses_and_buries_nothing() {
    let rig = Rig::new("");
    let mut rows = 0;
    for (way, count) in [("--exec", 1), ("--serve", 1), ("--exec", 20), ("--serve", 20)] {
        for end in ["--once", "--until-empty"] {
            for _ in 0..count {
                rows += 1;
                rig.raise("ONCRMDEALADD", rows);
            }
            let args = ["work", way, "/nowhere/handler", end, "--max-retries", "1", "--retry-delay", "0.02", "--sleep", "0.05"];
            let error = Outcome::of(&mut rig.queue(&args)).error(2);
            assert_eq!(error["kind"], "handler_unusable", "{way} {end} {count}: {error}");
            assert!(rig.letters().is_empty(), "{way} {end} {count}");
        }
    }
    let _ = run(rig.exec(&["--until-empty"]), 0);
    assert_eq!((proof(&rig.log()).done.len(), rig.rows().len()), (rows, 0));
}

#[test]
fn an_event_that_fails_is_told_by_the_exit_status() {
    let rig = Rig::new("status=1");
    rig.raise("ONCRMDEALADD", 1);
    let error = Outcome::of(&mut rig.queue(&["work", "--exec", "exec sh ./handler.sh exec", "--once", "--retry-delay", "60"])).error(6);
    assert_eq!(error["kind"], "partial");
    assert!(rig.letters().is_empty());
    rig.rule("status=75");
    rig.raise("ONCRMDEALADD", 2);
    let _ = Outcome::of(&mut rig.queue(&["work", "--exec", "exec sh ./handler.sh exec", "--once", "--retry-delay", "60"])).error(6);
    assert_eq!(rig.rows().len(), 2);
}

#[test]
fn a_handler_that_handles_one_event_after_another_has_its_time_for_each() {
    // Thirty in its hands at once; each takes a part of the time.
    let rig = Rig::new("sleep 0.05");
    (1..=30).for_each(|id| rig.raise("ONCRMDEALADD", id));
    let outcome = run(rig.serve(&["--until-empty", "--handler-timeout", "1", "--max-retries", "1"]), 0);
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), proof.again, rig.letters().len()), (30, 0, 0), "{}", outcome.stderr);
}

#[test]
fn one_event_that_hangs_in_a_process_is_the_only_one_that_fails() {
    let rig = Rig::new("case $entity in crmdeal:5) until [ -e never ]; do sleep 0.05; done;; esac");
    (1..=20).for_each(|id| rig.raise("ONCRMDEALADD", id));
    let _ = run(rig.serve(&["--until-empty", "--handler-timeout", "0.5", "--max-retries", "2"]), 6);
    let letters = rig.letters();
    assert_eq!((letters.len(), &letters[0]["payload"]["ID"], &letters[0]["reason"]), (1, &"5".into(), &"timeout".into()));
    assert_eq!((proof(&rig.log()).done.len(), rig.rows().len()), (19, 0));
}

#[test]
fn a_reader_that_goes_away_loses_no_event_that_was_not_written() {
    let rig = Rig::new("");
    rig.raise_deals(400);
    let mut worker = start(rig.queue(&["work", "--jsonl", "--until-empty", "--sleep", "0.05", "--concurrency", "16"]));
    let mut lines = Vec::new();
    let mut reader = BufReader::with_capacity(100, worker.stdout.take().unwrap());
    for _ in 0..40 {
        let mut line = String::new();
        let _ = reader.read_line(&mut line).unwrap();
        lines.push(line);
    }
    drop(reader);
    let outcome = crate::kept::ended(worker);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let handled = rig.status()["counters"]["handled"].as_u64().unwrap();
    // What a pipe holds, at most: 64 KiB.
    assert!((16..400).contains(&handled), "{handled} {} {}", rig.status(), outcome.stderr);
    let rest = run(rig.queue(&["work", "--jsonl", "--until-empty", "--sleep", "0.05"]), 0);
    assert_eq!(handled + rest.stdout.lines().count() as u64, 800);
    assert_eq!(rig.rows().len(), 0);
    assert_careful(&rig);
    println!("{handled} of 800 events were written before the reader went away");
}

#[test]
fn a_worker_that_runs_once_handles_all_that_is_due_also_what_is_due_again() {
    let rig = Rig::new("[ \"$attempt\" = 1 ] && status=1");
    rig.raise_deals(3);
    let worker = rig.queue(&["work", "--exec", "exec sh ./handler.sh exec", "--once", "--retry-delay", "0", "--concurrency", "1"]);
    let _ = run(worker, 6);
    assert_eq!((rig.count("left"), rig.count("done"), rig.rows().len()), (6, 6, 0));
}
