//! The arithmetic of the rate limiter and the 128 bytes that hold its state.
//!
//! Nothing here reads a clock or a file: every function takes the present
//! instant. All instants and spans are nanoseconds of the boot clock, and every
//! sum saturates, so that no clock and no setting can overflow.

use super::Pace;

/// How many bytes the state takes in the file.
pub(super) const LENGTH: usize = 128;

const MAGIC: &[u8; 8] = b"b24pace1";
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;

/// The full rate in parts per million.
const FULL: u32 = 1_000_000;

/// Penalties do not push the effective rate below one request in this time.
const SLOWEST_PERIOD: u64 = 5 * SECOND;

/// The longest pause after one penalty.
const LONGEST_PAUSE: u64 = 30 * SECOND;

/// A [`Pace`] in integers: one request per `period`, and a tolerance of `tau`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) period: u64,
    pub(super) tau: u64,
}

impl Shape {
    /// Rounds the period up: the limiter may be a nanosecond too slow, never
    /// too fast. A rate that is no positive number counts as the slowest one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is within 1e3 and 1e12")]
    pub(super) fn new(pace: Pace) -> Shape {
        let rate = if pace.rate.is_nan() { 0.0 } else { pace.rate };
        let period = (1e9 / rate.clamp(0.001, 1e6)).ceil() as u64;
        Shape { period, tau: u64::from(pace.burst.saturating_sub(1)).saturating_mul(period) }
    }
}

/// What a request for a slot got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reservation {
    /// The slot is taken; the request may leave at this instant.
    Admitted { at: u64 },
    /// The slot would come too late; nothing was taken.
    Wait { after: u64 },
}

/// The state of one bucket.
///
/// Invariant that carries the bound: `tat` never falls while the bucket is in
/// use, and `tau` never grows before the bucket has run empty (`tat <= now`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// The theoretical arrival time of GCRA: when the bucket will be empty.
    tat: u64,
    /// The tolerance in force: the smallest of all settings that used the
    /// bucket since it was last empty. With the largest one, two processes
    /// with different settings could spend both bursts.
    tau: u64,
    /// Since when no limit error was seen; the pause after one does not count.
    clean_since: u64,
    /// Until when a limit error belongs to a request that was admitted before
    /// the last penalty.
    pause_until: u64,
    /// How many limit errors were reported.
    pub(super) penalties: u64,
    /// The effective rate in parts per million of the configured one.
    factor: u32,
    /// Penalties in a row; the exponent of the next pause.
    streak: u32,
}

impl Bucket {
    /// Returns the bucket for when nothing is known: one request may leave at
    /// once, as if the burst had just been used up.
    pub(super) fn unknown(now: u64, shape: Shape) -> Bucket {
        let tat = now.saturating_add(shape.tau);
        Bucket { tat, tau: shape.tau, clean_since: now, pause_until: now, penalties: 0, factor: FULL, streak: 0 }
    }

    /// Takes the next slot, unless it comes later than `max_wait` from now.
    pub(super) fn reserve(&mut self, now: u64, shape: Shape, max_wait: u64) -> Reservation {
        self.recover(now);
        let tau = self.tolerance(now, shape);
        let base = self.tat.max(now);
        let at = now.max(base.saturating_sub(tau));
        if at - now > max_wait {
            return Reservation::Wait { after: at - now };
        }
        self.tat = base.saturating_add(self.effective_period(shape));
        self.tau = tau;
        Reservation::Admitted { at }
    }

    /// Slows down after the portal refused a request for its rate.
    ///
    /// An answer that comes during the pause belongs to a request that was
    /// admitted before it; it says nothing new and is only counted. Otherwise
    /// one burst of refusals would slow the whole machine to a crawl.
    pub(super) fn penalise(&mut self, now: u64, shape: Shape) {
        self.recover(now);
        self.penalties = self.penalties.saturating_add(1);
        if now < self.pause_until {
            return;
        }
        let pause = pause(shape.period, self.streak);
        let tau = self.tolerance(now, shape);
        self.tat = self.tat.max(now.saturating_add(tau).saturating_add(pause));
        self.tau = tau;
        self.pause_until = now.saturating_add(pause);
        self.clean_since = self.pause_until;
        self.streak = self.streak.saturating_add(1);
        self.factor = (self.factor * 8 / 10).max(slowest_factor(shape.period));
    }

