//! Ledger records as the version before this one wrote them: without a chain,
//! without witnesses. They are read, they block, they answer, and they go on in
//! the new form.

use crate::damage_kinds::read;
use crate::kept::{made, state_of};
use crate::world::{Outcome, World};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

fn add(world: &World, title: &str, options: &[&str]) -> Command {
    let title = format!("fields[TITLE]={title}");
    world.command(&[&["crm.lead.add", &title, "--confirm-write"], options].concat())
}

/// The file of the record of the key `k`.
fn record(world: &World) -> PathBuf {
    let text = |path: &PathBuf| std::fs::read_to_string(world.state().join(path)).unwrap();
    let is_record = |path: &PathBuf| path.iter().any(|part| part == "ledger") && path.extension().is_none();
    let files = read(&world.state()).into_keys().filter(|path| is_record(path) && text(path).contains("\"key\":\"k\""));
    let files: Vec<PathBuf> = files.collect();
    assert_eq!(files.len(), 1, "{files:?}");
    world.state().join(&files[0])
}

/// The other names of records.
fn witnesses(world: &World) -> Vec<PathBuf> {
    let is_name = |path: &PathBuf| path.iter().any(|part| part == "sent" || part == "open") && path.extension().is_some();
    read(&world.state()).into_keys().filter(is_name).collect()
}

/// Writes the records in the old form and takes the witnesses away. The JSON
/// of the lines is the same in both.
fn make_old(world: &World) {
    let path = record(world);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut old = String::new();
    for line in text.lines() {
        let json = line.split_once(' ').unwrap().1;
        let _ = writeln!(old, "{:08x} {json}", crc32c::crc32c(json.as_bytes()));
    }
    std::fs::write(path, old).unwrap();
    for name in witnesses(world) {
        std::fs::remove_file(world.state().join(name)).unwrap();
    }
}

/// Lines in the old form, and lines in the new one.
fn forms(world: &World) -> (usize, usize) {
    let text = std::fs::read_to_string(record(world)).unwrap();
    let (old, new): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line[..8] == format!("{:08x}", crc32c::crc32c(&line.as_bytes()[9..])));
    (old.len(), new.len())
}

const KEY: [&str; 2] = ["--idempotency-key", "k"];

#[test]
fn an_old_success_answers_and_gets_a_witness() {
    let world = World::new();
    let first = Outcome::of(&mut add(&world, "t", &KEY)).body(0);
    make_old(&world);
    assert_eq!(witnesses(&world).len(), 0);
    let again = Outcome::of(&mut add(&world, "t", &KEY)).body(0);
    assert_eq!(first["result"], again["result"]);
    assert_eq!(witnesses(&world).len(), 1);
    // From here on its end cannot be lost unseen.
    let text = std::fs::read_to_string(record(&world)).unwrap();
    std::fs::write(record(&world), text.split_inclusive('\n').next().unwrap()).unwrap();
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).error(12)["kind"], "ledger_corrupt");
    assert_eq!(made(&world, "t"), 1);
}

#[test]
fn an_old_unknown_outcome_blocks_under_every_key() {
    let world = World::new();
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 8);
    make_old(&world);
    for options in [KEY.as_slice(), &[], &["--idempotency-key", "other"]] {
        assert_eq!(Outcome::of(&mut add(&world, "t", options)).status, 8, "{options:?}");
    }
    assert_eq!(made(&world, "t"), 1);
    crate::kept::resolve(&world, "k", "abandoned");
    assert_eq!(state_of(&world, "k"), "abandoned");
    assert_eq!(forms(&world), (3, 1));
}

#[test]
fn an_old_claim_goes_on_in_the_new_form() {
    let world = World::new();
    world.fault("crm.lead.add:redirect:times=1");
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 4);
    make_old(&world);
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 0);
    assert_eq!((forms(&world), made(&world, "t")), ((3, 2), 1));
    assert_eq!(witnesses(&world).len(), 2);
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 0);
    assert_eq!(made(&world, "t"), 1);
    // The version before would have taken this for a claim that may go on.
    let text = std::fs::read_to_string(record(&world)).unwrap();
    let old: String = text.split_inclusive('\n').take(3).collect();
    std::fs::write(record(&world), old).unwrap();
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 12);
    assert_eq!(made(&world, "t"), 1);
}

#[test]
fn old_lines_that_were_moved_or_doubled_are_damage() {
    let world = World::new();
    assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 0);
    make_old(&world);
    let text = std::fs::read_to_string(record(&world)).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let [claim, dispatch, success] = lines.as_slice() else { panic!("{text}") };
    for order in [
        vec![dispatch, success, claim],
        vec![success, dispatch, claim],
        vec![dispatch, claim],
        vec![claim, claim],
        vec![claim, success],
        vec![claim, dispatch, dispatch],
        vec![claim, dispatch, success, success],
    ] {
        let text: String = order.into_iter().copied().collect();
        std::fs::write(record(&world), &text).unwrap();
        assert_eq!(Outcome::of(&mut add(&world, "t", &KEY)).status, 12, "{text}");
    }
    assert_eq!(made(&world, "t"), 1);
}
