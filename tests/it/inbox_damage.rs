//! Damage to every file of an inbox: no event is lost in silence, and none is
//! cleared on the portal that was not handled.
//!
//! A worker and a receiver begin on an inbox with events in every state, of
//! which one file was damaged in one way. Either they say so (exit 12), or
//! every event is handled all the same.

use crate::inbox_damage_listen::Receiver;
use crate::queue_world::{Rig, run};
use crate::world::Outcome;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A way to damage a file: what it is called, and what is left of the bytes;
/// without any, the file is removed.
pub(crate) type Damage = (String, Option<Vec<u8>>);

/// Every kind of damage to every line of a file.
pub(crate) fn damages(bytes: &[u8], older: Option<Vec<u8>>) -> Vec<Damage> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut damages: Vec<Damage> = vec![
        ("emptied".to_owned(), Some(Vec::new())),
        ("removed".to_owned(), None),
        ("zeroed".to_owned(), Some(vec![0; bytes.len()])),
        ("garbage behind".to_owned(), Some([bytes, b"garbage\n"].concat())),
    ];
    damages.extend(older.map(|older| ("an older copy".to_owned(), Some(older))));
    for number in 0..lines.len() {
        let with = |name: &str, line: &[&[u8]]| {
            let all: Vec<&[u8]> = lines[..number].iter().chain(line).chain(&lines[number + 1..]).copied().collect();
            (format!("line {number} {name}"), Some(all.concat()))
        };
        let line = lines[number];
        damages.push(with("removed", &[]));
        damages.push(with("doubled", &[line, line]));
        damages.push(with("zeroed", &[&vec![0; line.len()]]));
        for place in [0, 8, 12, 16, line.len() / 2, line.len() - 1].into_iter().filter(|place| *place < line.len()) {
            let mut flipped = line.to_vec();
            flipped[place] ^= 1;
            damages.push(with(&format!("flipped at {place}"), &[&flipped]));
        }
        damages.push((format!("cut behind line {number}"), Some(lines[..=number].concat())));
        damages.push((format!("cut in line {number}"), Some([&lines[..number].concat(), &line[..line.len() / 2]].concat())));
        if let Some(next) = lines.get(number + 1) {
            let mut swapped = lines.clone();
            swapped.swap(number, number + 1);
            damages.push((format!("line {number} swapped"), Some(swapped.concat())));
            damages.push(with("put in the place of the next", &[next]));
        }
    }
    damages.retain(|(_, left)| left.as_deref() != Some(bytes));
    damages
}

pub(crate) fn put(path: &Path, left: Option<&[u8]>) {
    match left {
        Some(bytes) => std::fs::write(path, bytes).unwrap(),
        None => std::fs::remove_file(path).unwrap(),
    }
}

pub(crate) fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy(&entry, &target);
        } else {
            let _ = std::fs::copy(&entry, &target).unwrap();
        }
    }
}

/// The files of an inbox, by their names within it.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = PathBuf::from(entry.file_name().unwrap());
        match entry.is_dir() {
            true => found.extend(files(&entry).into_iter().map(|inner| name.join(inner))),
            false => found.push(name),
        }
    }
    found.sort();
    found
}

/// How many cases of the short form there are between two that are tried.
pub(crate) fn step(short: usize) -> usize {
    if std::env::var_os("B24_LONG_TESTS").is_some() { 1 } else { short }
}

/// What happened in all cases.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) told: usize,
    pub(crate) borne: BTreeSet<String>,
    pub(crate) handled: usize,
}

impl Tally {
    pub(crate) fn say(&self, what: &str) {
        let Tally { told, borne, handled } = self;
        println!("{what}: {} damages, {told} told, {handled} handled all the same: {borne:?}", told + handled);
    }
}

/// An inbox of a worker with events that are over, that wait, and that are
/// dead letters.
struct Ward {
    rig: Rig,
    folder: PathBuf,
    now: PathBuf,
    older: PathBuf,
    waiting: BTreeSet<u64>,
}

impl Ward {
    fn new() -> Ward {
        let rig = Rig::new("");
        rig.raise("ONCRMDEALADD", 1);
        let _ = run(rig.exec(&["--until-empty"]), 0);
        let folder = PathBuf::from(rig.status()["inbox"].as_str().unwrap());
        let (now, older) = (rig.path("now"), rig.path("older"));
        rig.rule("case $entity in crmlead:*) status=1;; *) status=75;; esac");
        rig.raise("ONCRMLEADADD", 1);
        let _ = run(rig.exec(&["--once", "--max-retries", "1"]), 6);
        copy(&folder, &older);
        (2..=4).for_each(|id| rig.raise("ONCRMDEALADD", id));
        rig.raise("ONCRMLEADADD", 2);
        let _ = run(rig.exec(&["--once", "--max-retries", "1"]), 6);
        copy(&folder, &now);
        rig.rule("");
        let waiting = [3, 4, 5].into();
        Ward { rig, folder, now, older, waiting }
    }

