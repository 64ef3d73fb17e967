//! How much operating time each method has used on the portal.
//!
//! Bitrix24 adds up the execution time of every (credential, method) over ten
//! minutes and answers 429 `OPERATION_TIME_LIMIT` beyond a limit (480 s in the
//! cloud); the 429 itself carries no time. So the counters of the last success
//! are kept, one small file for each pair, and only once half of the limit is
//! used: an ordinary call costs one look at a name that is not there.
//!
//! The numbers are those of the official JS SDK: from 80 % of the limit every
//! call waits 1 % of the time to the reset, at most 7 s; from 5 s below the
//! limit, or after a 429, the method rests until the reset and one second more;
//! a 429 with no known reset rests 10 s. After the reset the next call goes at
//! once, because its answer tells the new counter.
//!
//! Times to the reset are differences of the server's own clock pair, counted
//! from the local boot clock; wall clocks do not enter. Files are rewritten in
//! place and not synchronised: what is lost costs a 429, which runs nothing.

use super::limiter::PaceError;
use super::locked::{Existing, Locked, Mode, StoreError, read_if_exists};
use super::open_with_folder;
use crate::host::Clock;
use crate::json::sha256_hex;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The limit of the cloud, in seconds of execution time in ten minutes.
pub const LIMIT_S: f64 = 480.0;

const RECORDED_FROM: f64 = 0.5 * LIMIT_S;
const SLOWED_FROM: f64 = 0.8 * LIMIT_S;
const STOPPED_FROM: f64 = LIMIT_S - 5.0;
const SLOWDOWN: f64 = 0.01;
const LONGEST_SLOWDOWN: Duration = Duration::from_secs(7);
const AFTER_RESET: Duration = Duration::from_secs(1);
const UNKNOWN_RESET: Duration = Duration::from_secs(10);

/// The counters cover ten minutes; no reset can be farther away.
const WINDOW: Duration = Duration::from_secs(600);

const LOCK_WAIT: Duration = Duration::from_secs(2);

/// What an answer told about the operating time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatingSeen {
    /// `time.operating`: seconds used, all calls of the last ten minutes.
    pub operating_s: f64,
    /// `time.operating_reset_at - time.finish`, both by the server's clock.
    pub reset_in_s: f64,
}

/// One line of `b24 limits`.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatingUse {
    /// Whose calls.
    pub principal: String,
    /// Of which method.
    pub method: String,
    /// Seconds used at the last answer.
    pub operating_s: f64,
    /// Until the oldest part of that is forgotten.
    pub reset_in: Duration,
    /// Until the method may be called again; zero when it may be now.
    pub blocked_for: Duration,
}

/// The operating-time records of one portal.
pub struct Operating {
    folder: PathBuf,
    clock: Arc<dyn Clock>,
}

/// The content of a file: one line of JSON. What stands behind the first line
/// is the rest of an older, longer one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    principal: String,
    method: String,
    boot: String,
    seen_ns: u64,
    operating_s: f64,
    reset_ns: u64,
    blocked_until_ns: u64,
}

impl Operating {
    /// Takes the folder, which need not be there yet.
    #[must_use]
    pub fn new(folder: PathBuf, clock: Arc<dyn Clock>) -> Operating {
        Operating { folder, clock }
    }

    /// Returns how long to wait before calling the method. Ask for `batch` and
    /// for each method in it: it is not settled which of them the portal bills.
    ///
    /// # Errors
    /// [`PaceError::OperatingLimited`] when the method rests for longer than
    /// `max_wait`.
    pub fn before(&self, principal: &str, method: &str, max_wait: Duration) -> Result<Duration, PaceError> {
        let path = self.path(principal, method);
        if read_if_exists(&path)?.is_none() {
            return Ok(Duration::ZERO);
        }
        let record = parse(&mut open_with_folder(&path, Mode::Shared, LOCK_WAIT)?)?;
        let Some(record) = record.filter(|record| self.is_current(record)) else { return Ok(Duration::ZERO) };
        let now = self.clock.boot_ns();
        let rest = until(now, record.blocked_until_ns);
        if rest > max_wait {
            return Err(PaceError::OperatingLimited { method: method.to_owned(), after: rest });
        }
        if rest > Duration::ZERO || record.operating_s < SLOWED_FROM {
            return Ok(rest);
        }
        Ok(until(now, record.reset_ns).mul_f64(SLOWDOWN).min(LONGEST_SLOWDOWN).min(max_wait))
    }

    /// Keeps what an answer told.
    pub fn record(&self, principal: &str, method: &str, seen: OperatingSeen) -> Result<(), StoreError> {
        if !seen.operating_s.is_finite() {
            return Ok(());
        }
        if seen.operating_s < RECORDED_FROM {
            return self.forget(principal, method);
        }
        self.update(principal, method, |record, now| {
            record.operating_s = seen.operating_s;
            record.reset_ns = now.saturating_add(span_ns(seen.reset_in_s));
            if seen.operating_s >= STOPPED_FROM {
                record.blocked_until_ns = record.blocked_until_ns.max(after(record.reset_ns, AFTER_RESET));
            }
        })
    }

