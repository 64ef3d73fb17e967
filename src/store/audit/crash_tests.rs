//! Real processes that die, or whose disk fails, at every point of an append
//! and of a rotation.

use super::tests::{Calendar, append, fields};
use super::*;
use crate::host::SystemRandom;
use serde_json::json;
use std::collections::HashSet;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// The variable through which the test tells its child where to work.
const FOLDER: &str = "B24_TEST_AUDIT_FOLDER";

const CRASH_POINTS: [&str; 9] = [
    "audit.opened",
    "audit.before_repair",
    "audit.before_write",
    "audit.written",
    "audit.synchronised",
    "audit.before_rename",
    "audit.renamed",
    "audit.rename_synchronised",
    "audit.before_unspool",
];
const FAULT_POINTS: [&str; 4] = ["store.open", "store.append", "store.sync", "store.sync_folder"];

fn small_log(folder: &Path) -> AuditLog {
    let place = AuditPlace::Folder(folder.join("audit"));
    let mut log = AuditLog::open(place, Calendar::new(), Arc::new(SystemRandom));
    log.segment_bytes = 500;
    log
}

/// Appends, and notes each record that was acknowledged. Does nothing unless
/// the test below started it.
#[test]
#[expect(clippy::disallowed_methods, reason = "the parent process tells the folder")]
fn child_appends() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let log = small_log(folder);
    let mut notes = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("notes")).unwrap();
    for number in 0..8 {
        let kind = if number % 2 == 0 { Durability::Durable } else { Durability::Lazy };
        match log.append(&fields(json!({"type": "read", "number": number})), kind, Duration::from_secs(5)) {
            Ok(receipt) => writeln!(notes, "{}", receipt.hash).unwrap(),
            Err(_) => log.spool(&fields(json!({"type": "read", "number": number}))).unwrap_or(()),
        }
    }
}

/// Returns whether the child lived.
fn run_child(folder: &Path, variable: &str, point: &str) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::audit::crash_tests::child_appends", "--quiet"])
        .env(FOLDER, folder)
        .env(variable, point)
        .output()
        .unwrap()
        .status;
    assert!(status.success() || status.code().is_none(), "{point}: {status}");
    status.success()
}

fn check(folder: &Path, point: &str) {
    let log = small_log(folder);
    append(&log, json!({"type": "read"}));
    let report = log.verify().unwrap();
    assert_eq!(report.problems, [], "{point}");
    let text: String =
        std::fs::read_dir(folder.join("audit")).unwrap().map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap()).collect();
    let recorded: HashSet<&str> = text.lines().map(|line| &line[6..70]).collect();
    let notes = std::fs::read_to_string(folder.join("notes")).unwrap_or_default();
    for acknowledged in notes.lines() {
        assert!(recorded.contains(acknowledged), "{point}: an acknowledged record is lost");
    }
}

#[test]
fn no_crash_and_no_fault_loses_an_acknowledged_record() {
    for point in CRASH_POINTS {
        for passing in 1..=3 {
            let folder = tempfile::tempdir().unwrap();
            small_log(folder.path()).spool(&fields(json!({"type": "read"}))).unwrap();
            let lived = run_child(folder.path(), "B24_CRASH_POINT", &format!("{point}:{passing}"));
            assert!(!lived || passing > 1 || point == "audit.before_repair", "{point} is passed");
            check(folder.path(), point);
        }
    }
    for point in FAULT_POINTS {
        for passing in 1..=5 {
            let folder = tempfile::tempdir().unwrap();
            assert!(run_child(folder.path(), "B24_FAULT_POINT", &format!("{point}:{passing}=ENOSPC")));
            let notes = std::fs::read_to_string(folder.path().join("notes")).unwrap();
            assert!(notes.lines().count() < 8, "{point}:{passing} makes an append fail");
            check(folder.path(), point);
        }
    }
}

#[test]
fn a_crash_in_the_repair_of_a_torn_line_is_repaired_too() {
    let folder = tempfile::tempdir().unwrap();
    append(&small_log(folder.path()), json!({"type": "read"}));
    let path = folder.path().join("audit/audit.jsonl");
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend(b"{\"h\":\"01");
    std::fs::write(&path, torn).unwrap();
    assert!(!run_child(folder.path(), "B24_CRASH_POINT", "audit.before_repair"));
    append(&small_log(folder.path()), json!({"type": "read"}));
    assert_eq!(small_log(folder.path()).verify().unwrap().repaired, [2]);
}
