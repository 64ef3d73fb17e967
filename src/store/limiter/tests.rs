use super::*;
use crate::host::SystemClock;
use chrono::{DateTime, Utc};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A clock that stands still except when somebody sleeps.
struct ManualClock {
    ns: AtomicU64,
    /// By how much every sleep is longer than asked.
    oversleep_ms: AtomicU64,
    boot_id: &'static str,
}

impl ManualClock {
    fn new(boot_id: &'static str) -> Arc<ManualClock> {
        Arc::new(ManualClock { ns: AtomicU64::new(1_000_000_000_000), oversleep_ms: AtomicU64::new(0), boot_id })
    }

    fn advance(&self, duration: Duration) {
        self.sleep(duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn boot_ns(&self) -> u64 {
        self.ns.load(Ordering::SeqCst)
    }

    fn boot_id(&self) -> String {
        self.boot_id.to_owned()
    }

    fn sleep(&self, duration: Duration) {
        let late = Duration::from_millis(self.oversleep_ms.swap(0, Ordering::SeqCst));
        self.ns.fetch_add(u64::try_from((duration + late).as_nanos()).unwrap(), Ordering::SeqCst);
    }
}

const PACE: Pace = Pace { rate: 2.0, burst: 10 };
const MINUTE: Duration = Duration::from_secs(60);

fn limiter(folder: &tempfile::TempDir, clock: &Arc<ManualClock>) -> Limiter {
    Limiter::new(folder.path().join("portal/limiter.bin"), PACE, clock.clone())
}

fn waits(limiter: &Limiter, count: usize) -> Vec<u128> {
    (0..count).map(|_| limiter.take(MINUTE).unwrap().waited().as_millis()).collect()
}

#[test]
fn the_first_call_leaves_at_once_and_the_next_ones_are_spaced() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    assert_eq!(waits(&limiter(&folder, &clock), 3), [0, 500, 500]);
}

#[test]
fn processes_share_the_bucket_and_another_boot_empties_it() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    waits(&limiter(&folder, &clock), 1);
    clock.advance(MINUTE);
    assert_eq!(waits(&limiter(&folder, &clock), 6), [0; 6]);
    assert_eq!(waits(&limiter(&folder, &clock), 6), [0, 0, 0, 0, 500, 500]);
    clock.advance(MINUTE);
    let rebooted = ManualClock::new("b");
    assert_eq!(waits(&limiter(&folder, &rebooted), 2), [0, 500]);
}

#[test]
fn a_damaged_file_is_an_empty_bucket_and_a_foreign_one_is_left_alone() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    let limiter = limiter(&folder, &clock);
    waits(&limiter, 1);
    let path = folder.path().join("portal/limiter.bin");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), bucket::LENGTH);
    for length in 0..bucket::LENGTH {
        clock.advance(MINUTE);
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(waits(&limiter, 2), [0, 500], "cut to {length} bytes");
    }
    clock.advance(MINUTE);
    std::fs::write(&path, [whole.as_slice(), b"more"].concat()).unwrap();
    assert_eq!(waits(&limiter, 11), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 500]);
    std::fs::write(&path, "{\"tokens\": 3.5}").unwrap();
    assert!(matches!(limiter.take(MINUTE), Err(PaceError::Store(StoreError::Unusable { .. }))));
    assert_eq!(std::fs::read(&path).unwrap(), b"{\"tokens\": 3.5}");
}

#[test]
fn too_long_a_wait_is_refused_with_its_length() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    let limiter = limiter(&folder, &clock);
    waits(&limiter, 1);
    let error = limiter.take(Duration::from_millis(499)).unwrap_err();
    assert_eq!(error.code(), Code::RateLimited);
    assert_eq!(error.details()["retry"]["after_ms"], 500);
    assert!(limiter.take(Duration::from_millis(500)).is_ok());
}

#[test]
fn who_wakes_late_takes_a_new_slot() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    let limiter = limiter(&folder, &clock);
    waits(&limiter, 1);
    clock.oversleep_ms.store(251, Ordering::SeqCst);
    assert_eq!(waits(&limiter, 1), [1_000]);
    clock.oversleep_ms.store(250, Ordering::SeqCst);
    assert_eq!(waits(&limiter, 1), [750]);
}

#[test]
fn a_penalty_slows_everybody_and_shows_in_the_status() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), ManualClock::new("a"));
    let limiter = limiter(&folder, &clock);
    let fresh = limiter.status().unwrap().unwrap();
    assert_eq!((fresh.tokens, fresh.next_free_ms, fresh.penalties), (1, 0, 0));
    assert!(!folder.path().join("portal").exists(), "status writes nothing");
    waits(&limiter, 1);
    clock.advance(MINUTE);
    limiter.penalise().unwrap();
    let status = limiter.status().unwrap().unwrap();
    assert_eq!((status.tokens, status.next_free_ms, status.penalties), (0, 1_000, 1));
    assert!((status.effective_rate - 1.6).abs() < 1e-6);
    assert_eq!(waits(&limiter, 2), [1_000, 625]);
    limiter.reset().unwrap();
    let status = limiter.status().unwrap().unwrap();
    assert_eq!((status.tokens, status.penalties), (1, 0));
}

#[test]
fn an_unusable_folder_is_an_error_and_off_needs_none() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("portal"), "a file").unwrap();
    let limiter = limiter(&folder, &ManualClock::new("a"));
    assert_eq!(limiter.take(MINUTE).unwrap_err().code(), Code::LocalState);
    assert_eq!(Limiter::off().take(Duration::ZERO).unwrap().waited(), Duration::ZERO);
    assert_eq!(Limiter::off().status().unwrap(), None);
}

/// Eight owners of separate locks, as eight processes would be.
#[test]
fn eight_at_once_keep_the_bound() {
    const RATE: u64 = 2_000;
    const BURST: u64 = 20;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("limiter.bin");
    let slots = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let limiter = Limiter::new(path.clone(), Pace { rate: 2_000.0, burst: 20 }, Arc::new(SystemClock));
                for _ in 0..200 {
                    let slot = limiter.take(MINUTE).unwrap();
                    let sent = SystemClock.boot_ns();
                    slots.lock().unwrap().push((slot.admitted_ns(), sent));
                }
            });
        }
    });
    let (mut admitted, mut sent): (Vec<u64>, Vec<u64>) = slots.into_inner().unwrap().into_iter().unzip();
    admitted.sort_unstable();
    sent.sort_unstable();
    for (instants, slack_ns) in [(admitted, 0), (sent, 250_000_000)] {
        for first in 0..instants.len() {
            for last in first..instants.len() {
                let window = instants[last] - instants[first] + slack_ns;
                assert!((last - first + 1) as u64 <= BURST + window * RATE / 1_000_000_000);
            }
        }
    }
}