    /// Stops the method after a 429. `reset_in_s` is for an answer that tells
    /// the time after all.
    pub fn block(&self, principal: &str, method: &str, reset_in_s: Option<f64>) -> Result<(), StoreError> {
        self.update(principal, method, |record, now| {
            if let Some(reset_in_s) = reset_in_s {
                record.reset_ns = now.saturating_add(span_ns(reset_in_s));
            }
            let until = if record.reset_ns > now { after(record.reset_ns, AFTER_RESET) } else { after(now, UNKNOWN_RESET) };
            record.blocked_until_ns = record.blocked_until_ns.max(until);
        })
    }

    /// Returns all that is known, the heaviest use first.
    pub fn list(&self) -> Result<Vec<OperatingUse>, StoreError> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(StoreError::io("read", &self.folder)(error)),
        };
        let mut uses = Vec::new();
        for entry in entries {
            let path = entry.map_err(StoreError::io("read", &self.folder))?.path();
            uses.extend(self.listed(&path)?);
        }
        uses.sort_by(|one, other| other.operating_s.total_cmp(&one.operating_s).then_with(|| one.method.cmp(&other.method)));
        Ok(uses)
    }

    fn listed(&self, path: &Path) -> Result<Option<OperatingUse>, StoreError> {
        let Some(bytes) = read_if_exists(path)? else { return Ok(None) };
        let now = self.clock.boot_ns();
        Ok(parse_line(&bytes).filter(|record| self.is_current(record)).map(|record| OperatingUse {
            reset_in: until(now, record.reset_ns),
            blocked_for: until(now, record.blocked_until_ns),
            operating_s: record.operating_s,
            principal: record.principal,
            method: record.method,
        }))
    }

    fn update(&self, principal: &str, method: &str, change: impl FnOnce(&mut Record, u64)) -> Result<(), StoreError> {
        let path = self.path(principal, method);
        let mut file = open_with_folder(&path, Mode::Exclusive, LOCK_WAIT)?;
        let now = self.clock.boot_ns();
        let mut record = parse(&mut file)?.filter(|record| self.is_current(record)).unwrap_or_else(|| Record {
            principal: principal.to_owned(),
            method: method.to_owned(),
            boot: self.clock.boot_id(),
            seen_ns: now,
            operating_s: 0.0,
            reset_ns: 0,
            blocked_until_ns: 0,
        });
        record.seen_ns = now;
        change(&mut record, now);
        let text = serde_json::to_string(&record).map_err(|error| StoreError::unusable(&path, error.to_string()))?;
        file.write_at(0, format!("{text}\n").as_bytes())
    }

    /// Deletes the record of a method that is far from its limit again.
    fn forget(&self, principal: &str, method: &str) -> Result<(), StoreError> {
        match Locked::try_open_existing(&self.path(principal, method), Mode::Exclusive)? {
            Existing::Locked(file) => file.remove(),
            Existing::Absent | Existing::Held => Ok(()),
        }
    }

    /// Returns whether the record still says something: same run of the
    /// machine, not older than the portal's own memory, and nothing that b24
    /// does not write, for a damaged number must not stop a method for good.
    fn is_current(&self, record: &Record) -> bool {
        let now = self.clock.boot_ns();
        let latest = after(now, WINDOW + UNKNOWN_RESET);
        record.boot == self.clock.boot_id()
            && until(record.seen_ns, now) <= WINDOW + UNKNOWN_RESET
            && [record.seen_ns, record.reset_ns, record.blocked_until_ns].iter().all(|instant| *instant <= latest)
    }

    fn path(&self, principal: &str, method: &str) -> PathBuf {
        self.folder.join(&sha256_hex(format!("b24-operating-v1\0{principal}\0{method}"))[..32])
    }
}

/// Reads the record; a damaged one counts as none.
fn parse(file: &mut Locked) -> Result<Option<Record>, StoreError> {
    Ok(parse_line(&file.read_all()?))
}

fn parse_line(bytes: &[u8]) -> Option<Record> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    serde_json::from_slice(&bytes[..end]).ok()
}

/// Returns the time from `now` to `instant`; zero when it has passed.
fn until(now: u64, instant: u64) -> Duration {
    Duration::from_nanos(instant.saturating_sub(now))
}

fn after(instant: u64, span: Duration) -> u64 {
    instant.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// Bounds what the portal told: a wrong number must not stop a method for good.
fn span_ns(seconds: f64) -> u64 {
    let seconds = if seconds.is_finite() { seconds.clamp(0.0, WINDOW.as_secs_f64()) } else { 0.0 };
    after(0, Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests;
