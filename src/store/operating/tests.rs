use super::*;
use crate::error::{Code, Coded as _};
use chrono::{DateTime, Utc};
use std::sync::atomic::{AtomicU64, Ordering};

struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1_000_000_000, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
    }

    fn boot_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn sleep(&self, _: Duration) {}
}

const WHO: &str = "webhook:1";
const METHOD: &str = "crm.deal.list";
const MINUTE: Duration = Duration::from_secs(60);

fn world() -> (tempfile::TempDir, Arc<ManualClock>, Operating) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock(AtomicU64::new(5_000_000_000_000)));
    let operating = Operating::new(folder.path().join("operating"), clock.clone());
    (folder, clock, operating)
}

fn seen(operating_s: f64, reset_in_s: f64) -> OperatingSeen {
    OperatingSeen { operating_s, reset_in_s }
}

fn delay_ms(operating: &Operating, method: &str) -> u128 {
    operating.before(WHO, method, MINUTE).unwrap().as_millis()
}

#[test]
fn ordinary_calls_write_nothing() {
    let (folder, _, operating) = world();
    operating.record(WHO, METHOD, seen(239.9, 300.0)).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 0);
    assert_eq!(operating.list().unwrap(), []);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_heavy_method_is_slowed_and_others_are_not() {
    let (_folder, clock, operating) = world();
    operating.record(WHO, METHOD, seen(383.0, 300.0)).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 0);
    operating.record(WHO, METHOD, seen(384.0, 300.0)).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 3_000);
    assert_eq!(operating.before(WHO, METHOD, Duration::from_secs(1)).unwrap(), Duration::from_secs(1));
    assert_eq!(delay_ms(&operating, "crm.deal.get"), 0);
    assert_eq!(operating.before("webhook:2", METHOD, MINUTE).unwrap(), Duration::ZERO);
    clock.advance(300);
    assert_eq!(delay_ms(&operating, METHOD), 0);
}

#[test]
fn a_method_at_its_limit_rests_until_the_reset() {
    let (_folder, clock, operating) = world();
    operating.record(WHO, METHOD, seen(475.0, 100.0)).unwrap();
    let error = operating.before(WHO, METHOD, MINUTE).unwrap_err();
    assert_eq!(error.code(), Code::OperatingLimited);
    assert_eq!(error.details()["retry"]["after_ms"], 101_000);
    clock.advance(50);
    assert_eq!(delay_ms(&operating, METHOD), 51_000);
    clock.advance(51);
    assert_eq!(delay_ms(&operating, METHOD), 0);
}

#[test]
fn a_429_blocks_until_the_last_known_reset() {
    let (_folder, clock, operating) = world();
    operating.block(WHO, METHOD, None).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 10_000);
    operating.record(WHO, METHOD, seen(300.0, 40.0)).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 10_000, "a success does not lift a block");
    operating.block(WHO, METHOD, None).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 41_000);
    operating.block(WHO, METHOD, Some(1e300)).unwrap();
    clock.advance(601);
    assert_eq!(delay_ms(&operating, METHOD), 0, "no block outlives the window");
}

#[test]
fn a_light_use_clears_the_record() {
    let (folder, _, operating) = world();
    operating.record(WHO, METHOD, seen(400.0, 200.0)).unwrap();
    operating.record(WHO, "batch", seen(470.0, 200.0)).unwrap();
    let listed: Vec<_> = operating.list().unwrap().into_iter().map(|used| used.method).collect();
    assert_eq!(listed, ["batch", METHOD]);
    operating.record(WHO, METHOD, seen(1.0, 200.0)).unwrap();
    assert_eq!(std::fs::read_dir(folder.path().join("operating")).unwrap().count(), 1);
}

#[test]
fn a_damaged_record_counts_as_none_and_a_shorter_one_ends_at_its_line() {
    let (folder, _, operating) = world();
    operating.record(WHO, METHOD, seen(400.123_456_789, 200.0)).unwrap();
    operating.record(WHO, METHOD, seen(400.0, 200.0)).unwrap();
    assert_eq!(delay_ms(&operating, METHOD), 2_000);
    let path = std::fs::read_dir(folder.path().join("operating")).unwrap().next().unwrap().unwrap().path();
    for damaged in ["", "{", "{}\n", "\0\0\0\0"] {
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(delay_ms(&operating, METHOD), 0);
        operating.block(WHO, METHOD, Some(f64::NAN)).unwrap();
        assert_eq!(delay_ms(&operating, METHOD), 10_000);
    }
    assert!(operating.record(WHO, METHOD, seen(f64::NAN, 1.0)).is_ok());
}

/// No portal stops a method for longer than its window.
#[test]
fn a_record_of_a_far_future_counts_as_none() {
    let (folder, _, operating) = world();
    for (number, far) in [("seen_ns", u64::MAX), ("reset_ns", 5_700_000_000_000), ("blocked_until_ns", 50_000_000_000_000)] {
        operating.record(WHO, METHOD, seen(470.0, 600.0)).unwrap();
        let path = std::fs::read_dir(folder.path().join("operating")).unwrap().next().unwrap().unwrap().path();
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(operating.before(WHO, METHOD, Duration::ZERO).is_ok_and(|wait| wait.is_zero()) && !operating.list().unwrap().is_empty());
        record[number] = far.into();
        std::fs::write(&path, format!("{record}\n")).unwrap();
        assert_eq!((delay_ms(&operating, METHOD), operating.list().unwrap()), (0, vec![]), "{number}");
        operating.block(WHO, METHOD, None).unwrap();
        assert_eq!(operating.list().unwrap()[0].blocked_for, UNKNOWN_RESET, "{number}");
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn an_unreachable_folder_is_an_error() {
    let (folder, _, operating) = world();
    std::fs::write(folder.path().join("operating"), "a file").unwrap();
    assert!(operating.before(WHO, METHOD, MINUTE).is_err());
    assert!(operating.block(WHO, METHOD, None).is_err());
    assert!(operating.list().is_err());
}
