use super::*;
use crate::host::SystemRandom;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// A wall clock that stands still.
pub(super) struct Calendar(AtomicI64);

impl Calendar {
    pub(super) fn new() -> Arc<Calendar> {
        Arc::new(Calendar(AtomicI64::new(1_790_000_000)))
    }

    fn next_day(&self) {
        self.0.fetch_add(86_400, Ordering::SeqCst);
    }
}

impl Clock for Calendar {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(self.0.load(Ordering::SeqCst))
    }

    fn boot_ns(&self) -> u64 {
        0
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn sleep(&self, _: Duration) {}
}

const WAIT: Duration = Duration::from_secs(20);

pub(super) fn fields(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn log_at(place: AuditPlace, clock: &Arc<Calendar>) -> AuditLog {
    AuditLog::open(place, clock.clone(), Arc::new(SystemRandom))
}

fn log_in(folder: &TempDir) -> AuditLog {
    log_at(AuditPlace::Folder(folder.path().join("audit")), &Calendar::new())
}

fn current(folder: &TempDir) -> PathBuf {
    folder.path().join("audit/audit.jsonl")
}

pub(super) fn append(log: &AuditLog, value: Value) -> Receipt {
    log.append(&fields(value), Durability::Lazy, WAIT).unwrap()
}

fn three_records(folder: &TempDir) -> Vec<u8> {
    let log = log_in(folder);
    for name in ["one", "two", "three"] {
        append(&log, json!({"type": "read", "method": name}));
    }
    std::fs::read(current(folder)).unwrap()
}

fn problems(folder: &TempDir) -> Vec<u64> {
    log_in(folder).verify().unwrap().problems.iter().map(|problem| problem.seq).collect()
}

fn tail(log: &AuditLog, count: usize) -> Vec<Value> {
    let mut records = Vec::new();
    let read: Result<(), StoreError> = log.tail(count).unwrap().each(|line| {
        if let TailLine::Record(text) = line {
            records.push(serde_json::from_str(text).unwrap());
        }
        Ok(())
    });
    read.unwrap();
    records
}

fn methods(log: &AuditLog) -> Vec<String> {
    tail(log, 100).iter().filter_map(|record| record["method"].as_str().map(str::to_owned)).collect()
}

#[test]
fn records_follow_one_another() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(&folder);
    let first = append(&log, json!({"type": "read", "seq": 99, "prev": "forged", "price": 10}));
    let second = log.append(&fields(json!({"type": "read"})), Durability::Durable, WAIT).unwrap();
    let records = tail(&log, 5);
    assert_eq!((first.seq, second.seq), (1, 2));
    assert_eq!(records[0]["prev"], line::GENESIS);
    assert_eq!(records[1]["prev"], first.hash.as_str());
    let names: Vec<&String> = records[0].as_object().unwrap().keys().collect();
    assert_eq!(names, ["seq", "prev", "ts", "boot", "type", "price"]);
    let report = log.verify().unwrap();
    assert!(report.is_intact());
    assert_eq!((report.records, report.last), (2, Some(second)));
    assert!(report.limits.contains("not detectable"));
}

#[test]
fn the_hash_is_the_documented_one() {
    let folder = tempfile::tempdir().unwrap();
    let text = String::from_utf8(three_records(&folder)).unwrap();
    let line = text.lines().nth(1).unwrap();
    let (hash, body) = (&line[6..70], &line[76..line.len() - 1]);
    let prev = &text.lines().next().unwrap()[6..70];
    assert_eq!(hash, crate::json::sha256_hex(format!("{prev}{body}")));
}

#[test]
fn every_flipped_bit_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let whole = three_records(&folder);
    let line_of = |at: usize| whole[..at].split(|byte| *byte == b'\n').count() as u64;
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(current(&folder), &damaged).unwrap();
        let found = problems(&folder);
        assert!(found.contains(&line_of(bit / 8)) || found.contains(&(line_of(bit / 8) + 1)), "bit {bit}: {found:?}");
    }
}

