//! The inbox against a model of it: whatever two workers do in whatever order,
//! an event is in one hand at most, an entity's events go one after another,
//! and none is over before its source was told.

use super::*;
use crate::queue::commit::Arrival;
use crate::queue::line::CallKind;
use crate::queue::state::Known;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write as _;

/// A delivery: which event, and through which reservation (0: online).
type Delivery = (u8, u8);

#[derive(Debug, Clone)]
enum Step {
    Receive(usize, Vec<Delivery>),
    Start(usize, usize),
    End(usize, u8, Outcome),
    Bury(usize),
    Settle(usize, bool),
    Call(usize, u8),
    Return(usize, u8),
    /// The worker dies, and another one comes.
    Die(usize),
    Release(usize),
    Compact(usize),
    /// A worker is killed in the middle of a line.
    Tear(Vec<u8>),
    Wait(i64),
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0_usize..2;
    let outcome = prop_oneof![
        4 => Just(Outcome::Done),
        1 => (0_i64..2000).prop_map(Outcome::Later),
        1 => (0_i64..2000).prop_map(Outcome::Failed),
        2 => Just(Outcome::Dead("handler_failed".to_owned(), "no".to_owned())),
        1 => Just(Outcome::Interrupted),
    ];
    prop_oneof![
        6 => (who.clone(), prop::collection::vec((0_u8..12, 0_u8..4), 1..5)).prop_map(|(who, events)| Step::Receive(who, events)),
        6 => (who.clone(), 1_usize..4).prop_map(|(who, count)| Step::Start(who, count)),
        8 => (who.clone(), any::<u8>(), outcome).prop_map(|(who, which, outcome)| Step::End(who, which, outcome)),
        2 => who.clone().prop_map(Step::Bury),
        4 => (who.clone(), any::<bool>()).prop_map(|(who, complete)| Step::Settle(who, complete)),
        1 => (who.clone(), 0_u8..3).prop_map(|(who, nonce)| Step::Call(who, nonce)),
        1 => (who.clone(), 0_u8..3).prop_map(|(who, nonce)| Step::Return(who, nonce)),
        1 => who.clone().prop_map(Step::Die),
        2 => who.clone().prop_map(Step::Release),
        1 => who.prop_map(Step::Compact),
        1 => prop::collection::vec(any::<u8>().prop_filter("no line end", |byte| *byte != b'\n'), 1..30).prop_map(Step::Tear),
        2 => (1_i64..1500).prop_map(Step::Wait),
    ]
}

/// Everything that can be seen of an event.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    key: EventKey,
    entity: String,
    order: u64,
    origin: Origin,
    at: i64,
    due: i64,
    counts: (u32, u32, u32),
    phase: Phase,
}

impl Seen {
    fn of(entry: &Entry) -> Seen {
        Seen {
            key: entry.key,
            entity: entry.entity.to_string(),
            order: entry.order,
            origin: entry.origin.clone(),
            at: entry.at,
            due: entry.due,
            counts: (entry.failures, entry.starts, entry.interrupted),
            phase: entry.phase.clone(),
        }
    }

    fn is_offline(&self) -> bool {
        matches!(self.origin, Origin::Offline(_))
    }

    fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Running { .. })
    }

    fn owner(&self) -> Option<&str> {
        match &self.phase {
            Phase::Waiting => None,
            Phase::Running { worker, .. } | Phase::Done { worker } | Phase::Dead { worker, .. } => Some(worker),
        }
    }
}

/// Two workers on one folder, and what they ought to know.
struct World {
    folder: tempfile::TempDir,
    clock: Arc<HandClock>,
    workers: Vec<Inbox>,
    events: BTreeMap<u64, Seen>,
    over: HashSet<EventKey>,
    calls: BTreeSet<String>,
    counters: Counters,
    next_seq: u64,
}

