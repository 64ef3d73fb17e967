//! The promises of the ledger one by one: what each state means for each kind
//! of key, on both sides of every border, and what becomes of torn and damaged
//! records.

mod admin;
mod marks;

use super::model_tests::HandClock;
use super::record::{DispatchLine, RefusalLine, ResolutionLine, SuccessLine};
use super::*;
use crate::host::SystemRandom;
use crate::store::waiting::until_awaited;
use serde_json::json;
use std::sync::atomic::Ordering;

const FINGERPRINT: &str = "f";

/// A ledger on a clock that is set by hand.
struct Rig {
    folder: tempfile::TempDir,
    clock: Arc<HandClock>,
    ledger: Ledger,
}

impl Rig {
    fn new() -> Rig {
        let (folder, clock) = (tempfile::tempdir().unwrap(), Arc::new(HandClock::default()));
        let ledger = Ledger::new(folder.path().join("p"), "p".into(), "u".into(), Arc::clone(&clock) as _, Arc::new(SystemRandom));
        Rig { folder, clock, ledger }
    }

    /// Sets the clock to so many seconds after its beginning.
    fn at(&self, seconds: i64) {
        self.clock.0.store(seconds, Ordering::SeqCst);
    }

    fn path(&self, write: &Write) -> PathBuf {
        self.ledger.record_path(&self.name(write))
    }

    fn name(&self, write: &Write) -> String {
        self.ledger.record_name(&write.key.text(&write.fingerprint))
    }

    /// Puts a record in its place, with the key of the write in its claims.
    fn put(&self, write: &Write, lines: &[Line]) -> PathBuf {
        let (path, mut chain) = (self.path(write), Chain::default());
        let with_key = |line: &Line| match line {
            Line::C(claim) => Line::C(ClaimLine { key: write.key.text(&write.fingerprint), ..claim.clone() }),
            other => other.clone(),
        };
        let bytes: Vec<Vec<u8>> = lines.iter().map(|line| chain.push(&with_key(line))).collect();
        crate::store::create_folder(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes.concat()).unwrap();
        path
    }

    fn claim(&self, write: &Write, reuse: &Reuse) -> Result<Claimed, LedgerError> {
        self.ledger.claim(std::slice::from_ref(write), reuse).map(|mut claimed| claimed.remove(0)).map_err(|(_, error)| error)
    }

    fn fresh(&self, write: &Write, reuse: &Reuse) -> Claim {
        match self.claim(write, reuse) {
            Ok(Claimed::Fresh(claim)) => claim,
            other => panic!("{write:?} {reuse:?}: {other:?}"),
        }
    }

    /// The letters of a record.
    fn letters(&self, write: &Write) -> String {
        letters(&Record::parse(&std::fs::read(self.path(write)).unwrap()).unwrap())
    }
}

fn letters(record: &Record) -> String {
    record.lines.iter().map(|line| serde_json::to_value(line).unwrap()["t"].as_str().unwrap().to_owned()).collect()
}

fn write(key: Key) -> Write {
    Write {
        key,
        fingerprint: FINGERPRINT.to_owned(),
        legacy_fingerprint: None,
        method: "crm.lead.add".to_owned(),
        api: "v2",
        risk: Risk::Write,
        plan: None,
        replay_safe: false,
    }
}

fn auto() -> Write {
    write(Key::Auto(1))
}

fn given() -> Write {
    write(Key::Given("k".to_owned()))
}

fn planned() -> Write {
    write(Key::Plan("p".to_owned()))
}

fn time(seconds: i64) -> String {
    host::timestamp(chrono::DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap())
}

fn c(generation: u32) -> Line {
    match super::record::tests::claim(generation) {
        Line::C(claim) => Line::C(ClaimLine { at: time(0), ..claim }),
        other => other,
    }
}

fn d() -> Line {
    Line::D(DispatchLine { at: time(0), request_id: "r".to_owned() })
}

fn reason() -> ReasonLine {
    ReasonLine { at: time(0), why: "w".to_owned() }
}

fn n() -> Line {
    Line::N(reason())
}

fn u() -> Line {
    Line::U(reason())
}

fn o() -> Line {
    Line::O(reason())
}

fn f() -> Line {
    Line::F(RefusalLine { at: time(0), status: 400, kind: "not_found".to_owned(), code: "X".to_owned(), text: "no".to_owned() })
}

