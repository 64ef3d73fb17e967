//! The inbox: damage, failed commits, compaction, claims that lapse.

mod model;

use super::*;
use crate::host::SystemRandom;
use crate::queue::commit::{Dead, Outcome};
use crate::queue::event::{EventKey, NewEvent, Origin, Reservation};
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A clock that is set by hand, in milliseconds.
#[derive(Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn boot_ns(&self) -> u64 {
        0
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn sleep(&self, _: Duration) {}
}

const LAPSE: i64 = 1_000_000_000;

fn event(number: u8, process: u8) -> NewEvent {
    let reservation = Reservation { process: format!("p{process}"), row: number.to_string(), message: format!("m{number}") };
    NewEvent {
        key: EventKey::of(&number.to_string()),
        name: "ONCRMDEALUPDATE".to_owned(),
        entity: format!("deal:{}", number % 4),
        order: (process > 0).then_some(u64::from(number)),
        origin: if process > 0 { Origin::Offline(reservation) } else { Origin::Online },
        hold_ms: 0,
        payload: RawValue::from_string(format!(r#"{{"ID":"{number}"}}"#)).unwrap(),
        unusable: None,
    }
}

fn open(folder: &tempfile::TempDir, clock: &Arc<HandClock>) -> Inbox {
    Inbox::open(folder.path(), Arc::clone(clock) as Arc<dyn Clock>, Arc::new(SystemRandom)).unwrap()
}

fn commit<T>(inbox: &mut Inbox, work: impl FnOnce(&mut Commit<'_>) -> T) -> T {
    inbox.commit(|commit| Ok(work(commit))).unwrap()
}

fn unburied(inbox: &mut Inbox) -> Vec<Dead> {
    inbox.commit(|commit: &mut Commit<'_>| Commit::unburied(commit)).unwrap()
}

fn compact(inbox: &mut Inbox) {
    let mut held = inbox.journal.lock(&mut inbox.state, inbox.random.as_ref()).unwrap();
    let (snapshot, tip) = inbox.snapshot(&mut held).unwrap();
    inbox.journal.replace(held, (&snapshot, tip), inbox.random.as_ref()).unwrap();
}

/// Returns the file that counts.
fn newest(folder: &Path) -> std::path::PathBuf {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")).max().unwrap()
}

fn received(inbox: &mut Inbox, numbers: std::ops::Range<u8>) {
    commit(inbox, |commit| commit.receive(numbers.map(|number| event(number, 1)).collect()));
}

#[test]
fn damage_is_refused_and_does_not_count_twice() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 0..3);
    let whole = std::fs::read(newest(folder.path())).unwrap();
    for place in [0, 12, whole.len() / 2, whole.len() - 2] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        std::fs::write(newest(folder.path()), damaged).unwrap();
        let mut other = open(&folder, &clock);
        assert!(other.commit(|_| Ok(())).is_err(), "byte {place}");
        assert!(other.commit(|_| Ok(())).is_err(), "byte {place}");
        std::fs::write(newest(folder.path()), &whole).unwrap();
        commit(&mut other, |_| ());
        assert_eq!((other.counters().received, other.unfinished()), (3, 3), "byte {place}");
    }
}

#[test]
fn a_journal_that_became_shorter_is_refused() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 0..3);
    std::fs::write(newest(folder.path()), b"").unwrap();
    assert!(inbox.commit(|_| Ok(())).is_err());
}

#[test]
fn a_failed_commit_leaves_nothing() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 0..1);
    let failed: Result<(), StoreError> = inbox.commit(|commit| {
        commit.receive(vec![event(1, 1)]);
        Err(StoreError::unusable(Path::new("x"), "no"))
    });
    assert!(failed.is_err());
    commit(&mut inbox, |_| ());
    assert_eq!((inbox.unfinished(), inbox.counters().received), (1, 1));
}

#[test]
fn a_compacted_journal_is_as_short_for_every_reader() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 0..9);
    compact(&mut inbox);
    commit(&mut inbox, |_| ());
    let base = inbox.journal.base();
    assert_eq!(base, std::fs::metadata(newest(folder.path())).unwrap().len());
    received(&mut inbox, 9..12);
    // Else a worker that runs for a moment each minute would never compact.
    let mut other = open(&folder, &clock);
    commit(&mut other, |_| ());
    assert_eq!(other.journal.base(), base);
}

