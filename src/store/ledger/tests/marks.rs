//! Marks: what stops a write under another key, and what stops nothing.

use super::*;
use crate::store::patience;

fn other() -> Write {
    write(Key::Given("other".to_owned()))
}

impl Rig {
    fn open_names(&self) -> Vec<String> {
        let mut names: Vec<String> = super::super::admin::names_in(&self.folder.path().join("p/open")).unwrap();
        names.sort();
        names
    }

    /// The marks file of the one write.
    fn marks(&self) -> PathBuf {
        let scope = json::sha256_hex(format!("b24-open-v1\0p\0u\0{FINGERPRINT}"));
        self.folder.path().join("p/open").join(scope)
    }

    fn put_marks(&self, bytes: &[u8]) {
        crate::store::create_folder(self.marks().parent().unwrap()).unwrap();
        std::fs::write(self.marks(), bytes).unwrap();
    }
}

#[test]
fn every_open_state_stops_the_write_under_every_other_key_and_no_other_does() {
    for (state, lines) in states() {
        let is_open = ["D", "U", "O"].contains(&state);
        for (first, second) in
            [(auto(), given()), (given(), auto()), (given(), other()), (planned(), given()), (given(), write(Key::Auto(2)))]
        {
            for reuse in [window(), again(), skip(), retry_failed()] {
                let rig = Rig::new();
                rig.put(&first, &lines);
                if first.key != Key::Auto(1) {
                    rig.put_marks(format!("{}\n", rig.name(&first)).as_bytes());
                }
                let said = word(&rig.claim(&second, &reuse));
                assert_eq!(said, if is_open { "unknown" } else { "fresh" }, "{state} {:?} {:?}", first.key, second.key);
                if is_open && second.key != Key::Auto(1) {
                    let marks = std::fs::read_to_string(rig.marks()).unwrap_or_default();
                    assert!(!marks.contains(&rig.name(&second)), "the refused claim took its mark away");
                }
            }
        }
    }
}

#[test]
fn a_mark_stands_from_the_claim_until_the_outcome_is_known() {
    for (settlement, stays) in [
        (Settlement::Succeeded { digest: String::new(), answer: None, ids: None }, false),
        (Settlement::NotExecuted(String::new()), false),
        (Settlement::Refused { status: 400, kind: Code::ApiError, code: String::new(), text: String::new() }, false),
        (Settlement::Unknown(String::new()), true),
    ] {
        let rig = Rig::new();
        let mut claim = rig.fresh(&given(), &window());
        let name = rig.name(&given());
        assert_eq!(std::fs::read_to_string(rig.marks()).unwrap(), format!("{name}\n"));
        assert_eq!(rig.open_names().len(), 2, "the line and the second name");
        claim.dispatch("r").unwrap();
        claim.settle(settlement).unwrap();
        assert_eq!(rig.open_names().len(), if stays { 2 } else { 0 });
    }
}

#[test]
fn a_held_record_stops_the_write_unless_it_is_of_another_one() {
    for (lines, fingerprint, expected) in [
        (vec![c(1)], FINGERPRINT, "in progress"),
        (vec![c(1), d(), s()], FINGERPRINT, "in progress"),
        (vec![c(1)], "", "in progress"),
        (vec![c(1)], "g", "fresh"),
        (vec![c(1), d()], "g", "fresh"),
    ] {
        for second in [auto(), given()] {
            let rig = Rig::new();
            let lines: Vec<Line> = lines
                .iter()
                .map(|line| match line {
                    Line::C(claim) => Line::C(ClaimLine { fingerprint: fingerprint.to_owned(), ..claim.clone() }),
                    other => other.clone(),
                })
                .collect();
            let path = rig.put(&other(), &lines);
            rig.put_marks(format!("{}\n", rig.name(&other())).as_bytes());
            let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
            assert_eq!(word(&rig.claim(&second, &window())), expected, "{fingerprint:?} {:?}", second.key);
            drop(held);
        }
    }
    // One that cannot be read may be any.
    let rig = Rig::new();
    let path = rig.put(&other(), &[c(1)]);
    rig.put_marks(format!("{}\n", rig.name(&other())).as_bytes());
    std::fs::write(&path, "x").unwrap();
    let held = Locked::open(&path, Mode::Exclusive, Duration::ZERO).unwrap();
    assert_eq!(word(&rig.claim(&given(), &window())), "in progress");
    drop(held);
    assert_eq!(word(&rig.claim(&given(), &window())), "damaged");
}

#[test]
fn an_unknown_record_of_another_write_stops_nothing() {
    for (fingerprint, expected) in [("g", "fresh"), ("", "unknown"), (FINGERPRINT, "unknown")] {
        let rig = Rig::new();
        let Line::C(claim) = c(1) else { unreachable!() };
        rig.put(&other(), &[Line::C(ClaimLine { fingerprint: fingerprint.to_owned(), ..claim }), d()]);
        rig.put_marks(format!("{}\n", rig.name(&other())).as_bytes());
        assert_eq!(word(&rig.claim(&given(), &window())), expected, "{fingerprint:?}");
    }
}

