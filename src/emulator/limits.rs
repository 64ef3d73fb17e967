//! The portal's two limits: the leaky bucket and the operating time.

use super::envelope::{OperatingTime, Refusal};
use super::journal::Record;
use super::portal::Turn;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::time::Duration;

/// Life of a minute's operating time, from its first call.
const BUCKET_LIFE_S: i64 = 600;

/// Least operating time of one call.
const FLOOR_S: f64 = 0.1;

/// What the portal limits and how its tokens live.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The leaky bucket; `None` is off.
    pub bucket: Option<Bucket>,
    /// The limit of operating time; `None` is off, and answers carry no
    /// counters.
    pub operating: Option<Operating>,
    /// Life of an access token in seconds.
    pub token_ttl_s: u64,
    /// A used refresh token and its access token stay valid.
    pub lenient_refresh: bool,
    /// Waited before every call is executed.
    pub latency: Duration,
}

/// The leaky bucket: every HTTP request adds one.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    /// What runs out in a second.
    pub rate_per_s: f64,
    /// Above this level a request is refused.
    pub threshold: f64,
}

/// The limit of operating time per credential and method.
#[derive(Debug, Clone, Copy)]
pub struct Operating {
    /// Seconds in ten minutes.
    pub limit_s: f64,
}

impl Limits {
    /// Returns no limits at all.
    #[must_use]
    pub fn none() -> Limits {
        Limits { bucket: None, operating: None, token_ttl_s: 3600, lenient_refresh: false, latency: Duration::ZERO }
    }

    /// Returns the limits of an ordinary cloud plan.
    #[must_use]
    pub fn cloud() -> Limits {
        Limits {
            bucket: Some(Bucket { rate_per_s: 2.0, threshold: 50.0 }),
            operating: Some(Operating { limit_s: 480.0 }),
            ..Limits::none()
        }
    }
}

/// The level of the bucket at a moment.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct BucketLevel {
    level: f64,
    at_ms: i64,
}

/// Operating time that a call used.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Charge {
    credential: String,
    method: String,
    at: i64,
    seconds: f64,
}

/// The counters.
#[derive(Default)]
pub(super) struct LimitState {
    pub(super) bucket: Option<BucketLevel>,
    operating: HashMap<(String, String), Vec<Minute>>,
}

/// Operating time of the calls that began in one minute.
struct Minute {
    first_call: i64,
    seconds: f64,
}

impl LimitState {
    pub(super) fn charge(&mut self, charge: Charge) {
        let minutes = self.operating.entry((charge.credential, charge.method)).or_default();
        minutes.retain(|minute| minute.first_call + BUCKET_LIFE_S > charge.at);
        match minutes.last_mut() {
            Some(last) if last.first_call.div_euclid(60) == charge.at.div_euclid(60) => last.seconds += charge.seconds,
            _ => minutes.push(Minute { first_call: charge.at, seconds: charge.seconds }),
        }
    }

    fn used(&self, credential: &str, method: &str, now: i64) -> OperatingTime {
        let minutes = self.operating.get(&(credential.to_owned(), method.to_owned()));
        let live = minutes.into_iter().flatten().filter(|minute| minute.first_call + BUCKET_LIFE_S > now);
        let (seconds, oldest) = live.fold((0.0, now), |(sum, oldest), minute| (sum + minute.seconds, oldest.min(minute.first_call)));
        OperatingTime { seconds, reset_at: oldest + BUCKET_LIFE_S }
    }
}

/// Puts one HTTP request into the bucket. A refused request was not executed
/// and does not raise the level.
pub(super) fn pass_bucket(turn: &mut Turn<'_>) -> Result<(), Refusal> {
    let Some(bucket) = turn.limits.bucket else { return Ok(()) };
    let now_ms = turn.now.timestamp_millis();
    let level = turn.state.limits.bucket.map_or(0.0, |last| {
        let passed_ms = u32::try_from((now_ms - last.at_ms).max(0)).unwrap_or(u32::MAX);
        (last.level - f64::from(passed_ms) / 1000.0 * bucket.rate_per_s).max(0.0)
    });
    if level + 1.0 > bucket.threshold {
        return Err(Refusal::v2(503, "QUERY_LIMIT_EXCEEDED", "Too many requests"));
    }
    turn.record(Record::Bucket(BucketLevel { level: level + 1.0, at_ms: now_ms }));
    Ok(())
}

/// Refuses a method whose operating time is used up. The call that crosses
/// the limit completes; the next one is refused.
///
/// A batch is counted as the documentation says: the outer call not at all,
/// every inner call under its own method. (Measurements of the JS SDK's team
/// disagree, bitrix24/b24jssdk#539.)
pub(super) fn check_operating(turn: &Turn<'_>, method: &str) -> Result<(), Refusal> {
    let Some(limit) = turn.limits.operating else { return Ok(()) };
    if turn.state.limits.used(&turn.caller.credential, method, turn.now.timestamp()).seconds >= limit.limit_s {
        return Err(Refusal::v2(429, "OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit"));
    }
    Ok(())
}

/// Counts the operating time of a call that ran, and returns the sum.
pub(super) fn charge_operating(turn: &mut Turn<'_>, method: &str, elapsed: Duration) -> Option<OperatingTime> {
    turn.limits.operating?;
    let at = turn.now.timestamp();
    let credential = turn.caller.credential.clone();
    let seconds = elapsed.as_secs_f64().max(FLOOR_S);
    turn.record(Record::Operating(Charge { credential: credential.clone(), method: method.to_owned(), at, seconds }));
    Some(turn.state.limits.used(&credential, method, at))
}
