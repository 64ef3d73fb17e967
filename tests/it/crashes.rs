//! Killing b24 at every crash point and at any moment: nothing is sent twice,
//! nothing is lost, every file can be read.

use crate::kept::{assert_kept, carry_through, intents, made, now_ns, plan, records, spawn};
use crate::world::{Outcome, World};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

/// A way to send one write, made ready in a world.
struct Way {
    name: &'static str,
    /// What happened before.
    before: fn(&World),
    /// The command; the text is the title of what is made, and the plan's id.
    command: fn(&World, &str, &str) -> Command,
}

const WAYS: &[Way] = &[
    Way { name: "automatic key", before: |_| {}, command: |world, title, _| add(world, title, &[]) },
    Way { name: "explicit key", before: |_| {}, command: keyed },
    Way { name: "plan", before: |_| {}, command: |world, _, plan| world.command(&["--execute-plan", plan, "--confirm-write"]) },
    Way {
        name: "batch",
        before: |_| {},
        command: |world, title, _| {
            let params = format!(r#"{{"cmd":{{"a":"crm.lead.add?fields[TITLE]={title}","b":"crm.lead.add?fields[TITLE]={title}-b"}}}}"#);
            world.command(&["batch", "--params", &params, "--confirm-write", "--idempotency-key", title])
        },
    },
];

/// Ways that begin with what an earlier crash left.
const REPAIRS: &[Way] = &[
    Way { name: "orphaned claim", before: |world| crash(keyed(world, "t", ""), "ledger.after_claim"), command: keyed },
    Way { name: "torn audit", before: tear_audit, command: keyed },
    Way { name: "waiting outcome", before: spool_outcome, command: keyed },
];

fn add(world: &World, title: &str, options: &[&str]) -> Command {
    let title = format!("fields[TITLE]={title}");
    world.command(&[&["crm.lead.add", &title, "--confirm-write"], options].concat())
}

fn keyed(world: &World, title: &str, _: &str) -> Command {
    add(world, title, &["--idempotency-key", title])
}

#[track_caller]
fn crash(mut command: Command, point: &str) {
    let outcome = Outcome::of(command.env("B24_CRASH_POINT", point));
    assert_eq!(outcome.status, -1, "{point} is passed: {}", outcome.stderr);
}

fn tear_audit(world: &World) {
    assert_eq!(Outcome::of(&mut add(world, "earlier", &[])).status, 0);
    let path = world.state().join("audit/audit.jsonl");
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"{\"h\":\"01");
    std::fs::write(path, text).unwrap();
}

/// The outcome of an earlier write waits beside the audit.
fn spool_outcome(world: &World) {
    let _ = Outcome::of(add(world, "earlier", &[]).env("B24_FAULT_POINT", "audit.outcome=EIO")).body(13);
    assert!(world.state().join("audit.spool").exists());
}

impl Way {
    fn ready(&self) -> (World, String) {
        let world = World::new();
        (self.before)(&world);
        let plan = plan(&world, &["crm.lead.add", "fields[TITLE]=t"]);
        (world, plan)
    }
}

/// Returns every passing of a point or fault of a run, as `NAME:N`.
pub(crate) fn passings(world: &World, mut command: Command, kind: &str) -> Vec<String> {
    let trace = world.home.path().join("trace");
    let outcome = Outcome::of(command.env("B24_POINTS_TRACE", &trace));
    assert!(outcome.status >= 0, "{}", outcome.stderr);
    let text = std::fs::read_to_string(&trace).unwrap();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let names = text.lines().filter_map(|line| line.strip_prefix(kind)?.strip_prefix(' '));
    names
        .map(|name| {
            let count = counts.entry(name).or_default();
            *count += 1;
            format!("{name}:{count}")
        })
        .collect()
}