fn s() -> Line {
    Line::S(SuccessLine { at: time(0), answer: Some("{}".to_owned()), digest: "digest".to_owned(), ids: None })
}

fn r(verdict: Verdict) -> Line {
    Line::R(ResolutionLine { at: time(0), verdict, reason: "r".to_owned(), actor: "a".to_owned() })
}

/// Every state that a record can be in.
fn states() -> Vec<(&'static str, Vec<Line>)> {
    let resolved = |verdict| vec![c(1), d(), u(), r(verdict)];
    vec![
        ("C", vec![c(1)]),
        ("N", vec![c(1), d(), n()]),
        ("D", vec![c(1), d()]),
        ("U", vec![c(1), d(), u()]),
        ("O", vec![c(1), d(), o()]),
        ("F", vec![c(1), d(), f()]),
        ("S", vec![c(1), d(), s()]),
        ("executed", resolved(Verdict::Executed)),
        ("not executed", resolved(Verdict::NotExecuted)),
        ("abandoned", resolved(Verdict::Abandoned)),
    ]
}

fn window() -> Reuse {
    Reuse { repeat_window: Duration::from_secs(60), ..Reuse::plain() }
}

fn again() -> Reuse {
    Reuse { again: true, ..window() }
}

fn skip() -> Reuse {
    Reuse { skip: true, ..window() }
}

fn retry_failed() -> Reuse {
    Reuse { retry_failed: true, ..window() }
}

/// What the ledger says, in one word.
fn word(claimed: &Result<Claimed, LedgerError>) -> &'static str {
    match claimed {
        Ok(Claimed::Fresh(_)) => "fresh",
        Ok(Claimed::Done(_)) => "done",
        Err(LedgerError::InProgress(_)) => "in progress",
        Err(LedgerError::KeyReused { .. }) => "key reused",
        Err(LedgerError::Unknown { .. }) => "unknown",
        Err(LedgerError::LooksRepeated { .. }) => "repeated",
        Err(LedgerError::Abandoned(_)) => "abandoned",
        Err(LedgerError::RefusedBefore { .. }) => "refused",
        Err(LedgerError::Damaged { .. }) => "damaged",
        Err(LedgerError::Store(_)) => "store",
    }
}

#[test]
fn every_state_says_the_same_under_every_option() {
    // For no option, --again, --no-idempotency, --retry-failed.
    let table: &[(&str, Write, [&str; 4])] = &[
        ("C", auto(), ["fresh"; 4]),
        ("N", auto(), ["fresh"; 4]),
        ("D", auto(), ["unknown"; 4]),
        ("U", auto(), ["unknown"; 4]),
        ("O", auto(), ["unknown"; 4]),
        ("F", auto(), ["fresh"; 4]),
        ("S", auto(), ["repeated", "fresh", "fresh", "repeated"]),
        ("executed", auto(), ["repeated", "fresh", "fresh", "repeated"]),
        ("not executed", auto(), ["fresh"; 4]),
        ("abandoned", auto(), ["abandoned", "fresh", "abandoned", "abandoned"]),
        ("C", given(), ["fresh"; 4]),
        ("N", given(), ["fresh"; 4]),
        ("D", given(), ["unknown"; 4]),
        ("U", given(), ["unknown"; 4]),
        ("O", given(), ["unknown"; 4]),
        ("F", given(), ["refused", "refused", "fresh", "fresh"]),
        ("S", given(), ["done", "done", "fresh", "done"]),
        ("executed", given(), ["done", "done", "fresh", "done"]),
        ("not executed", given(), ["fresh"; 4]),
        ("abandoned", given(), ["abandoned"; 4]),
        ("C", planned(), ["fresh"; 4]),
        ("N", planned(), ["fresh"; 4]),
        ("D", planned(), ["unknown"; 4]),
        ("U", planned(), ["unknown"; 4]),
        ("O", planned(), ["unknown"; 4]),
        ("F", planned(), ["refused"; 4]),
        ("S", planned(), ["done"; 4]),
        ("executed", planned(), ["done"; 4]),
        ("not executed", planned(), ["fresh"; 4]),
        ("abandoned", planned(), ["abandoned"; 4]),
    ];
    for (state, write, expected) in table {
        let lines = states().into_iter().find(|(name, _)| name == state).unwrap().1;
        for (reuse, expected) in [window(), again(), skip(), retry_failed()].iter().zip(expected) {
            let rig = Rig::new();
            rig.put(write, &lines);
            assert_eq!(word(&rig.claim(write, reuse)), *expected, "{state} {:?} {reuse:?}", write.key);
        }
    }
}

