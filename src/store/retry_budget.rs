//! The retry budget: stops many processes from hammering a portal in trouble.
//!
//! Each portal has ten tokens. A retry spends one, a success gives back a
//! tenth, so that in the long run at most every eleventh request is a retry.
//!
//! A missing or damaged file counts as a full budget: the number of attempts
//! of each call is bounded anyway, and an idle portal must cost nothing. A file
//! that cannot be opened or written gives no retry at all: what cannot be
//! counted is not spent. Nothing is synchronised to disk; a crash loses at most
//! the last change.

use super::locked::{Mode, StoreError, read_if_exists};
use super::open_with_folder;
use std::path::PathBuf;
use std::time::Duration;

/// Tokens are counted in tenths.
const FULL: u32 = 100;
const RETRY: u32 = 10;
const SUCCESS: u32 = 1;

const MAGIC: &[u8; 8] = b"b24retry";
const LENGTH: usize = 16;

/// The lock is held for microseconds; a retry is not worth a longer wait.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// The retry budget of one portal.
#[derive(Debug)]
pub struct RetryBudget {
    path: PathBuf,
}

impl RetryBudget {
    /// Takes the file, which need not be there yet.
    #[must_use]
    pub fn new(path: PathBuf) -> RetryBudget {
        RetryBudget { path }
    }

    /// Pays for one retry; `false` means that there must be none.
    #[must_use = "without a token there must be no retry"]
    pub fn try_spend(&self) -> bool {
        self.change(|tenths| tenths.checked_sub(RETRY)).unwrap_or(false)
    }

    /// Counts a success. A full budget is not written.
    pub fn credit(&self) {
        let full = read_if_exists(&self.path).is_ok_and(|bytes| bytes.is_none_or(|bytes| decode(&bytes) == FULL));
        if !full {
            // A lost tenth of a token is no reason to fail a call that succeeded.
            let _ = self.change(|tenths| Some((tenths + SUCCESS).min(FULL)));
        }
    }

    /// Returns how many retries are left, for `b24 limits`.
    pub fn tokens(&self) -> Result<f64, StoreError> {
        Ok(f64::from(read_if_exists(&self.path)?.map_or(FULL, |bytes| decode(&bytes))) / 10.0)
    }

    /// Returns whether the change was possible and is written.
    fn change(&self, change: impl FnOnce(u32) -> Option<u32>) -> Result<bool, StoreError> {
        let mut file = open_with_folder(&self.path, Mode::Exclusive, LOCK_WAIT)?;
        let Some(tenths) = change(decode(&file.read_all()?)) else { return Ok(false) };
        file.write_at(0, &encode(tenths))?;
        Ok(true)
    }
}

fn encode(tenths: u32) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&tenths.to_le_bytes());
    let sum = crc32c::crc32c(&bytes[..12]);
    bytes[12..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> u32 {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    match (number(8), number(12)) {
        (Some(tenths), Some(sum)) if bytes[..8] == *MAGIC && sum == crc32c::crc32c(&bytes[..12]) => tenths.min(FULL),
        _ => FULL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(budget: &RetryBudget) -> usize {
        (0..20).filter(|_| budget.try_spend()).count()
    }

    #[test]
    fn ten_retries_and_then_one_for_ten_successes() {
        let folder = tempfile::tempdir().unwrap();
        let budget = RetryBudget::new(folder.path().join("portal/retry.bin"));
        assert_eq!(spent(&budget), 10);
        (0..9).for_each(|_| budget.credit());
        assert!(!budget.try_spend());
        budget.credit();
        assert!(budget.try_spend());
        assert!(!budget.try_spend());
    }

    #[test]
    fn a_full_budget_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("retry.bin");
        let budget = RetryBudget::new(path.clone());
        budget.credit();
        assert!(!path.exists());
        assert!(budget.try_spend());
        (0..30).for_each(|_| budget.credit());
        assert!((budget.tokens().unwrap() - 10.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_damaged_file_is_full_and_an_unreachable_one_gives_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("retry.bin");
        let budget = RetryBudget::new(path.clone());
        for damaged in [&b""[..], b"b24retry", b"b24retry\0\0\0\0\0\0\0\0", b"something else altogether"] {
            std::fs::write(&path, damaged).unwrap();
            assert_eq!(spent(&budget), 10);
        }
        let blocked = RetryBudget::new(path.join("retry.bin"));
        blocked.credit();
        assert!(!blocked.try_spend());
        assert!(blocked.tokens().is_err());
    }

    #[test]
    fn eight_at_once_spend_no_token_twice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("retry.bin");
        let total: usize = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| spent(&RetryBudget::new(path.clone())))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).sum()
        });
        assert_eq!(total, 10);
    }
}
