//! The ledger against a model of it: whatever the order of claims, dispatches,
//! outcomes, deaths and decisions, the same write is never claimed twice at
//! once, and an unknown outcome stops it under every key. In between, records,
//! marks and witnesses are damaged, one at a time: what may have been sent is
//! not claimed again.

use super::*;
use crate::host::SystemRandom;
use chrono::{DateTime, Utc};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that is set by hand.
#[derive(Default)]
pub(super) struct HandClock(pub(super) AtomicI64);

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
    /// A record is damaged, claimed, and put right again.
    Damage(usize, Damage, Flag),
    /// The witness of a record goes; the record is claimed.
    LoseWitness(usize),
    /// The marks of a write are lost, and stay so.
    LoseMarks(usize),
}

/// What happens to the file of a record.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Remove,
    Empty,
    /// All lines from this one on go.
    Cut(usize),
    RemoveLine(usize),
    DoubleLine(usize),
    SwapLines(usize),
    FlipIn(usize),
    /// An older copy is put back.
    Older(usize),
}

impl Damage {
    /// Returns what is left; `None` when that is no file.
    fn of(self, bytes: &[u8], older: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let count = lines.len();
        let at = |number: usize| number % count;
        match self {
            Damage::Remove => return None,
            Damage::Empty => lines.clear(),
            Damage::Cut(number) => lines.truncate(at(number)),
            Damage::RemoveLine(number) => drop(lines.remove(at(number))),
            Damage::DoubleLine(number) => lines.insert(at(number), lines[at(number)].clone()),
            Damage::SwapLines(number) => lines.swap(at(number), at(number + 1)),
            Damage::FlipIn(number) => {
                let (line, place) = (at(number), number % 97);
                let place = place % lines[line].len();
                lines[line][place] ^= 4;
            }
            Damage::Older(number) => return Some(older[number % older.len()].clone()),
        }
        Some(lines.concat())
    }
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
        3 => (any::<usize>(), damages(), prop_oneof![Just(Flag::None), Just(Flag::Again), Just(Flag::Skip), Just(Flag::RetryFailed)])
            .prop_map(|(record, damage, flag)| Step::Damage(record, damage, flag)),
        1 => any::<usize>().prop_map(Step::LoseWitness),
        1 => (0..2_usize).prop_map(Step::LoseMarks),
    ]
}