#[test]
fn a_success_counts_until_its_window_is_over_and_longer_when_the_clock_is_set_back() {
    for lines in [vec![c(1), d(), s()], vec![c(1), d(), u(), r(Verdict::Executed)]] {
        let rig = Rig::new();
        rig.put(&auto(), &lines);
        for (age, expected) in [(0, "repeated"), (59, "repeated"), (-1, "repeated"), (-3600, "repeated"), (-86_400 * 365, "repeated")] {
            rig.at(age);
            assert_eq!(word(&rig.claim(&auto(), &window())), expected, "{age}");
        }
        rig.at(59);
        assert!(matches!(rig.claim(&auto(), &window()), Err(LedgerError::LooksRepeated { seconds: 59, .. })));
        // Setting the same value again is no repetition that harms.
        let harmless = Write { replay_safe: true, ..auto() };
        rig.at(60);
        assert_eq!(rig.fresh(&auto(), &window()).generation, 2);
        let rig = Rig::new();
        rig.put(&harmless, &lines);
        assert_eq!(rig.fresh(&harmless, &window()).generation, 2);
    }
}

#[test]
fn an_automatic_key_answers_as_long_as_the_caller_wants_and_no_longer() {
    let reuse = Reuse { replay_auto_for: Some(Duration::from_secs(100)), ..window() };
    for (age, expected) in [(0, "done"), (100, "done"), (101, "fresh"), (-3600, "done")] {
        let rig = Rig::new();
        rig.put(&auto(), &[c(1), d(), s()]);
        rig.at(age);
        assert_eq!(word(&rig.claim(&auto(), &reuse)), expected, "{age}");
    }
    // A key that was given answers at any age.
    let rig = Rig::new();
    rig.put(&given(), &[c(1), d(), s()]);
    rig.at(86_400 * 29);
    let Ok(Claimed::Done(done)) = rig.claim(&given(), &window()) else { panic!("no answer") };
    assert_eq!((done.record, done.at), (rig.name(&given()), time(0)));
    assert_eq!((done.answer.as_deref(), done.digest.as_deref(), done.ids), (Some("{}"), Some("digest"), None));
}

#[test]
fn a_time_that_cannot_be_read_counts_as_now() {
    let rig = Rig::new();
    let line = Line::S(SuccessLine { at: "soon".to_owned(), answer: None, digest: String::new(), ids: None });
    rig.put(&auto(), &[c(1), d(), line]);
    rig.at(86_400);
    assert_eq!(word(&rig.claim(&auto(), &window())), "repeated");
}

#[test]
fn an_earlier_refusal_is_told_as_it_was() {
    let rig = Rig::new();
    rig.put(&given(), &[c(1), d(), f()]);
    let Err(LedgerError::RefusedBefore { record, kind, code, text }) = rig.claim(&given(), &window()) else { panic!("no refusal") };
    assert_eq!((record, kind, code.as_str(), text.as_str()), (rig.name(&given()), Code::NotFound, "X", "no"));
    let Line::F(line) = f() else { unreachable!() };
    rig.put(&given(), &[c(1), d(), Line::F(RefusalLine { kind: "of another version".to_owned(), ..line })]);
    assert!(matches!(rig.claim(&given(), &window()), Err(LedgerError::RefusedBefore { kind: Code::ApiError, .. })));
}

/// What may stand behind the last whole line after a crash.
const TORN: [&str; 4] = ["0", "01234567 {\"t\":\"D\"", "01234567 {\"t\":\"S\"}\n", "\u{0}\u{0}\u{0}"];