impl World {
    fn new() -> World {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
        let workers = (0..2).map(|_| open(&folder, &clock)).collect();
        World {
            folder,
            clock,
            workers,
            events: BTreeMap::new(),
            over: HashSet::new(),
            calls: BTreeSet::new(),
            counters: Counters::default(),
            next_seq: 0,
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().timestamp_millis()
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Receive(who, deliveries) => self.receive(who, &deliveries),
            Step::Start(who, count) => self.start(who, count),
            Step::End(who, which, outcome) => self.end(who, which, outcome),
            Step::Bury(who) => self.bury(who),
            Step::Settle(who, complete) => self.settle(who, complete),
            Step::Call(who, nonce) => {
                let nonce = format!("n{nonce}");
                commit(&mut self.workers[who], |commit| commit.calling(&nonce, CallKind::Reserve));
                self.calls.insert(nonce);
            }
            Step::Return(who, nonce) => {
                let nonce = format!("n{nonce}");
                commit(&mut self.workers[who], |commit| commit.called(&nonce));
                self.calls.remove(&nonce);
            }
            Step::Die(who) => self.workers[who] = open(&self.folder, &self.clock),
            Step::Release(who) => self.release(who),
            Step::Compact(who) => compact(&mut self.workers[who]),
            Step::Tear(bytes) => tear(self.folder.path(), &bytes),
            Step::Wait(ms) => drop(self.clock.0.fetch_add(ms, Ordering::SeqCst)),
        }
    }

    fn receive(&mut self, who: usize, deliveries: &[Delivery]) {
        let events: Vec<NewEvent> = deliveries.iter().map(|(number, process)| event(*number, *process)).collect();
        let (now, worker) = (self.now(), Arc::from(self.workers[who].worker()));
        let mut expected = Arrival::default();
        for event in &events {
            let here = self.events.values_mut().find(|seen| seen.key == event.key);
            let phase = match (here, self.over.contains(&event.key)) {
                (Some(seen), _) => {
                    expected.known += 1;
                    if seen.is_offline() && matches!(event.origin, Origin::Offline(_)) {
                        seen.origin = event.origin.clone();
                    }
                    continue;
                }
                (None, true) => {
                    expected.known += 1;
                    if matches!(event.origin, Origin::Online) {
                        continue;
                    }
                    self.over.remove(&event.key);
                    Phase::Done { worker: Arc::clone(&worker) }
                }
                (None, false) => {
                    expected.new += 1;
                    Phase::Waiting
                }
            };
            let is_new = phase == Phase::Waiting;
            let seen = Seen {
                key: event.key,
                entity: if is_new { event.entity.clone() } else { String::new() },
                order: event.order.filter(|_| is_new).unwrap_or(self.next_seq),
                origin: event.origin.clone(),
                at: if is_new { now } else { 0 },
                due: 0,
                counts: (0, 0, 0),
                phase,
            };
            self.events.insert(self.next_seq, seen);
            self.next_seq += 1;
        }
        self.counters.received += expected.new as u64;
        self.counters.duplicates += expected.known as u64;
        assert_eq!(commit(&mut self.workers[who], |commit| commit.receive(events)), expected);
    }

    /// Returns the events that may be handed over: of every entity the first.
    fn startable(&self) -> BTreeSet<u64> {
        let mut first: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for (seq, seen) in self.events.iter().filter(|(_, seen)| seen.phase == Phase::Waiting) {
            let place = (seen.order, *seq);
            first.entry(&seen.entity).and_modify(|least| *least = place.min(*least)).or_insert(place);
        }
        let is_running =
            |entity: &str| self.events.values().any(|seen| seen.entity == entity && matches!(seen.phase, Phase::Running { .. }));
        let free = first.into_iter().filter(|(entity, (_, seq))| !is_running(entity) && self.events[seq].due <= self.now());
        free.map(|(_, (_, seq))| seq).collect()
    }

    fn start(&mut self, who: usize, count: usize) {
        let startable = self.startable();
        let until = self.now() + LAPSE;
        let jobs = self.workers[who].commit(|commit| commit.start(count, LAPSE, |_| true)).unwrap();
        assert_eq!(jobs.len(), count.min(startable.len()));
        for job in jobs {
            assert!(startable.contains(&job.seq), "{} must wait", job.seq);
            let seen = self.events.get_mut(&job.seq).unwrap();
            seen.counts.1 += 1;
            seen.phase = Phase::Running { worker: Arc::from(self.workers[who].worker()), until };
            assert_eq!((job.key, job.attempt, job.interrupted), (seen.key, seen.counts.1, seen.counts.2));
            assert!(EventKey::of(serde_json::from_str::<serde_json::Value>(job.payload.get()).unwrap()["ID"].as_str().unwrap()) == job.key);
        }
    }

