//! Many processes, one write: it is sent once.

use crate::kept::{assert_kept, is_replay, made, plan, race, state_of};
use crate::world::{Outcome, World};
use b24::emulator::{Limits, SeenStatus};
use serde_json::json;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const RACERS: usize = 8;

fn params(title: &str) -> String {
    json!({"fields": {"TITLE": title}}).to_string()
}

fn racer(world: &World, options: &[&str]) -> Command {
    let args: Vec<&str> = ["crm.lead.add", "--params", "-", "--confirm-write"].into_iter().chain(options.iter().copied()).collect();
    world.command(&args)
}

fn kind(outcome: &Outcome) -> String {
    let error: serde_json::Value = serde_json::from_str(outcome.stderr.lines().last().unwrap_or_default()).unwrap_or_default();
    error["kind"].as_str().unwrap_or_default().to_owned()
}

/// Counts how the processes of a race ended.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    replayed: usize,
    in_progress: usize,
    refused: usize,
}

impl Tally {
    /// Takes in one process; `refusals` are the other kinds of error allowed.
    #[track_caller]
    fn add(&mut self, outcome: &Outcome, refusals: &[&str]) {
        match (outcome.status, kind(outcome).as_str()) {
            (0, _) if is_replay(outcome) => self.replayed += 1,
            (0, _) => self.sent += 1,
            (9, "in_progress") => self.in_progress += 1,
            (_, kind) if refusals.contains(&kind) => self.refused += 1,
            (status, _) => panic!("exit {status}: {}", outcome.stderr),
        }
    }
}

fn limits(latency_ms: u64) -> Limits {
    Limits { latency: Duration::from_millis(latency_ms), ..Limits::none() }
}

/// Races for one explicit key a round and returns how the processes ended.
fn race_for_a_key(world: &World, rounds: usize, options: &[&str]) -> Tally {
    let mut tally = Tally::default();
    for round in 0..rounds {
        let title = format!("round-{round}");
        let options: Vec<&str> = ["--idempotency-key", &title].into_iter().chain(options.iter().copied()).collect();
        let outcomes = race((0..RACERS).map(|_| racer(world, &options)).collect(), &params(&title));
        outcomes.iter().for_each(|outcome| tally.add(outcome, &[]));
        assert_eq!(made(world, &title), 1, "{title}");
    }
    assert_eq!(tally.sent, rounds, "{tally:?}");
    assert_kept(world, "race");
    println!("{rounds} rounds of {RACERS}: {tally:?}");
    tally
}

#[test]
fn of_eight_processes_with_one_key_one_sends() {
    race_for_a_key(&World::new(), 50, &[]);
    race_for_a_key(&World::with(limits(300)), 10, &[]);
}

#[test]
fn whoever_waits_gets_the_answer_of_the_one_that_sent() {
    let tally = race_for_a_key(&World::with(limits(50)), 15, &["--wait"]);
    assert_eq!((tally.in_progress, tally.replayed), (0, 15 * (RACERS - 1)));
}

#[test]
fn equal_writes_without_a_key_are_one_write() {
    let world = World::new();
    let mut tally = Tally::default();
    for round in 0..20 {
        let title = format!("round-{round}");
        let outcomes = race((0..RACERS).map(|_| racer(&world, &[])).collect(), &params(&title));
        outcomes.iter().for_each(|outcome| tally.add(outcome, &["looks_repeated"]));
        assert_eq!(made(&world, &title), 1, "{title}");
        assert_eq!(racer_again(&world, &title).status, 0);
        assert_eq!(made(&world, &title), 2, "{title}");
    }
    assert_eq!(tally.sent, 20);
    assert_kept(&world, "race");
    println!("20 rounds of {RACERS} without a key: {tally:?}");
}

fn racer_again(world: &World, title: &str) -> Outcome {
    Outcome::with_stdin(&mut racer(world, &["--again"]), params(title).as_bytes())
}