#[test]
fn a_torn_tail_is_cut_before_a_line_is_appended() {
    let cases: &[(Write, Vec<Line>, Reuse, &str, u32)] = &[
        (given(), vec![c(1)], window(), "CD", 1),
        (given(), vec![c(3)], window(), "CD", 3),
        (given(), vec![c(1), d(), n()], window(), "CDND", 1),
        (auto(), vec![c(1), d(), f()], window(), "CDFD", 1),
        (given(), vec![c(1), d(), f()], retry_failed(), "CDFD", 1),
        (given(), vec![c(1), d(), u(), r(Verdict::NotExecuted)], window(), "CDURD", 1),
        (auto(), vec![c(1), d(), s()], again(), "CDSCD", 2),
        (given(), vec![c(1), d(), s()], skip(), "CDSCD", 2),
        (auto(), vec![c(4), d(), s()], again(), "CDSCD", 5),
        (auto(), vec![c(1), d(), u(), r(Verdict::Executed)], again(), "CDURCD", 2),
        (auto(), vec![c(1), d(), u(), r(Verdict::Abandoned)], again(), "CDURCD", 2),
    ];
    for (write, lines, reuse, expected, generation) in cases {
        for torn in ["", TORN[0], TORN[1], TORN[2], TORN[3]] {
            let rig = Rig::new();
            let path = rig.put(write, lines);
            let bytes = std::fs::read(&path).unwrap();
            std::fs::write(&path, [&bytes, torn.as_bytes()].concat()).unwrap();
            let mut claim = rig.fresh(write, reuse);
            claim.dispatch("r").unwrap();
            let record = Record::parse(&std::fs::read(&path).unwrap()).unwrap_or_else(|| panic!("{expected} {torn:?} is damaged"));
            assert_eq!(letters(&record), *expected, "{torn:?}");
            assert_eq!(record.valid, std::fs::metadata(&path).unwrap().len(), "{expected} {torn:?}");
            assert_eq!(record.claim().unwrap().generation, *generation, "{expected} {torn:?}");
            assert_eq!(claim.header(), format!("b24-{}-g{generation}", rig.name(write)));
            drop(claim);
            assert_eq!(word(&rig.claim(write, reuse)), "unknown", "{expected} {torn:?}");
        }
    }
}

#[test]
fn what_stands_behind_an_orphaned_dispatch_is_kept_for_a_person() {
    for torn in ["", TORN[0], TORN[1], TORN[2], TORN[3]] {
        let rig = Rig::new();
        let path = rig.put(&given(), &[c(1), d()]);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&bytes, torn.as_bytes()].concat()).unwrap();
        for _ in 0..2 {
            assert_eq!(word(&rig.claim(&given(), &window())), "unknown", "{torn:?}");
            assert_eq!(rig.letters(&given()), "CDO", "{torn:?}");
        }
        let aside: Vec<_> = std::fs::read_dir(rig.folder.path().join("p/damaged")).into_iter().flatten().map(Result::unwrap).collect();
        let kept: Vec<Vec<u8>> = aside.iter().map(|entry| std::fs::read(entry.path()).unwrap()).collect();
        let expected: Vec<Vec<u8>> = (!torn.is_empty()).then(|| torn.as_bytes().to_vec()).into_iter().collect();
        assert_eq!(kept, expected);
        let record = Record::parse(&std::fs::read(&path).unwrap()).unwrap();
        let Some(Line::O(line)) = record.last() else { panic!("no O") };
        let said = if torn.is_empty() { "the process that sent it died".to_owned() } else { format!("{} bytes behind", torn.len()) };
        assert!(line.why.starts_with(&said), "{}", line.why);
    }
}

#[test]
fn a_damaged_record_is_neither_executed_nor_touched() {
    for (state, lines) in states() {
        for write in [auto(), given(), planned()] {
            let rig = Rig::new();
            let path = rig.put(&write, &lines);
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[20] ^= 1;
            for damaged in [bytes, Vec::new(), b"\n".to_vec()] {
                std::fs::write(&path, &damaged).unwrap();
                for reuse in [window(), again(), skip(), retry_failed()] {
                    assert_eq!(word(&rig.claim(&write, &reuse)), "damaged", "{state} {:?} {reuse:?}", write.key);
                }
                assert_eq!(std::fs::read(&path).unwrap(), damaged, "{state}");
            }
        }
    }
}

#[test]
fn a_record_in_the_place_of_another_is_damage() {
    let rig = Rig::new();
    let other = write(Key::Given("other".to_owned()));
    let (from, to) = (rig.put(&other, &[c(1)]), rig.path(&given()));
    crate::store::create_folder(to.parent().unwrap()).unwrap();
    std::fs::rename(from, to).unwrap();
    assert_eq!(word(&rig.claim(&given(), &window())), "damaged");
}

