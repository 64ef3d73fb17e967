//! When a failed event is tried again.

use crate::host::Random;

/// Longest pause between two attempts, in milliseconds.
const LONGEST_MS: u64 = 5 * 60 * 1000;

/// Returns the pause after the given number of failed attempts, in
/// milliseconds: the base, doubled each time, up to five minutes, and spread by
/// a fifth so that events that failed together do not come back together.
#[must_use]
pub(super) fn pause_ms(base_ms: u64, failures: u32, random: &dyn Random) -> i64 {
    let doubled = base_ms.saturating_mul(1 << failures.saturating_sub(1).min(30));
    let pause = doubled.min(LONGEST_MS.max(base_ms));
    let mut chance = [0];
    random.fill(&mut chance);
    let spread = pause / 5 * u64::from(chance[0]) / 255;
    i64::try_from(pause - spread).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::SystemRandom;

    #[test]
    fn pauses_double_up_to_five_minutes() {
        for (failures, longest) in [(1, 2_000), (2, 4_000), (3, 8_000), (9, 300_000), (100, 300_000)] {
            let pause = pause_ms(2_000, failures, &SystemRandom);
            assert!(pause <= longest && pause >= longest * 4 / 5, "{failures}: {pause}");
        }
        assert_eq!(pause_ms(0, 5, &SystemRandom), 0);
    }
}
