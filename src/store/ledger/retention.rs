//! How long records are kept: a success 30 days, a refusal or a proof of
//! non-execution 7 days; an unknown outcome for ever.
//!
//! Now and then a claim sweeps the folder that its own record is in, so that
//! the cost stays flat and no run is long. A record goes under its own lock,
//! and only if both its last line and its file are old: a clock that jumped
//! must not delete what is new.

use super::Ledger;
use super::record::{Line, Record, Verdict};
use crate::store::locked::{Existing, Locked, Mode};
use chrono::{DateTime, Utc};
use std::path::Path;
use std::time::Duration;

/// How long a success answers under its key.
const KEEP_DONE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long a refusal or a withdrawn claim is kept.
const KEEP_REFUSED: Duration = Duration::from_secs(7 * 24 * 3600);

/// One claim in this many sweeps.
const SWEEP_ONE_IN: u8 = 64;

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

    fn sweep(&self, folder: &Path, except: &Path) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        let now = self.clock.now();
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path != except) {
            let is_old_file = std::fs::metadata(&path)
                .and_then(|metadata| metadata.modified())
                .is_ok_and(|modified| is_older(DateTime::<Utc>::from(modified), now, KEEP_REFUSED));
            if !is_old_file {
                continue;
            }
            let Ok(Existing::Locked(mut file)) = Locked::try_open_existing(&path, Mode::Exclusive) else { continue };
            if let Ok(Some(record)) = Record::read(&mut file)
                && record.last().is_some_and(|last| is_over(last, now))
            {
                let _ = file.remove();
            }
        }
    }
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
    use super::super::record::tests::claim;
    use super::super::record::{DispatchLine, ReasonLine, SuccessLine};
    use super::*;
    use crate::host::{Clock, SystemClock, SystemRandom};
    use std::fs::FileTimes;
    use std::sync::Arc;

    #[test]
    fn old_outcomes_go_and_unknown_ones_stay() {
        let folder = tempfile::tempdir().unwrap();
        let at = "2020-01-01T00:00:00.000Z".to_owned();
        let reason = || ReasonLine { at: at.clone(), why: String::new() };
        let success = |at: &str| Line::S(SuccessLine { at: at.to_owned(), answer: None, digest: String::new() });
        let now = crate::host::timestamp(SystemClock.now());
        let cases = [
            ("done", success(&at), false),
            ("refused", Line::N(reason()), false),
            ("dispatched", Line::D(DispatchLine { at: at.clone(), request_id: String::new() }), true),
            ("unknown", Line::U(reason()), true),
            ("orphan", Line::O(reason()), true),
            ("recent", success(&now), true),
        ];
        for (name, line, _) in &cases {
            let path = folder.path().join(name);
            std::fs::write(&path, [claim(1).to_bytes(), line.to_bytes()].concat()).unwrap();
            let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
            std::fs::File::open(&path).unwrap().set_times(FileTimes::new().set_modified(old)).unwrap();
        }
        let ledger = Ledger::new(folder.path().to_owned(), "p".into(), "u".into(), Arc::new(SystemClock), Arc::new(SystemRandom));
        ledger.sweep(folder.path(), Path::new("none"));
        for (name, _, stays) in &cases {
            assert_eq!(folder.path().join(name).exists(), *stays, "{name}");
        }
    }
}
