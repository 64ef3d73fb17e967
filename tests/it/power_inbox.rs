//! A loss of power around a worker: from its first commit to the last event
//! that is cleared on the portal, dead letters included.

use crate::disk_model::{Breadth, Disk};
use crate::kept::asked;
use crate::power_loss::{Broken, Found, Report, Search, Trial, is_long};
use crate::queue_world::Rig;
use crate::traced::{Op, Trace};
use crate::world::{Outcome, World};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

const POINTS: &[&str] = &["transport.before_send", "transport.after_answer"];

/// The second deal is never handled.
const RULES: &str = "case $entity in *:2) status=1;; esac";

/// A worker that was traced, and what the portal remembered behind each of its
/// requests.
struct Run {
    rig: Rig,
    trace: Trace,
    memories: Vec<Vec<u8>>,
    rows: BTreeSet<u64>,
}

impl Run {
    fn new(skip: Option<&str>) -> Run {
        let rig = Rig::of(World::in_memory(), RULES);
        (1..=3).for_each(|id| rig.raise("ONCRMDEALADD", id));
        rig.raise("ONCRMDEALUPDATE", 1);
        let (before, requests) = (rig.world.memory(), rig.world.requests().len());
        let mut worker = rig.exec(&["--until-empty", "--batch", "3", "--max-retries", "1", "--concurrency", "2"]);
        skip.map(|rule| worker.env("B24_DISK_SKIP", rule));
        let (outcome, trace) = Trace::of(&rig.world, worker);
        assert_eq!(outcome.status, 6, "{}", outcome.stderr);
        let memories = memories(&rig.world, before, requests);
        let rows = (1..=4).collect();
        Run { rig, trace, memories, rows }
    }

    /// A worker that prints what it is handed, and ends when there is no more.
    fn then(&self) -> Command {
        self.rig.queue(&["work", "--jsonl", "--until-empty", "--sleep", "0.01", "--retry-delay", "0.01"])
    }
}

/// What the portal remembered before the worker and behind each request of it:
/// taking rows and clearing them each leave one line.
fn memories(world: &World, before: Vec<u8>, requests: usize) -> Vec<Vec<u8>> {
    let after = world.memory();
    let mut lines = after[before.len()..].split_inclusive(|byte| *byte == b'\n').peekable();
    let mut memories = vec![before];
    for request in world.requests().into_iter().skip(requests) {
        let mut memory = memories.last().unwrap().clone();
        let kind = match request.method.as_str() {
            "event.offline.get" => "{\"reserved\"",
            "event.offline.clear" => "{\"unqueued\"",
            _ => "-",
        };
        if let Some(line) = lines.next_if(|line| line.starts_with(kind.as_bytes())) {
            memory.extend_from_slice(line);
        }
        memories.push(memory);
    }
    assert!(lines.next().is_none(), "every change of the portal belongs to a request");
    memories
}

/// What the worker had done by then, as its journal tells it.
#[derive(Default)]
struct Past {
    rows: BTreeMap<u64, u64>,
    handled: BTreeSet<u64>,
    started: BTreeMap<u64, u32>,
    handed_over: BTreeMap<u64, u32>,
}

impl Past {
    fn of(ops: &[Op]) -> Past {
        let mut past = Past::default();
        for op in ops {
            match op {
                Op::Write { bytes, .. } => bytes.split(|byte| *byte == b'\n').for_each(|line| past.learn(line)),
                op if op.is_point("queue.after_hand_over") => past.handed_over = past.started.clone(),
                _ => {}
            }
        }
        past
    }

    fn learn(&mut self, line: &[u8]) {
        let Some(json) = line.get(17..) else { return };
        let Ok(line) = serde_json::from_slice::<Value>(json) else { return };
        let received = &line["received"];
        if let (Some(seq), Some(row)) = (received["seq"].as_u64(), received["payload"]["ID"].as_str()) {
            self.rows.insert(seq, row.parse().unwrap());
        }
        for seq in line["started"]["seqs"].as_array().into_iter().flatten() {
            *self.started.entry(self.rows[&seq.as_u64().unwrap()]).or_default() += 1;
        }
        if line["ended"]["verdict"] == "done" {
            self.handled.insert(self.rows[&line["ended"]["seq"].as_u64().unwrap()]);
        }
    }
}

/// The rows that a portal does not have any more.
fn cleared(memory: &[u8]) -> BTreeSet<u64> {
    let lines = memory.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"{\"unqueued\""));
    let ids = lines.flat_map(|line| serde_json::from_slice::<Value>(line).unwrap()["unqueued"]["ids"].as_array().unwrap().clone());
    ids.map(|id| id.as_u64().unwrap()).collect()
}

