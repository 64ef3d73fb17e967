//! Killing the worker at every point that it passes: what it was doing is
//! finished by the next one.

use crate::crashes::passings;
use crate::queue_world::{Rig, assert_careful, proof, run};
use crate::world::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The first event of the third deal of each hundred is never handled.
const RULES: &str = "case $event:$entity in ONCRMDEALADD:*03) status=1;; esac";

/// What one run works off: deals that are added and changed.
fn raise(rig: &Rig, turn: usize) {
    for event in ["ONCRMDEALADD", "ONCRMDEALUPDATE"] {
        (1..=4).for_each(|id| rig.raise(event, 100 * turn + id));
    }
}

/// The first passing of each point and one in the middle: runs differ in their
/// ends.
fn edges(passings: Vec<String>) -> Vec<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for passing in passings {
        let (name, count) = passing.split_once(':').unwrap();
        counts.insert(name.to_owned(), count.parse().unwrap());
    }
    let edges = counts
        .iter()
        .flat_map(|(name, count)| BTreeSet::from([1, count.div_ceil(2)]).into_iter().map(move |turn| format!("{name}:{turn}")));
    edges.collect()
}

/// Runs a worker that is killed at a point, and one that ends its work.
/// Returns whether the point was passed.
fn kill(rig: &Rig, point: &str, worker: impl Fn() -> Command) -> bool {
    let killed = Outcome::of(worker().env("B24_CRASH_POINT", point));
    assert!([-1, 0, 6].contains(&killed.status), "{point}: {}", killed.stderr);
    let after = Outcome::of(&mut worker());
    assert!([0, 6].contains(&after.status), "{point}: {}", after.stderr);
    assert_eq!(rig.rows().len(), 0, "{point}: {}", after.stderr);
    killed.status == -1
}

/// What must hold after this many turns.
fn check(rig: &Rig, turns: usize, context: &str) -> usize {
    let proof = proof(&rig.log());
    let dead: BTreeSet<u64> = rig.letters().iter().map(|letter| letter["payload"]["ID"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!((rig.letters().len(), dead.len()), (turns, turns), "{context}: one dead letter a turn");
    let mut handled = proof.done.clone();
    handled.extend(&dead);
    assert_eq!(handled, (1..=8 * turns as u64).collect(), "{context}");
    assert!(proof.done.is_disjoint(&dead), "{context}");
    assert_careful(rig);
    let open = Outcome::of(&mut rig.world.oauth_command(&["ledger", "list"]));
    assert!(open.status == 0 && !open.stdout.contains("\"record\""), "{context}: {}", open.stdout);
    let records = crate::kept::records(&rig.world).len();
    assert!(records <= 2 * turns, "{context}: {records} ledger records are left");
    proof.again
}

fn kill_at_every_point(name: &str, worker: fn(&Rig) -> Command) {
    let fresh = Rig::new(RULES);
    raise(&fresh, 1);
    let first = edges(passings(&fresh.world, worker(&fresh), "point"));
    std::fs::remove_file(fresh.path("trace")).unwrap();
    raise(&fresh, 2);
    let rig = fresh;
    let points = edges(passings(&rig.world, worker(&rig), "point"));
    let (mut turns, mut passed) = (2, 0);
    for point in &points {
        turns += 1;
        raise(&rig, turns);
        passed += usize::from(kill(&rig, point, || worker(&rig)));
    }
    let again = check(&rig, turns, name);
    // What only a first run passes.
    let names: BTreeSet<&str> = points.iter().map(|point| point.split(':').next().unwrap()).collect();
    let once: Vec<&String> = first.iter().filter(|point| !names.contains(point.split(':').next().unwrap())).collect();
    for point in &once {
        let rig = Rig::new(RULES);
        raise(&rig, 1);
        assert!(kill(&rig, point, || worker(&rig)), "{point} is passed");
        let _ = check(&rig, 1, point);
    }
    println!("{name}: {passed} kills at {} points, {again} events handled again, {} more points of a first run", points.len(), once.len());
    assert!(passed * 10 >= points.len() * 8, "{passed} of {}", points.len());
}

#[test]
fn a_kill_at_any_point_of_a_worker_loses_nothing() {
    kill_at_every_point("exec", |rig| rig.exec(&["--until-empty", "--batch", "5", "--max-retries", "2"]));
}

#[test]
fn a_kill_at_any_point_of_a_worker_with_one_process_loses_nothing() {
    kill_at_every_point("serve", |rig| rig.serve(&["--until-empty", "--batch", "5", "--max-retries", "2"]));
}

#[test]
fn a_kill_while_dead_letters_are_tried_again_loses_none_and_doubles_none() {
    let rig = Rig::new("status=1");
    rig.raise_deals(2);
    let _ = run(rig.exec(&["--until-empty", "--max-retries", "1"]), 6);
    let retry = |rig: &Rig| rig.queue(&["dlq", "retry", "--all"]);
    let points = edges(passings(&rig.world, retry(&rig), "point"));
    let _ = run(rig.exec(&["--until-empty", "--max-retries", "1"]), 6);
    let mut killed = 0;
    for point in &points {
        let before = rig.count("begin");
        assert_eq!(rig.letters().len(), 4, "{point}");
        killed += usize::from(Outcome::of(retry(&rig).env("B24_CRASH_POINT", point)).status == -1);
        let _ = Outcome::of(&mut retry(&rig));
        assert_eq!(rig.letters().len(), 0, "{point}");
        let _ = run(rig.exec(&["--until-empty", "--max-retries", "1"]), 6);
        assert_eq!(rig.count("begin"), before + 4, "{point}: each is tried once");
    }
    println!("{killed} kills of a retry at {} points", points.len());
}
