//! Answers that are lost, and events that come twice.

use crate::queue_world::{FAULTS, Rig, assert_careful, proof, run};
use crate::world::Outcome;
use serde_json::{Value, json};

/// Asserts that the rows from 1 to the last were handled once each, and that
/// the portal has none left.
#[track_caller]
fn assert_once(rig: &Rig, last: u64, context: &str) {
    let proof = proof(&rig.log());
    assert_eq!((proof.again, proof.done), (0, (1..=last).collect()), "{context}");
    assert_eq!(rig.rows().len(), 0, "{context}");
    assert_careful(rig);
}

#[test]
fn a_lost_or_broken_answer_of_any_call_costs_nothing() {
    let rig = Rig::new("");
    let mut rows = 0;
    for method in ["event.offline.get", "event.offline.clear", "event.offline.list"] {
        for fault in FAULTS {
            let context = format!("{method}:{fault}");
            rig.world.fault(&format!("{context}:times=1"));
            for event in ["ONCRMDEALADD", "ONCRMDEALUPDATE"] {
                (1..=3).for_each(|id| rig.raise(event, rows + id));
            }
            rows += 6;
            let before = rig.seen(method).len();
            let outcome = Outcome::of(&mut rig.exec(&["--until-empty", "--max-wait", "10"]));
            assert!(outcome.status == 0 && rig.seen(method).len() > before, "{context}: {} {}", outcome.status, outcome.stderr);
            assert_once(&rig, rows as u64, &context);
        }
    }
    let open = Outcome::of(&mut rig.world.oauth_command(&["ledger", "list"]));
    assert!(open.status == 0 && !open.stdout.contains("\"record\""), "{}", open.stdout);
    println!("{} faults, {rows} events, each handled once", 3 * FAULTS.len());
}

#[test]
fn a_lost_answer_costs_no_mark_of_a_dead_letter() {
    let rig = Rig::new("status=1");
    for (turn, fault) in FAULTS.iter().enumerate() {
        rig.world.fault(&format!("event.offline.error:{fault}:times=1"));
        rig.raise("ONCRMLEADADD", turn + 1);
        let _ = run(rig.exec(&["--until-empty", "--mark-failed", "--max-retries", "1", "--max-wait", "10"]), 6);
        let rows = rig.rows();
        assert_eq!((rows.len(), rig.letters().len()), (turn + 1, turn + 1), "{fault}");
        assert!(rows.iter().all(|row| row["ERROR"] == "1" && row["PROCESS_ID"] == ""), "{fault}: {rows:?}");
    }
    assert_eq!(rig.count("begin"), FAULTS.len());
    assert_careful(&rig);
}

#[test]
fn a_row_that_is_delivered_again_is_not_handled_again() {
    let rig = Rig::new("");
    let mut rows = 0;
    for points in [
        &["queue.after_reserve"][..],
        &["queue.after_reserve", "queue.after_arrival"],
        &["queue.after_reserve", "queue.before_append", "queue.after_arrival"],
        &["queue.before_clear", "queue.after_clear"],
        &["queue.after_clear", "queue.after_clear"],
    ] {
        (1..=5).for_each(|id| rig.raise("ONCRMDEALADD", rows + id));
        rows += 5;
        for point in points {
            let killed = Outcome::of(rig.exec(&["--until-empty", "--concurrency", "1"]).env("B24_CRASH_POINT", point));
            assert_eq!(killed.status, -1, "{point}: {}", killed.stderr);
        }
        let _ = run(rig.exec(&["--until-empty"]), 0);
        let handled = proof(&rig.log());
        assert_eq!(handled.done.len(), rows, "{points:?}");
        assert_eq!(rig.rows().len(), 0, "{points:?}");
    }
    assert_careful(&rig);
}

#[test]
fn a_row_that_is_over_and_comes_again_is_cleared_and_not_handled() {
    let mut rig = Rig::new("");
    rig.raise_deals(2);
    let (data, backup) = (rig.path("portal"), rig.path("backup"));
    rig.world.stop();
    copy(&data, &backup);
    rig.world.restart();
    let _ = run(rig.exec(&["--once"]), 0);
    assert_once(&rig, 4, "before");
    // The portal is set back to a copy.
    rig.world.stop();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    rig.world.restart();
    assert_eq!(rig.rows().len(), 4);
    let _ = run(rig.exec(&["--once"]), 0);
    assert_once(&rig, 4, "after");
    assert_eq!(rig.status()["counters"]["duplicates"], 4);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(std::fs::copy(entry.path(), to).unwrap()),
        }
    }
}

#[test]
fn a_reservation_of_somebody_else_is_left_alone_until_it_is_old() {
    let rig = Rig::new("");
    rig.raise_deals(2);
    let foreign = rig.call("event.offline.get", &json!({"clear": 0, "limit": 3}));
    assert_eq!(foreign["events"].as_array().unwrap().len(), 3);
    for _ in 0..2 {
        let outcome = run(rig.exec(&["--until-empty"]), 0);
        assert_eq!((rig.count("done"), rig.rows().len()), (1, 3));
        // An empty answer is not passed off as an empty queue.
        assert_eq!(outcome.stderr.matches("\"foreign_reservation\"").count(), 1, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("the portal has 3 events under reservations"), "{}", outcome.stderr);
    }
    // Also after a lost answer: it was there before.
    rig.raise("ONCRMLEADADD", 9);
    rig.world.fault("event.offline.get:execute-then-500:times=1");
    let outcome = Outcome::of(&mut rig.exec(&["--once"]));
    assert_eq!((outcome.status, rig.count("done"), rig.rows().len()), (0, 2, 3), "{}", outcome.stderr);
    let _ = run(rig.exec(&["--until-empty", "--adopt-after", "0"]), 0);
    let handled = proof(&rig.log().into_iter().filter(|entry| entry.entity.starts_with("crmlead")).collect::<Vec<_>>());
    assert_eq!((handled.again, rig.count("done"), rig.rows()), (0, 5, Vec::<Value>::new()));
    assert!(rig.seen("event.offline.get")[1..].iter().all(|params| params["clear"].to_string().contains('0')));
}

#[test]
fn a_damaged_inbox_is_left_as_it_is_and_its_offline_events_are_still_on_the_portal() {
    let rig = Rig::new("status=75");
    (1..=120).for_each(|id| rig.raise("ONCRMDEALADD", id));
    let _ = run(rig.exec(&["--once", "--batch", "150"]), 6);
    let folder = std::path::PathBuf::from(rig.status()["inbox"].as_str().unwrap());
    let journal = folder.join("inbox-000001.jsonl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&journal, &bytes).unwrap();
    rig.rule("");
    let before = (rig.seen("event.offline.get").len(), rig.count("begin"));
    let refused = run(rig.exec(&["--until-empty"]), 12);
    // The byte may be one of the line, or of what chains it to the one before.
    let is_told = |what: &str| refused.stderr.contains(&format!("inbox-000001.jsonl has a {what}line at byte"));
    assert!(is_told("damaged ") || is_told(""), "{}", refused.stderr);
    assert_eq!((rig.seen("event.offline.get").len(), rig.count("begin")), before);
    assert_eq!((std::fs::read(&journal).unwrap() == bytes, rig.rows().len()), (true, 120));

    std::fs::rename(&journal, folder.join("damaged")).unwrap();
    let _ = run(rig.exec(&["--until-empty", "--adopt-after", "0"]), 0);
    assert_once(&rig, 120, "made anew");
}