#[test]
fn a_key_stands_for_one_write_in_its_new_and_old_form() {
    let rig = Rig::new();
    rig.put(&given(), &[c(1), d(), n()]);
    let other = Write { fingerprint: "g".to_owned(), ..given() };
    let Err(LedgerError::KeyReused { method, .. }) = rig.claim(&other, &window()) else { panic!("the key was not used") };
    assert_eq!(method, "crm.lead.add");
    // The old form of the same write: goes on in a generation that bears the new one.
    let same = Write { legacy_fingerprint: Some(FINGERPRINT.to_owned()), ..other };
    let claim = rig.fresh(&same, &window());
    assert_eq!((claim.generation, rig.letters(&given()).as_str()), (2, "CDNC"));
    let record = Record::parse(&std::fs::read(rig.path(&given())).unwrap()).unwrap();
    assert_eq!(record.claim().unwrap().fingerprint, "g");
}

#[test]
fn a_claim_line_says_what_is_claimed() {
    let rig = Rig::new();
    let wanted = Write {
        plan: Some("id".to_owned()),
        api: "v3",
        risk: Risk::Destructive,
        method: "tasks.task.delete".to_owned(),
        ..write(Key::Plan("id".to_owned()))
    };
    let claim = rig.fresh(&wanted, &window());
    assert_eq!(claim.record(), rig.name(&wanted));
    let record = Record::parse(&std::fs::read(rig.path(&wanted)).unwrap()).unwrap();
    let line = serde_json::to_value(record.claim().unwrap()).unwrap();
    for (name, value) in [
        ("v", json!(1)),
        ("generation", json!(1)),
        ("key", json!("id")),
        ("fingerprint", json!(FINGERPRINT)),
        ("method", json!("tasks.task.delete")),
        ("api", json!("v3")),
        ("risk", json!("destructive")),
        ("plan", json!("id")),
        ("at", json!(time(0))),
    ] {
        assert_eq!(line[name], value, "{name} of {line}");
    }
    assert_eq!(line["owner"]["boot"], "boot");
}

#[test]
fn every_end_has_a_line_that_says_all_of_it() {
    let ends: [(Settlement, Value); 4] = [
        (
            Settlement::Succeeded { digest: "d".to_owned(), answer: Some("a".to_owned()), ids: Some(json!([1])) },
            json!({"t": "S", "at": time(5), "answer": "a", "digest": "d", "ids": [1]}),
        ),
        (Settlement::NotExecuted("w".to_owned()), json!({"t": "N", "at": time(5), "why": "w"})),
        (
            Settlement::Refused { status: 404, kind: Code::NotFound, code: "X".to_owned(), text: "no".to_owned() },
            json!({"t": "F", "at": time(5), "status": 404, "kind": "not_found", "code": "X", "text": "no"}),
        ),
        (Settlement::Unknown("w".to_owned()), json!({"t": "U", "at": time(5), "why": "w"})),
    ];
    for (settlement, expected) in ends {
        let rig = Rig::new();
        let mut claim = rig.fresh(&given(), &window());
        claim.dispatch("request").unwrap();
        rig.at(5);
        claim.settle(settlement).unwrap();
        let record = Record::parse(&std::fs::read(rig.path(&given())).unwrap()).unwrap();
        assert_eq!(serde_json::to_value(&record.lines[1]).unwrap(), json!({"t": "D", "at": time(0), "request_id": "request"}));
        assert_eq!(serde_json::to_value(record.last().unwrap()).unwrap(), expected);
        assert_eq!(record.lines.len(), 3);
    }
}

#[test]
fn a_withdrawn_claim_goes_on_and_is_dispatched_again() {
    let rig = Rig::new();
    let mut claim = rig.fresh(&given(), &window());
    claim.dispatch("one").unwrap();
    claim.withdraw("limit").unwrap();
    claim.dispatch("two").unwrap();
    assert_eq!(rig.letters(&given()), "CDND");
    // Each dispatch has left its name.
    assert_eq!(rig.ledger.names_of_dispatches(&rig.name(&given())).unwrap(), [2, 1]);
    assert_eq!(word(&rig.claim(&given(), &window())), "in progress");
}

