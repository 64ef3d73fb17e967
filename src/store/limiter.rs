//! The rate limiter that all processes of a machine share for one portal.
//!
//! The portal counts requests per source address, so every process that talks
//! to it draws from one bucket: 128 bytes in a file, rewritten in place under
//! its lock. No synchronisation is needed: after a loss of power the boot id
//! has changed, and an unknown identity starts with an empty bucket.
//!
//! Protocol of [`Limiter::take`]:
//! 1. Lock the file, read the clock, reserve the next slot at instant `a`,
//!    write, unlock. Whoever locks first goes first and is never overtaken.
//! 2. Sleep until `a` without the lock. Who is killed here wastes the slot;
//!    slots are never given back, which errs on the safe side.
//! 3. Who wakes later than `a` + 250 ms has forfeited the slot and starts at 1:
//!    late sends would bunch up otherwise.
//!
//! Promise: in any window of length `t` at most `burst + rate·t` requests are
//! admitted, and `burst + rate·(t + 250 ms)` leave. It holds across processes,
//! kills and changes of the settings (with the largest of them), not when
//! somebody deletes the file while others wait for their slots.

mod bucket;

use crate::error::{Code, Coded};
use crate::host::Clock;
use crate::store::locked::{Locked, Mode, StoreError, read_if_exists};
use bucket::{Bucket, Reservation, Shape};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How late a slot may still be used.
const USE_BY: Duration = Duration::from_millis(250);

/// How long to wait for the lock, whatever the caller's patience for a slot:
/// it is held for microseconds, and a busy moment is no reason to fail.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How fast requests may leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Requests per second in the long run.
    pub rate: f64,
    /// Requests that may leave at once after a rest.
    pub burst: u32,
}

/// Why a request may not leave now.
#[derive(Debug, thiserror::Error)]
pub enum PaceError {
    /// The next free slot comes too late.
    #[error("the rate limit has no slot within the allowed time; the next one is free in {} ms", after.as_millis())]
    WouldWait {
        /// Until the next free slot.
        after: Duration,
    },
    /// The method used up its operating time.
    #[error("`{method}` used up its operating time on the portal; it is free again in {} s", whole_seconds(*after))]
    OperatingLimited {
        /// The method.
        method: String,
        /// Until the portal releases the method.
        after: Duration,
    },
    /// The state cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Coded for PaceError {
    fn code(&self) -> Code {
        match self {
            PaceError::WouldWait { .. } => Code::RateLimited,
            PaceError::OperatingLimited { .. } => Code::OperatingLimited,
            PaceError::Store(error) => error.code(),
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            PaceError::WouldWait { .. } => Some("Try again later or raise --max-wait; b24 limits shows who waits".to_owned()),
            PaceError::OperatingLimited { .. } => {
                Some("Other methods go on working; ask for less per call, or try again after that time".to_owned())
            }
            PaceError::Store(error) => error.hint(),
        }
    }

    fn details(&self) -> Map<String, Value> {
        match self {
            PaceError::WouldWait { after } | PaceError::OperatingLimited { after, .. } => {
                let retry = json!({"safe": true, "after_ms": whole_ms(*after)});
                Map::from_iter([("retry".to_owned(), retry)])
            }
            PaceError::Store(error) => error.details(),
        }
    }
}

/// The right to send one request now. Made by [`Limiter::take`] alone.
#[must_use = "send the request with it; a slot that is dropped is lost"]
#[derive(Debug)]
pub struct Slot {
    admitted_ns: u64,
    waited: Duration,
}

impl Slot {
    /// Returns how long the request was held back.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Returns the instant of the boot clock for which the request was
    /// admitted; 0 when the limiter is off.
    #[must_use]
    pub fn admitted_ns(&self) -> u64 {
        self.admitted_ns
    }
}

/// What `b24 limits` shows.
#[derive(Debug, Clone, PartialEq)]
pub struct LimiterStatus {
    /// Requests that could leave at once.
    pub tokens: u64,
    /// The configured requests per second.
    pub rate: f64,
    /// The configured burst.
    pub burst: u32,
    /// The requests per second that penalties leave.
    pub effective_rate: f64,
    /// Limit errors since the machine started.
    pub penalties: u64,
    /// How long the next request would wait.
    pub next_free_ms: u64,
}

/// The rate limiter of one portal.
pub struct Limiter {
    shared: Option<Shared>,
}

struct Shared {
    path: PathBuf,
    pace: Pace,
    shape: Shape,
    clock: Arc<dyn Clock>,
    boot_id: String,
}

impl Limiter {
    /// Takes the file, which need not be there yet, and the settings of this
    /// process.
    #[must_use]
    pub fn new(path: PathBuf, pace: Pace, clock: Arc<dyn Clock>) -> Limiter {
        let boot_id = clock.boot_id();
        Limiter { shared: Some(Shared { path, pace, shape: Shape::new(pace), clock, boot_id }) }
    }

