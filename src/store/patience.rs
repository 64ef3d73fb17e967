//! How long one call may still wait, for anything but an answer.
//!
//! A call has one purse of patience, `--max-wait`, and everything that waits
//! draws from it: locks of state files, slots of the rate limit, operating
//! time, pauses before another attempt. What is not bounded by its caller is
//! bounded here, because [`super::locked`] asks before it waits. So the longest
//! that a call can take is `--max-wait`, and `--timeout` for each request: its
//! own attempts and the refresh of a token. Two small things are added:
//!
//! * A lock is tried for [`MOMENT`] even when nothing is left: most are held
//!   for less, and to fail on such a one would help nobody.
//! * What became of a call that was sent is recorded with up to
//!   [`LONGEST_RECORD`] more: to give up there would leave it unrecorded.
//!
//! The purse belongs to the thread that works on the call. A thread without one
//! (of a server, of a worker's engine) waits as its caller says.

use crate::host::{Clock, SystemClock};
use std::cell::Cell;
use std::time::Duration;

/// How long a lock is tried when the patience is used up.
pub const MOMENT: Duration = Duration::from_millis(250);

/// How much longer the record of an outcome may wait, unless the whole patience
/// is shorter.
pub const LONGEST_RECORD: Duration = Duration::from_secs(5);

thread_local! {
    static LEFT: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// A call that is under way.
#[must_use = "the purse is open as long as this lives"]
#[derive(Debug)]
pub struct Scope {
    /// A call that another one makes draws from the purse of that.
    is_outermost: bool,
}

/// Opens a purse.
pub fn begin(most: Duration) -> Scope {
    let is_outermost = LEFT.get().is_none();
    if is_outermost {
        LEFT.set(Some(most));
    }
    Scope { is_outermost }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if self.is_outermost {
            LEFT.set(None);
        }
    }
}

/// Returns how much of a wait is still allowed.
#[must_use]
pub fn bound(wait: Duration) -> Duration {
    LEFT.get().map_or(wait, |left| wait.min(left))
}

/// Takes from the purse what was waited.
pub fn spend(waited: Duration) {
    LEFT.set(LEFT.get().map(|left| left.saturating_sub(waited)));
}

/// Adds what the record of an outcome may take.
pub fn allow_recording(most: Duration) {
    LEFT.set(LEFT.get().map(|left| left.max(most.min(LONGEST_RECORD))));
}

/// Waits for a lock: for what is left, and a moment at least, but never longer
/// than the caller wants. What it takes is spent.
pub fn waiting_for_lock<T>(wait: Duration, lock: impl FnOnce(Duration) -> T) -> T {
    let start = SystemClock.boot_ns();
    let result = lock(bound(wait).max(MOMENT.min(wait)));
    spend(Duration::from_nanos(SystemClock.boot_ns().saturating_sub(start)));
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::locked::{Locked, Mode, StoreError};

    #[test]
    fn all_waits_of_a_call_draw_from_one_purse() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a", "b", "c"].map(|name| folder.path().join(name));
        let held = paths.each_ref().map(|path| Locked::open(path, Mode::Exclusive, Duration::ZERO).unwrap());
        let scope = begin(Duration::from_millis(300));
        for path in &paths {
            // Without the purse each of them would wait for an hour.
            let busy = Locked::open(path, Mode::Exclusive, Duration::from_secs(3600));
            assert!(matches!(busy, Err(StoreError::Busy(_))));
            assert_eq!(bound(Duration::MAX), Duration::ZERO);
        }
        {
            let _inner = begin(Duration::from_secs(3600));
            assert_eq!(bound(Duration::MAX), Duration::ZERO, "an inner call has no purse of its own");
        }
        allow_recording(Duration::from_secs(1));
        assert_eq!(bound(Duration::MAX), Duration::from_secs(1));
        drop(scope);
        assert_eq!(bound(Duration::MAX), Duration::MAX);
        drop(held);
    }
}