/// Returns the processes of a race for one write under an automatic key, two
/// explicit ones and a plan.
fn mixed(world: &World, title: &str) -> Vec<Command> {
    let id = plan(world, &["crm.lead.add", "--params", &params(title)]);
    let (one, other) = (format!("{title}-one"), format!("{title}-other"));
    let mut commands = Vec::new();
    for _ in 0..2 {
        commands.push(racer(world, &[]));
        commands.push(racer(world, &["--idempotency-key", &one]));
        commands.push(racer(world, &["--idempotency-key", &other]));
        commands.push(world.command(&["--execute-plan", &id, "--confirm-write"]));
    }
    commands
}

/// Runs `body` while another thread looks, again and again, how many requests
/// the portal is working on; returns the most that were seen at once.
fn most_at_once(world: &World, body: impl FnOnce()) -> usize {
    let (over, most) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let pending = world.requests().iter().filter(|request| request.status == SeenStatus::Pending).count();
                most.fetch_max(pending, Ordering::SeqCst);
                std::thread::park_timeout(Duration::from_millis(2));
            }
        });
        body();
        over.store(true, Ordering::SeqCst);
    });
    most.into_inner()
}

#[test]
fn one_write_under_several_keys_is_never_under_way_twice() {
    let world = World::with(limits(20));
    let mut tally = Tally::default();
    let most = most_at_once(&world, || {
        for round in 0..15 {
            let title = format!("round-{round}");
            let before = tally.sent;
            let outcomes = race(mixed(&world, &title), &params(&title));
            outcomes.iter().for_each(|outcome| tally.add(outcome, &["looks_repeated", "plan_used"]));
            // Each key is a wish of its own; none is fulfilled twice.
            assert_eq!(made(&world, &title), tally.sent - before, "{title}");
            assert!(made(&world, &title) <= 4, "{title}");
        }
    });
    assert_eq!(most, 1, "requests at once");
    assert_kept(&world, "race");
    println!("15 rounds of {RACERS} under four keys, {most} at once: {tally:?}");
}

#[test]
fn a_lost_answer_stops_the_write_under_every_key() {
    let world = World::new();
    let mut tally = Tally::default();
    for round in 0..15 {
        let title = format!("round-{round}");
        let commands = mixed(&world, &title);
        world.fault("crm.lead.add:execute-then-drop");
        let outcomes = race(commands, &params(&title));
        world.emulator.clear_faults();
        outcomes.iter().for_each(|outcome| tally.add(outcome, &["outcome_unknown"]));
        let first = made(&world, &title);
        assert!(first <= 1, "{title}");
        if first == 1 {
            for command in mixed(&world, &title) {
                let late = race(vec![command], &params(&title)).remove(0);
                assert_eq!(late.error(8)["outcome"], "unknown");
            }
            assert_eq!(made(&world, &title), 1, "{title}");
        }
    }
    assert_eq!((tally.sent, tally.replayed), (0, 0));
    assert_kept(&world, "race");
    println!("15 rounds of {RACERS} with a lost answer: {tally:?}");
}

#[test]
fn a_claim_of_a_dead_process_goes_to_one_of_many() {
    let world = World::new();
    let mut tally = Tally::default();
    for round in 0..15 {
        let title = format!("round-{round}");
        let options = ["--idempotency-key", title.as_str()];
        let mut killed = racer(&world, &options);
        killed.env("B24_CRASH_POINT", "ledger.after_marks");
        assert_eq!(Outcome::with_stdin(&mut killed, params(&title).as_bytes()).status, -1);
        assert_eq!(state_of(&world, &title), "claimed");
        let outcomes = race((0..RACERS).map(|_| racer(&world, &options)).collect(), &params(&title));
        outcomes.iter().for_each(|outcome| tally.add(outcome, &[]));
        // Those that only look may refuse each other; whoever comes later sends.
        assert!(made(&world, &title) <= 1, "{title}: {tally:?}");
        assert_eq!(Outcome::with_stdin(&mut racer(&world, &options), params(&title).as_bytes()).status, 0);
        assert_eq!(made(&world, &title), 1, "{title}: {tally:?}");
    }
    println!("15 rounds of {RACERS} for an orphaned claim: {tally:?}");
}
