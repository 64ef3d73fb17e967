//! How many in a second: the generic cell rate algorithm over times that the
//! caller reads from the clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A pace that many connections share.
#[derive(Debug)]
pub(super) struct Pace {
    interval_ns: u64,
    tolerance_ns: u64,
    /// When the next one would be due if none came early.
    due_ns: Mutex<u64>,
}

impl Pace {
    /// Makes a pace; `None` where a rate or burst of 0 means that there is no
    /// limit.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a pace is rounded to nanoseconds and capped")]
    pub(super) fn new(rate_per_s: f64, burst: u32) -> Option<Pace> {
        let interval_s = 1.0 / rate_per_s;
        let is_limited = rate_per_s > 0.0 && interval_s.is_finite() && burst > 0;
        let interval_ns = (interval_s * 1e9) as u64;
        let tolerance_ns = interval_ns.saturating_mul(u64::from(burst.saturating_sub(1)));
        is_limited.then(|| Pace { interval_ns, tolerance_ns, due_ns: Mutex::new(0) })
    }

    /// Takes a turn; the error says how long to wait for one.
    pub(super) fn take(&self, now_ns: u64) -> Result<(), Duration> {
        let mut due = self.due_ns.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = due.saturating_sub(now_ns);
        if ahead > self.tolerance_ns {
            return Err(Duration::from_nanos(ahead - self.tolerance_ns));
        }
        *due = (*due).max(now_ns).saturating_add(self.interval_ns);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let pace = Pace::new(2.0, 3).unwrap();
        let start = 5_000_000_000;
        for _ in 0..3 {
            assert_eq!(pace.take(start), Ok(()));
        }
        assert_eq!(pace.take(start), Err(Duration::from_millis(500)));
        assert_eq!(pace.take(start + 499_000_000), Err(Duration::from_millis(1)));
        assert_eq!(pace.take(start + 500_000_000), Ok(()));
        assert!(pace.take(start + 500_000_000).is_err());
    }

    #[test]
    fn nothing_means_no_limit() {
        for (rate, burst) in [(0.0, 5), (5.0, 0), (-1.0, 5), (f64::NAN, 5)] {
            assert!(Pace::new(rate, burst).is_none(), "{rate} {burst}");
        }
    }
}