    fn end(&mut self, who: usize, which: u8, outcome: Outcome) {
        let worker: Arc<str> = Arc::from(self.workers[who].worker());
        let running: Vec<u64> =
            self.events.iter().filter(|(_, seen)| matches!(seen.phase, Phase::Running { .. })).map(|(seq, _)| *seq).collect();
        let Some(seq) = running.get(usize::from(which) % running.len().max(1)).copied() else { return };
        let outcome = match outcome {
            Outcome::Later(wait) => Outcome::Later(self.now() + wait),
            Outcome::Failed(wait) => Outcome::Failed(self.now() + wait),
            other => other,
        };
        commit(&mut self.workers[who], |commit| commit.end(seq, outcome.clone()));
        let seen = self.events.get_mut(&seq).unwrap();
        if seen.owner() != Some(&*worker) {
            return;
        }
        match outcome {
            Outcome::Done => {
                self.counters.handled += 1;
                seen.phase = Phase::Done { worker };
                if !seen.is_offline() {
                    self.finish(seq);
                }
            }
            Outcome::Later(due) => {
                self.counters.later += 1;
                (seen.phase, seen.due) = (Phase::Waiting, due);
            }
            Outcome::Failed(due) => {
                self.counters.failed += 1;
                seen.counts.0 += 1;
                (seen.phase, seen.due) = (Phase::Waiting, due);
            }
            Outcome::Dead(reason, error) => {
                (self.counters.failed, self.counters.dead) = (self.counters.failed + 1, self.counters.dead + 1);
                seen.counts.0 += 1;
                seen.phase = Phase::Dead { worker, reason, error, buried: false };
            }
            Outcome::Interrupted => {
                self.counters.interrupted += 1;
                seen.counts.2 += 1;
                seen.phase = Phase::Waiting;
            }
        }
    }

    fn finish(&mut self, seq: u64) {
        self.over.insert(self.events.remove(&seq).unwrap().key);
    }

    fn bury(&mut self, who: usize) {
        let dead = unburied(&mut self.workers[who]);
        let seqs: Vec<u64> = dead.iter().map(|dead| dead.job.seq).collect();
        let unburied = self.events.iter().filter(|(_, seen)| matches!(seen.phase, Phase::Dead { buried: false, .. }));
        assert_eq!(seqs, unburied.map(|(seq, _)| *seq).collect::<Vec<_>>());
        commit(&mut self.workers[who], |commit| commit.bury(seqs.clone()));
        for seq in seqs {
            let seen = self.events.get_mut(&seq).unwrap();
            if let Phase::Dead { buried, .. } = &mut seen.phase {
                *buried = true;
            }
            if !seen.is_offline() {
                self.finish(seq);
            }
        }
    }

