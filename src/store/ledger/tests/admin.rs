//! What a person sees of the ledger and may do to it, state by state.

use super::super::admin::AdminError;
use super::*;

impl Rig {
    /// Names a record by a key that is none, so that its digits can be chosen.
    fn put_named(&self, name: &str, lines: &[Line]) {
        let (path, mut chain) = (self.ledger.record_path(name), Chain::default());
        let bytes: Vec<Vec<u8>> = lines.iter().map(|line| chain.push(line)).collect();
        crate::store::create_folder(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes.concat()).unwrap();
    }
}

#[test]
fn a_record_is_found_by_its_key_and_by_digits_that_mean_one() {
    let rig = Rig::new();
    let (one, two) = (format!("abcdef01{}", "0".repeat(56)), format!("abcdef012{}", "1".repeat(55)));
    rig.put_named(&one, &[c(1)]);
    rig.put(&given(), &[c(1)]);
    let missing = format!("abcdef0133{}", "2".repeat(54));
    assert_eq!(rig.ledger.find("k").unwrap(), rig.name(&given()));
    for digits in ["abcdef01", "ABCDEF01", "abcdef010000", &one] {
        assert_eq!(rig.ledger.find(digits).unwrap(), one, "{digits}");
    }
    for none in ["abcdef0", "abcdef02", "ghijklmn", &format!("{one}0"), "", "bcdef010"] {
        assert!(matches!(rig.ledger.find(none), Err(AdminError::NotFound(_))), "{none}");
    }
    // Two that begin alike settle nothing, also when one of them is missing.
    rig.put_named(&two, &[c(1)]);
    assert!(matches!(rig.ledger.find("abcdef01"), Err(AdminError::Ambiguous(_))));
    assert_eq!((rig.ledger.find("abcdef010").unwrap(), rig.ledger.find("abcdef012").unwrap()), (one, two.clone()));
    std::fs::remove_file(rig.ledger.record_path(&two)).unwrap();
    rig.put_named(&missing, &[c(1), d()]);
    rig.ledger.names(&missing).give(1).unwrap();
    std::fs::remove_file(rig.ledger.record_path(&missing)).unwrap();
    assert!(matches!(rig.ledger.find("abcdef01"), Err(AdminError::Ambiguous(_))));
    assert_eq!(rig.ledger.find("abcdef0133").unwrap(), missing);
    for done in [rig.ledger.forget("abcdef01").is_err(), rig.ledger.resolve("abcdef01", Verdict::Executed, "r", "a").is_err()] {
        assert!(done);
    }
}

#[test]
fn a_list_has_what_is_open_damaged_or_missing_and_everything_on_demand() {
    for (state, lines) in states() {
        let rig = Rig::new();
        rig.put(&given(), &lines);
        let is_open = ["D", "U", "O"].contains(&state);
        assert_eq!(rig.ledger.list(false).unwrap().len(), usize::from(is_open), "{state}");
        let all = rig.ledger.list(true).unwrap();
        assert_eq!((all.len(), all[0]["record"].as_str()), (1, Some(rig.name(&given()).as_str())), "{state}");
        assert_eq!(all[0]["state"], lines.last().unwrap().state(), "{state}");
        // The same record, with one digit that does not fit.
        let mut bytes = std::fs::read(rig.path(&given())).unwrap();
        bytes[20] ^= 1;
        std::fs::write(rig.path(&given()), bytes).unwrap();
        let shown = rig.ledger.show("k").unwrap();
        assert_eq!((&shown["state"], shown["text"].as_array().unwrap().len()), (&json!("damaged"), lines.len()), "{state}");
        for all in [false, true] {
            let rows = rig.ledger.list(all).unwrap();
            assert_eq!((rows.len(), &rows[0]["state"], &rows[0]["record"]), (1, &json!("damaged"), &json!(rig.name(&given()))), "{state}");
            assert!(rows[0]["problem"].as_str().unwrap().contains("line"), "{}", rows[0]);
        }
    }
    let rig = Rig::new();
    rig.put(&given(), &[c(1), d()]);
    rig.ledger.names(&rig.name(&given())).give(1).unwrap();
    std::fs::remove_file(rig.path(&given())).unwrap();
    for all in [false, true] {
        assert_eq!(rig.ledger.list(all).unwrap()[0]["state"], "missing");
    }
    assert_eq!(rig.ledger.show("k").unwrap()["state"], "missing");
}

