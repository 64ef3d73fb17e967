//! How fast a worker takes a burst of offline events off a portal, beside a
//! process for each event and beside a client that only takes and clears.
//!
//! The portal is the emulator in another process; events are put into its
//! journal, so that raising them costs nothing that is measured. All kinds of
//! runs take their turns: only ratios of one run count. `cargo bench --bench
//! queue`; `B24_BENCH_LARGE=1` adds a minute of 500 events a second.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has no figures")]

mod burst;
mod handler;

use burst::{Portal, Run};
use std::path::Path;
use std::time::Duration;

/// Events of a burst.
const BURST: u32 = 10_000;

/// Runs of each kind.
const ROUNDS: usize = 3;

/// Seconds and events per second of the steady arrival.
const STEADY: (u32, u32) = (60, 500);

fn main() {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some(handler::NAME) {
        return handler::run(Path::new(&args.next().unwrap()));
    }
    // On a disk: a memory file system would make every sync free.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    line(["events of a burst", "events/s", "last event", "peak memory", "aim"]);
    bursts(home.path());
    memory(home.path());
    if is_large() {
        steady(home.path());
    }
}

/// One kind of run, and what its rounds gave.
struct Kind {
    name: String,
    work: Work,
    batch: u32,
    runs: Vec<Run>,
}

#[derive(Clone, Copy, PartialEq)]
enum Work {
    Bare,
    Serve,
    Exec,
}

fn bursts(home: &Path) {
    let kinds = [(Work::Bare, 50), (Work::Serve, 50), (Work::Exec, 50), (Work::Bare, 500), (Work::Serve, 500), (Work::Exec, 500)];
    let mut kinds = kinds.map(|(work, batch)| {
        let name = match work {
            Work::Bare => "bare get and clear",
            Work::Serve => "queue work --serve",
            Work::Exec => "queue work --exec true",
        };
        Kind { name: format!("{name}, batch {batch}"), work, batch, runs: Vec::new() }
    });
    for round in 0..ROUNDS {
        for (number, kind) in kinds.iter_mut().enumerate() {
            // A process for each event takes long, and its figure is rough.
            if kind.work != Work::Exec || round == 0 {
                kind.runs.push(one(&home.join(format!("burst-{round}-{number}")), kind.work, kind.batch, BURST));
            }
        }
    }
    for kind in &kinds {
        let aim = if kind.work == Work::Serve { "1000/s" } else { "" };
        row(&kind.name, &kind.median(), aim);
    }
    for pair in kinds.chunks(3) {
        let [bare, serve, exec] = [0, 1, 2].map(|kind| rate(&pair[kind].median()));
        let text = format!("{:.2} of bare, {:.1} x exec", serve / bare, serve / exec);
        line([&format!("  --serve at batch {}", pair[0].batch), "", "", &text, ""]);
    }
}

impl Kind {
    fn median(&self) -> Run {
        let mut runs = self.runs.clone();
        runs.sort_unstable_by_key(|run| run.took);
        runs[runs.len() / 2].clone()
    }
}

/// Works off one burst, with a portal and a state folder of its own.
fn one(home: &Path, work: Work, batch: u32, events: u32) -> Run {
    let portal = Portal::start(&home.join("portal"));
    portal.raise(0..events);
    match work {
        Work::Bare => portal.take_and_clear(batch, events),
        Work::Serve => portal.serve(&home.join("state"), batch, events),
        Work::Exec => portal.exec(&home.join("state"), batch, events),
    }
}

/// What a worker keeps must not grow with the burst.
fn memory(home: &Path) {
    for batch in [50, 500] {
        for events in [1_000, 10_000, 30_000] {
            let run = one(&home.join(format!("memory-{batch}-{events}")), Work::Serve, batch, events);
            row(&format!("--serve, batch {batch}, {events} events"), &run, "flat");
        }
    }
}

/// Events that come at a steady pace: does the worker keep up?
fn steady(home: &Path) {
    let (seconds, pace) = STEADY;
    let portal = Portal::start(&home.join("steady"));
    let lags = portal.steady(&home.join("steady-state"), seconds, pace);
    line([&format!("{pace} events/s for {seconds} s"), "lag p50", "lag p99", "lag max", ""]);
    for (number, lags) in lags.chunks(lags.len() / 6).take(6).enumerate() {
        let mut lags = lags.to_vec();
        lags.sort_unstable();
        let at = |percent: usize| format!("{} ms", lags[(lags.len() - 1) * percent / 100]);
        line([&format!("  part {} of 6, {} events", number + 1, lags.len()), &at(50), &at(99), &at(100), ""]);
    }
}

#[expect(clippy::disallowed_methods, reason = "the switch is an environment variable")]
fn is_large() -> bool {
    std::env::var_os("B24_BENCH_LARGE").is_some()
}

fn rate(run: &Run) -> f64 {
    f64::from(run.events) / run.took.as_secs_f64()
}

fn row(name: &str, run: &Run, aim: &str) {
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let peak = run.peak_mb.map_or_else(String::new, |peak| format!("{peak:.1} MB"));
    line([name, &format!("{:.0}", rate(run)), &run.last_event.map_or_else(String::new, seconds), &peak, aim]);
}

#[expect(clippy::print_stdout, reason = "the table is the result")]
fn line(cells: [&str; 5]) {
    let [name, one, other, figure, aim] = cells;
    println!("{name:<40} {one:>10} {other:>12} {figure:>26} {aim:>8}");
}
