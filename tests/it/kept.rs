//! What must hold after every crash, fault and race, and the helpers of the
//! tests that ask for it.

use crate::waiting::until_free;
use crate::world::{Outcome, World};
use b24::env::Env;
use b24::host::{Clock, Host, SystemClock, SystemRandom};
use b24::store::ledger::record::Record;
use serde_json::Value;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Asserts that all state can be read and that nothing happened on the portal
/// without a recorded intent.
#[track_caller]
pub(crate) fn assert_kept(world: &World, context: &str) {
    let list = world.run(&["ledger", "list", "--all"]);
    assert_eq!(list.status, 0, "{context}: {}", list.stderr);
    assert!(!list.stdout.contains("damaged"), "{context}: {}", list.stdout);
    let verified = world.run(&["audit", "verify"]);
    assert_eq!(verified.status, 0, "{context}: {} {}", verified.stdout, verified.stderr);
    for plan in plan_files(world) {
        assert_eq!(world.run(&["plan", "show", &plan]).status, 0, "{context}: plan {plan}");
    }
    let intents = intents(world);
    for change in world.changes() {
        let id = change.request_id.unwrap_or_default();
        assert!(intents.contains(&id), "{context}: the request {id} has no intent");
    }
}

/// The ids of the saved plans.
pub(crate) fn plan_files(world: &World) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(world.state().join("plans")) else { return Vec::new() };
    entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".json").map(str::to_owned)).collect()
}

/// The request ids of all intents, in every segment of the audit. A torn last
/// line, which the next append repairs, is passed over.
pub(crate) fn intents(world: &World) -> HashSet<String> {
    let Ok(entries) = std::fs::read_dir(world.state().join("audit")) else { return HashSet::new() };
    let texts = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let records = texts.flat_map(|text| {
        let lines = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        lines.collect::<Vec<_>>()
    });
    records
        .filter(|record| record["b"]["type"] == "intent")
        .filter_map(|record| Some(record["b"]["request_id"].as_str()?.to_owned()))
        .collect()
}

/// How many objects with this title the portal has made.
pub(crate) fn made(world: &World, title: &str) -> usize {
    let changes = world.changes();
    changes.iter().filter(|change| ["TITLE", "title"].iter().any(|name| change.fields[name] == title)).count()
}

/// A ledger record as its file tells it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) is_open: bool,
}

/// Reads every ledger record; a damaged one fails the test.
#[track_caller]
pub(crate) fn records(world: &World) -> Vec<Row> {
    let mut rows = Vec::new();
    for portal in folder(&world.state().join("portals")) {
        for shard in folder(&portal.join("ledger")) {
            for file in folder(&shard) {
                let [shard, rest] = [&shard, &file].map(|path| path.file_name().unwrap().to_str().unwrap().to_owned());
                if rest.len() != 62 {
                    continue;
                }
                let record = Record::parse(&std::fs::read(&file).unwrap()).unwrap_or_else(|| panic!("{rest} is damaged"));
                let last = record.last().unwrap();
                rows.push(Row { name: shard + &rest, state: last.state(), is_open: last.is_open() });
            }
        }
    }
    rows
}

