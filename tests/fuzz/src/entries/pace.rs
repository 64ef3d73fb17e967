//! Files of the state folder that decide how soon something is sent: the rate
//! limiter, the retry budget, the operating time.

use super::{Read, Stopped, first_line, folder};
use b24::json;
use b24::store::limiter::{Limiter, Pace};
use b24::store::operating::{Operating, OperatingSeen};
use b24::store::retry_budget::RetryBudget;
use std::sync::Arc;
use std::time::Duration;

const PACE: Pace = Pace { rate: 2.0, burst: 10 };

/// What is read on the first line, the file behind it. Files that hold numbers
/// are written with them here, and any other bytes are taken as they are.
pub(crate) fn pace(bytes: &[u8]) -> Read {
    let (name, file) = first_line(bytes);
    match name {
        b"limiter" => limiter(file),
        b"retries" => retries(file),
        b"operating" => operating(file),
        _ => Read::Refused,
    }
}

/// Returns the numbers of a line, when there are so many.
fn numbers<const COUNT: usize>(file: &[u8]) -> Option<[u64; COUNT]> {
    let words = std::str::from_utf8(file).ok()?.split_ascii_whitespace();
    words.map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?.try_into().ok()
}

/// Returns a file of numbers as it is written: with its checksum.
fn sealed(magic: &[u8], length: usize, numbers: &[&[u8]]) -> Vec<u8> {
    let mut file = [&[magic], numbers].concat().concat();
    file.resize(length - 4, 0);
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

fn limiter(file: &[u8]) -> Read {
    let known = numbers::<7>(file).map(|numbers| {
        let long: Vec<[u8; 8]> = numbers[..5].iter().map(|number| number.to_le_bytes()).collect();
        let short: Vec<[u8; 8]> = numbers[5..].iter().map(|number| (number & 0xFFFF_FFFF).to_le_bytes()).collect();
        let boot: [u8; 48] = std::array::from_fn(|at| b"boot".get(at).copied().unwrap_or_default());
        let parts = [&boot[..]].into_iter().chain(long.iter().map(|long| &long[..])).chain(short.iter().map(|short| &short[..4]));
        sealed(b"b24pace1", 128, &parts.collect::<Vec<_>>())
    });
    let path = folder().join("pace.bin");
    let bytes = known.as_deref().unwrap_or(file);
    std::fs::write(&path, bytes).expect("a file");
    let limiter = Limiter::new(path.clone(), PACE, Arc::new(Stopped));
    let now = || std::fs::read(&path).expect("the file can be read");
    let Ok(status) = limiter.status() else {
        assert!(limiter.take(Duration::ZERO).is_err() && limiter.penalise().is_err() && limiter.reset().is_err());
        assert_eq!(now(), bytes, "a file of others is left alone");
        return Read::Refused;
    };
    let status = status.expect("it is on");
    assert!(status.tokens <= if known.is_some() { 10 } else { 1 }, "{status:?}");
    assert!(status.effective_rate <= PACE.rate + 1e-6 && status.effective_rate > 0.19, "{status:?}");
    assert_eq!(status.tokens == 0, status.next_free_ms > 0, "{status:?}");
    let taken = (0..20).take_while(|_| limiter.take(Duration::ZERO).is_ok()).count();
    assert_eq!(taken as u64, status.tokens, "what is shown is what there is");
    limiter.penalise().expect("the file was read");
    let after = limiter.status().expect("what was written can be read").expect("it is on");
    assert_eq!((after.tokens, after.penalties), (0, status.penalties.saturating_add(1)));
    assert!(after.effective_rate <= status.effective_rate + 1e-6, "{after:?} after {status:?}");
    limiter.reset().expect("the file was read");
    let reset = limiter.status().expect("what was written can be read").expect("it is on");
    assert_eq!((reset.tokens, reset.penalties), (1, 0), "not even a reset lets a burst through");
    Read::of(known.is_some())
}

fn retries(file: &[u8]) -> Read {
    let known = numbers::<1>(file).and_then(|[tenths]| u32::try_from(tenths).ok());
    let path = folder().join("retry.bin");
    let bytes = known.map(|tenths| sealed(b"b24retry", 16, &[&tenths.to_le_bytes()]));
    std::fs::write(&path, bytes.as_deref().unwrap_or(file)).expect("a file");
    let budget = RetryBudget::new(path);
    let left = budget.tokens().expect("the file can be read");
    assert!((0.0..=10.0).contains(&left) && known.is_none_or(|tenths| (left * 10.0 - f64::from(tenths.min(100))).abs() < 0.01));
    let spent: f64 = (0..20).take_while(|_| budget.try_spend()).map(|_| 1.0).sum();
    assert!((left.floor() - spent).abs() < 0.01, "{spent} of {left}");
    (0..10).for_each(|_| budget.credit());
    assert!(budget.try_spend() && !budget.try_spend(), "ten successes are a retry");
    Read::of(known.is_some())
}

fn operating(file: &[u8]) -> Read {
    let place = folder();
    std::fs::write(place.join(&json::sha256_hex("b24-operating-v1\0p\0m")[..32]), file).expect("a file");
    let operating = Operating::new(place, Arc::new(Stopped));
    let most = Duration::from_secs(3);
    let before = operating.before("p", "m", most);
    let known = operating.list().expect("the folder can be read");
    assert!(known.len() <= 1 && (!known.is_empty() || before.as_ref().is_ok_and(Duration::is_zero)));
    assert!(before.as_ref().is_ok_and(|wait| *wait <= most) || known[0].blocked_for > most);
    assert!(known.iter().all(|seen| seen.blocked_for.max(seen.reset_in) <= Duration::from_secs(620)), "{known:?}");
    // The portal has the last word.
    operating.record("p", "m", OperatingSeen { operating_s: 470.0, reset_in_s: 60.0 }).expect("the folder can be used");
    assert!(operating.list().expect("what was written can be read")[0].reset_in == Duration::from_secs(60));
    operating.block("p", "m", Some(30.0)).expect("the folder can be used");
    assert!(operating.before("p", "m", most).is_err());
    operating.record("p", "m", OperatingSeen { operating_s: 0.5, reset_in_s: 60.0 }).expect("the folder can be used");
    assert!(operating.list().expect("the folder can be read").is_empty());
    assert_eq!(operating.before("p", "m", most).ok(), Some(Duration::ZERO));
    Read::of(!known.is_empty())
}
