//! How long records are kept: a success 30 days, a refusal or a proof of
//! non-execution 7 days; an unknown outcome for ever.
//!
//! Now and then a claim sweeps the folder that its own record is in, so that
//! the cost stays flat and no run is long. A record goes under its own lock,
//! and only if both its last line and its file are old: a clock that jumped
//! must not delete what is new.

use super::record::{Line, Record, Verdict};
use super::witness::Forgotten;
use super::{Ledger, witness};
use crate::store::locked::{Existing, Locked, Mode, StoreError};
use chrono::{DateTime, Utc};
use std::path::Path;
use std::time::Duration;

/// How long a success answers under its key.
const KEEP_DONE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a refusal or a withdrawn claim is kept.
const KEEP_REFUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// One claim in this many sweeps.
const SWEEP_ONE_IN: u8 = 64;

/// How many records go at once: each is an open file.
const AT_ONCE: usize = 64;

impl Ledger {
    /// Sweeps the folder of a record, sometimes. What cannot be swept now is
    /// swept another time.
    pub(super) fn sweep_sometimes(&self, record: &Path) {
        let mut chance = [0];
        self.random.fill(&mut chance);
        if chance[0] % SWEEP_ONE_IN == 0
            && let Some(folder) = record.parent()
        {
            self.sweep(folder, record);
        }
    }

    /// Deletes a record that its owner has read and found whole: first the
    /// names of its dispatches, which alone mean that the record was lost.
    pub(super) fn discard(&self, file: Locked, name: &str, record: &Record) -> Result<(), StoreError> {
        self.sync_names(self.forget_names(name, record)?)?;
        file.remove()
    }

    fn forget_names(&self, name: &str, record: &Record) -> Result<Forgotten, StoreError> {
        self.forget_dispatches(name, (1..=witness::dispatches(record)).rev())
    }

    fn sweep(&self, folder: &Path, except: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        // One sync for the names of all.
        let (mut forgotten, mut over) = (Forgotten::default(), Vec::new());
        let now = self.clock.now();
        for path in entries
            .filter_map(Result::ok)
            .map(|entry| entry.path())
            .filter(|path| path != except && (record_name(path).is_some() || is_temporary(path)))
        {
            let is_old_file = std::fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| is_older(DateTime::<Utc>::from(modified), now, KEEP_REFUSED));
            if !is_old_file {
                continue;
            }
            let Ok(Existing::Locked(mut file)) = Locked::try_open_existing(&path, Mode::Exclusive) else { continue };
            let Ok(bytes) = file.read_all() else { continue };
            match record_name(&path) {
                // A damaged record stays: it is a person's to settle.
                Some(name) => {
                    if let Ok(Ok(record)) = self.examine(&bytes, &name)
                        && record.last().is_some_and(|last| is_over(last, now))
                    {
                        let Ok(names) = self.forget_names(&name, &record) else { break };
                        forgotten = forgotten.and(names);
                        over.push(file);
                        if over.len() == AT_ONCE {
                            break;
                        }
                    }
                }
                // What a crash left; the other names of records go with them.
                None if is_temporary(&path)
                    && Record::parse(&bytes).is_some_and(|record| record.last().is_some_and(|last| is_over(last, now))) =>
                {
                    let _ = file.remove();
                }
                None => {}
            }
        }
        if self.sync_names(forgotten).is_ok() {
            over.into_iter().for_each(|file| drop(file.remove()));
        }
    }
}

/// Returns the name of the record whose file this is.
fn record_name(path: &Path) -> Option<String> {
    let [shard, rest] = [path.parent()?.file_name()?.to_str()?, path.file_name()?.to_str()?];
    (shard.len() == 2 && rest.len() == 62).then(|| format!("{shard}{rest}"))
}

fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".tmp-"))
}