    /// Gives back a tenth of the rate for each clean minute.
    pub(super) fn recover(&mut self, now: u64) {
        while (self.factor < FULL || self.streak > 0) && now.saturating_sub(self.clean_since) >= MINUTE {
            self.factor = u32::try_from(u64::from(self.factor) * 11 / 10).unwrap_or(FULL).clamp(1, FULL);
            self.streak = 0;
            self.clean_since = self.clean_since.saturating_add(MINUTE);
        }
    }

    /// Returns the time between two requests, penalties included. `tau` keeps
    /// its configured value: were it to grow with the period, the bound would
    /// not hold.
    pub(super) fn effective_period(&self, shape: Shape) -> u64 {
        let slowed = u128::from(shape.period) * u128::from(FULL) / u128::from(self.factor.max(1));
        u64::try_from(slowed).unwrap_or(u64::MAX).min(SLOWEST_PERIOD.max(shape.period))
    }

    /// Returns how many requests could leave at this instant.
    pub(super) fn tokens(&self, now: u64, shape: Shape) -> u64 {
        let limit = now.saturating_add(self.tolerance(now, shape));
        match limit.checked_sub(self.tat.max(now)) {
            Some(room) => room / self.effective_period(shape) + 1,
            None => 0,
        }
    }

    /// Returns how long the next request would have to wait.
    pub(super) fn wait(&self, now: u64, shape: Shape) -> u64 {
        self.tat.max(now).saturating_sub(self.tolerance(now, shape)).saturating_sub(now)
    }

    fn tolerance(&self, now: u64, shape: Shape) -> u64 {
        if self.tat <= now { shape.tau } else { self.tau.min(shape.tau) }
    }

