//! The outside world as values: clock, randomness, environment, streams.
//!
//! Nothing else in b24 asks the system for the time, for chance or for a
//! variable, so that a test can hold them all.

use crate::env::Env;
use chrono::{DateTime, SubsecRound, Utc};
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Tells the time and waits.
pub trait Clock: Send + Sync {
    /// Returns the wall-clock time; for display, ages and expiry only.
    fn now(&self) -> DateTime<Utc>;

    /// Returns nanoseconds since the machine started, suspended time included.
    /// Intervals between processes are measured with this.
    fn boot_ns(&self) -> u64;

    /// Returns the identity of this run of the machine: `boot_ns` values of
    /// two runs cannot be compared.
    fn boot_id(&self) -> String;

    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// Gives random bytes.
pub trait Random: Send + Sync {
    /// Fills the buffer.
    fn fill(&self, buffer: &mut [u8]);
}

/// Everything that a run of b24 takes from outside.
pub struct Host {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of chance.
    pub random: Arc<dyn Random>,
    /// The environment.
    pub env: Env,
    /// The current folder.
    pub cwd: PathBuf,
    /// Standard input.
    pub stdin: Box<dyn Read + Send>,
    /// Standard output: data.
    pub out: Box<dyn Write + Send>,
    /// Standard error: talk.
    pub err: Box<dyn Write + Send>,
    /// Whether standard input is a terminal.
    pub stdin_is_terminal: bool,
    /// Whether standard output is a terminal.
    pub out_is_terminal: bool,
    /// Whether standard error is a terminal.
    pub err_is_terminal: bool,
}

impl Host {
    /// Takes the real world.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub fn real() -> Host {
        Host {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            env: Env::of_the_system(std::env::vars_os()),
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            stdin: Box::new(io::stdin()),
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            stdin_is_terminal: io::stdin().is_terminal(),
            out_is_terminal: io::stdout().is_terminal(),
            err_is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Returns a new request id: a version 7 UUID, so that ids sort by time.
    #[must_use]
    pub fn request_id(&self) -> String {
        uuid_v7(self.clock.as_ref(), self.random.as_ref())
    }
}

/// Keeps other processes of the user from reading this one's memory, and the
/// system from writing it to a core file: it will hold secrets. Best effort.
pub fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
}

/// Returns a version 7 UUID.
#[must_use]
pub fn uuid_v7(clock: &dyn Clock, random: &dyn Random) -> String {
    let mut bytes = [0; 10];
    random.fill(&mut bytes);
    uuid::Builder::from_unix_timestamp_millis(unix_ms(clock), &bytes).into_uuid().to_string()
}

/// Returns milliseconds since 1970.
#[must_use]
pub fn unix_ms(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.now().timestamp_millis()).unwrap_or(0)
}

/// Returns a time as it stands in every file of b24: UTC with milliseconds.
#[must_use]
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.trunc_subsecs(3).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Returns random bytes as hex digits.
#[must_use]
pub fn random_hex(random: &dyn Random, bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    random.fill(&mut buffer);
    hex::encode(buffer)
}

/// The machine's clocks.
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the one place that reads clocks")]
impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// `CLOCK_BOOTTIME`, freed of the offset of a time namespace: processes in
    /// different namespaces of one machine must agree.
    fn boot_ns(&self) -> u64 {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let ns = i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec);
        u64::try_from(ns - namespace_offset_ns()).unwrap_or(0)
    }

    fn boot_id(&self) -> String {
        static BOOT_ID: OnceLock<String> = OnceLock::new();
        let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default();
        BOOT_ID.get_or_init(read).clone()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

/// Returns the `boottime` offset of this time namespace in nanoseconds; 0
/// where there are no time namespaces.
fn namespace_offset_ns() -> i128 {
    let offsets = std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
    offsets
        .lines()
        .filter_map(|line| line.strip_prefix("boottime"))
        .find_map(|rest| {
            let mut numbers = rest.split_whitespace().map(str::parse::<i128>);
            Some(numbers.next()?.ok()? * 1_000_000_000 + numbers.next()?.ok()?)
        })
        .unwrap_or(0)
}

/// The operating system's random numbers.
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system gives random bytes");
    }
}

impl std::fmt::Debug for dyn Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl std::fmt::Debug for dyn Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}
