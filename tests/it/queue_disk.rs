//! A disk that is full or broken under a worker: what is not recorded is not
//! cleared, and the next worker goes on.

use crate::crashes::passings;
use crate::queue_world::{Rig, assert_careful, proof, run};
use crate::world::Outcome;
use std::collections::{BTreeMap, BTreeSet};

/// Never handles the added third deal of a hundred.
const RULES: &str = "case $event:$entity in ONCRMDEALADD:*03) status=1;; esac";

fn raise(rig: &Rig, turn: usize) {
    for event in ["ONCRMDEALADD", "ONCRMDEALUPDATE"] {
        (1..=3).for_each(|id| rig.raise(event, 100 * turn + id));
    }
}

/// Chooses the first, the last and some of the passings between.
fn some(passings: Vec<String>) -> Vec<String> {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for passing in passings {
        let (name, count) = passing.split_once(':').unwrap();
        counts.insert(name.to_owned(), count.parse().unwrap());
    }
    let turns = |count: u32| (1..=count).step_by((count as usize / 5).max(1)).chain([count]).collect::<BTreeSet<u32>>();
    counts.iter().flat_map(|(name, count)| turns(*count).into_iter().map(move |turn| format!("{name}:{turn}"))).collect()
}

#[test]
fn every_file_operation_of_a_worker_may_fail() {
    let rig = Rig::new(RULES);
    let worker = |rig: &Rig| rig.exec(&["--until-empty", "--batch", "4", "--max-retries", "2", "--metrics-file", "metrics"]);
    raise(&rig, 1);
    let _ = run(worker(&rig), 6);
    raise(&rig, 2);
    let points = some(passings(&rig.world, worker(&rig), "fault"));
    let (mut turns, mut exits) = (2, BTreeMap::<i32, usize>::new());
    for (number, point) in points.iter().enumerate() {
        turns += 1;
        raise(&rig, turns);
        let errno = ["ENOSPC", "EIO"][number % 2];
        let outcome = Outcome::of(worker(&rig).env("B24_FAULT_POINT", format!("{point}={errno}")));
        let context = format!("{point}={errno}: exit {} {}", outcome.status, outcome.stderr);
        assert!([0, 6, 12, 13].contains(&outcome.status), "{context}");
        *exits.entry(outcome.status).or_default() += 1;
        // What the portal has no more was handled, or is a dead letter.
        let left: BTreeSet<u64> = rig.rows().iter().map(|row| row["ID"].as_str().unwrap().parse().unwrap()).collect();
        let done = proof(&rig.log()).done;
        let dead: BTreeSet<u64> = rig.letters().iter().map(|letter| letter["payload"]["ID"].as_str().unwrap().parse().unwrap()).collect();
        let is_kept = |row: &u64| left.contains(row) || done.contains(row) || dead.contains(row);
        assert!((1..=6 * turns as u64).all(|row| is_kept(&row)), "{context}");
        let after = Outcome::of(&mut worker(&rig));
        assert!([0, 6].contains(&after.status) && rig.rows().is_empty(), "{context}: then {} {}", after.status, after.stderr);
    }
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), rig.letters().len()), (5 * turns, turns));
    assert!(exits.contains_key(&12), "{exits:?}");
    assert_careful(&rig);
    println!("{} file operations of a worker; exits {exits:?}, {} events handled again", points.len(), proof.again);
}

#[test]
fn a_full_disk_stops_a_worker_before_it_takes_anything() {
    let rig = Rig::new("");
    rig.raise_deals(1);
    let _ = run(rig.exec(&["--until-empty"]), 0);
    rig.raise("ONCRMLEADADD", 1);
    let folder = std::fs::read_dir(rig.world.state().join("queue")).unwrap().next().unwrap().unwrap().path().join("offline");
    for name in ["inbox-000001.jsonl", "inbox.lock", "poll.lock"] {
        let (path, aside) = (folder.join(name), folder.join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        std::fs::create_dir(&path).unwrap();
        let polls = rig.seen("event.offline.get").len();
        let outcome = Outcome::of(&mut rig.exec(&["--until-empty"]));
        assert_eq!(outcome.error(12)["kind"], "local_state");
        assert_eq!((rig.seen("event.offline.get").len(), rig.rows().len()), (polls, 1), "{name}");
        std::fs::remove_dir(&path).unwrap();
        std::fs::rename(&aside, &path).unwrap();
    }
    let _ = run(rig.exec(&["--until-empty"]), 0);
    assert_eq!((proof(&rig.log()).done.len(), rig.rows().len()), (3, 0));
}