    /// Writes the state down. The boot id is part of it, because instants of
    /// two runs of the machine cannot be compared.
    pub(super) fn encode(&self, boot_id: &str) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..56].copy_from_slice(&identity(boot_id));
        let numbers = [self.tat, self.tau, self.clean_since, self.pause_until, self.penalties];
        for (place, number) in bytes[56..96].chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes[96..100].copy_from_slice(&self.factor.to_le_bytes());
        bytes[100..104].copy_from_slice(&self.streak.to_le_bytes());
        let sum = crc32c::crc32c(&bytes[..LENGTH - 4]);
        bytes[LENGTH - 4..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads the state; `None` when it is missing, damaged or of another run
    /// of the machine. Bytes behind the first 128 do not matter.
    pub(super) fn decode(bytes: &[u8], boot_id: &str) -> Option<Bucket> {
        let bytes: &[u8; LENGTH] = bytes.first_chunk()?;
        let sum = u32::from_le_bytes(*bytes.last_chunk()?);
        if sum != crc32c::crc32c(&bytes[..LENGTH - 4]) || bytes[..8] != *MAGIC || bytes[8..56] != identity(boot_id) {
            return None;
        }
        let long = |at: usize| bytes[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let short = |at: usize| bytes[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        Some(Bucket {
            tat: long(56)?,
            tau: long(64)?,
            clean_since: long(72)?,
            pause_until: long(80)?,
            penalties: long(88)?,
            factor: short(96)?.clamp(1, FULL),
            streak: short(100)?,
        })
    }
}

/// Returns whether the bytes belong to another program. A damaged state of our
/// own is made anew; somebody else's file is not overwritten.
pub(super) fn is_foreign(bytes: &[u8]) -> bool {
    let start = bytes.len().min(MAGIC.len());
    bytes[..start] != MAGIC[..start] && (bytes.len() > LENGTH || bytes.first() == Some(&b'{'))
}

fn identity(boot_id: &str) -> [u8; 48] {
    let mut identity = [0; 48];
    for (place, byte) in identity.iter_mut().zip(boot_id.bytes()) {
        *place = byte;
    }
    identity
}

/// Returns the pause after the `streak`-th penalty in a row.
fn pause(period: u64, streak: u32) -> u64 {
    let mut pause = period.max(SECOND);
    for _ in 0..streak.min(16) {
        pause = (pause + pause / 2).min(LONGEST_PAUSE);
    }
    pause.min(LONGEST_PAUSE)
}

fn slowest_factor(period: u64) -> u32 {
    let factor = u128::from(period) * u128::from(FULL) / u128::from(SLOWEST_PERIOD);
    u32::try_from(factor).unwrap_or(FULL).clamp(1, FULL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shape(rate: f64, burst: u32) -> Shape {
        Shape::new(Pace { rate, burst })
    }

    fn admitted(bucket: &mut Bucket, now: u64, shape: Shape) -> u64 {
        match bucket.reserve(now, shape, u64::MAX) {
            Reservation::Admitted { at } => at,
            Reservation::Wait { .. } => unreachable!("every wait is accepted"),
        }
    }

    /// Fails when more than `burst + rate * t` instants lie in a window.
    fn check_bound(instants: &[u64], period: u64, burst: u64) {
        for first in 0..instants.len() {
            for last in first..instants.len() {
                let window = instants[last] - instants[first];
                let count = (last - first + 1) as u64;
                // `burst` requests fit in no time at all, each further one needs a period.
                assert!(count <= burst + window / period, "{count} in {window} ns");
            }
        }
    }

    #[test]
    fn an_unknown_bucket_admits_one_and_then_spaces() {
        let shape = shape(2.0, 10);
        let mut bucket = Bucket::unknown(7 * SECOND, shape);
        let instants: Vec<u64> = (0..4).map(|_| admitted(&mut bucket, 7 * SECOND, shape)).collect();
        assert_eq!(instants, [7 * SECOND, 7 * SECOND + SECOND / 2, 8 * SECOND, 8 * SECOND + SECOND / 2]);
    }

    #[test]
    fn a_rested_bucket_gives_its_burst() {
        let shape = shape(2.0, 10);
        let mut bucket = Bucket::unknown(0, shape);
        let now = 60 * SECOND;
        assert_eq!(bucket.tokens(now, shape), 10);
        let at_once = (0..30).filter(|_| admitted(&mut bucket, now, shape) == now).count();
        assert_eq!(at_once, 10);
        assert_eq!(bucket.tokens(now, shape), 0);
    }

    #[test]
    fn a_refused_wait_takes_nothing() {
        let shape = shape(1.0, 1);
        let mut bucket = Bucket::unknown(0, shape);
        admitted(&mut bucket, 0, shape);
        let before = bucket;
        assert_eq!(bucket.reserve(0, shape, SECOND - 1), Reservation::Wait { after: SECOND });
        assert_eq!(bucket, before);
        assert_eq!(bucket.reserve(0, shape, SECOND), Reservation::Admitted { at: SECOND });
    }

    #[test]
    fn a_burst_of_refusals_counts_once_and_the_rate_comes_back() {
        let shape = shape(2.0, 10);
        let mut bucket = Bucket::unknown(0, shape);
        let mut now = 100 * SECOND;
        for _ in 0..8 {
            bucket.penalise(now, shape);
        }
        assert_eq!((bucket.factor, bucket.streak, bucket.penalties), (800_000, 1, 8));
        assert_eq!(bucket.wait(now, shape), SECOND);
        now += SECOND;
        bucket.penalise(now, shape);
        assert_eq!((bucket.factor, bucket.wait(now, shape)), (640_000, SECOND * 3 / 2));
        for _ in 0..40 {
            now += 31 * SECOND;
            bucket.penalise(now, shape);
        }
        assert_eq!((bucket.factor, bucket.wait(now, shape)), (100_000, 30 * SECOND));
        assert_eq!(bucket.effective_period(shape), SLOWEST_PERIOD);
        now += 90 * SECOND;
        bucket.recover(now);
        assert_eq!((bucket.factor, bucket.streak), (110_000, 0));
        bucket.recover(now + 60 * MINUTE);
        assert_eq!(bucket.effective_period(shape), shape.period);
    }

    #[test]
    fn another_boot_or_a_damaged_bit_is_an_unknown_bucket() {
        let bucket = Bucket::unknown(42, shape(2.0, 10));
        let bytes = bucket.encode("5f0c31c6-0000-4000-8000-000000000000");
        assert_eq!(Bucket::decode(&bytes, "5f0c31c6-0000-4000-8000-000000000000"), Some(bucket));
        assert_eq!(Bucket::decode(&bytes, "5f0c31c6-0000-4000-8000-000000000001"), None);
        for bit in 0..LENGTH * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Bucket::decode(&damaged, "5f0c31c6-0000-4000-8000-000000000000"), None, "bit {bit}");
        }
        for length in 0..LENGTH {
            assert_eq!(Bucket::decode(&bytes[..length], "5f0c31c6-0000-4000-8000-000000000000"), None);
            assert!(!is_foreign(&bytes[..length]));
        }
        assert!(is_foreign(b"{\"tokens\": 3}"));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Take { gap_ms: u64, settings: usize, max_wait_ms: u64 },
        Penalty,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let take = (prop_oneof![Just(0), 0..40_u64, 0..8_000_u64], 0..4_usize, prop_oneof![Just(0), 0..60_000_u64])
            .prop_map(|(gap_ms, settings, max_wait_ms)| Step::Take { gap_ms, settings, max_wait_ms });
        prop::collection::vec(prop_oneof![12 => take, 1 => Just(Step::Penalty)], 1..120)
    }

    proptest! {
        #[test]
        fn no_window_holds_more_than_burst_and_rate_allow(steps in steps(), change in any::<bool>()) {
            let settings = [shape(2.0, 10), shape(50.0, 50), shape(0.7, 1), shape(2.0, 3)];
            let used = |index: usize| if change { settings[index] } else { settings[0] };
            let (period, burst) = if change { (settings[1].period, 50) } else { (settings[0].period, 10) };
            let mut now = 1_000 * SECOND;
            let mut bucket = Bucket::unknown(now, used(0));
            let mut instants = Vec::new();
            for step in steps {
                match step {
                    Step::Penalty => bucket.penalise(now, used(0)),
                    Step::Take { gap_ms, settings, max_wait_ms } => {
                        now += gap_ms * 1_000_000;
                        let before = bucket.tat;
                        if let Reservation::Admitted { at } = bucket.reserve(now, used(settings), max_wait_ms * 1_000_000) {
                            prop_assert!(at >= now && bucket.tat > before);
                            instants.push(at);
                        }
                    }
                }
            }
            prop_assert!(instants.is_sorted(), "nobody is overtaken");
            check_bound(&instants, period, burst);
        }

        #[test]
        fn nothing_overflows(now in any::<u64>(), later in any::<u64>(), rate in any::<f64>(), burst in any::<u32>(), penalties in 0..40_usize) {
            let shape = shape(rate, burst);
            let mut bucket = Bucket::unknown(now, shape);
            for now in [now, later, u64::MAX, 0] {
                (0..penalties).for_each(|_| bucket.penalise(now, shape));
                let _ = (bucket.reserve(now, shape, u64::MAX), bucket.tokens(now, shape), bucket.wait(now, shape));
            }
            prop_assert_eq!(Bucket::decode(&bucket.encode("x"), "x"), Some(bucket));
        }
    }
}