    /// Returns a limiter that admits every request at once.
    #[must_use]
    pub fn off() -> Limiter {
        Limiter { shared: None }
    }

    /// Waits for the next slot.
    ///
    /// # Errors
    /// [`PaceError::WouldWait`] at once, without taking the slot, when it comes
    /// later than `max_wait`.
    pub fn take(&self, max_wait: Duration) -> Result<Slot, PaceError> {
        let Some(shared) = &self.shared else {
            return Ok(Slot { admitted_ns: 0, waited: Duration::ZERO });
        };
        let start = shared.clock.boot_ns();
        loop {
            let waited = elapsed(start, shared.clock.boot_ns());
            let admitted_ns = shared.reserve(max_wait.saturating_sub(waited))?;
            let woken = shared.sleep_until(admitted_ns);
            if elapsed(admitted_ns, woken) <= USE_BY {
                return Ok(Slot { admitted_ns, waited: elapsed(start, woken) });
            }
        }
    }

    /// Slows down every process after the portal answered
    /// `QUERY_LIMIT_EXCEEDED`.
    pub fn penalise(&self) -> Result<(), PaceError> {
        self.shared.as_ref().map_or(Ok(()), |shared| shared.change(|bucket, now| bucket.penalise(now, shared.shape)))
    }

    /// Returns the state without changing it; `None` when the limiter is off.
    pub fn status(&self) -> Result<Option<LimiterStatus>, PaceError> {
        self.shared.as_ref().map(Shared::status).transpose()
    }

    /// Forgets penalties and reservations. The bucket starts empty, so that
    /// not even a reset lets a burst through.
    pub fn reset(&self) -> Result<(), PaceError> {
        self.shared.as_ref().map_or(Ok(()), |shared| shared.change(|bucket, now| *bucket = Bucket::unknown(now, shared.shape)))
    }
}

impl Shared {
    fn reserve(&self, max_wait: Duration) -> Result<u64, PaceError> {
        let max_wait = u64::try_from(max_wait.as_nanos()).unwrap_or(u64::MAX);
        let mut file = self.open(Mode::Exclusive)?;
        // The clock is read under the lock: instants must not run backwards
        // in the order of the reservations.
        let now = self.clock.boot_ns();
        let mut bucket = self.read(&mut file, now)?;
        match bucket.reserve(now, self.shape, max_wait) {
            Reservation::Admitted { at } => {
                file.write_at(0, &bucket.encode(&self.boot_id))?;
                Ok(at)
            }
            Reservation::Wait { after } => Err(PaceError::WouldWait { after: Duration::from_nanos(after) }),
        }
    }

    /// Returns the instant of waking, which is never before `instant`.
    fn sleep_until(&self, instant: u64) -> u64 {
        loop {
            let now = self.clock.boot_ns();
            if now >= instant {
                return now;
            }
            self.clock.sleep(elapsed(now, instant));
        }
    }

    fn change(&self, change: impl FnOnce(&mut Bucket, u64)) -> Result<(), PaceError> {
        let mut file = self.open(Mode::Exclusive)?;
        let now = self.clock.boot_ns();
        let mut bucket = self.read(&mut file, now)?;
        change(&mut bucket, now);
        Ok(file.write_at(0, &bucket.encode(&self.boot_id))?)
    }

    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    fn status(&self) -> Result<LimiterStatus, PaceError> {
        let mut file = match read_if_exists(&self.path)? {
            Some(_) => Some(self.open(Mode::Shared)?),
            None => None,
        };
        let now = self.clock.boot_ns();
        let mut bucket = match &mut file {
            Some(file) => self.read(file, now)?,
            None => Bucket::unknown(now, self.shape),
        };
        bucket.recover(now);
        Ok(LimiterStatus {
            tokens: bucket.tokens(now, self.shape),
            rate: self.pace.rate,
            burst: self.pace.burst,
            effective_rate: 1e9 / bucket.effective_period(self.shape) as f64,
            penalties: bucket.penalties,
            next_free_ms: whole_ms(Duration::from_nanos(bucket.wait(now, self.shape))),
        })
    }

    fn open(&self, mode: Mode) -> Result<Locked, StoreError> {
        super::open_with_folder(&self.path, mode, LOCK_WAIT)
    }

    fn read(&self, file: &mut Locked, now: u64) -> Result<Bucket, StoreError> {
        let bytes = file.read_all()?;
        if bucket::is_foreign(&bytes) {
            return Err(StoreError::unusable(&self.path, "holds something else than the state of the rate limiter"));
        }
        Ok(Bucket::decode(&bytes, &self.boot_id).unwrap_or_else(|| Bucket::unknown(now, self.shape)))
    }
}

fn elapsed(from_ns: u64, to_ns: u64) -> Duration {
    Duration::from_nanos(to_ns.saturating_sub(from_ns))
}

/// Rounds up, so that who waits that long does not come too early.
fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn whole_seconds(duration: Duration) -> u64 {
    whole_ms(duration).div_ceil(1_000)
}

#[cfg(test)]
mod tests;
