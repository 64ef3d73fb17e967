//! Two workers of one inbox, and workers that are asked to stop.

use crate::kept::ended;
use crate::queue_world::{Rig, assert_careful, proof, run, signal, start, until};
use std::process::Command;

/// Events of the first deal wait at a gate until somebody opens it.
const GATE: &str = "case $entity in crmdeal:1) until [ -e open ]; do sleep 0.01; done;; esac";

fn open_gate(rig: &Rig) {
    std::fs::write(rig.path("open"), "").unwrap();
}

#[test]
fn two_workers_share_the_work_in_order() {
    let rig = Rig::new("printf '%s\\n' \"$entity\" >> \"by-$WHO\"");
    let count = 300;
    rig.raise_deals(count);
    let work = |who: &str| {
        let mut command = rig.serve(&["--batch", "20", "--concurrency", "8"]);
        command.env("WHO", who);
        start(command)
    };
    let workers = [work("a"), work("b")];
    until("half of the work", || rig.count("done") > count);
    (1..=count).for_each(|id| rig.raise("ONCRMDEALDELETE", id));
    until("the work", || rig.count("done") >= 3 * count && rig.rows().is_empty());
    for worker in &workers {
        signal(worker, "TERM");
    }
    for worker in workers {
        assert_eq!(ended(worker).status, 0);
    }
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), proof.again), (3 * count, 0));
    let by = |who: &str| std::fs::read_to_string(rig.path(who)).unwrap().lines().count();
    let (a, b) = (by("by-a"), by("by-b"));
    assert!(a + b == 3 * count && a.min(b) > count / 5, "{a} and {b}");
    assert_careful(&rig);
    println!("two workers: {a} and {b} events");
}

#[test]
fn the_work_of_a_killed_worker_is_taken_over_when_its_handler_has_ended() {
    let rig = Rig::new(GATE);
    rig.raise_deals(20);
    let mut killed = start(rig.exec(&["--concurrency", "2"]));
    until("the first deal", || rig.log().iter().any(|entry| entry.row == 1));
    let other = start(rig.exec(&["--concurrency", "2"]));
    killed.kill().unwrap();
    killed.wait().unwrap();
    // The handler of the first deal lives on: nobody else gets what its
    // worker had, at most one more event, and what comes after that.
    until("the other deals", || rig.count("done") >= 36);
    until("a look at the workers", || rig.status()["depth"]["workers"] == 2);
    assert_eq!(rig.log().iter().filter(|entry| entry.entity == "crmdeal:1").count(), 1);
    open_gate(&rig);
    until("its end", || rig.log().iter().any(|entry| entry.row == 1 && entry.word == "done"));
    // Nobody heard it say so: it is handled once more.
    until("the rest", || rig.rows().is_empty());
    signal(&other, "TERM");
    assert_eq!(ended(other).status, 0);
    let proof = proof(&rig.log());
    assert_eq!(proof.done.len(), 40);
    assert!((1..=3).contains(&proof.again), "{}", proof.again);
    assert_careful(&rig);
}

#[test]
fn a_worker_that_is_asked_to_stop_ends_what_it_began() {
    let rig = Rig::new(GATE);
    rig.raise_deals(10);
    let worker = start(rig.exec(&["--concurrency", "1"]));
    until("the first deal", || rig.count("begin") == 1);
    signal(&worker, "TERM");
    open_gate(&rig);
    let outcome = ended(worker);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert_eq!((rig.count("begin"), rig.count("done"), rig.rows().len()), (1, 1, 19));
    rig.rule("");
    let _ = run(rig.exec(&["--until-empty"]), 0);
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), proof.again, rig.rows().len()), (20, 0, 0));
}

#[test]
fn a_second_signal_ends_a_worker_at_once_and_loses_nothing() {
    let rig = Rig::new(GATE);
    rig.raise_deals(10);
    let mut worker = start(rig.exec(&["--concurrency", "1"]));
    until("the first deal", || rig.count("begin") == 1);
    signal(&worker, "TERM");
    until("the end by more signals", || {
        // Two that come at once are one to the system.
        let mut again = Command::new("kill");
        let _ = again.args(["-TERM", &worker.id().to_string()]).output().unwrap();
        !std::path::Path::new(&format!("/proc/{}/stat", worker.id())).exists() || is_zombie(worker.id())
    });
    assert_eq!(worker.wait().unwrap().code(), Some(143));
    assert_eq!(rig.count("done"), 0, "its handler still waits");
    let after = start(rig.exec(&["--until-empty"]));
    open_gate(&rig);
    let outcome = ended(after);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), proof.again, rig.rows().len()), (20, 1, 0));
}

fn is_zombie(id: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn events_that_broke_a_handler_do_not_hold_up_a_worker_that_lost_them() {
    // The process of one dies with several events in its hands. They go one at
    // a time from then on, but the other worker takes most of them.
    let rig = Rig::new("[ \"$WHO\" = b ] || [ -e died ] || { : > died; kill -9 $$; }; sleep 0.01");
    rig.raise_deals(50);
    let work = |who: &str| {
        let mut command = rig.serve(&["--concurrency", "32"]);
        command.env("WHO", who);
        start(command)
    };
    let a = work("a");
    until("the death of a process", || rig.path("died").exists());
    let b = work("b");
    until("the work", || rig.count("done") == 100);
    signal(&b, "TERM");
    assert_eq!(ended(b).status, 0);
    (1..=5).for_each(|id| rig.raise("ONCRMLEADADD", id));
    until("the work of the one that is left", || rig.count("done") == 105 && rig.rows().is_empty());
    signal(&a, "TERM");
    assert_eq!(ended(a).status, 0);
    let proof = proof(&rig.log());
    assert_eq!((proof.done.len(), proof.again), (105, 0));
}

#[test]
fn a_pause_after_an_error_is_not_cut_short_by_events_that_get_done() {
    let rig = Rig::new("");
    rig.raise_deals(100);
    rig.world.fault("event.offline.clear:error:status=400");
    let worker = start(rig.exec(&["--batch", "300"]));
    until("the work", || rig.count("done") == 200);
    signal(&worker, "TERM");
    let outcome = ended(worker);
    let tries = rig.seen("event.offline.clear").len();
    assert!(tries <= 8, "{tries} tries in a moment: {}", outcome.stderr);
    let _ = rig.rows();
    let _ = run(rig.exec(&["--until-empty"]), 0);
    assert_eq!((proof(&rig.log()).again, rig.rows().len()), (0, 0));
}