fn folder(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Repeats a command until it is settled, as a careful user would: an unknown
/// outcome is looked up on the portal. Returns how often it was unknown.
#[track_caller]
pub(crate) fn carry_through(world: &World, title: &str, command: impl Fn() -> Command, context: &str) -> usize {
    for unknown in 0..3 {
        let outcome = Outcome::of(&mut command());
        match outcome.status {
            // Of a write that a person found done there is no answer: 13.
            0 | 9 | 13 => {
                assert_eq!(made(world, title), 1, "{context}: {}", outcome.stderr);
                return unknown;
            }
            8 => {
                world.let_it_finish();
                let verdict = if made(world, title) == 0 { "not-executed" } else { "executed" };
                records(world).iter().filter(|row| row.is_open).for_each(|row| resolve(world, &row.name, verdict));
            }
            status => panic!("{context}: exit {status}: {}", outcome.stderr),
        }
    }
    panic!("{context}: it stays unknown");
}

/// The state of a ledger record, as `b24 ledger show` tells it; `absent` when
/// there is none.
pub(crate) fn state_of(world: &World, key: &str) -> String {
    let shown = world.run(&["ledger", "show", key]);
    match shown.status {
        0 => shown.body(0)["record"]["state"].as_str().unwrap().to_owned(),
        _ => "absent".to_owned(),
    }
}

/// Saves a plan and returns its id.
pub(crate) fn plan(world: &World, args: &[&str]) -> String {
    let args: Vec<&str> = args.iter().copied().chain(["--plan-only"]).collect();
    world.run(&args).body(0)["plan"]["plan_id"].as_str().unwrap().to_owned()
}

/// Runs b24 in this process as a person at a terminal.
pub(crate) fn as_person(world: &World, args: &[&str]) -> Outcome {
    in_process(world, &world.command(args), true)
}

/// Runs a command in this process, which takes less time than starting one.
pub(crate) fn in_process(world: &World, command: &Command, is_person: bool) -> Outcome {
    let text = |text: &std::ffi::OsStr| text.to_str().unwrap().to_owned();
    let variables = command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
    let (out, err) = (Captured::default(), Captured::default());
    let mut host = Host {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        env: Env::new(variables),
        cwd: world.home.path().to_owned(),
        stdin: Box::new(io::empty()),
        out: Box::new(out.clone()),
        err: Box::new(err.clone()),
        stdin_is_terminal: is_person,
        out_is_terminal: false,
        err_is_terminal: false,
    };
    let args = std::iter::once("b24".into()).chain(command.get_args().map(Into::into)).collect();
    let status = i32::from(b24::run(args, &mut host));
    until_let_go(&world.state());
    Outcome { status, stdout: out.text(), stderr: err.text() }
}

/// Waits for the children of other tests that were started at this moment:
/// each holds the locks of this process until it runs its own program.
fn until_let_go(folder: &Path) {
    for path in self::folder(folder) {
        if path.is_dir() { until_let_go(&path) } else { until_free(&path) }
    }
}

/// Runs a command in this process on a state that `prepare` makes. Nobody else
/// uses the state, but a child that another test starts at this moment holds
/// its locks, too, until it runs its own program: then it is tried again.
pub(crate) fn asked(world: &World, command: &Command, prepare: impl Fn()) -> Outcome {
    loop {
        prepare();
        let outcome = in_process(world, command, false);
        if !["\"kind\":\"in_progress\"", "\"kind\":\"lock_busy\""].iter().any(|kind| outcome.stderr.contains(kind)) {
            return outcome;
        }
        std::thread::yield_now();
    }
}

/// Settles an unknown outcome as a person.
#[track_caller]
pub(crate) fn resolve(world: &World, key: &str, verdict: &str) {
    let resolved = as_person(world, &["ledger", "resolve", key, "--as", verdict, "--reason", "looked"]);
    assert_eq!(resolved.status, 0, "{}", resolved.stderr);
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts commands that read their parameters from standard input (those that
/// were made with `--params -`), and lets all go on at once.
pub(crate) fn race(commands: Vec<Command>, params: &str) -> Vec<Outcome> {
    let started: Vec<Child> = commands.into_iter().map(spawn).collect();
    let mut started = started;
    for child in &mut started {
        // A command that reads nothing has its end closed already.
        let _ = child.stdin.take().unwrap().write_all(params.as_bytes());
    }
    started.into_iter().map(ended).collect()
}

/// Starts a command with all its streams in hand.
pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for a child; a killed one has the status -1.
pub(crate) fn ended(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Whether an answer came from the ledger.
pub(crate) fn is_replay(outcome: &Outcome) -> bool {
    outcome.stdout.contains("\"replayed\":true")
}

/// Nanoseconds of a clock that only goes forward.
pub(crate) fn now_ns() -> u64 {
    SystemClock.boot_ns()
}