fn is_over(last: &Line, now: DateTime<Utc>) -> bool {
    let keep = match last {
        Line::C(_) | Line::N(_) | Line::F(_) => KEEP_REFUSED,
        Line::R(line) if line.verdict == Verdict::NotExecuted => KEEP_REFUSED,
        Line::S(_) | Line::R(_) => KEEP_DONE,
        Line::D(_) | Line::U(_) | Line::O(_) => return false,
    };
    DateTime::parse_from_rfc3339(last.at()).is_ok_and(|at| is_older(at.to_utc(), now, keep))
}

fn is_older(time: DateTime<Utc>, now: DateTime<Utc>, age: Duration) -> bool {
    (now - time).to_std().is_ok_and(|passed| passed > age)
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::{bytes, claim};
    use super::super::record::{DispatchLine, ReasonLine, SuccessLine};
    use super::*;
    use crate::host::{Clock, SystemClock, SystemRandom};
    use crate::store::create_folder;
    use std::fs::FileTimes;
    use std::sync::Arc;

    #[test]
    fn old_outcomes_go_and_unknown_and_damaged_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = "2020-01-01T00:00:00.000Z".to_owned();
        let reason = || ReasonLine { at: at.clone(), why: String::new() };
        let success = |at: &str| Line::S(SuccessLine { at: at.to_owned(), answer: None, digest: String::new(), ids: None });
        let dispatch = || Line::D(DispatchLine { at: at.clone(), request_id: String::new() });
        let now = crate::host::timestamp(SystemClock.now());
        let cases = [
            ("done", vec![claim(1), dispatch(), success(&at)], false),
            ("refused", vec![claim(1), Line::N(reason())], false),
            ("dispatched", vec![claim(1), dispatch()], true),
            ("unknown", vec![claim(1), dispatch(), Line::U(reason())], true),
            ("orphan", vec![claim(1), dispatch(), Line::O(reason())], true),
            ("recent", vec![claim(1), dispatch(), success(&now)], true),
            ("cut", vec![claim(1)], true),
        ];
        let ledger = Ledger::new(folder.path().to_owned(), "p".into(), "u".into(), Arc::new(SystemClock), Arc::new(SystemRandom));
        let names: Vec<String> = (0..cases.len()).map(|number| format!("ab{number:062x}")).collect();
        let path = |name: &str| ledger.record_path(name);
        for (name, (case, lines, _)) in names.iter().zip(&cases) {
            let path = path(name);
            create_folder(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes(lines).0).unwrap();
            let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
            std::fs::File::open(&path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
            if ["done", "cut"].contains(case) {
                ledger.names(name).give(1).unwrap();
            }
        }
        ledger.sweep(path(&names[0]).parent().unwrap(), Path::new("none"));
        for (name, (case, _, stays)) in names.iter().zip(&cases) {
            assert_eq!(path(name).exists(), *stays, "{case}");
        }
        assert!(!ledger.was_dispatched(&names[0]).unwrap(), "the names go with their record");
        assert!(ledger.was_dispatched(&names[6]).unwrap());
        assert_eq!(ledger.missing_records().unwrap(), Vec::<String>::new());
    }

    /// Seconds of a day.
    const DAY: i64 = 24 * 3600;

    /// Sweeps one record of an age and a file of an age; returns whether it
    /// stays.
    fn stays(line: &Line, age: i64, file_age: i64, is_temporary: bool) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let clock = super::super::model_tests::HandClock::default();
        let ledger = Ledger::new(folder.path().to_owned(), "p".into(), "u".into(), Arc::new(clock), Arc::new(SystemRandom));
        let path = match is_temporary {
            false => ledger.record_path(&"ab".repeat(32)),
            true => folder.path().join("ledger/ab/.tmp-1-2"),
        };
        create_folder(path.parent().unwrap()).unwrap();
        let at = crate::host::timestamp(now - chrono::Duration::seconds(age));
        let mut line = serde_json::to_value(line).unwrap();
        line["at"] = at.into();
        let line: Line = serde_json::from_value(line).unwrap();
        let lines = if matches!(line, Line::C(_)) { vec![line] } else { vec![claim(1), line] };
        std::fs::write(&path, bytes(&lines).0).unwrap();
        let modified = std::time::SystemTime::from(now - chrono::Duration::seconds(file_age));
        std::fs::File::open(&path).unwrap().set_times(FileTimes::new().set_modified(modified)).unwrap();
        ledger.sweep(path.parent().unwrap(), Path::new("none"));
        path.exists()
    }

    /// Every kind of last line, with how many days it is kept; `None` for ever.
    fn lives() -> Vec<(Line, Option<i64>)> {
        let reason = || ReasonLine { at: String::new(), why: String::new() };
        let resolved = |verdict| {
            Line::R(super::super::record::ResolutionLine { at: String::new(), verdict, reason: String::new(), actor: String::new() })
        };
        let refusal = super::super::record::RefusalLine {
            at: String::new(),
            status: 400,
            kind: String::new(),
            code: String::new(),
            text: String::new(),
        };
        vec![
            (claim(1), Some(7)),
            (Line::N(reason()), Some(7)),
            (Line::F(refusal), Some(7)),
            (Line::S(SuccessLine { at: String::new(), answer: None, digest: String::new(), ids: None }), Some(30)),
            (resolved(Verdict::NotExecuted), Some(7)),
            (resolved(Verdict::Executed), Some(30)),
            (resolved(Verdict::Abandoned), Some(30)),
            (Line::D(DispatchLine { at: String::new(), request_id: String::new() }), None),
            (Line::U(reason()), None),
            (Line::O(reason()), None),
        ]
    }

    #[test]
    fn every_kind_of_record_goes_on_its_day_and_not_before() {
        for (line, days) in lives() {
            for (is_temporary, what) in [(false, "record"), (true, "temporary file")] {
                let stays = |age| stays(&line, age, age, is_temporary);
                match days {
                    Some(days) => {
                        assert!(stays(days * DAY), "{what}: {line:?} at its last moment");
                        assert!(!stays(days * DAY + 1), "{what}: {line:?} a second later");
                    }
                    None => assert!(stays(10_000 * DAY), "{what}: {line:?}"),
                }
                assert!(stays(0) && stays(-DAY) && stays(-10_000 * DAY), "{what}: {line:?} is of the future");
            }
        }
    }

    #[test]
    fn a_clock_that_jumped_deletes_nothing_that_is_new() {
        for (line, _) in lives() {
            // What is written in the line is old, its file is new, and the other way round.
            assert!(stays(&line, 100 * DAY, 0, false) && stays(&line, 100 * DAY, -DAY, false), "{line:?}");
            assert!(stays(&line, 100 * DAY, 7 * DAY, false), "{line:?}: the file at its last moment");
            assert!(stays(&line, 0, 100 * DAY, false) && stays(&line, -DAY, 100 * DAY, false), "{line:?}");
            assert!(stays(&line, 100 * DAY, 0, true) && stays(&line, 0, 100 * DAY, true), "{line:?}");
        }
        assert!(!stays(&claim(1), 100 * DAY, 7 * DAY + 1, false));
    }

    #[test]
    fn a_sweep_spares_the_claim_s_own_record_what_is_held_and_what_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(super::super::model_tests::HandClock::default());
        let ledger = Ledger::new(folder.path().to_owned(), "p".into(), "u".into(), clock, Arc::new(SystemRandom));
        let put = |name: &str, content: &[u8]| {
            let path = folder.path().join("ledger/ab").join(name);
            create_folder(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
            std::fs::File::open(&path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
            path
        };
        let old = bytes(&[claim(1)]).0;
        let [own, held, over] = ["0", "1", "2"].map(|digit| put(&digit.repeat(62), &old));
        let [damaged, foreign, torn] = [put(&"3".repeat(62), b"x"), put("notes", &old), put(".tmp-1", b"x")];
        let lock = Locked::open(&held, Mode::Shared, Duration::ZERO).unwrap();
        ledger.sweep(&folder.path().join("ledger/ab"), &own);
        assert!(!over.exists());
        for path in [own, held, damaged, foreign, torn] {
            assert!(path.exists(), "{}", path.display());
        }
        drop(lock);
    }
}