/// Kills each way at each of its points; `check` says what holds even before
/// the next run.
fn kill_at_every_point(ways: &[Way], check: fn(&World, &str)) {
    let mut report = String::new();
    for way in ways {
        let (world, plan) = way.ready();
        let points = passings(&world, (way.command)(&world, "t", &plan), "point");
        let mut unknown = 0;
        for point in &points {
            let (world, plan) = way.ready();
            crash((way.command)(&world, "t", &plan), point);
            let context = format!("{} killed at {point}", way.name);
            assert!(made(&world, "t") <= 1, "{context}");
            check(&world, &context);
            unknown += carry_through(&world, "t", || (way.command)(&world, "t", &plan), &context);
            assert_kept(&world, &context);
            assert!(made(&world, "t-b") <= 1, "{context}");
        }
        let _ = write!(report, "{} points with {}, {unknown} unknown; ", points.len(), way.name);
    }
    println!("{report}");
}

#[test]
fn a_kill_at_any_point_sends_nothing_twice_and_loses_nothing() {
    kill_at_every_point(WAYS, assert_kept);
}

#[test]
fn a_kill_in_a_repair_is_repaired() {
    // A torn line of the audit stays until something is appended.
    kill_at_every_point(REPAIRS, |world, _| drop(records(world)));
}

#[test]
fn a_kill_while_a_plan_is_saved_leaves_whole_plans() {
    let save = |world: &World| world.command(&["crm.lead.add", "fields[TITLE]=t", "--plan-only"]);
    let world = World::new();
    let points = passings(&world, save(&world), "point");
    for point in &points {
        let world = World::new();
        crash(save(&world), point);
        assert_kept(&world, point);
        let id = plan(&world, &["crm.lead.add", "fields[TITLE]=t"]);
        assert!(world.changes().is_empty(), "{point}");
        assert_eq!(world.run(&["--execute-plan", &id, "--confirm-write"]).status, 0);
    }
    println!("{} points while a plan is saved", points.len());
}

#[test]
fn a_kill_around_a_token_refresh_sends_nothing_twice() {
    let command = |world: &World| {
        let mut command = keyed(world, "t", "");
        world.with_oauth(&mut command);
        command
    };
    let world = World::with_token_that_expires_at_the_add();
    let points = passings(&world, command(&world), "point");
    let mut logins = 0;
    for point in &points {
        let world = World::with_token_that_expires_at_the_add();
        crash(command(&world), point);
        let again = Outcome::of(&mut command(&world));
        // A refresh token that was spent and not kept is gone for good.
        logins += usize::from(again.status == 4);
        assert!([0, 4, 8].contains(&again.status), "{point}: {}", again.stderr);
        assert!(again.status != 0 || made(&world, "t") == 1, "{point}");
        assert!(made(&world, "t") <= 1, "{point}");
        assert!(world.changes().iter().all(|change| intents(&world).contains(change.request_id.as_ref().unwrap())), "{point}");
        let _ = records(&world);
    }
    println!("{} points with a token refresh, {logins} need a new login", points.len());
}

#[test]
fn a_crash_of_one_key_never_frees_another() {
    let other = |world: &World| add(world, "t", &["--idempotency-key", "other"]);
    let ready = || {
        let world = World::new();
        world.fault("crm.lead.add:execute-then-drop:times=1");
        assert_eq!(Outcome::of(&mut add(&world, "t", &["--idempotency-key", "first"])).status, 8);
        world
    };
    let world = ready();
    let trace = world.home.path().join("trace");
    assert_eq!(Outcome::of(other(&world).env("B24_POINTS_TRACE", &trace)).status, 8);
    let mut passed: BTreeMap<String, u32> = BTreeMap::new();
    let text = std::fs::read_to_string(trace).unwrap();
    for line in text.lines() {
        let count = passed.entry(line.to_owned()).or_default();
        *count += 1;
        let (kind, name) = line.split_once(' ').unwrap();
        let world = ready();
        let _ = match kind {
            "point" => Outcome::of(other(&world).env("B24_CRASH_POINT", format!("{name}:{count}"))),
            _ => Outcome::of(other(&world).env("B24_FAULT_POINT", format!("{name}:{count}=ENOSPC"))),
        };
        let third = Outcome::of(&mut add(&world, "t", &["--idempotency-key", "third"]));
        assert_eq!((third.status, made(&world, "t")), (8, 1), "{line} {count}: {}", third.stderr);
    }
    println!("{} crashes and faults beside an unknown outcome", text.lines().count());
}