    fn settle(&mut self, who: usize, complete: bool) {
        commit(&mut self.workers[who], |_| ());
        let own = self.workers[who].worker().to_owned();
        let living: Vec<String> = self.workers.iter().map(|worker| worker.worker().to_owned()).collect();
        let settlements = self.workers[who].settlements(complete);
        let told: BTreeSet<u64> = settlements.iter().flat_map(|settlement| settlement.rows.iter().map(|row| row.seq)).collect();
        for settlement in &settlements {
            for row in &settlement.rows {
                let seen = &self.events[&row.seq];
                assert_eq!(
                    seen.origin,
                    Origin::Offline(Reservation {
                        process: settlement.process.clone(),
                        row: row.row.clone(),
                        message: row.message.clone()
                    })
                );
                assert!(matches!(seen.phase, Phase::Done { .. } | Phase::Dead { buried: true, .. }), "{seen:?}");
                assert_eq!(row.is_dead, matches!(seen.phase, Phase::Dead { .. }));
                // Neither before it is over nor while its worker will tell it.
                assert!(seen.owner() == Some(own.as_str()) || !living.iter().any(|name| seen.owner() == Some(name.as_str())));
            }
        }
        let process = |seen: &Seen| match &seen.origin {
            Origin::Offline(reservation) => Some(reservation.process.clone()),
            Origin::Online | Origin::Revived => None,
        };
        let open: BTreeSet<String> = self.events.values().filter(|seen| seen.is_unfinished()).filter_map(process).collect();
        for (seq, seen) in &self.events {
            let is_over = matches!(seen.phase, Phase::Done { .. } | Phase::Dead { buried: true, .. });
            let is_open = process(seen).is_some_and(|process| open.contains(&process));
            assert!(!(complete && is_open && told.contains(seq)));
            if is_over && seen.owner() == Some(own.as_str()) && !(complete && is_open) {
                assert!(told.contains(seq), "{seq} is not told");
            }
        }
        commit(&mut self.workers[who], |commit| commit.settle(told.iter().copied().collect()));
        told.into_iter().for_each(|seq| self.finish(seq));
    }

    fn release(&mut self, who: usize) {
        let living: Vec<String> = self.workers.iter().map(|worker| worker.worker().to_owned()).collect();
        let mut released = 0;
        for seen in self.events.values_mut().filter(|seen| matches!(seen.phase, Phase::Running { .. })) {
            if !living.iter().any(|name| seen.owner() == Some(name)) {
                seen.phase = Phase::Waiting;
                seen.counts.2 += 1;
                released += 1;
            }
        }
        self.counters.interrupted += released;
        assert_eq!(self.workers[who].release_dead().unwrap() as u64, released);
    }

    /// Every worker, and one that reads everything anew, knows the same.
    fn check(&mut self) {
        for who in 0..self.workers.len() {
            commit(&mut self.workers[who], |_| ());
            self.check_state(&self.workers[who].state);
        }
        let mut state = State::default();
        drop(Journal::find(self.folder.path()).unwrap().lock(&mut state, &SystemRandom).unwrap());
        self.check_state(&state);
        for worker in &self.workers {
            assert_eq!(state.live_bytes, worker.state.live_bytes);
            assert!(state.over().eq(worker.state.over()));
        }
    }

    fn check_state(&self, state: &State) {
        let seen: BTreeMap<u64, Seen> = state.entries().map(|(seq, entry)| (seq, Seen::of(entry))).collect();
        assert_eq!(seen, self.events);
        assert_eq!((state.counters, state.next_seq), (self.counters, self.next_seq));
        assert_eq!(state.over().map(|(key, _)| key).collect::<HashSet<_>>(), self.over);
        assert_eq!(state.calls.keys().cloned().collect::<BTreeSet<_>>(), self.calls);
        assert_eq!(state.ready(self.now()).collect::<BTreeSet<_>>(), self.startable());
        let numbers = |is: fn(&Seen) -> bool| self.events.iter().filter(move |(_, seen)| is(seen)).map(|(seq, _)| *seq);
        assert_eq!(state.unfinished(), numbers(Seen::is_unfinished).count());
        assert!(state.unburied().eq(numbers(|seen| matches!(seen.phase, Phase::Dead { buried: false, .. }))));
        assert!(
            state
                .unsettled()
                .eq(numbers(|seen| seen.is_offline() && matches!(seen.phase, Phase::Done { .. } | Phase::Dead { buried: true, .. })))
        );
        for (seq, seen) in &self.events {
            assert_eq!(state.known(seen.key), Some(Known::Here(*seq)));
        }
    }
}

fn tear(folder: &Path, bytes: &[u8]) {
    let entries = std::fs::read_dir(folder).unwrap().filter(|entry| entry.as_ref().unwrap().path().extension().is_some());
    if entries.count() < 2 {
        return;
    }
    std::fs::OpenOptions::new().append(true).open(newest(folder)).unwrap().write_all(bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_inbox_does_what_the_model_does(steps in prop::collection::vec(steps(), 1..70)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
            world.check();
        }
    }
}