#[test]
fn writes_of_one_request_are_claimed_together_or_not_at_all() {
    let writes: Vec<Write> =
        ["a", "b", "c"].iter().map(|name| Write { fingerprint: (*name).to_owned(), ..write(Key::Given(format!("k#{name}"))) }).collect();
    // The results stand in the order of the writes, whatever that of the names.
    let rig = Rig::new();
    let claimed = rig.ledger.claim(&writes, &window()).unwrap();
    let records = claimed.iter().map(|claimed| if let Claimed::Fresh(claim) = claimed { claim.record().to_owned() } else { String::new() });
    assert_eq!(records.collect::<Vec<_>>(), writes.iter().map(|write| rig.name(write)).collect::<Vec<_>>());
    drop(claimed);
    // One that is unknown refuses all, and is named by its place.
    for unknown in 0..3 {
        let rig = Rig::new();
        let mut claim = rig.fresh(&writes[unknown], &window());
        claim.dispatch("r").unwrap();
        drop(claim);
        let Err((index, error)) = rig.ledger.claim(&writes, &window()) else { panic!("{unknown} is claimed") };
        assert_eq!((index, word(&Err(error))), (unknown, "unknown"));
        for (index, write) in writes.iter().enumerate().filter(|(index, _)| *index != unknown) {
            assert_eq!(rig.fresh(write, &window()).generation, 1, "{index}");
        }
    }
}

#[test]
fn the_writes_of_a_request_are_locked_in_the_order_of_their_names() {
    let writes: Vec<Write> =
        (0..8).map(|name| Write { fingerprint: format!("f{name}"), ..write(Key::Given(format!("k#{name}"))) }).collect();
    let rig = Rig::new();
    let first = (0..8).min_by_key(|index| rig.name(&writes[*index])).unwrap();
    let mut backwards: Vec<Write> = writes.clone();
    backwards.sort_by_key(|write| std::cmp::Reverse(rig.name(write)));
    for order in [&writes, &backwards] {
        // Whoever meets a held record first has claimed nothing behind it.
        let held = rig.fresh(&writes[first], &window());
        assert!(rig.ledger.claim(order, &window()).is_err());
        drop(held);
        let there = writes.iter().filter(|write| rig.path(write).exists()).count();
        assert_eq!(there, 1);
    }
}

#[test]
fn a_write_that_is_being_sent_is_waited_for_as_long_as_allowed() {
    let rig = Rig::new();
    let mut claim = rig.fresh(&given(), &window());
    claim.dispatch("r").unwrap();
    let path = rig.path(&given());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.claim(&given(), &Reuse { wait: Duration::from_secs(60), ..window() }));
        until_awaited(&path, 1);
        claim.settle(Settlement::Succeeded { digest: "d".to_owned(), answer: None, ids: None }).unwrap();
        assert_eq!(word(&waiting.join().unwrap()), "done");
    });
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    assert_eq!(word(&rig.claim(&given(), &window())), "in progress");
    drop(held);
}

#[test]
fn a_record_that_goes_while_it_is_awaited_is_claimed_anew() {
    let rig = Rig::new();
    let path = rig.put(&given(), &[c(1)]);
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| rig.claim(&given(), &Reuse { wait: Duration::from_secs(60), ..window() }));
        until_awaited(&path, 1);
        held.remove().unwrap();
        let Ok(Claimed::Fresh(mut claim)) = waiting.join().unwrap() else { panic!("not claimed") };
        claim.dispatch("r").unwrap();
        assert_eq!(rig.letters(&given()), "CD", "it is written to the file that is there");
    });
}

#[test]
fn a_worker_s_call_leaves_neither_marks_nor_names() {
    let rig = Rig::new();
    let once = write(Key::Once("nonce".to_owned()));
    let mut claim = rig.fresh(&once, &window());
    claim.dispatch("r").unwrap();
    assert_eq!(rig.ledger.names_of_dispatches(&rig.name(&once)).unwrap(), Vec::<usize>::new());
    assert!(!rig.folder.path().join("p/open").exists());
    assert_eq!(once.key.text("f"), "queue:nonce");
    drop(claim);
    assert_eq!(word(&rig.claim(&once, &window())), "unknown");
}

#[test]
fn the_text_of_a_key_tells_its_kind_and_number() {
    for (key, text) in [
        (Key::Auto(1), "auto:f"),
        (Key::Auto(2), "auto:f#2"),
        (Key::Given("k".to_owned()), "k"),
        (Key::Plan("id".to_owned()), "id"),
        (Key::Once("n".to_owned()), "queue:n"),
    ] {
        assert_eq!(key.text("f"), text);
    }
    // A record belongs to one portal and one user.
    let ledger = |portal: &str, user: &str| {
        let clock = Arc::new(HandClock::default());
        Ledger::new(PathBuf::new(), portal.to_owned(), user.to_owned(), clock, Arc::new(SystemRandom)).record_name("k")
    };
    assert!(ledger("p", "u") != ledger("q", "u") && ledger("p", "u") != ledger("p", "v"));
}
