//! What earlier versions recorded counts: under the fingerprints that they
//! made, and under the names that they gave to one portal.

use crate::kept::{as_person, is_replay, made};
use crate::world::{Outcome, World};
use b24::host::{SystemClock, SystemRandom};
use b24::risk::Risk;
use b24::store::ledger::{Claim, Claimed, Key, Ledger, Reuse, Settlement, Write};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

const LEAD: &[&str] = &["crm.lead.add", "fields[TITLE]=t", "--confirm-write"];
const BATCH: &[&str] = &["batch", "cmd[a]=user.current", "cmd[b]=crm.lead.add?fields[TITLE]=$result[a][ID]", "--confirm-write"];

fn sha256(text: impl AsRef<[u8]>) -> String {
    b24::json::sha256_hex(text)
}

/// The fingerprint that earlier versions made of a call.
fn fingerprint(method: &str, params: &str) -> String {
    sha256(format!("b24-fp-v1\0{method}\0v2\0{params}"))
}

fn lead() -> String {
    fingerprint("crm.lead.add", r#"{"fields":{"TITLE":"t"}}"#)
}

/// What an earlier version does up to the claim, for the portal under a name.
fn claimed(world: &World, portal: &str, key: Key, fingerprint: String) -> Claim {
    let folder = world.state().join("portals").join(b24::store::file_name(portal));
    std::fs::create_dir_all(&folder).unwrap();
    let row = json!({"v": 1, "identity": portal, "first_used": "2026-01-01T00:00:00.000Z"});
    std::fs::write(folder.join("portal.json"), row.to_string()).unwrap();
    close_to_others(&world.state());
    let ledger = Ledger::new(folder, portal.to_owned(), "webhook:1".to_owned(), Arc::new(SystemClock), Arc::new(SystemRandom));
    let (method, api, risk) = ("crm.lead.add".to_owned(), "v2", Risk::Write);
    let write = Write { key, fingerprint, legacy_fingerprint: None, method, api, risk, plan: None, replay_safe: false };
    match ledger.claim(&[write], &Reuse::plain()).unwrap().remove(0) {
        Claimed::Fresh(claim) => claim,
        Claimed::Done(_) => panic!("done before"),
    }
}

fn close_to_others(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn lost(world: &World, portal: &str, key: Key, fingerprint: String) -> String {
    let mut claim = claimed(world, portal, key, fingerprint);
    claim.dispatch("r").unwrap();
    claim.record().to_owned()
}

fn done(world: &World, portal: &str, key: Key, fingerprint: String) {
    let mut claim = claimed(world, portal, key, fingerprint);
    claim.dispatch("r").unwrap();
    let answer = r#"{"result":77}"#.to_owned();
    claim.settle(Settlement::Succeeded { digest: sha256(&answer), answer: Some(answer), ids: None }).unwrap();
}

fn here(world: &World) -> String {
    world.emulator.address().to_string()
}

fn given() -> Key {
    Key::Given("order-1".to_owned())
}

fn with_key(world: &World, args: &[&str]) -> Outcome {
    world.run(&[args, &["--idempotency-key", "order-1"]].concat())
}

#[test]
fn a_lost_write_of_an_earlier_version_blocks_the_same_write_under_every_key() {
    for key in [Key::Auto(1), given(), Key::Plan("01K0000000000000000000000".to_owned())] {
        let world = World::new();
        let record = lost(&world, &here(&world), key.clone(), lead());
        for args in [LEAD, &[LEAD, &["--again"]].concat(), &[LEAD, &["--no-idempotency"]].concat()] {
            assert_eq!(world.run(args).error(8)["ledger"], record.as_str(), "{key:?}");
            assert_eq!(with_key(&world, args).error(8)["ledger"], record.as_str(), "{key:?}");
        }
        assert!(world.requests().is_empty());
        assert_eq!(world.run(&["crm.lead.add", "fields[TITLE]=other", "--confirm-write"]).status, 0);
        // A person resolves it, and it is as if it had not been.
        let resolved = as_person(&world, &["ledger", "resolve", &record[..12], "--as", "not-executed", "--reason", "looked"]);
        assert_eq!(resolved.status, 0, "{}", resolved.stderr);
        assert_eq!((world.run(LEAD).status, made(&world, "t")), (0, 1));
    }
}

#[test]
fn a_lost_command_of_an_earlier_version_blocks_its_batch() {
    let world = World::new();
    let first = fingerprint("user.current", "{}");
    let second = fingerprint("crm.lead.add", r#"{"fields":{"TITLE":"$result[a][ID]"}}"#);
    let record = lost(&world, &here(&world), Key::Auto(1), sha256(format!("{second}{first}")));
    assert_eq!(world.run(BATCH).error(8)["ledger"], record.as_str());
    assert!(world.requests().is_empty());
}

#[test]
fn a_write_that_an_earlier_version_has_done_is_not_repeated() {
    let world = World::new();
    done(&world, &here(&world), Key::Auto(1), lead());
    assert_eq!(world.run(LEAD).error(9)["kind"], "looks_repeated");
    let replayed = world.run(&[LEAD, &["--auto-key"]].concat());
    assert!(is_replay(&replayed) && replayed.stdout.contains("77"), "{}{}", replayed.stdout, replayed.stderr);
    assert!(world.requests().is_empty());
    assert_eq!((world.run(&[LEAD, &["--again"]].concat()).status, made(&world, "t")), (0, 1));
}

#[test]
fn a_key_of_an_earlier_version_answers_its_write_and_no_other() {
    let world = World::new();
    done(&world, &here(&world), given(), lead());
    let replayed = with_key(&world, LEAD);
    assert!(is_replay(&replayed) && replayed.stdout.contains("77"), "{}{}", replayed.stdout, replayed.stderr);
    assert_eq!(with_key(&world, &["crm.lead.add", "fields[TITLE]=u", "--confirm-write"]).error(9)["kind"], "key_reused");
    assert!(world.requests().is_empty());
}

#[test]
fn a_claim_of_an_earlier_version_goes_on_under_the_present_fingerprint() {
    let world = World::new();
    drop(claimed(&world, &here(&world), given(), lead()));
    world.fault("crm.lead.add:execute-then-drop:times=1");
    assert_eq!(with_key(&world, LEAD).status, 8);
    // In a spelling that the earlier version took for another write.
    assert_eq!(world.run(&[LEAD, &["start=0"]].concat()).error(8)["sent"], false);
    assert_eq!(made(&world, "t"), 1);
}

/// The lead at an address of this machine.
fn at(world: &World, host: &str, args: &[&str]) -> Command {
    let mut command = world.command(args);
    let port = world.emulator.address().port().to_string();
    let webhook = world.webhook(1).replace(&here(world), &format!("{host}:{port}"));
    command.env("B24_WEBHOOK_URL", webhook);
    command
}

const ADDRESSES: [&str; 7] = ["127.0.0.1", "localhost", "LOCALHOST.", "[::1]", "[0:0:0:0:0:0:0:1]", "127.1", "2130706433"];

#[test]
fn a_lost_write_is_found_at_every_address_of_its_machine() {
    for first in ["127.0.0.1", "localhost"] {
        let world = World::new();
        world.fault("crm.lead.add:execute-then-drop:times=1");
        let record = Outcome::of(&mut at(&world, first, LEAD)).error(8)["ledger"].clone();
        for address in ADDRESSES {
            let error = Outcome::of(&mut at(&world, address, LEAD)).error(8);
            assert_eq!((&error["sent"], &error["ledger"]), (&json!(false), &record), "{address}");
        }
        assert_eq!(made(&world, "t"), 1);
    }
}

#[test]
fn state_under_an_earlier_name_of_the_portal_counts() {
    let world = World::new();
    let old = format!("localhost:{}", world.emulator.address().port());
    let record = lost(&world, &old, Key::Auto(1), lead());
    for address in ADDRESSES {
        assert_eq!(Outcome::of(&mut at(&world, address, LEAD)).error(8)["ledger"], record.as_str(), "{address}");
    }
    assert!(world.requests().is_empty());
    // The name stays in use, for what is recorded now as well.
    let list = world.run(&["ledger", "list"]).body(0);
    assert_eq!((&list["portal"], list["records"].as_array().map(Vec::len)), (&json!(old), Some(1)));
}

#[test]
fn state_under_two_names_of_the_portal_counts() {
    let world = World::new();
    let port = world.emulator.address().port();
    let (old, other) = (format!("localhost:{port}"), format!("[::1]:{port}"));
    let record = lost(&world, &old, Key::Auto(1), lead());
    done(&world, &other, given(), fingerprint("crm.lead.add", r#"{"fields":{"TITLE":"u"}}"#));
    done(&world, &here(&world), Key::Given("third".to_owned()), fingerprint("crm.lead.add", r#"{"fields":{"TITLE":"v"}}"#));
    for address in ADDRESSES {
        assert_eq!(Outcome::of(&mut at(&world, address, LEAD)).error(8)["ledger"], record.as_str(), "{address}");
        let keyed = [&["crm.lead.add", "fields[TITLE]=u", "--confirm-write", "--idempotency-key", "order-1"][..]].concat();
        assert!(is_replay(&Outcome::of(&mut at(&world, address, &keyed))), "{address}");
    }
    assert!(world.requests().is_empty());
    let all: Value = world.run(&["ledger", "list", "--all"]).body(0);
    assert_eq!(all["records"].as_array().map(Vec::len), Some(3), "{all}");
    let resolved = as_person(&world, &["ledger", "resolve", &record[..12], "--as", "not-executed", "--reason", "looked"]);
    assert_eq!(resolved.status, 0, "{}", resolved.stderr);
    assert_eq!((world.run(LEAD).status, made(&world, "t")), (0, 1));
}
