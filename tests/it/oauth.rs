//! OAuth: one refresh for all processes, no stored pair lost, and an end that
//! is always clear.

use crate::world::{Outcome, World};
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// How often the portal was asked for a new pair.
fn refreshes(world: &World) -> usize {
    count(world, "oauth.token")
}

fn count(world: &World, method: &str) -> usize {
    world.requests().iter().filter(|request| request.method == method).count()
}

fn token_files(world: &World) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(world.state().join("tokens"));
    folder.map_or_else(|_| Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
}

/// The stored pairs; fails when a file of them cannot be read.
fn stored(world: &World) -> Vec<Value> {
    let pairs = token_files(world).into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    pairs.map(|path| serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()).collect()
}

fn read(world: &World) -> Command {
    world.oauth_command(&["user.current"])
}

/// Sends a read with a crash point armed; fails when it was not reached.
#[track_caller]
fn read_and_die_at(world: &World, point: &str) {
    let outcome = Outcome::of(read(world).env("B24_CRASH_POINT", point));
    assert_eq!(outcome.status, -1, "{point} was not passed: {}", outcome.stderr);
}

#[test]
fn sixty_four_processes_refresh_an_expired_token_once() {
    let world = World::with_expired_token();
    let spawn = || read(&world).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = std::iter::repeat_with(spawn).take(64).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(refreshes(&world), 1);
    assert_eq!(stored(&world).len(), 1);
}

#[test]
fn a_kill_before_the_refresh_is_sent_costs_nothing() {
    let world = World::with_expired_token();
    read_and_die_at(&world, "refresh.before_send");
    assert!(stored(&world).is_empty());
    let _ = Outcome::of(&mut read(&world)).body(0);
    assert_eq!(refreshes(&world), 1);
}

#[test]
fn a_kill_between_the_answer_and_the_store_ends_in_a_clear_login() {
    for point in ["refresh.after_answer", "tokens.before_store", "store.replace.before_rename"] {
        let world = World::with_expired_token();
        read_and_die_at(&world, point);
        assert!(stored(&world).is_empty(), "{point}");
        // The portal has spent the refresh token: only a person can go on.
        let error = Outcome::of(&mut read(&world)).error(4);
        assert_eq!(error["kind"], "login_needed", "{point}");
        assert_eq!(refreshes(&world), 2, "{point}");
    }
}

#[test]
fn a_kill_after_the_store_costs_nothing() {
    for point in ["store.replace.before_sync", "tokens.after_store"] {
        let world = World::with_expired_token();
        read_and_die_at(&world, point);
        assert_eq!(stored(&world).len(), 1, "{point}");
        let _ = Outcome::of(&mut read(&world)).body(0);
        assert_eq!(refreshes(&world), 1, "{point}");
    }
}

#[test]
fn a_kill_in_a_later_refresh_keeps_the_stored_pair() {
    for point in ["refresh.before_send", "refresh.after_answer", "tokens.before_store", "store.replace.before_rename"] {
        let world = World::with_expired_token();
        let _ = Outcome::of(&mut read(&world)).body(0);
        let before = stored(&world);
        world.fault("user.current:expired-token:times=1");
        read_and_die_at(&world, point);
        assert_eq!(stored(&world), before, "{point}");
    }
}

#[test]
fn a_lost_refresh_answer_is_not_asked_for_twice_by_one_process() {
    let world = World::with_expired_token();
    world.fault("oauth.token:execute-then-drop:times=1");
    let error = Outcome::of(&mut read(&world)).error(7);
    assert_eq!((&error["kind"], &error["sent"]), (&Value::from("refresh_unknown"), &Value::from(true)));
    assert_eq!(refreshes(&world), 1);
    let audit = world.audit();
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!((&audit[0]["type"], &audit[0]["error"]), (&Value::from("read"), &Value::from("expired_token")));
    // The next process may try once; here the portal had spent the token.
    assert_eq!(Outcome::of(&mut read(&world)).error(4)["kind"], "login_needed");
    assert_eq!(refreshes(&world), 2);
}

#[test]
fn an_unreachable_authorization_server_leaves_everything_as_it_was() {
    let world = World::with_expired_token();
    let error = Outcome::of(read(&world).env("B24_OAUTH_URL", "http://127.0.0.1:1")).error(7);
    assert_eq!(error["kind"], "offline");
    let _ = Outcome::of(&mut read(&world)).body(0);
    assert_eq!(refreshes(&world), 1);
}

#[test]
fn a_refresh_token_that_no_longer_works_needs_a_login() {
    let world = World::with_expired_token();
    world.fault("oauth.token:error:status=400:code=invalid_grant");
    assert_eq!(Outcome::of(&mut read(&world)).error(4)["kind"], "login_needed");
    assert_eq!(refreshes(&world), 1);
    assert!(stored(&world).is_empty());
}

#[test]
fn a_wrong_client_is_refused_although_the_status_is_200() {
    let world = World::with_expired_token();
    let error = Outcome::of(read(&world).env("B24_CLIENT_ID", "local.another")).error(4);
    assert_eq!(error["kind"], "auth");
    assert!(error["message"].as_str().unwrap().contains("wrong_client"), "{error}");
    assert_eq!(refreshes(&world), 1);
    assert!(stored(&world).is_empty());
}

