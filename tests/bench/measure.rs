//! Running processes and measuring them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The present instant.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Runs a command to its end and returns how long that took; fails when the
/// command does.
pub(crate) fn timed(command: &mut Command) -> Duration {
    let start = now();
    let output = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let took = start.elapsed();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    took
}

/// Two commands, run in turns: what slows the machine slows both.
pub(crate) struct Pair {
    pub(crate) one: Duration,
    pub(crate) other: Duration,
}

impl Pair {
    /// Returns the medians of `rounds` runs of each; `number` tells the runs
    /// apart.
    pub(crate) fn measure(rounds: usize, one: impl Fn(usize) -> Command, other: impl Fn(usize) -> Command) -> Pair {
        let (mut ones, mut others) = (Vec::new(), Vec::new());
        for number in 0..rounds + 2 {
            let (first, second) = (timed(&mut one(number)), timed(&mut other(number)));
            // The first rounds warm the caches up.
            if number >= 2 {
                ones.push(first);
                others.push(second);
            }
        }
        Pair { one: median(ones), other: median(others) }
    }

    /// Returns how many times as long the second command takes.
    pub(crate) fn ratio(&self) -> f64 {
        self.other.as_secs_f64() / self.one.as_secs_f64()
    }
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

/// Returns the peak memory of a command in MB; `None` where there is no GNU
/// time to tell it.
pub(crate) fn peak_mb(command: &Command) -> Option<f64> {
    let gnu_time = Path::new("/usr/bin/time");
    if !gnu_time.exists() {
        return None;
    }
    let mut measured = Command::new(gnu_time);
    measured.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args()).env_clear();
    measured.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = measured.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}");
    let kilobytes: u32 = text.lines().last()?.parse().ok()?;
    Some(f64::from(kilobytes) / 1000.0)
}

/// Returns the processor time that ended children of this process used.
pub(crate) fn children_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    // The name in parentheses may hold spaces; `cutime` and `cstime` are the
    // 14th and 15th field behind it, in hundredths of a second.
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[13..15].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