#[test]
fn removed_moved_and_inserted_lines_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let whole = three_records(&folder);
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    let cases: [(&[usize], &[u64]); 5] = [(&[1, 2], &[1]), (&[0, 2], &[2]), (&[0, 2, 1], &[2, 2]), (&[0, 1, 1, 2], &[2]), (&[0, 1], &[])];
    for (order, expected) in cases {
        let changed: Vec<u8> = order.iter().flat_map(|index| lines[*index].to_vec()).collect();
        std::fs::write(current(&folder), changed).unwrap();
        assert_eq!(problems(&folder), expected, "{order:?}");
    }
}

#[test]
fn a_line_torn_at_any_byte_is_cut_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let whole = three_records(&folder);
    let starts: Vec<usize> = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    for length in 0..whole.len() {
        std::fs::write(current(&folder), &whole[..length]).unwrap();
        let log = log_in(&folder);
        let kept = starts.iter().filter(|start| **start <= length).count();
        let receipt = append(&log, json!({"type": "read", "method": "next"}));
        assert_eq!(receipt.seq, kept as u64 + 1, "cut to {length} bytes");
        let torn = &whole[starts[..kept].last().copied().unwrap_or(0)..length];
        let record = tail(&log, 1).remove(0);
        assert_eq!(record["torn"].as_str().unwrap_or_default(), hex::encode(torn));
        let report = log.verify().unwrap();
        assert!(report.is_intact());
        assert_eq!(report.repaired.len(), usize::from(!torn.is_empty()));
    }
}

#[test]
fn a_damaged_last_record_stops_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let whole = three_records(&folder);
    for from_the_end in [4, 6, 10, 100] {
        let mut damaged = whole.clone();
        damaged[whole.len() - from_the_end] ^= 1;
        std::fs::write(current(&folder), &damaged).unwrap();
        let error = log_in(&folder).append(&Map::new(), Durability::Lazy, WAIT).unwrap_err();
        assert!(error.to_string().contains("damaged last record"), "{error}");
        assert_eq!(std::fs::read(current(&folder)).unwrap(), damaged);
    }
}

#[test]
fn a_foreign_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    for content in ["{\"ts\": \"2025-01-01\", \"method\": \"crm.lead.add\"}\n", "{\"ts\": 1}", "notes", "{}\n{\"h\":\"0123"] {
        std::fs::write(&path, content).unwrap();
        let log = log_at(AuditPlace::File(path.clone()), &Calendar::new());
        let error = log.append(&Map::new(), Durability::Durable, WAIT).unwrap_err();
        assert!(matches!(error, StoreError::Unusable { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn long_lines_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(&folder);
    for size in [60_000, 65_500, 70_000, 300_000, 10] {
        append(&log, json!({"type": "read", "text": "x".repeat(size)}));
    }
    assert!(log.verify().unwrap().is_intact());
    assert_eq!(tail(&log, 2)[0]["text"].as_str().unwrap().len(), 300_000);
    let too_long = fields(json!({"text": "x".repeat(9_000_000)}));
    assert!(log.append(&too_long, Durability::Lazy, WAIT).is_err());
    append(&log, json!({"type": "read"}));
    assert!(log.verify().unwrap().is_intact());
}

/// Two hundred times a gigabyte would take minutes.
#[test]
fn an_append_reads_only_the_end_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let lines = three_records(&folder);
    let file = std::fs::OpenOptions::new().write(true).truncate(true).open(current(&folder)).unwrap();
    file.set_len(1 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[b"\n", lines.as_slice()].concat(), 1 << 30).unwrap();
    let mut log = log_in(&folder);
    log.segment_bytes = u64::MAX;
    for seq in 4..204 {
        assert_eq!(append(&log, json!({"type": "read"})).seq, seq);
    }
}

#[test]
fn eight_at_once_make_one_chain_through_all_segments() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut log = log_in(&folder);
                log.segment_bytes = 200_000;
                for number in 0..1_000 {
                    append(&log, json!({"type": "read", "number": number}));
                }
            });
        }
    });
    let report = log_in(&folder).verify().unwrap();
    assert_eq!(report.problems, []);
    assert!(report.files > 5);
    assert_eq!(report.records, 8_000 + report.files - 1);
    assert_eq!(tail(&log_in(&folder), 3_000).len(), 3_000);
}

