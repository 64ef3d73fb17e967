//! Whether and when an attempt is repeated: pure, so that every row of the
//! table can be tested.

use super::judge::{Obstacle, Verdict};
use crate::host::Random;
use std::time::Duration;

/// Base of the growing delay.
const BASE: Duration = Duration::from_millis(500);

/// Longest single delay.
const LONGEST: Duration = Duration::from_secs(20);

/// What came of one attempt, as far as repeating matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The portal answered.
    Judged(Verdict),
    /// No byte left.
    NotSent(String),
    /// The answer was lost.
    Lost(String),
    /// The answer is larger than what is taken.
    TooLarge(String),
}

/// What to do after one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It has an answer: success or refusal.
    Finish,
    /// Again after the growing delay.
    Again,
    /// Again after the limiter's penalty.
    AgainAfterLimit,
    /// Again when the method's operating time is freed.
    AgainAfterOperating,
    /// Refresh the token, then again, once.
    Refresh,
    /// It surely did not run and repeating does not help.
    Stop,
    /// It may have run, and it writes: never again.
    Unknown(String),
}

/// Decides from what happened and whether the call writes.
#[must_use]
pub fn next(ended: &Ended, writes: bool) -> Next {
    match ended {
        Ended::Judged(Verdict::Success | Verdict::Refused(_)) => Next::Finish,
        Ended::Judged(Verdict::NotExecuted(obstacle)) => match obstacle {
            Obstacle::QueryLimit => Next::AgainAfterLimit,
            Obstacle::OperatingLimit => Next::AgainAfterOperating,
            Obstacle::ExpiredToken => Next::Refresh,
            Obstacle::Moved(_) | Obstacle::Auth(_) | Obstacle::MethodNotFound(_) | Obstacle::Overload(_) => Next::Stop,
        },
        Ended::Judged(Verdict::Maybe(why)) | Ended::Lost(why) | Ended::TooLarge(why) if writes => Next::Unknown(why.clone()),
        // It would be as large again.
        Ended::TooLarge(_) => Next::Stop,
        Ended::Judged(Verdict::Maybe(_)) | Ended::Lost(_) | Ended::NotSent(_) => Next::Again,
    }
}

/// Returns a random delay below the growing bound (full jitter). `attempt`
/// counts from 1; a wait that the server asked for is a lower bound.
#[must_use]
pub fn delay(attempt: u32, asked: Option<Duration>, random: &dyn Random) -> Duration {
    let bound = BASE.saturating_mul(1 << attempt.saturating_sub(1).min(10)).min(LONGEST);
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let share = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    bound.mul_f64(share).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;

    #[test]
    fn a_write_that_may_have_run_is_never_repeated() {
        for ended in [Ended::Lost("x".to_owned()), Ended::Judged(Verdict::Maybe("x".to_owned()))] {
            assert_eq!(next(&ended, true), Next::Unknown("x".to_owned()));
            assert_eq!(next(&ended, false), Next::Again);
        }
        assert_eq!(next(&Ended::TooLarge("x".to_owned()), true), Next::Unknown("x".to_owned()));
        assert_eq!(next(&Ended::TooLarge("x".to_owned()), false), Next::Stop);
        assert_eq!(next(&Ended::NotSent("x".to_owned()), true), Next::Again);
        assert_eq!(next(&Ended::Judged(Verdict::NotExecuted(Obstacle::QueryLimit)), true), Next::AgainAfterLimit);
    }

    #[test]
    fn delays_grow_to_a_bound_and_respect_the_server() {
        for attempt in 1..40 {
            assert!(delay(attempt, None, &SystemRandom) <= LONGEST);
        }
        assert!(delay(1, None, &SystemRandom) <= BASE);
        assert!(delay(1, Some(Duration::from_secs(3)), &SystemRandom) >= Duration::from_secs(3));
    }
}