    /// Runs a worker on the inbox as it is. Returns whether damage was told.
    fn works(&self, context: &str) -> bool {
        let _ = std::fs::remove_file(self.rig.path("log"));
        let before = self.rig.seen("event.offline.clear").len();
        let outcome = Outcome::of(&mut self.rig.exec(&["--until-empty", "--max-retries", "1"]));
        let done: BTreeSet<u64> = self.rig.log().iter().filter(|entry| entry.word == "done").map(|entry| entry.row).collect();
        // 1 was handled before; 2 and 6 have dead letters.
        let over: BTreeSet<u64> = done.iter().copied().chain([1, 2, 6]).collect();
        for params in &self.rig.seen("event.offline.clear")[before..] {
            let ids = params["id"].as_array().unwrap().iter().map(|id| id.to_string().trim_matches('"').parse::<u64>().unwrap());
            assert!(ids.into_iter().all(|id| over.contains(&id)), "{context}: cleared without being handled: {params}");
        }
        match outcome.status {
            12 => {
                let error = outcome.error(12);
                assert!(error["message"].as_str().unwrap().contains(self.folder.to_str().unwrap()), "{context}: {error}");
                assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{context}: {error}");
                true
            }
            0 => {
                let letters = std::fs::read_to_string(self.folder.join("dead-letters.jsonl")).unwrap_or_default();
                assert!(self.waiting.is_subset(&done) && letters.lines().count() == 2, "{context}: {done:?} {letters} {}", outcome.stderr);
                false
            }
            other => panic!("{context}: exit {other} {}", outcome.stderr),
        }
    }
}

#[test]
fn a_worker_on_a_damaged_inbox_says_so_or_loses_nothing() {
    let ward = Ward::new();
    let mut tally = Tally::default();
    copy(&ward.now, &ward.folder);
    assert!(!ward.works("whole"), "an inbox without damage");
    let mut number = 0;
    for name in files(&ward.now) {
        let bytes = std::fs::read(ward.now.join(&name)).unwrap();
        for (kind, left) in damages(&bytes, std::fs::read(ward.older.join(&name)).ok()) {
            number += 1;
            if kind.starts_with("line") && number % step(3) != 0 {
                continue;
            }
            copy(&ward.now, &ward.folder);
            put(&ward.folder.join(&name), left.as_deref());
            let context = format!("{} {kind}", name.display());
            match ward.works(&context) {
                true => tally.told += 1,
                false => {
                    tally.handled += 1;
                    tally.borne.insert(context);
                }
            }
        }
    }
    tally.say("queue work");
    assert!(tally.told > 50, "{}", tally.told);
}

#[test]
fn a_receiver_on_a_damaged_inbox_does_not_start_or_loses_nothing() {
    let ward = Receiver::with_events();
    let mut tally = Tally::default();
    let mut number = 0;
    for name in files(&ward.now) {
        let bytes = std::fs::read(ward.now.join(&name)).unwrap();
        for (kind, left) in damages(&bytes, std::fs::read(ward.older.join(&name)).ok()) {
            number += 1;
            if kind.starts_with("line") && number % step(5) != 0 {
                continue;
            }
            copy(&ward.now, &ward.folder);
            put(&ward.folder.join(&name), left.as_deref());
            let context = format!("{} {kind}", name.display());
            match ward.receives(&context) {
                true => tally.told += 1,
                false => {
                    tally.handled += 1;
                    tally.borne.insert(context);
                }
            }
        }
    }
    tally.say("listen");
    assert!(tally.told > 30, "{}", tally.told);
}

#[test]
fn a_journal_of_an_earlier_version_is_read_and_takes_the_new_form() {
    let ward = Ward::new();
    // Lines without links, and no witness.
    let old = |bytes: &[u8]| -> Vec<u8> {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [&line[..8], &line[16..]].concat()).collect()
    };
    copy(&ward.now, &ward.folder);
    let journal = ward.folder.join("inbox-000001.jsonl");
    let bytes = old(&std::fs::read(&journal).unwrap());
    std::fs::write(&journal, &bytes).unwrap();
    std::fs::remove_file(ward.folder.join("inbox.head")).unwrap();
    std::fs::remove_file(ward.folder.join("dead-letters.jsonl.head")).unwrap();
    assert!(!ward.works("of an earlier version"));
    let now = std::fs::read(&journal).unwrap();
    assert!(now.starts_with(&bytes) && now.len() > bytes.len());
    assert!(ward.folder.join("inbox.head").exists());
    // From now on lost lines show, those of the earlier version as well.
    for left in [&now[bytes.len() / 2..], &now[..bytes.len()], &bytes[..0]] {
        std::fs::write(&journal, left).unwrap();
        assert!(ward.works("lost lines"), "{} bytes left", left.len());
    }
}

#[test]
fn what_is_refused_may_be_moved_away_and_what_vanished_may_not() {
    let ward = Ward::new();
    let journal = ward.folder.join("inbox-000001.jsonl");
    copy(&ward.now, &ward.folder);
    std::fs::remove_file(&journal).unwrap();
    for _ in 0..2 {
        assert!(ward.works("vanished"), "also the second time");
    }
    // A copy that is whole is taken back.
    std::fs::copy(ward.now.join("inbox-000001.jsonl"), &journal).unwrap();
    assert!(!ward.works("put back"));
    copy(&ward.now, &ward.folder);
    std::fs::write(&journal, "").unwrap();
    assert!(ward.works("emptied") && ward.works("still emptied"));
    std::fs::rename(&journal, ward.folder.join("damaged")).unwrap();
    let outcome = Outcome::of(&mut ward.rig.exec(&["--until-empty"]));
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
}