#[test]
fn a_kill_between_two_journals_leaves_the_new_one() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 0..3);
    let old = newest(folder.path());
    let bytes = std::fs::read(&old).unwrap();
    compact(&mut inbox);
    std::fs::write(&old, bytes).unwrap();
    let mut other = open(&folder, &clock);
    received(&mut other, 3..4);
    commit(&mut inbox, |_| ());
    assert!(!old.exists());
    assert_eq!((inbox.unfinished(), other.unfinished()), (4, 4));
}

#[test]
fn a_claim_of_a_living_worker_lapses_and_its_verdict_no_longer_counts() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let (mut one, mut two) = (open(&folder, &clock), open(&folder, &clock));
    received(&mut one, 0..1);
    let job = one.commit(|commit| commit.start(1, 1000, |_| true)).unwrap().remove(0);
    clock.0.store(1000, Ordering::SeqCst);
    assert_eq!(two.release_dead().unwrap(), 0);
    clock.0.store(1001, Ordering::SeqCst);
    assert_eq!((one.release_dead().unwrap(), two.release_dead().unwrap()), (0, 1));
    commit(&mut one, |commit| commit.end(job.seq, Outcome::Done));
    assert_eq!((one.unfinished(), one.counters().handled), (1, 0));
}

#[test]
fn an_event_without_a_row_is_over_when_its_dead_letter_is_written() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    let new = NewEvent::of_row(&serde_json::json!({"EVENT_NAME": "ONCRMLEADADD"}), "p");
    commit(&mut inbox, |commit| commit.receive(vec![new]));
    let dead = unburied(&mut inbox);
    assert_eq!((dead.len(), dead[0].reason.as_str()), (1, "invalid_event"));
    assert!(!inbox.is_empty() && inbox.settlements(false).is_empty());
    commit(&mut inbox, |commit| commit.bury(vec![dead[0].job.seq]));
    assert!(inbox.is_empty());
}

#[test]
fn an_event_is_held_as_long_as_it_asks_for_and_no_longer() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    let held = NewEvent { hold_ms: 500, ..event(1, 0) };
    commit(&mut inbox, |commit| commit.receive(vec![held, event(2, 0)]));
    let started = |inbox: &mut Inbox| inbox.commit(|commit| commit.start(9, LAPSE, |_| true)).unwrap().len();
    assert_eq!(started(&mut inbox), 1, "one that does not ask is not held");
    for (at, expected) in [(499, 0), (500, 1), (501, 0)] {
        clock.0.store(at, Ordering::SeqCst);
        assert_eq!(started(&mut inbox), expected, "{at}");
    }
}

#[test]
fn what_was_put_off_what_failed_and_what_was_broken_off_are_counted_apart() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 1..2);
    let mut counts = Vec::new();
    for end in ["later", "failed", "later", "interrupted", "failed", "later", "done"] {
        let job = inbox.commit(|commit| commit.start(1, LAPSE, |_| true)).unwrap().remove(0);
        counts.push(commit(&mut inbox, |commit| {
            let counts = (commit.put_offs(job.seq), commit.failures(job.seq));
            let now = commit.now();
            commit.end(
                job.seq,
                match end {
                    "later" => Outcome::Later(now),
                    "failed" => Outcome::Failed(now),
                    "interrupted" => Outcome::Interrupted,
                    _ => Outcome::Done,
                },
            );
            counts
        }));
    }
    // Before each ending: how often it was put off, how often it failed.
    assert_eq!(counts, [(0, 0), (1, 0), (1, 1), (2, 1), (2, 1), (2, 2), (3, 2)]);
}

#[test]
fn only_a_worker_s_own_reservations_are_known() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
    let mut inbox = open(&folder, &clock);
    received(&mut inbox, 1..2);
    assert!(inbox.has_process("p1") && !inbox.has_process("p2") && !inbox.has_process(""));
    assert_eq!(inbox.foreign_since("p2"), None);
    commit(&mut inbox, |commit| commit.see_foreign("p2"));
    assert!(inbox.foreign_since("p2").is_some() && inbox.foreign_since("p1").is_none());
}