#[test]
fn a_token_without_the_means_to_renew_it_needs_a_login() {
    let world = World::with_expired_token();
    let error = Outcome::of(read(&world).env_remove("B24_REFRESH_TOKEN")).error(4);
    assert_eq!(error["kind"], "login_needed");
    assert_eq!(refreshes(&world), 0);
}

#[test]
fn a_pair_of_any_generation_finds_the_newest_one() {
    let world = World::with_expired_token();
    let _ = Outcome::of(&mut read(&world)).body(0);
    let second = stored(&world).remove(0);
    world.fault("user.current:expired-token:times=1");
    let _ = Outcome::of(&mut read(&world)).body(0);
    let third = stored(&world).remove(0);
    for (number, pair) in [third, second].iter().enumerate() {
        let mut command = read(&world);
        command.env("B24_ACCESS_TOKEN", pair["access_token"].as_str().unwrap());
        command.env("B24_REFRESH_TOKEN", pair["refresh_token"].as_str().unwrap());
        let _ = Outcome::of(&mut command).body(0);
        assert_eq!(refreshes(&world), number + 2);
        // A refresh under this pair goes on in the one line of pairs.
        world.fault("user.current:expired-token:times=1");
        let _ = Outcome::of(&mut command).body(0);
        let _ = Outcome::of(&mut read(&world)).body(0);
        assert_eq!((refreshes(&world), stored(&world).len()), (number + 3, 1));
    }
}

#[test]
fn token_files_are_private_and_name_no_token() {
    let world = World::with_expired_token();
    let _ = Outcome::of(&mut read(&world)).body(0);
    let files = token_files(&world);
    assert_eq!(files.len(), 2, "{files:?}");
    assert!(files.iter().all(|path| std::fs::metadata(path).unwrap().mode() & 0o777 == 0o600));
    assert_eq!(std::fs::metadata(world.state().join("tokens")).unwrap().mode() & 0o777, 0o700);
    let access = world.emulator.access();
    for token in [access.access_token.expose(), access.refresh_token.expose()] {
        assert!(stored(&world).iter().all(|pair| !pair.to_string().contains(token)));
    }
}

#[test]
fn a_write_is_dispatched_again_after_the_refresh_in_the_same_record() {
    let world = World::with_expired_token();
    let _ = Outcome::of(&mut read(&world)).body(0);
    world.fault("crm.lead.add:expired-token:times=1");
    let _ = Outcome::of(&mut world.oauth_command(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write"])).body(0);
    assert_eq!(world.changes().len(), 1);
    assert_eq!(refreshes(&world), 2);
    assert_eq!(world.ledger_lines(), ["CDNDS"]);
    let outcomes: Vec<Value> = world.audit().into_iter().filter(|record| record["type"] == "outcome").collect();
    assert_eq!(outcomes.len(), 2);
    assert_eq!((&outcomes[0]["outcome"], &outcomes[0]["error"]), (&Value::from("not_applied"), &Value::from("expired_token")));
    assert_eq!(outcomes[1]["outcome"], "applied");
}

#[test]
fn a_write_that_cannot_refresh_is_proven_unsent_and_goes_later() {
    let world = World::with_expired_token();
    let _ = Outcome::of(&mut read(&world)).body(0);
    world.fault("crm.lead.add:expired-token:times=1");
    world.fault("oauth.token:html-502:times=1");
    let write = || world.oauth_command(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write"]);
    let error = Outcome::of(&mut write()).error(7);
    // The portal has turned the call away: it was sent, and not applied.
    assert_eq!((error["kind"].as_str(), error["outcome"].as_str()), (Some("refresh_unknown"), Some("not_applied")), "{error}");
    assert_eq!(error["sent"], true, "{error}");
    assert_eq!(world.ledger_lines(), ["CDN"]);
    let _ = Outcome::of(&mut write()).body(0);
    assert_eq!((world.changes().len(), world.ledger_lines()), (1, vec!["CDNDS".to_owned()]));
}

#[test]
fn the_user_behind_a_token_is_asked_for_once() {
    let world = World::new();
    for title in ["one", "two"] {
        let title = format!("fields[TITLE]={title}");
        let _ = Outcome::of(&mut world.oauth_command(&["crm.lead.add", &title, "--confirm-write"])).body(0);
    }
    let methods: Vec<String> = world.requests().into_iter().map(|request| request.method).collect();
    assert_eq!(methods, ["profile", "crm.lead.add", "crm.lead.add"]);
    let principals: Vec<Value> = world.audit().iter().map(|record| record["principal"].clone()).collect();
    assert_eq!(principals.len(), 5, "{principals:?}");
    assert!(principals[1..].iter().all(|principal| principal.as_str().unwrap().starts_with("oauth:")));
}

#[test]
fn a_user_that_is_not_told_means_nothing_is_written() {
    let world = World::new();
    world.fault("profile:error:status=403:code=insufficient_scope");
    let _ = Outcome::of(&mut world.oauth_command(&["crm.lead.add", "fields[TITLE]=Acme", "--confirm-write"])).error(4);
    assert!(world.changes().is_empty());
    assert_eq!(count(&world, "crm.lead.add"), 0);
}