/// How many kills at random moments.
fn trials() -> usize {
    if std::env::var_os("B24_LONG_TESTS").is_some() { 2000 } else { 200 }
}

/// Returns a number below 1; multiples of the golden section spread evenly.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn spread(number: usize) -> f64 {
    (number as f64 * 0.618_034).fract()
}

/// Runs a command and kills it after `delay` unless it has ended.
fn kill_after(command: Command, delay: Duration) {
    let mut child = spawn(command);
    let mut stdout = child.stdout.take().unwrap();
    let (sender, ended) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let _ = stdout.read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    let _ = ended.recv_timeout(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
}

/// Runs a command and kills it when the portal has seen its request.
fn kill_when_seen(world: &World, command: Command) {
    let before = world.requests().len();
    let mut child = spawn(command);
    while world.requests().len() == before && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Twenty kills in one world; counts the states in which the records were
/// found, and the unknown outcomes.
fn kill_at_random(first: usize) -> BTreeMap<&'static str, usize> {
    let world = World::new();
    let start = now_ns();
    assert_eq!(Outcome::of(&mut add(&world, "warm", &[])).status, 0);
    let usual = Duration::from_nanos(now_ns() - start);
    let mut found = BTreeMap::new();
    for trial in first..first + 20 {
        let title = format!("trial-{trial}");
        let way = &WAYS[trial % WAYS.len()];
        let id = plan(&world, &["crm.lead.add", &format!("fields[TITLE]={title}")]);
        let command = || (way.command)(&world, &title, &id);
        let known: Vec<String> = records(&world).into_iter().map(|row| row.name).collect();
        match trial % 5 {
            0 => kill_when_seen(&world, command()),
            _ => kill_after(command(), usual.mul_f64(spread(trial) * 1.1)),
        }
        let state = records(&world).into_iter().find(|row| !known.contains(&row.name)).map_or("absent", |row| row.state);
        *found.entry(state).or_default() += 1;
        assert!(made(&world, &title) <= 1, "{title}");
        let unknown = carry_through(&world, &title, command, &format!("{title} ({})", way.name));
        *found.entry("settled by a person").or_default() += unknown;
        assert!(made(&world, &format!("{title}-b")) <= 1, "{title}");
    }
    assert_kept(&world, "random kills");
    found
}

#[test]
fn a_kill_in_a_race_sends_nothing_twice_and_loses_nothing() {
    let world = World::new();
    let start = now_ns();
    assert_eq!(Outcome::of(&mut add(&world, "warm", &[])).status, 0);
    let usual = Duration::from_nanos(now_ns() - start);
    let (rounds, mut unknown) = (trials() / 5, 0);
    for round in 0..rounds {
        let title = format!("round-{round}");
        std::thread::scope(|scope| {
            for racer in 0..4_u32 {
                let (world, title) = (&world, &title);
                scope.spawn(move || match racer {
                    0 | 1 => kill_after(keyed(world, title, ""), usual.mul_f64(spread(2 * round + racer as usize) * 3.0)),
                    _ => {
                        let outcome = Outcome::of(&mut keyed(world, title, ""));
                        assert!([0, 8, 9].contains(&outcome.status), "{title}: {}", outcome.stderr);
                    }
                });
            }
        });
        assert!(made(&world, &title) <= 1, "{title}");
        unknown += carry_through(&world, &title, || keyed(&world, &title, ""), &title);
    }
    assert_kept(&world, "race with kills");
    println!("{rounds} rounds of four with two kills, {unknown} unknown");
}

#[test]
fn a_kill_at_any_moment_sends_nothing_twice_and_loses_nothing() {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    let worlds: Vec<usize> = (0..trials()).step_by(20).collect();
    for pair in worlds.chunks(2) {
        std::thread::scope(|scope| {
            let runs: Vec<_> = pair.iter().map(|first| scope.spawn(|| kill_at_random(*first))).collect();
            for (state, count) in runs.into_iter().flat_map(|run| run.join().unwrap()) {
                *found.entry(state).or_default() += count;
            }
        });
    }
    println!("{} kills at random: {found:?}", trials());
}