fn damages() -> impl Strategy<Value = Damage> {
    let line = || 0..1_000_usize;
    prop_oneof![
        Just(Damage::Remove),
        Just(Damage::Empty),
        line().prop_map(Damage::Cut),
        line().prop_map(Damage::RemoveLine),
        line().prop_map(Damage::DoubleLine),
        line().prop_map(Damage::SwapLines),
        line().prop_map(Damage::FlipIn),
        line().prop_map(Damage::Older),
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
    Damaged,
}

struct Pair {
    _folder: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Ledger,
    model: BTreeMap<String, Known>,
    claims: Vec<(String, Claim)>,
    /// What the files of the records held before.
    older: BTreeMap<String, Vec<Vec<u8>>>,
}

/// The number of a key, by its text.
fn number_of(name: &str) -> usize {
    match name {
        "plan" => 3,
        "key-1" => 1,
        "key-2" => 2,
        _ => 0,
    }
}

fn write(number: usize, write: usize) -> Write {
    let (key, fingerprint) = (key(number), format!("write-{write}"));
    Write {
        key,
        fingerprint,
        legacy_fingerprint: None,
        method: "m".to_owned(),
        api: "v2",
        risk: Risk::Write,
        plan: None,
        replay_safe: false,
    }
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
        Pair { _folder: folder, clock, ledger, model: BTreeMap::new(), claims: Vec::new(), older: BTreeMap::new() }
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
            Step::Damage(record, damage, flag) => self.damage(record, damage, flag),
            Step::LoseWitness(record) => self.lose_witness(record),
            Step::LoseMarks(write) => self.lose_marks(write),
            Step::Dispatch(claim) | Step::Withdraw(claim) | Step::Settle(claim, _) | Step::Drop(claim) => {
                if !self.claims.is_empty() {
                    self.proceed(claim % self.claims.len(), step);
                }
            }
        }
    }

    fn claim(&mut self, number: usize, write: usize, flag: Flag) {
        let wanted = self::write(number, write);
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
                    State::Succeeded(_) => {
                        (Settlement::Succeeded { digest: String::new(), answer: None, ids: None }, State::Succeeded(now))
                    }
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
            self.older.remove(&name);
        }
    }

    /// Damages a record that nobody holds, and sees what a claim of its key and
    /// one of another key say. Then the record is as before.
    fn damage(&mut self, record: usize, damage: Damage, flag: Flag) {
        let Some((name, known)) = self.pick(record).filter(|(_, known)| !known.is_held) else { return };
        let path = self.ledger.record_path(&self.ledger.record_name(&name));
        let bytes = std::fs::read(&path).unwrap();
        let damaged = damage.of(&bytes, &self.older[&name]);
        let put = |bytes: Option<&Vec<u8>>| match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        };
        let (expected, _) = self.expected(&name, number_of(&name) == 0, known.write, flag);
        put(damaged.as_ref());
        let got = self.try_claim(&write(number_of(&name), known.write), flag);
        let context = format!("{name} {damage:?} {flag:?}: {got:?} of {:?}", self.model);
        assert!(got != Said::Fresh || expected.contains(&Said::Fresh), "{context}");
        let is_undispatched = matches!(known.state, State::Claimed | State::NotExecuted);
        assert!(got != Said::Done || expected.contains(&Said::Done) || is_undispatched, "{context}");
        if got == Said::Damaged {
            let rows = self.ledger.list(false).unwrap();
            assert!(rows.iter().any(|row| row["state"] == "damaged" || row["state"] == "missing"), "{context}");
        }
        put(Some(&bytes)); // The claim may have written.
        put(damaged.as_ref());
        let elsewhere = Write { key: Key::Given("key-9".to_owned()), ..write(1, known.write) };
        let blocked = self
            .model
            .values()
            .any(|known| known.write == elsewhere.fingerprint[6..].parse::<usize>().unwrap() && (known.is_held || known.is_open()));
        assert!(self.try_claim(&elsewhere, Flag::None) != Said::Fresh || !blocked, "{context} under another key");
        let _ = self.ledger.forget("key-9");
        put(Some(&bytes));
    }

    fn try_claim(&self, wanted: &Write, flag: Flag) -> Said {
        match self.ledger.claim(std::slice::from_ref(wanted), &flag.reuse()) {
            Ok(claimed) if matches!(claimed[0], Claimed::Fresh(_)) => Said::Fresh,
            Ok(_) => Said::Done,
            Err((_, error)) => said(&error),
        }
    }

    fn lose_witness(&mut self, record: usize) {
        let Some((name, known)) = self.pick(record).filter(|(_, known)| !known.is_held) else { return };
        let record = self.ledger.record_name(&name);
        let _ = self.ledger.forget_dispatches(&record, self.ledger.names_of_dispatches(&record).unwrap().into_iter()).unwrap();
        self.claim(number_of(&name), known.write, Flag::None);
    }

    fn lose_marks(&self, write: usize) {
        let scope = json::sha256_hex(format!("b24-open-v1\0p\0u\0write-{write}"));
        let _ = std::fs::remove_file(self.ledger.folder.join("open").join(scope));
    }

    /// What must hold whatever happened.
    fn check(&mut self) {
        for name in self.model.keys() {
            let bytes = std::fs::read(self.ledger.record_path(&self.ledger.record_name(name))).unwrap();
            let older = self.older.entry(name.clone()).or_default();
            if older.last() != Some(&bytes) {
                older.push(bytes);
            }
        }
        for write in 0..2 {
            let held = self.model.values().filter(|known| known.is_held && known.write == write).count();
            assert!(held <= 1, "{:?}", self.model);
        }
        assert_eq!(self.claims.len(), self.model.values().filter(|known| known.is_held).count());
        let rows = self.ledger.list(true).unwrap();
        assert_eq!(rows.len(), self.model.len());
        assert!(rows.iter().all(|row| row["state"] != "damaged" && row["state"] != "missing"));
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
        LedgerError::Damaged { .. } => Said::Damaged,
        LedgerError::Store(_) => panic!("{error}"),
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