#[test]
fn a_mark_without_a_record_stops_only_what_was_dispatched() {
    let rig = Rig::new();
    rig.put_marks(format!("{}\n", rig.name(&other())).as_bytes());
    assert_eq!(word(&rig.claim(&auto(), &window())), "fresh");
    let rig = Rig::new();
    let path = rig.put(&other(), &[c(1), d()]);
    rig.ledger.names(&rig.name(&other())).give(1).unwrap();
    std::fs::remove_file(path).unwrap();
    rig.put_marks(format!("{}\n", rig.name(&other())).as_bytes());
    assert_eq!(word(&rig.claim(&auto(), &window())), "damaged");
}

#[test]
fn what_is_no_whole_mark_is_a_free_line() {
    let name = "ab".repeat(32);
    for free in [name.clone(), format!("{}\n", "-".repeat(64)), format!("{}\n", "xy".repeat(32)), format!("{name}x"), name[..63].to_owned()]
    {
        let rig = Rig::new();
        rig.put_marks(free.as_bytes());
        assert_eq!(rig.ledger.marked(FINGERPRINT).unwrap(), Vec::<String>::new(), "{free:?}");
        let _claim = rig.fresh(&given(), &window());
        assert_eq!(std::fs::read_to_string(rig.marks()).unwrap(), format!("{}\n", rig.name(&given())), "{free:?}");
    }
    let rig = Rig::new();
    rig.put_marks(format!("{name}\n").as_bytes());
    assert_eq!(rig.ledger.marked(FINGERPRINT).unwrap(), [name]);
}

#[test]
fn marks_stand_side_by_side_and_are_taken_away_one_by_one() {
    let rig = Rig::new();
    let old = "ab".repeat(32);
    rig.put_marks(format!("{old}\n").as_bytes());
    let mut claim = rig.fresh(&given(), &window());
    let name = rig.name(&given());
    assert_eq!(std::fs::read_to_string(rig.marks()).unwrap(), format!("{old}\n{name}\n"));
    claim.dispatch("r").unwrap();
    claim.settle(Settlement::NotExecuted(String::new())).unwrap();
    assert_eq!(std::fs::read_to_string(rig.marks()).unwrap(), format!("{old}\n{}\n", "-".repeat(64)));
    // The free line is used before the file grows, and a name stands once.
    let again = rig.fresh(&given(), &window());
    drop(again);
    let again = rig.fresh(&given(), &window());
    assert_eq!(std::fs::read_to_string(rig.marks()).unwrap(), format!("{old}\n{name}\n"));
    drop(again);
}

#[test]
fn a_mark_that_was_lost_is_known_by_its_second_name_and_put_back() {
    let rig = Rig::new();
    let mut claim = rig.fresh(&given(), &window());
    claim.dispatch("r").unwrap();
    drop(claim);
    for lose in [Vec::new(), "-".repeat(65).into_bytes()] {
        std::fs::write(rig.marks(), lose).unwrap();
        assert_eq!(word(&rig.claim(&auto(), &window())), "unknown");
        assert_eq!(word(&rig.claim(&other(), &window())), "unknown");
        assert!(std::fs::read_to_string(rig.marks()).unwrap().contains(&rig.name(&given())), "put back");
    }
    std::fs::remove_file(rig.marks()).unwrap();
    assert_eq!(word(&rig.claim(&auto(), &window())), "unknown");
    // And the other way round: a line without its second name gets it again.
    assert_eq!(word(&rig.claim(&other(), &window())), "unknown");
    let link = rig.open_names().into_iter().find(|name| name.contains('.')).unwrap();
    std::fs::remove_file(rig.folder.path().join("p/open").join(&link)).unwrap();
    assert_eq!(word(&rig.claim(&auto(), &window())), "unknown");
    assert!(rig.open_names().contains(&link));
}

#[test]
fn marks_that_cannot_be_read_stop_the_write() {
    for write in [auto(), given()] {
        let rig = Rig::new();
        rig.put_marks(b"");
        let held = Locked::open(&rig.marks(), Mode::Exclusive, Duration::ZERO).unwrap();
        let _patience = patience::begin(Duration::ZERO);
        assert!(matches!(rig.claim(&write, &window()), Err(LedgerError::Store(StoreError::Busy(_)))), "{:?}", write.key);
        drop(held);
    }
}

#[test]
fn the_writes_of_one_request_do_not_stop_each_other() {
    let rig = Rig::new();
    let writes = [write(Key::Given("k#a".to_owned())), write(Key::Given("k#b".to_owned())), auto(), write(Key::Auto(2))];
    let mut claimed = rig.ledger.claim(&writes, &window()).unwrap();
    for claimed in &mut claimed {
        let Claimed::Fresh(claim) = claimed else { panic!("not claimed") };
        claim.dispatch("r").unwrap();
    }
    drop(claimed);
    // Alone, each is stopped by the others.
    assert_eq!(word(&rig.claim(&other(), &window())), "unknown");
}
