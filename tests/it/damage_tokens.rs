//! Damaged tokens: a pair that was lost is not replaced by an older one, and
//! nobody acts as somebody else.

use crate::damage_kinds::{Tree, damages, read, restore};
use crate::kept::{asked, made};
use crate::world::{Outcome, World};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn add(world: &World) -> std::process::Command {
    world.oauth_command(&["crm.lead.add", "fields[TITLE]=t", "--confirm-write", "--idempotency-key", "k"])
}

fn files_of_tokens(tree: &Tree) -> impl Iterator<Item = (&PathBuf, &Vec<u8>)> {
    tree.iter().filter(|(path, _)| path.starts_with("tokens") || path.starts_with("seen/tokens"))
}

/// A user whose tokens were renewed twice, with what the files held.
fn scene() -> (World, BTreeMap<PathBuf, Vec<Vec<u8>>>) {
    let world = World::with_expired_token();
    let mut older: BTreeMap<PathBuf, Vec<Vec<u8>>> = BTreeMap::new();
    let mut note = || {
        for (path, entry) in files_of_tokens(&read(&world.state())) {
            older.entry(path.clone()).or_default().push(entry.clone());
        }
    };
    assert_eq!(Outcome::of(&mut add(&world)).status, 0);
    note();
    for _ in 0..2 {
        world.fault("crm.lead.list:expired-token:times=1");
        assert_eq!(Outcome::of(&mut world.oauth_command(&["crm.lead.list"])).status, 0);
        note();
    }
    (world, older)
}

#[test]
fn damaged_tokens_are_told_and_never_replaced_by_older_ones() {
    let (world, older) = scene();
    let state = read(&world.state());
    let refreshes = || world.requests().iter().filter(|request| request.method == "oauth.token").count();
    let (before, usual) = (refreshes(), asked(&world, &add(&world), || restore(&world.state(), &state)));
    assert_eq!(usual.status, 0, "{}", usual.stderr);
    restore(&world.state(), &state);
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for (path, entry) in files_of_tokens(&state) {
        for case in damages(path, entry, &older[path], true) {
            let outcome = asked(&world, &add(&world), || {
                restore(&world.state(), &state);
                case.apply(&world.state());
            });
            let context = format!("{}: exit {} {}{}", case.name, outcome.status, outcome.stdout, outcome.stderr);
            assert_eq!((made(&world, "t"), refreshes()), (1, before), "{context}");
            match outcome.status {
                0 => assert_eq!(outcome.stdout, usual.stdout, "{context}"),
                12 => assert!(outcome.stderr.contains("\"hint\":"), "{context}"),
                _ => panic!("{context}"),
            }
            let is_pair = path.extension().is_some_and(|ending| ending == "json");
            assert!(!is_pair || outcome.status == 12 || case.kind == "garbage behind", "used all the same: {context}");
            let what = if path.starts_with("seen") { "seen" } else { path.extension().unwrap().to_str().unwrap() };
            *tally.entry(format!("{what}, {}: {}", case.kind, outcome.status)).or_default() += 1;
            restore(&world.state(), &state);
        }
    }
    println!("{} cases: {tally:#?}", tally.values().sum::<usize>());
}
