//! How many in a second: the generic cell rate algorithm over times that the
//! caller reads from the clock.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A pace that many connections share.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    tolerance: Duration,
    /// When the next one would be due if none came early, on the caller's
    /// clock.
    due: Mutex<Duration>,
}

impl Pace {
    /// Makes a pace; `None` where a rate or burst of 0 means that there is no
    /// limit.
    pub(super) fn new(rate_per_s: f64, burst: u32) -> Option<Pace> {
        let interval_s = 1.0 / rate_per_s;
        let is_limited = rate_per_s > 0.0 && interval_s.is_finite() && burst > 0;
        let interval = Duration::try_from_secs_f64(interval_s).ok().filter(|_| is_limited)?;
        let tolerance = interval.saturating_mul(burst.saturating_sub(1));
        Some(Pace { interval, tolerance, due: Mutex::new(Duration::ZERO) })
    }

    /// Takes a turn; the error says how long to wait for one.
    pub(super) fn take(&self, now_ns: u64) -> Result<(), Duration> {
        let now = Duration::from_nanos(now_ns);
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let ahead = due.saturating_sub(now);
        if ahead > self.tolerance {
            return Err(ahead.saturating_sub(self.tolerance));
        }
        *due = (*due).max(now).saturating_add(self.interval);
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