#[test]
fn a_new_day_starts_a_segment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log/here.jsonl");
    let clock = Calendar::new();
    let log = log_at(AuditPlace::File(path.clone()), &clock);
    append(&log, json!({"type": "read", "method": "one"}));
    clock.next_day();
    append(&log, json!({"type": "read", "method": "two"}));
    append(&log, json!({"type": "read", "method": "three"}));
    let segment = folder.path().join("log/here.jsonl.d/seg-1.jsonl");
    assert_eq!(std::fs::read_to_string(&segment).unwrap().lines().count(), 2);
    assert_eq!(methods(&log), ["one", "two", "three"]);
    assert!(log.verify().unwrap().is_intact());
    let cut = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &cut[..cut.len() / 2]).unwrap();
    assert!(!log.verify().unwrap().is_intact());
    std::fs::remove_file(&segment).unwrap();
    assert_eq!(log.verify().unwrap().problems[0].seq, 1);
}

/// The states that a crash within a rotation can leave.
#[test]
fn a_rotation_is_finished_by_the_next_append() {
    type Damage = fn(&Path);
    let states: [(&str, Damage); 4] = [
        ("the segment is ended", |_| {}),
        ("the segment is renamed", |folder| std::fs::rename(folder.join("audit.jsonl"), folder.join("seg-1.jsonl")).unwrap()),
        ("the next file is empty", |folder| {
            std::fs::rename(folder.join("audit.jsonl"), folder.join("seg-1.jsonl")).unwrap();
            std::fs::write(folder.join("audit.jsonl"), "").unwrap();
        }),
        ("the first line is torn", |folder| {
            std::fs::rename(folder.join("audit.jsonl"), folder.join("seg-1.jsonl")).unwrap();
            std::fs::write(folder.join("audit.jsonl"), "{\"h\":\"0123").unwrap();
        }),
    ];
    for (state, damage) in states {
        let folder = tempfile::tempdir().unwrap();
        three_records(&folder);
        let log = log_in(&folder);
        Journal::open(&log, WAIT).unwrap().end_segment().unwrap();
        damage(&folder.path().join("audit"));
        assert_eq!(append(&log, json!({"type": "read", "method": "four"})).seq, 5, "{state}");
        let report = log.verify().unwrap();
        assert_eq!((report.problems, report.files), (vec![], 2), "{state}");
        assert_eq!(methods(&log), ["one", "two", "three", "four"]);
    }
}

#[test]
fn intents_without_an_outcome_are_listed_and_a_second_outcome_is_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(&folder);
    for (kind, request_id) in [("intent", "a"), ("intent", "b"), ("outcome", "a"), ("intent", "c"), ("read", "d")] {
        append(&log, json!({"type": kind, "request_id": request_id}));
    }
    let report = log.verify().unwrap();
    assert!(report.is_intact());
    let open: Vec<(u64, &str)> = report.open_intents.iter().map(|intent| (intent.seq, intent.request_id.as_str())).collect();
    assert_eq!(open, [(2, "b"), (4, "c")]);
    append(&log, json!({"type": "outcome", "request_id": "a"}));
    assert_eq!(problems(&folder), [6]);
}

#[test]
fn a_spooled_outcome_comes_before_the_next_record_and_may_come_twice() {
    let folder = tempfile::tempdir().unwrap();
    let log = log_in(&folder);
    append(&log, json!({"type": "intent", "request_id": "a"}));
    for _ in 0..2 {
        log.spool(&fields(json!({"type": "outcome", "request_id": "a"}))).unwrap();
    }
    assert_eq!(log.verify().unwrap().spooled, 2);
    append(&log, json!({"type": "read", "method": "next"}));
    let report = log.verify().unwrap();
    assert!(report.is_intact() && report.open_intents.is_empty());
    assert_eq!((report.records, report.spooled), (4, 0));
    assert!(tail(&log, 2)[0]["spooled"].is_string());
    assert_eq!(std::fs::read_dir(folder.path().join("audit.spool")).unwrap().count(), 0);
}

#[test]
fn an_unusable_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("audit"), "a file").unwrap();
    let log = log_in(&folder);
    assert!(log.append(&Map::new(), Durability::Durable, WAIT).is_err());
    assert!(log.tail(1).is_err());
    assert!(log.verify().is_err());
    log.spool(&fields(json!({"type": "outcome"}))).unwrap();
    assert_eq!(log_in(&tempfile::tempdir().unwrap()).verify().unwrap().records, 0);
}