#[test]
fn a_list_begins_with_the_newest_and_has_the_records_of_earlier_names() {
    let rig = Rig::new();
    let earlier = rig.folder.path().join("earlier");
    let Rig { folder, clock, ledger } = rig;
    let old = Ledger::new(earlier.clone(), "q".into(), "u".into(), Arc::clone(&clock) as _, Arc::new(SystemRandom));
    let old = Rig { folder: tempfile::tempdir().unwrap(), clock: Arc::clone(&clock), ledger: old };
    let rig = Rig { folder, clock, ledger: ledger.with_earlier_name(earlier, "q".to_owned()) };
    for (second, write) in [(20, &auto()), (40, &given())] {
        rig.put(write, &[c(1), Line::N(ReasonLine { at: time(second), why: String::new() })]);
    }
    old.put(&planned(), &[c(1), Line::N(ReasonLine { at: time(30), why: String::new() })]);
    let times: Vec<String> = rig.ledger.list(true).unwrap().iter().map(|row| row["at"].as_str().unwrap().to_owned()).collect();
    assert_eq!(times, [time(40), time(30), time(20)]);
    assert_eq!(rig.ledger.holding("p").record_name("p"), old.name(&planned()));
    assert_eq!(rig.ledger.holding("k").record_name("k"), rig.name(&given()));
}

#[test]
fn a_record_is_shown_with_all_its_lines() {
    let rig = Rig::new();
    rig.put(&given(), &[c(2), d(), u(), r(Verdict::Executed)]);
    let shown = rig.ledger.show("k").unwrap();
    for (name, value) in [
        ("record", json!(rig.name(&given()))),
        ("state", json!("resolved_executed")),
        ("key", json!("k")),
        ("method", json!("crm.lead.add")),
        ("api", json!("v2")),
        ("risk", json!("write")),
        ("generation", json!(2)),
        ("plan", Value::Null),
        ("claimed_at", json!(time(0))),
        ("at", json!(time(0))),
    ] {
        assert_eq!(shown[name], value, "{name}");
    }
    let letters: Vec<&Value> = shown["lines"].as_array().unwrap().iter().map(|line| &line["t"]).collect();
    assert_eq!(letters, ["C", "D", "U", "R"]);
}

#[test]
fn every_state_has_a_name_of_its_own_and_says_whether_it_is_open() {
    let told: Vec<(&str, bool)> =
        states().iter().map(|(_, lines)| (lines.last().unwrap().state(), lines.last().unwrap().is_open())).collect();
    let expected = [
        ("claimed", false),
        ("not_executed", false),
        ("dispatched", true),
        ("unknown", true),
        ("unknown", true),
        ("refused", false),
        ("succeeded", false),
        ("resolved_executed", false),
        ("resolved_not_executed", false),
        ("abandoned", false),
    ];
    assert_eq!(told, expected);
}

