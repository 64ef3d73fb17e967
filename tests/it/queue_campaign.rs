//! Ten thousand events with faults, poison and kills: none is lost, none
//! overtakes another of its entity, and none is handled twice without cause.

use crate::queue_world::{Entry, FAULTS, Proof, Rig, assert_careful, pause, proof, run, start};
use crate::world::Outcome;
use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Some events are never handled until a file says so; some fail twice; some
/// are put off once; some kill their handler once.
const RULES: &str = r#"
case $event:$entity in
  ONCRMDEALADD:*07|ONTASKUPDATE:*3) [ -e accept ] || status=1;;
  ONCRMLEADADD:*11) [ "$attempt" -gt $((interrupted + 2)) ] || status=1;;
  ONCRMCONTACTUPDATE:*5) [ "$attempt" -gt $((interrupted + 1)) ] || status=75;;
  ONCRMDEALUPDATE:*50) [ "$attempt" -gt 1 ] || kill -9 $$;;
esac
"#;

/// Whether these rules never let the event through.
fn is_poison(event: &str, id: usize) -> bool {
    (event == "ONCRMDEALADD" && id > 99 && id % 100 == 7) || (event == "ONTASKUPDATE" && id % 10 == 3)
}

/// Events in the order in which they are raised, one row each.
struct Plan {
    events: Vec<(&'static str, usize)>,
    raised: usize,
}

impl Plan {
    /// Deals with up to three events each, leads, contacts and tasks with two.
    fn of(count: usize) -> Plan {
        let unit = count / 20;
        let kinds: &[(&[&'static str], usize)] = &[
            (&["ONCRMDEALADD", "ONCRMDEALUPDATE"], 4 * unit),
            (&["ONCRMLEADADD", "ONCRMLEADUPDATE"], 2 * unit),
            (&["ONCRMCONTACTADD", "ONCRMCONTACTUPDATE"], 2 * unit),
            (&["ONTASKADD", "ONTASKUPDATE"], unit),
            (&["ONCRMDEALDELETE"], 2 * unit),
        ];
        let mut events = Vec::new();
        for round in 0..2 {
            for (names, objects) in kinds {
                let name = if names.len() == 2 { names.get(round) } else { names.first().filter(|_| round == 1) };
                events.extend(name.into_iter().flat_map(|name| (1..=*objects).map(|id| (*name, id))));
            }
        }
        Plan { events, raised: 0 }
    }

    /// Raises the next events, up to this part of all.
    fn raise(&mut self, rig: &Rig, until: usize) {
        let until = until.min(self.events.len());
        while self.raised < until {
            let (event, id) = self.events[self.raised];
            rig.raise(event, id);
            self.raised += 1;
        }
    }

    /// The rows that go to the dead letters: a row's number is its turn.
    fn poison(&self) -> BTreeSet<u64> {
        let poison = self.events.iter().enumerate().filter(|(_, (event, id))| is_poison(event, *id));
        poison.map(|(turn, _)| turn as u64 + 1).collect()
    }
}

/// What must hold when everything was worked off; then the dead letters are
/// tried again by a handler that takes them.
fn check(rig: &Rig, plan: &Plan) -> Proof {
    let all: BTreeSet<u64> = (1..=plan.events.len() as u64).collect();
    let poison = plan.poison();
    let proof = proof(&rig.log());
    assert_eq!(rig.rows(), Vec::<serde_json::Value>::new(), "the portal's queue is empty");
    let missing: Vec<&u64> = all.iter().filter(|row| !proof.done.contains(row) && !poison.contains(row)).collect();
    assert!(missing.is_empty(), "lost: {missing:?}");
    assert!(proof.done.is_disjoint(&poison) && proof.done.is_subset(&all));
    let letters = rig.letters();
    let dead: BTreeSet<u64> = letters.iter().map(|letter| letter["payload"]["ID"].as_str().unwrap().parse().unwrap()).collect();
    assert_eq!((letters.len(), &dead), (poison.len(), &poison));
    assert_careful(rig);
    let status = rig.status();
    let interrupted = usize::try_from(status["counters"]["interrupted"].as_u64().unwrap()).unwrap();
    assert!(proof.again <= interrupted, "{} again, {interrupted} interrupted", proof.again);
    assert_eq!(
        (&status["depth"]["waiting"], &status["depth"]["running"], &status["depth"]["unsettled"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert!(status["counters"]["received"].as_u64() == Some(all.len() as u64), "{status}");
    let open = Outcome::of(&mut rig.world.oauth_command(&["ledger", "list"]));
    assert!(open.status == 0 && !open.stdout.contains("\"record\""), "{}", open.stdout);

    std::fs::write(rig.path("accept"), "").unwrap();
    let retried = Outcome::of(&mut rig.queue(&["dlq", "retry", "--all"])).body(0);
    assert_eq!(retried["retried"], poison.len());
    let _ = run(rig.serve(&["--until-empty"]), 0);
    assert!(rig.letters().is_empty());
    let handled: BTreeSet<u64> = rig.log().iter().filter(|entry| entry.word == "done").map(|entry| entry.row).collect();
    assert_eq!(handled, all);
    proof
}

const METHODS: &[&str] = &["event.offline.get", "event.offline.clear", "event.offline.list"];

#[test]
fn ten_thousand_events_through_every_fault() {
    let rig = Rig::new(RULES);
    let mut plan = Plan::of(10_000);
    plan.raise(&rig, 4_000);
    let started = Instant::now();
    let mut faults = METHODS.iter().flat_map(|method| FAULTS.iter().map(move |fault| format!("{method}:{fault}")));
    let (mut runs, mut met) = (BTreeMap::<i32, usize>::new(), 0);
    let mut polled = 0;
    loop {
        let worker = start(rig.serve(&["--until-empty", "--batch", "150"]));
        let outcome = std::thread::scope(|scope| {
            let worker = scope.spawn(move || crate::kept::ended(worker));
            while !worker.is_finished() {
                // One fault at a time: after each the worker goes on.
                let polls = rig.seen("event.offline.get").len();
                if polls > polled + 2 {
                    polled = polls;
                    plan.raise(&rig, plan.raised + 150);
                    if let Some(fault) = faults.next() {
                        rig.world.fault(&format!("{fault}:times=1"));
                        met += 1;
                    }
                }
                pause(10);
            }
            worker.join().unwrap()
        });
        *runs.entry(outcome.status).or_default() += 1;
        if [0, 6].contains(&outcome.status) && plan.raised == plan.events.len() && faults.clone().next().is_none() {
            break;
        }
        assert!([0, 1, 6, 7, 8].contains(&outcome.status), "{}", outcome.stderr);
        assert!(runs.values().sum::<usize>() < 100, "{runs:?} {}", outcome.stderr);
    }
    let proof = check(&rig, &plan);
    println!(
        "{} events, {met} faults, {} handled, {} again, exits {runs:?}, {:?}",
        plan.events.len(),
        proof.done.len(),
        proof.again,
        started.elapsed()
    );
}

/// How many events and kills.
fn scale() -> (usize, usize) {
    if std::env::var_os("B24_LONG_TESTS").is_some() { (50_000, 1_000) } else { (10_000, 200) }
}

/// Returns a number up to a limit.
fn spread_to(number: usize, most: u64) -> u64 {
    number as u64 * 6_180_339 % 10_000_019 * most / 10_000_019
}

/// Kills a worker: after a time, when its handler has written so much, or when
/// the portal has seen so many of its requests. Returns whether it lived.
fn kill(rig: &Rig, trial: usize, mut worker: Child) -> bool {
    let length = || std::fs::metadata(rig.path("log")).map_or(0, |log| log.len());
    let (begin, written, seen) = (Instant::now(), length(), rig.world.requests().len());
    let is_time = || match trial % 3 {
        0 => begin.elapsed() > Duration::from_millis(spread_to(trial, 500)),
        1 => length() > written + spread_to(trial, 5_000),
        _ => rig.world.requests().len() > seen + trial % 8,
    };
    while !is_time() && begin.elapsed() < Duration::from_secs(1) && worker.try_wait().unwrap().is_none() {
        pause(1);
    }
    let lived = worker.try_wait().unwrap().is_none();
    worker.kill().unwrap();
    worker.wait().unwrap();
    lived
}

/// Kills workers while events come, then lets one work to the end.
fn kill_at_random(rig: &Rig, worker: impl Fn(&[&str]) -> Command, (count, kills): (usize, usize)) {
    let started = Instant::now();
    let mut plan = Plan::of(count);
    let (mut killed, mut trial) = (0, 0);
    while killed < kills {
        assert!(trial < 3 * kills, "the workers end too early");
        let next = plan.events.len() * (trial + 2) / (kills + 1);
        plan.raise(rig, next);
        killed += usize::from(kill(rig, trial, start(worker(&[]))));
        trial += 1;
    }
    plan.raise(rig, count);
    let last = start(worker(&["--until-empty"]));
    let last = crate::kept::ended(last);
    assert!([0, 6].contains(&last.status), "{}", last.stderr);
    let log: Vec<Entry> = rig.log();
    let proof = check(rig, &plan);
    println!(
        "{} events, {killed} kills, {} attempts, {} handled, {} again, {} seen by the portal, {:?}",
        plan.events.len(),
        log.iter().filter(|entry| entry.word == "begin").count(),
        proof.done.len(),
        proof.again,
        rig.world.requests().len(),
        started.elapsed()
    );
}

#[test]
fn kills_at_random_moments_lose_nothing() {
    let rig = Rig::new(RULES);
    kill_at_random(&rig, |args| rig.serve(&[&["--batch", "100"], args].concat()), scale());
}

#[test]
fn kills_lose_nothing_with_a_process_for_each_event() {
    let rig = Rig::new(RULES);
    let (count, kills) = scale();
    kill_at_random(&rig, |args| rig.exec(args), (count / 10, kills / 4));
}
