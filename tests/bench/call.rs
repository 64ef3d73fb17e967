//! What one call costs as a whole process, beside `curl` and beside itself
//! with a large state. Ratios of one run count, not times.
//!
//! `cargo bench`; `B24_BENCH_LARGE=1` fills the ledger with a million records.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no figures")]

mod measure;
mod place;

use measure::{Pair, children_cpu, now, peak_mb};
use place::{Portal, b24, fill, serve_answer};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Runs of each command.
const ROUNDS: usize = 60;

/// Workers and calls of the run against the limiter.
const WORKERS: u32 = 16;
const CALLS: u32 = 10;
const BURST: u32 = 10;

fn main() {
    // On a disk: a memory file system would make every sync free.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let portal = Portal::start(&home.path().join("portal"));
    let (small, large) = (home.path().join("small"), home.path().join("large"));
    for state in [&small, &large] {
        measure::timed(&mut read(&portal, state));
        measure::timed(&mut write(&portal, state, usize::MAX));
    }
    heading();
    beside_curl(&portal, &small);
    beside_itself(&portal, &small, &large);
    memory(&small);
    for rate in [50, 2] {
        limiter(&portal, &home.path().join(format!("paced-{rate}")), rate);
    }
}

fn read(portal: &Portal, state: &Path) -> Command {
    portal.b24(state, &["user.current"])
}

fn write(portal: &Portal, state: &Path, number: usize) -> Command {
    portal.b24(state, &["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write", "--idempotency-key", &format!("order-{number}")])
}

fn beside_curl(portal: &Portal, state: &Path) {
    let pair = Pair::measure(ROUNDS, |_| portal.curl("user.current", "{}"), |_| read(portal, state));
    row("gated read : curl", &pair, 1.0);
    let body = r#"{"fields":{"TITLE":"Acme"}}"#;
    let pair = Pair::measure(ROUNDS, |_| portal.curl("crm.lead.add", body), |number| write(portal, state, number));
    row("gated write : curl", &pair, 1.5);
}

fn beside_itself(portal: &Portal, small: &Path, large: &Path) {
    let records = if is_large() { 1_000_000 } else { 100_000 };
    fill(large, records);
    let pair = Pair::measure(ROUNDS, |_| read(portal, small), |_| read(portal, large));
    row(&format!("read, {records} records and 1 GB audit : small"), &pair, 1.1);
    let fresh = |number: usize| ROUNDS * 10 + number;
    let pair = Pair::measure(ROUNDS, |number| write(portal, small, fresh(number)), |number| write(portal, large, fresh(number)));
    row(&format!("write, {records} records and 1 GB audit : small"), &pair, 1.1);
}

fn memory(state: &Path) {
    for (megabytes, aim) in [(1_u32, 16.0), (60, 120.0)] {
        let webhook = serve_answer(megabytes as usize * 1_000_000);
        match peak_mb(&b24(&webhook, state, &["user.current"])) {
            Some(peak) => figure(&format!("peak memory, answer of {megabytes} MB"), &format!("{peak:.1} MB"), &format!("{aim} MB")),
            None => figure("peak memory", "not measured: no /usr/bin/time", ""),
        }
    }
}

/// Many processes against the shared rate: total time and processor time.
fn limiter(portal: &Portal, state: &Path, rate: u32) {
    let paced = || -> Command {
        let mut command = read(portal, state);
        command.env_remove("B24_RATE_LIMITER");
        command.env("B24_RATE_LIMITER_RATE", rate.to_string()).env("B24_RATE_LIMITER_BURST", BURST.to_string());
        command
    };
    // The first call makes the bucket, which starts empty: one at once.
    measure::timed(&mut paced());
    let (cpu, start) = (children_cpu(), now());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                for _ in 0..CALLS {
                    measure::timed(&mut paced());
                }
            });
        }
    });
    let (took, cpu) = (start.elapsed(), children_cpu().saturating_sub(cpu));
    let ideal = Duration::from_secs(u64::from(WORKERS * CALLS)) / rate;
    let name = format!("{WORKERS} x {CALLS} calls at {rate}/s : schedule");
    figure(&name, &format!("{:.3} s, CPU {:.2} s", took.as_secs_f64(), cpu.as_secs_f64()), &format!("{:.3} s", ideal.as_secs_f64()));
}

#[expect(clippy::disallowed_methods, reason = "the switch is an environment variable")]
fn is_large() -> bool {
    std::env::var_os("B24_BENCH_LARGE").is_some()
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn line(cells: [&str; 5]) {
    let [name, one, other, ratio, aim] = cells;
    println!("{name:<46} {one:>10} {other:>10} {ratio:>22} {aim:>9}");
}

fn heading() {
    line(["medians of whole processes", "beside", "b24", "ratio or figure", "aim"]);
}

fn row(name: &str, pair: &Pair, aim: f64) {
    let ms = |duration: Duration| format!("{:.2} ms", duration.as_secs_f64() * 1000.0);
    line([name, &ms(pair.one), &ms(pair.other), &format!("{:.2}", pair.ratio()), &format!("{aim:.1}")]);
}

fn figure(name: &str, figure: &str, aim: &str) {
    line([name, "", "", figure, aim]);
}