#[test]
fn only_what_is_open_is_resolved_and_only_what_is_not_is_forgotten() {
    for (state, lines) in states() {
        let is_open = ["D", "U", "O"].contains(&state);
        for verdict in [Verdict::Executed, Verdict::NotExecuted, Verdict::Abandoned] {
            for torn in ["", "half"] {
                let rig = Rig::new();
                let path = rig.put(&given(), &lines);
                let bytes = std::fs::read(&path).unwrap();
                std::fs::write(&path, [&bytes, torn.as_bytes()].concat()).unwrap();
                rig.at(7);
                match rig.ledger.resolve("k", verdict, "why", "who") {
                    Ok(value) => {
                        assert!(is_open, "{state}");
                        let record = Record::parse(&std::fs::read(&path).unwrap()).unwrap();
                        assert_eq!(record.valid, std::fs::metadata(&path).unwrap().len(), "the torn tail is gone");
                        let Some(Line::R(line)) = record.last() else { panic!("no decision") };
                        assert_eq!((line.verdict, line.reason.as_str(), line.actor.as_str()), (verdict, "why", "who"));
                        assert_eq!((line.at.as_str(), &value["state"]), (time(7).as_str(), &json!(record.last().unwrap().state())));
                        // A decision is final.
                        assert!(matches!(rig.ledger.resolve("k", verdict, "why", "who"), Err(AdminError::NotOpen(_))));
                    }
                    Err(error) => {
                        assert!(!is_open && matches!(error, AdminError::NotOpen(_)), "{state}: {error}");
                        assert_eq!(std::fs::read(&path).unwrap(), [&bytes, torn.as_bytes()].concat(), "{state}");
                    }
                }
            }
        }
        let rig = Rig::new();
        let path = rig.put(&given(), &lines);
        match rig.ledger.forget("k") {
            Ok(name) => assert!(!is_open && name == rig.name(&given()) && !path.exists(), "{state}"),
            Err(error) => assert!(is_open && matches!(error, AdminError::Open) && path.exists(), "{state}: {error}"),
        }
        assert_eq!(rig.ledger.names_of_dispatches(&rig.name(&given())).unwrap().is_empty(), !is_open, "{state}");
    }
}

#[test]
fn a_record_is_administered_by_one_and_by_nobody_while_it_is_used() {
    for mode in [Mode::Shared, Mode::Exclusive] {
        let rig = Rig::new();
        let path = rig.put(&given(), &[c(1), d(), u()]);
        let held = Locked::open(&path, mode, Duration::ZERO).unwrap();
        assert!(matches!(rig.ledger.resolve("k", Verdict::Executed, "r", "a"), Err(AdminError::Held)), "{mode:?}");
        assert!(matches!(rig.ledger.forget("k"), Err(AdminError::Held)), "{mode:?}");
        drop(held);
        assert_eq!(rig.letters(&given()), "CDU");
    }
}

#[test]
fn a_used_plan_is_remembered_for_a_day_and_an_unused_one_is_not() {
    for (state, lines) in states() {
        let is_used = !["C", "N"].contains(&state);
        if ["D", "U", "O"].contains(&state) {
            continue;
        }
        for (age, kept) in [(0, is_used), (86_399, is_used), (86_400, false), (-60, is_used)] {
            let rig = Rig::new();
            let lines: Vec<Line> = lines
                .iter()
                .map(|line| match line {
                    Line::C(claim) => Line::C(ClaimLine { plan: Some("p".to_owned()), ..claim.clone() }),
                    other => other.clone(),
                })
                .collect();
            rig.put(&planned(), &lines);
            rig.at(age);
            let forgotten = rig.ledger.forget("p");
            match &forgotten {
                Err(AdminError::OfPlan(plan)) => assert!(kept && plan == "p", "{state} {age}"),
                Err(error) => panic!("{state} {age}: {error}"),
                Ok(_) => assert!(!kept, "{state} {age}"),
            }
        }
    }
    // A record that was written anew may have been a plan's.
    let rig = Rig::new();
    let name = "ab".repeat(32);
    let Line::C(claim) = c(1) else { unreachable!() };
    rig.put_named(&name, &[Line::C(ClaimLine { key: String::new(), ..claim }), r(Verdict::Executed)]);
    assert!(matches!(rig.ledger.forget(&name), Err(AdminError::OfPlan(_))));
}

#[test]
fn a_damaged_record_is_kept_aside_and_written_anew_with_what_is_known() {
    let rig = Rig::new();
    let path = rig.put(&given(), &[c(3), d(), s()]);
    let mut bytes = std::fs::read(&path).unwrap();
    let place = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    bytes[place] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let value = rig.ledger.resolve("k", Verdict::Abandoned, "r", "a").unwrap();
    let aside = value["damaged_bytes"].as_str().unwrap();
    assert_eq!(std::fs::read(aside).unwrap(), bytes);
    assert_eq!(rig.letters(&given()), "CR");
    let record = Record::parse(&std::fs::read(&path).unwrap()).unwrap();
    let claim = record.claim().unwrap();
    assert_eq!((claim.generation, claim.key.as_str(), claim.fingerprint.as_str()), (3, "k", FINGERPRINT));
    assert_eq!(word(&rig.claim(&given(), &window())), "abandoned");
}

