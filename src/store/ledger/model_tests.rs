//! The ledger against a model of it: whatever the order of claims, dispatches,
//! outcomes, deaths and decisions, the same write is never claimed twice at
//! once, and an unknown outcome stops it under every key.

use super::*;
use crate::host::SystemRandom;
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that is set by hand.
#[derive(Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + self.0.load(Ordering::SeqCst), 0).unwrap()
    }

    fn boot_ns(&self) -> u64 {
        0
    }

    fn boot_id(&self) -> String {
        "boot".to_owned()
    }

    fn sleep(&self, _: Duration) {}
}

const WINDOW: i64 = 60;

fn reuse() -> Reuse {
    Reuse {
        repeat_window: Duration::from_secs(60),
        again: false,
        replay_auto_for: None,
        skip: false,
        retry_failed: false,
        wait: Duration::ZERO,
    }
}

#[derive(Debug, Clone, Copy)]
enum Flag {
    None,
    Again,
    Skip,
    RetryFailed,
}

impl Flag {
    fn reuse(self) -> Reuse {
        match self {
            Flag::None => reuse(),
            Flag::Again => Reuse { again: true, ..reuse() },
            Flag::Skip => Reuse { skip: true, ..reuse() },
            Flag::RetryFailed => Reuse { retry_failed: true, ..reuse() },
        }
    }
}

/// How a write may end, as the model knows it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Claimed,
    Dispatched,
    NotExecuted,
    Refused,
    Succeeded(i64),
    Unknown,
    Resolved(Verdict, i64),
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A claim by key (0 is the automatic one, 3 a plan) and write.
    Claim(usize, usize, Flag),
    /// Something done with one of the held claims, by position.
    Dispatch(usize),
    Withdraw(usize),
    Settle(usize, State),
    /// The process dies.
    Drop(usize),
    Resolve(usize, Verdict),
    Forget(usize),
    Later,
}

fn steps() -> impl Strategy<Value = Step> {
    let flag = prop_oneof![4 => Just(Flag::None), 1 => Just(Flag::Again), 1 => Just(Flag::Skip), 1 => Just(Flag::RetryFailed)];
    let end = prop_oneof![Just(State::Succeeded(0)), Just(State::NotExecuted), Just(State::Refused), Just(State::Unknown)];
    let verdict = prop_oneof![Just(Verdict::Executed), Just(Verdict::NotExecuted), Just(Verdict::Abandoned)];
    prop_oneof![
        8 => (0..4_usize, 0..2_usize, flag).prop_map(|(key, write, flag)| Step::Claim(key, write, flag)),
        5 => any::<usize>().prop_map(Step::Dispatch),
        1 => any::<usize>().prop_map(Step::Withdraw),
        4 => (any::<usize>(), end).prop_map(|(claim, end)| Step::Settle(claim, end)),
        2 => any::<usize>().prop_map(Step::Drop),
        1 => (any::<usize>(), verdict).prop_map(|(record, verdict)| Step::Resolve(record, verdict)),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => Just(Step::Later),
    ]
}

/// What the model knows of a record.
#[derive(Debug, Clone, Copy)]
struct Known {
    write: usize,
    state: State,
    is_held: bool,
}

impl Known {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Dispatched | State::Unknown)
    }
}

/// The answers of the ledger that the model tells apart.
#[derive(Debug, PartialEq)]
enum Said {
    Fresh,
    Done,
    InProgress,
    KeyReused,
    Unknown,
    Repeated,
    Abandoned,
    RefusedBefore,
}

struct Pair {
    _folder: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Ledger,
    model: BTreeMap<String, Known>,
    claims: Vec<(String, Claim)>,
}

fn key(number: usize) -> Key {
    match number {
        0 => Key::Auto(1),
        3 => Key::Plan("plan".to_owned()),
        other => Key::Given(format!("key-{other}")),
    }
}

impl Pair {
    fn new() -> Pair {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(HandClock::default());
        let ledger = Ledger::new(folder.path().join("p"), "p".to_owned(), "u".to_owned(), Arc::clone(&clock) as _, Arc::new(SystemRandom));
        Pair { _folder: folder, clock, ledger, model: BTreeMap::new(), claims: Vec::new() }
    }