/// The rows of the dead letters that are there.
fn letters(world: &World) -> BTreeSet<u64> {
    let portals = std::fs::read_dir(world.state().join("queue")).into_iter().flatten();
    let files = portals.map(|portal| portal.unwrap().path().join("offline/dead-letters.jsonl"));
    let texts: Vec<String> = files.filter_map(|file| std::fs::read_to_string(file).ok()).collect();
    let rows = texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| row["payload"]["ID"].as_str().unwrap().parse().unwrap()).collect()
}

/// Judges every state of a worker's run, leaving out the syncs of a rule.
pub(crate) fn examine(skip: Option<&str>) -> Report {
    let mut run = Run::new(skip);
    let then = run.then();
    let trace = run.trace.clone();
    let from = if is_long() || skip.is_some() { 0 } else { first_commit(&trace) };
    let sending = ("transport.before_send", "transport.after_answer");
    let search = Search { trace: &trace, from, points: POINTS, sending, stops: skip.is_some(), short: (Breadth::ENDS, 6) };
    search.run(|found| {
        let memory = run.memories[found.executed].clone();
        run.rig.world.remember(&memory);
        let outcome = asked(&run.rig.world, &then, || Trial::make(&run.rig.world, found.state));
        judge(&run, found, &cleared(&memory), &outcome)
    })
}

/// Where the files of the inbox begin.
fn first_commit(trace: &Trace) -> usize {
    trace.ops.iter().position(|op| matches!(op, Op::Mkdir { path } if path.starts_with("state/queue"))).unwrap()
}

fn judge(run: &Run, found: &Found, cleared: &BTreeSet<u64>, outcome: &Outcome) -> Result<(), (Broken, String)> {
    let past = Past::of(&run.trace.ops[..found.at]);
    let events: Vec<Value> = outcome.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let row = |event: &Value| event["payload"]["ID"].as_str().unwrap().parse::<u64>().unwrap();
    let said = || format!("exit {}: cleared {cleared:?}, handed over again {events:?}\n{}", outcome.status, outcome.stderr);
    if ![0, 6].contains(&outcome.status) {
        return Err((Broken::Stuck, said()));
    }
    let again: BTreeSet<u64> = events.iter().map(row).collect();
    let letters = letters(&run.rig.world);
    if let Some(lost) = run.rows.iter().find(|row| !again.contains(row) && !past.handled.contains(row) && !letters.contains(row)) {
        return Err((Broken::LostEvent, format!("{lost}: {}", said())));
    }
    if let Some(row) = again.intersection(cleared).next() {
        return Err((Broken::HandledAgain, format!("{row}: {}", said())));
    }
    let uncounted =
        events.iter().find(|event| event["attempt"].as_u64().unwrap() <= past.handed_over.get(&row(event)).copied().unwrap_or(0).into());
    match uncounted {
        Some(event) => Err((Broken::Uncounted, format!("{}: {}", row(event), said()))),
        None => Ok(()),
    }
}

/// A worker is killed when a dead letter is in the file and not on the disk;
/// the next one finds the letter and goes on. The portal must not be told that
/// the event is over while only memory has it.
#[test]
fn a_dead_letter_of_a_killed_worker_is_on_disk_before_its_event_is_cleared() {
    let rig = Rig::of(World::in_memory(), RULES);
    rig.raise("ONCRMDEALADD", 2);
    let worker = || rig.exec(&["--until-empty", "--max-retries", "1"]);
    let mut killed = worker();
    killed.env("B24_CRASH_POINT", "queue.after_dead_letter:1");
    let (outcome, trace) = Trace::of(&rig.world, killed);
    assert_eq!(outcome.status, -1, "{}", outcome.stderr);
    let trace = trace.then(&rig.world, worker());
    assert_eq!(rig.rows().len(), 0, "it is cleared");
    let mut disk = Disk::before(&trace);
    trace.ops.iter().for_each(|op| disk.apply(op));
    for state in disk.states(Breadth::SHORT, 1) {
        let (_, letters) = state.files.iter().find(|(path, _)| path.ends_with("dead-letters.jsonl")).map(|(_, file)| file).unwrap();
        assert!(letters.windows(8).any(|bytes| bytes == b"\"ID\":\"1\""), "{}", String::from_utf8_lossy(letters));
    }
}

#[test]
fn a_loss_of_power_around_a_worker_loses_no_event() {
    examine(None).assert_kept("inbox");
}