#[test]
fn a_missing_record_is_written_anew_and_its_names_are_given_back() {
    for (verdict, expected) in [(Verdict::Executed, "done"), (Verdict::NotExecuted, "fresh"), (Verdict::Abandoned, "abandoned")] {
        for key in ["k", ""] {
            let rig = Rig::new();
            let mut claim = rig.fresh(&given(), &window());
            claim.dispatch("r").unwrap();
            claim.withdraw("w").unwrap();
            claim.dispatch("r").unwrap();
            drop(claim);
            let (path, name) = (rig.path(&given()), rig.name(&given()));
            let bytes = std::fs::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let _ = std::fs::remove_dir_all(rig.folder.path().join("p/open"));
            assert_eq!(word(&rig.claim(&given(), &window())), "damaged");
            assert!(!path.exists(), "the record that was begun is taken away again");
            let key = if key.is_empty() { name.as_str() } else { key };
            assert_eq!(rig.ledger.resolve(key, verdict, "r", "a").unwrap()["state"], r(verdict).state());
            let aside = std::fs::read_dir(rig.folder.path().join("p/damaged")).unwrap().next().unwrap().unwrap().path();
            assert_eq!(std::fs::read(aside).unwrap(), bytes, "what its name still held");
            assert_eq!(rig.ledger.names_of_dispatches(&name).unwrap(), Vec::<usize>::new());
            // Two dispatches: two generations may have been sent.
            assert!(Record::parse(&std::fs::read(&path).unwrap()).unwrap().claim().unwrap().generation >= 2);
            assert_eq!(word(&rig.claim(&given(), &window())), expected, "{verdict:?}");
        }
    }
}

#[test]
fn every_refusal_of_a_person_has_its_code_and_a_next_step() {
    use crate::error::Coded;
    for (error, code) in [
        (AdminError::NotFound("k".to_owned()), Code::NotFound),
        (AdminError::Ambiguous("k".to_owned()), Code::Usage),
        (AdminError::NotOpen("claimed"), Code::InProgress),
        (AdminError::Open, Code::InProgress),
        (AdminError::OfPlan("p".to_owned()), Code::PlanUsed),
        (AdminError::Held, Code::InProgress),
        (AdminError::Ledger(LedgerError::Abandoned("a".repeat(64))), Code::Abandoned),
        (AdminError::Store(StoreError::Busy(PathBuf::new())), Code::LockBusy),
    ] {
        assert_eq!(error.code(), code, "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
    }
}

#[test]
fn every_refusal_of_a_write_has_its_code_its_record_and_a_next_step() {
    use crate::error::Coded;
    let record = || "a".repeat(64);
    let refused = LedgerError::RefusedBefore { record: record(), kind: Code::NotFound, code: "X".to_owned(), text: "no".to_owned() };
    for (error, code) in [
        (LedgerError::InProgress(record()), Code::InProgress),
        (LedgerError::KeyReused { record: record(), method: "m".to_owned() }, Code::KeyReused),
        (LedgerError::Unknown { record: record() }, Code::OutcomeUnknown),
        (LedgerError::LooksRepeated { record: record(), seconds: 1 }, Code::LooksRepeated),
        (LedgerError::Abandoned(record()), Code::Abandoned),
        (refused, Code::NotFound),
        (LedgerError::damaged(&record(), Path::new("p"), "is empty".to_owned()), Code::LedgerCorrupt),
    ] {
        assert_eq!((error.code(), &error.details()["ledger"]), (code, &json!(record())), "{error}");
        assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "{error}");
        assert_eq!(error.details().get("code").is_some(), matches!(error, LedgerError::RefusedBefore { .. }));
    }
    let busy = LedgerError::Store(StoreError::Busy(PathBuf::new()));
    assert_eq!((busy.code(), busy.details().len(), busy.hint().is_some()), (Code::LockBusy, 0, true));
}