    fn now(&self) -> i64 {
        self.clock.0.load(Ordering::SeqCst)
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Claim(number, write, flag) => self.claim(number, write, flag),
            Step::Later => drop(self.clock.0.fetch_add(WINDOW + 1, Ordering::SeqCst)),
            Step::Resolve(record, verdict) => self.resolve(record, verdict),
            Step::Forget(record) => self.forget(record),
            Step::Dispatch(claim) | Step::Withdraw(claim) | Step::Settle(claim, _) | Step::Drop(claim) => {
                if !self.claims.is_empty() {
                    self.proceed(claim % self.claims.len(), step);
                }
            }
        }
    }

    fn claim(&mut self, number: usize, write: usize, flag: Flag) {
        let fingerprint = format!("write-{write}");
        let wanted =
            Write { key: key(number), fingerprint, method: "m".to_owned(), api: "v2", risk: Risk::Write, plan: None, replay_safe: false };
        let name = wanted.key.text(&wanted.fingerprint);
        let (expected, after) = self.expected(&name, number == 0, write, flag);
        let claimed = self.ledger.claim(std::slice::from_ref(&wanted), &flag.reuse());
        let (is_fresh, got) = match claimed {
            Ok(mut claimed) => match claimed.remove(0) {
                Claimed::Fresh(claim) => {
                    self.claims.push((name.clone(), claim));
                    (true, Said::Fresh)
                }
                Claimed::Done(_) => (false, Said::Done),
            },
            Err((_, error)) => (false, said(&error)),
        };
        assert!(expected.contains(&got), "{name} {flag:?}: {got:?}, expected {expected:?} of {:?}", self.model);
        if let Some(state) = after {
            self.model.insert(name, Known { write, state, is_held: is_fresh });
        }
    }

    /// Returns what the ledger may say to a claim, and the record's state
    /// afterwards, where that changes.
    fn expected(&self, name: &str, is_auto: bool, write: usize, flag: Flag) -> (Vec<Said>, Option<State>) {
        let reuse = match flag {
            // No option makes a used plan new.
            Flag::Skip | Flag::RetryFailed if name == "plan" => Flag::None.reuse(),
            flag => flag.reuse(),
        };
        let after = match self.model.get(name) {
            None => State::Claimed,
            Some(known) if known.is_held => return (vec![Said::InProgress], None),
            Some(known) if known.write != write => return (vec![Said::KeyReused], None),
            Some(known) => match known.state {
                State::Claimed | State::NotExecuted | State::Resolved(Verdict::NotExecuted, _) => known.state,
                State::Dispatched | State::Unknown => return (vec![Said::Unknown], Some(State::Unknown)),
                State::Refused if is_auto || reuse.retry_failed || reuse.skip => State::Refused,
                State::Refused => return (vec![Said::RefusedBefore], None),
                State::Resolved(Verdict::Abandoned, _) if is_auto && reuse.again => State::Claimed,
                State::Resolved(Verdict::Abandoned, _) => return (vec![Said::Abandoned], None),
                State::Succeeded(at) | State::Resolved(Verdict::Executed, at) => match () {
                    () if reuse.skip => State::Claimed,
                    () if !is_auto => return (vec![Said::Done], None),
                    () if self.now() - at < WINDOW && !reuse.again => return (vec![Said::Repeated], None),
                    () => State::Claimed,
                },
            },
        };
        let others = || self.model.iter().filter(|(other, known)| *other != name && known.write == write).map(|(_, known)| known);
        let blocked = others().any(|known| known.is_held || known.is_open());
        (if blocked { vec![Said::InProgress, Said::Unknown] } else { vec![Said::Fresh] }, Some(after))
    }

    fn proceed(&mut self, index: usize, step: Step) {
        let (name, mut claim) = self.claims.swap_remove(index);
        let now = self.now();
        let known = self.model.get_mut(&name).unwrap();
        match step {
            Step::Dispatch(_) => {
                claim.dispatch("r").unwrap();
                known.state = State::Dispatched;
                return self.claims.push((name, claim));
            }
            Step::Withdraw(_) => {
                claim.withdraw("w").unwrap();
                known.state = State::NotExecuted;
                return self.claims.push((name, claim));
            }
            // Only what was dispatched has an outcome.
            Step::Settle(_, end) if known.state == State::Dispatched => {
                let (settlement, state) = match end {
                    State::Succeeded(_) => (Settlement::Succeeded { digest: String::new(), answer: None }, State::Succeeded(now)),
                    State::Refused => (
                        Settlement::Refused { status: 400, kind: Code::ApiError, code: "X".to_owned(), text: String::new() },
                        State::Refused,
                    ),
                    State::Unknown => (Settlement::Unknown("u".to_owned()), State::Unknown),
                    _ => (Settlement::NotExecuted("n".to_owned()), State::NotExecuted),
                };
                claim.settle(settlement).unwrap();
                known.state = state;
            }
            _ => drop(claim),
        }
        known.is_held = false;
    }

    fn pick(&self, record: usize) -> Option<(String, Known)> {
        let index = record.checked_rem(self.model.len())?;
        self.model.iter().nth(index).map(|(name, known)| (name.clone(), *known))
    }

    fn resolve(&mut self, record: usize, verdict: Verdict) {
        let Some((name, known)) = self.pick(record) else { return };
        let resolved = self.ledger.resolve(&name, verdict, "r", "a");
        assert_eq!(resolved.is_ok(), known.is_open() && !known.is_held, "{name} {known:?}");
        if resolved.is_ok() {
            let state = State::Resolved(verdict, self.now());
            self.model.insert(name, Known { state, ..known });
        }
    }

    fn forget(&mut self, record: usize) {
        let Some((name, known)) = self.pick(record) else { return };
        let forgotten = self.ledger.forget(&name);
        assert_eq!(forgotten.is_ok(), !known.is_open() && !known.is_held, "{name} {known:?}");
        if forgotten.is_ok() {
            self.model.remove(&name);
        }
    }

    /// What must hold whatever happened.
    fn check(&self) {
        for write in 0..2 {
            let held = self.model.values().filter(|known| known.is_held && known.write == write).count();
            assert!(held <= 1, "{:?}", self.model);
        }
        assert_eq!(self.claims.len(), self.model.values().filter(|known| known.is_held).count());
        let rows = self.ledger.list(true).unwrap();
        assert_eq!(rows.len(), self.model.len());
        assert!(rows.iter().all(|row| row["state"] != "damaged"));
    }
}

fn said(error: &LedgerError) -> Said {
    match error {
        LedgerError::InProgress(_) => Said::InProgress,
        LedgerError::KeyReused { .. } => Said::KeyReused,
        LedgerError::Unknown { .. } => Said::Unknown,
        LedgerError::LooksRepeated { .. } => Said::Repeated,
        LedgerError::Abandoned(_) => Said::Abandoned,
        LedgerError::RefusedBefore { .. } => Said::RefusedBefore,
        LedgerError::Corrupt(_) | LedgerError::Store(_) => panic!("{error}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]
    #[test]
    fn the_ledger_does_what_the_model_does(steps in prop::collection::vec(steps(), 1..60)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.apply(step);
            pair.check();
        }
    }
}
